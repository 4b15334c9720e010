"""Hops: who is believed about others, what of it, and that an address proves nothing."""

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from palladion.access.certificates import Certificate, read_certificate
from palladion.errors import PolicyError
from palladion.gate.hops import Hop, Hops, read_hop
from palladion.gate.problems import Problem
from palladion.gate.requests import STRANGER, Peer
from palladion.policy import ProxyPolicy

from .certificates import Authority, uri

EDGE, CLIENT = "spiffe://example.org/edge", "spiffe://example.org/scoring"
HASH = "468ed33be74eee6556d90c0149c1309e9ba61d6425303443c0748a02dd8de688"
POLICY: dict[str, Any] = {
    "identities": (EDGE, "ab" * 32),
    "certificate_header": "x-forwarded-client-cert",
    "user_header": "x-end-user",
    "address_header": "x-real-ip",
    "payment_header": "x-payment",
    "device_header": "x-device",
    "tls_header": "x-ja4",
    "asn_header": "x-asn",
}
TOLD = {
    b"x-forwarded-client-cert": f"By={EDGE};Hash={HASH};URI={CLIENT}".encode(),
    b"x-end-user": "Zoe\u0308".encode(),
    b"x-real-ip": b"2001:DB8::1",
    b"x-payment": b"card_7f3a",
    b"x-device": b"phone:1f",
    b"x-ja4": b"t13d1516h2_8daaf6152771_b186095e22b6",
    b"x-asn": b"AS64500",
}
BELIEVED = Peer(
    Certificate(HASH, CLIENT), "Zo\u00eb", "card_7f3a", "phone:1f", "t13d1516h2_8daaf6152771_b186095e22b6", 64500
)
BY_ID, BY_DIGEST, BY_SOCKET = Hop(Certificate("00" * 32, EDGE)), Hop(Certificate("ab" * 32)), Hop(local=True)


def _hops(**changes: Any) -> Hops:
    return Hops(ProxyPolicy(**{**POLICY, **changes}))


@pytest.mark.parametrize("hop", [BY_ID, BY_DIGEST, BY_SOCKET], ids=["SPIFFE id", "fingerprint", "Unix socket"])
def test_a_proxy_that_proves_itself_is_believed(hop: Hop) -> None:
    assert _hops().peer(hop, TOLD, "10.0.0.1") == (BELIEVED, "2001:db8::1")


def test_a_stranger_is_believed_nothing_whatever_its_address() -> None:
    for address in ("127.0.0.1", "10.0.0.1", None):
        assert _hops().peer(None, TOLD, address) == (STRANGER, address)


@pytest.mark.parametrize(
    "certificate",
    [Certificate("cd" * 32), Certificate("cd" * 32, f"{EDGE}x"), Certificate("cd" * 32, CLIENT)],
    ids=["another certificate", "nearly the id", "a client"],
)
def test_a_client_with_a_certificate_speaks_for_itself_alone(certificate: Certificate) -> None:
    assert _hops().peer(Hop(certificate), TOLD, "10.0.0.1") == (Peer(certificate), "10.0.0.1")


def test_what_a_proxy_does_not_say_is_not_known_and_its_own_address_and_certificate_are_nobodys() -> None:
    assert _hops().peer(BY_ID, {b"authorization": b"Bearer x"}, "10.0.0.1") == (STRANGER, None)


def test_only_headers_that_the_policy_names_are_read() -> None:
    hops = Hops(ProxyPolicy(identities=(EDGE,)))
    assert hops.headers == frozenset()
    assert hops.peer(BY_ID, TOLD, "10.0.0.1") == (STRANGER, None)
    assert hops.peer(BY_SOCKET, TOLD, None) == (STRANGER, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        (b"x-forwarded-client-cert", b"Hash=1"),
        (b"x-forwarded-client-cert", TOLD[b"x-forwarded-client-cert"] + b"," + TOLD[b"x-forwarded-client-cert"]),
        (b"x-end-user", b"a\xff"),
        (b"x-end-user", "a\u200bb".encode()),
        (b"x-real-ip", b"10.0.0.1, 10.0.0.2"),
        (b"x-real-ip", b"10.0.0.1:80"),
        (b"x-real-ip", b"localhost"),
        (b"x-real-ip", b"010.0.0.1"),
        (b"x-payment", b"a b"),
        (b"x-payment", b"a" * 129),
        (b"x-payment", b"\xff"),
        (b"x-device", b"a b"),
        (b"x-ja4", b"a" * 129),
    ],
)
def test_nonsense_from_a_proxy_is_refused_and_not_repeated(name: bytes, value: bytes) -> None:
    with pytest.raises(Problem) as caught:
        _hops().peer(BY_ID, {**TOLD, name: value}, None)
    assert caught.value.kind == "bad-request"
    assert caught.value.detail.startswith(f"the header {name.decode()}")


def test_a_header_twice_is_refused_to_a_proxy_and_tells_nobody_else_that_it_means_something() -> None:
    for name in TOLD:
        with pytest.raises(Problem) as caught:
            _hops().peer(BY_ID, TOLD, None, {name, b"accept"})
        assert (caught.value.kind, caught.value.detail) == ("bad-request", f"the header {name.decode()} comes twice")
        assert _hops().peer(None, TOLD, "10.0.0.1", {name}) == (STRANGER, "10.0.0.1")
        client = Certificate("cd" * 32)
        assert _hops().peer(Hop(client), TOLD, None, {name}) == (Peer(client), None)
    assert _hops().peer(BY_ID, TOLD, None, {b"accept"})[0] == BELIEVED


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"user_header": "x-real-ip"}, "two settings name the header x-real-ip"),
        ({"payment_header": "x-forwarded-client-cert"}, "two settings name the header x-forwarded-client-cert"),
        ({"device_header": "x-payment"}, "two settings name the header x-payment"),
        ({"tls_header": "x-device"}, "two settings name the header x-device"),
        ({"user_header": "authorization"}, "authorization has a meaning of its own"),
        ({"address_header": "host"}, "host has a meaning of its own"),
    ],
)
def test_headers_that_cannot_be_told_apart_are_a_mistake_in_the_policy(changes: dict[str, str], why: str) -> None:
    with pytest.raises(PolicyError, match=why):
        _hops(**changes)


def test_a_tls_fingerprint_without_an_address_would_do_nothing_and_is_a_mistake() -> None:
    with pytest.raises(PolicyError, match=r"proxy\.tls_header"):
        _hops(address_header="")


@pytest.mark.parametrize("identity", ["10.0.0.1", "spiffe://example.org", "abcd", "*", ""])
def test_an_identity_that_is_none_is_a_mistake_in_the_policy(identity: str) -> None:
    with pytest.raises(PolicyError, match=r"proxy\.identities"):
        _hops(identities=(identity,))


def test_a_fingerprint_in_the_policy_may_be_typed_as_tools_print_it() -> None:
    hops = _hops(identities=(":".join(["AB"] * 32),))
    assert hops.peer(BY_DIGEST, TOLD, None)[0] == BELIEVED


class _Transport(asyncio.BaseTransport):
    def __init__(self, **extra: Any) -> None:
        super().__init__(extra)


def test_a_connection_in_plain_text_is_nobodys() -> None:
    with socket.socket() as opened:
        assert read_hop(_Transport(socket=opened)) is None
    assert read_hop(_Transport()) is None


def test_a_unix_socket_is_known() -> None:
    with socket.socket(socket.AF_UNIX) as opened:
        hop = read_hop(_Transport(socket=opened))
    assert hop is not None
    assert (hop.local, hop.certificate) == (True, None)


def test_a_verified_certificate_is_read(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    server, client = authority.issue("server"), authority.issue("client", [uri(CLIENT)])
    hop = read_hop(_Transport(ssl_object=_handshake(authority, server, client)))
    assert hop is not None
    assert hop.certificate == read_certificate(client.der)
    assert read_hop(_Transport(ssl_object=_handshake(authority, server, None))) is None


def _handshake(authority: Authority, server: Any, client: Any) -> ssl.SSLObject:
    """The server's side of a connection, in memory."""
    one = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    one.load_cert_chain(server.path, server.key)
    one.load_verify_locations(authority.path)
    one.verify_mode = ssl.CERT_OPTIONAL
    other = ssl.create_default_context(cafile=str(authority.path))
    other.check_hostname = False
    if client is not None:
        other.load_cert_chain(client.path, client.key)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = [
        one.wrap_bio(to_server, to_client, server_side=True),
        other.wrap_bio(to_client, to_server, server_side=False),
    ]
    for side in [*sides[::-1]] * 4:
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return sides[0]


@pytest.mark.parametrize(("value", "system"), [(b"64500", 64500), (b" as64500 ", 64500), (b"4294967295", 4294967295)])
def test_the_number_of_an_autonomous_system_is_read(value: bytes, system: int) -> None:
    peer, _ = _hops().peer(BY_ID, {b"x-asn": value}, None)
    assert peer.system == system


@pytest.mark.parametrize(
    "value", [b"4294967296", b"-1", b"AS", b"6 4", b"64500, 64501", b"9" * 5000, "\u0661".encode()]
)
def test_what_is_no_such_number_is_refused(value: bytes) -> None:
    with pytest.raises(Problem, match="x-asn"):
        _hops().peer(BY_ID, {b"x-asn": value}, None)
