"""The broker over real TLS, asked by the host's own client, and by whoever else reaches the port."""

import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from palladion.access.certificates import Certificate
from palladion.errors import KeysError, PolicyError, StorageError
from palladion.host.broker import BrokerClient, BrokeredIdentity, brokered
from palladion.host.broker_messages import (
    ANSWER_BYTES_MAX,
    CHALLENGE_PATH,
    KEYS_PATH,
    RELEASE_PATH,
    REQUEST_BYTES_MAX,
    BrokerRefusedError,
    Challenge,
    decode,
    encode,
)
from palladion.seal.opening import begun
from palladion.seal.recipients import FileIdentity

from .parts import Asking, Setting
from .serving import Parties, Served, built, guest, serving

pytestmark = [pytest.mark.slow, pytest.mark.service]


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Setting, Parties]:
    return built(tmp_path)


def _publishers(setting: Setting) -> list[bytes]:
    return setting.installation.publishers()


def _opened(served: Served, identity: BrokeredIdentity) -> bytes:
    plain = []
    setting = served.setting
    with begun(setting.file, [identity], _publishers(setting)) as opening:
        opening.read_all(lambda _, __, view: plain.append(bytes(view)))
    return b"".join(plain)


def _refused(
    served: Served,
    client: BrokerClient,
    match: str,
    *,
    error: type[Exception] = BrokerRefusedError,
    purpose: str = "exec",
) -> None:
    with brokered(served.setting.file, client, purpose=purpose) as one, pytest.raises(error, match=match):
        _opened(served, one)


def _status(connection: http.client.HTTPConnection) -> int:
    connection.request("GET", KEYS_PATH)
    return connection.getresponse().status


def _raw(served: Served, issued: Any = None, *, version: ssl.TLSVersion | None = None) -> http.client.HTTPConnection:
    context = ssl.create_default_context(cafile=str(served.parties.authority.path))
    if issued is not None:
        context.load_cert_chain(issued.path, issued.key)
    if version is not None:
        context.maximum_version = version
    parts = urlsplit(served.url)
    return http.client.HTTPSConnection(parts.netloc, timeout=10, context=context)


def test_a_host_opens_a_file_with_a_key_from_the_broker(parts: tuple[Setting, Parties]) -> None:
    with serving(*parts) as served, brokered(served.setting.file, served.client(), purpose="exec") as identity:
        assert b"weights" in _opened(served, identity)
        assert identity.lease is not None
        renewed = served.client().renew(identity.lease)
        assert (renewed.id, renewed.seconds) == (identity.lease.id, 1800)


def test_a_confidential_machine_opens_a_file_and_another_does_not(tmp_path: Path) -> None:
    setting, parties = built(tmp_path, attested=True)
    with serving(setting, parties) as served:
        with brokered(setting.file, served.client(attest=guest()), purpose="exec") as identity:
            assert b"weights" in _opened(served, identity)
        _refused(served, served.client(attest=guest(measurement=bytes(48))), r"refuses \(measurement\)")
        _refused(served, served.client(attest=guest(policy=0x30000 | 1 << 19)), r"refuses \(debug\)")


def test_a_nitro_guest_uses_a_small_key(parts: tuple[Setting, Parties]) -> None:
    with serving(*parts) as served:
        client = replace(served.client(), small_keys=True)
        with brokered(served.setting.file, client, purpose="exec") as identity:
            assert b"weights" in _opened(served, identity)


def test_a_refusal_is_told_and_asked_for_once(parts: tuple[Setting, Parties]) -> None:
    with serving(*parts) as served:
        _refused(served, served.client(), r"refuses \(policy\): no policy permits acme/web", purpose="serve")
    assert parts[0].reasons() == ["policy"]


def test_a_file_that_is_not_sealed_to_the_broker_is_not_sent(parts: tuple[Setting, Parties]) -> None:
    setting = replace(parts[0], file=parts[0].seal(to=FileIdentity.generate()))
    with serving(setting, parts[1]) as served:
        _refused(served, served.client(), "none of the broker's keys", error=KeysError)
    assert setting.reasons() == []


def test_an_identity_is_for_its_file_alone(parts: tuple[Setting, Parties]) -> None:
    other = parts[0].seal()
    with (
        serving(*parts) as served,
        brokered(other, served.client(), purpose="exec") as identity,
        pytest.raises(KeysError, match="none of the identities given opens it"),
    ):
        _opened(served, identity)


# Whoever else reaches the port.


def test_without_a_certificate_nobody_gets_as_far_as_a_request(parts: tuple[Setting, Parties]) -> None:
    with serving(*parts) as served, pytest.raises((ssl.SSLError, ConnectionError, http.client.BadStatusLine)):
        _status(_raw(served))


def test_an_older_tls_is_not_spoken(parts: tuple[Setting, Parties]) -> None:
    with serving(*parts) as served, pytest.raises(ssl.SSLError):
        _status(_raw(served, served.parties.host, version=ssl.TLSVersion.TLSv1_2))


def test_a_certificate_of_another_authority_is_refused(parts: tuple[Setting, Parties], tmp_path: Path) -> None:
    (tmp_path / "strange").mkdir()
    strange = Parties(tmp_path / "strange")
    with serving(*parts) as served:
        _refused(served, served.client(strange.host), "no whole answer", error=StorageError)


def test_a_broker_that_nobody_vouches_for_is_sent_nothing(parts: tuple[Setting, Parties], tmp_path: Path) -> None:
    (tmp_path / "strange").mkdir()
    strange = Parties(tmp_path / "strange")
    with serving(*parts) as served:
        client = served.client(authority=strange.authority.path)
        _refused(served, client, "certificate", error=StorageError)
    assert parts[0].records("broker.refused", "broker.released") == []


def test_a_known_authority_is_not_enough(parts: tuple[Setting, Parties]) -> None:
    with serving(*parts) as served:
        _refused(served, served.client(served.parties.other), r"refuses \(client\)")


def test_what_is_too_large_is_not_read(parts: tuple[Setting, Parties]) -> None:
    with serving(*parts) as served:
        connection = _raw(served, served.parties.host)
        connection.putrequest("POST", CHALLENGE_PATH)
        connection.putheader("content-length", "1")
        connection.endheaders()
        connection.send(b" ")
        assert connection.getresponse().status == 413
        with suppress(ConnectionError, ssl.SSLError):  # it need not take all of it before it says no
            large = _raw(served, served.parties.host)
            large.request("POST", RELEASE_PATH, body=b" " * (REQUEST_BYTES_MAX + 1))
            assert large.getresponse().status == 413
    assert parts[0].records("broker.released", "broker.refused") == []


@pytest.mark.parametrize("path", ["/", "/v1/leases", "/v1/release/", "/v1/keys"])
def test_there_is_nothing_else(parts: tuple[Setting, Parties], path: str) -> None:
    with serving(*parts) as served:
        connection = _raw(served, served.parties.host)
        connection.request("POST", path, body=b"{}")
        assert connection.getresponse().status == 404


def test_clients_have_a_rate(tmp_path: Path) -> None:
    setting, parties = built(tmp_path)
    path = setting.installation.paths.policy
    path.write_text(path.read_text().replace("per_minute = 6000", "per_minute = 4"))
    with serving(setting.again(), parties) as served:
        statuses = [_status(_raw(served, parties.host)) for _ in range(4)]
    assert statuses == [200, 200, 429, 429]


def test_plain_http_is_not_spoken(parts: tuple[Setting, Parties]) -> None:
    with serving(*parts) as served:
        host, port = urlsplit(served.url).hostname, urlsplit(served.url).port
        with socket.create_connection((str(host), int(port or 0)), timeout=10) as stream:
            stream.sendall(b"GET /v1/keys HTTP/1.1\r\nhost: x\r\n\r\n")
            assert b"200" not in stream.recv(100)


def test_a_client_that_is_revoked_loses_its_lease(parts: tuple[Setting, Parties]) -> None:
    setting = parts[0]
    with serving(*parts) as served, brokered(setting.file, served.client(), purpose="exec") as identity:
        _opened(served, identity)
        with setting.installation.open_registry() as registry, registry.write() as records:
            records.clients.revoke(setting.client.id)
        assert identity.lease is not None
        with pytest.raises(BrokerRefusedError, match=r"refuses \(revoked\)"):
            served.client().renew(identity.lease)


def test_a_lease_ends_with_the_brokers_clock(parts: tuple[Setting, Parties]) -> None:
    setting = parts[0]
    with serving(*parts) as served, brokered(setting.file, served.client(), purpose="exec") as identity:
        _opened(served, identity)
        setting.clock.advance(timedelta(hours=1))
        assert identity.lease is not None
        with pytest.raises(BrokerRefusedError, match=r"refuses \(lease\)"):
            served.client().renew(identity.lease)


@pytest.mark.parametrize("name", ["tls_certificate", "tls_key", "client_ca"])
def test_a_broker_without_its_files_does_not_start(parts: tuple[Setting, Parties], name: str) -> None:
    setting, parties = parts
    path = setting.installation.paths.policy
    lines = [line for line in path.read_text().splitlines() if not line.startswith(f"{name} = ")]
    path.write_text("\n".join(lines))
    with pytest.raises(PolicyError, match=f"broker.{name}"), serving(setting.again(), parties):
        pass


def test_two_at_once_with_one_nonce_get_one_key(parts: tuple[Setting, Parties]) -> None:
    with serving(*parts) as served:
        certificate = Certificate(served.parties.host.fingerprint)
        with _posted(served, CHALLENGE_PATH, b"") as answer:
            nonce = decode(answer.read(), Challenge, size_max=ANSWER_BYTES_MAX, what="it").nonce
        asking = Asking(parts[0], parts[0].broker(), certificate)
        body = encode(asking.request(nonce))
        begin = threading.Barrier(4)

        def release(_: int) -> int:
            begin.wait(60)
            with _posted(served, RELEASE_PATH, body) as answer:
                return answer.status

        with ThreadPoolExecutor(4) as pool:
            assert sorted(pool.map(release, range(4))) == [200, 403, 403, 403]
    assert parts[0].reasons() == ["nonce"] * 3
    assert len(parts[0].records("broker.released")) == 1


def test_what_the_broker_cannot_decide_is_asked_again(parts: tuple[Setting, Parties]) -> None:
    """Somebody saves half of a policy: hosts keep what they have for as long as their leases last, and get nothing."""
    setting = parts[0]
    with serving(*parts) as served, brokered(setting.file, served.client(), purpose="exec") as identity:
        _opened(served, identity)
        (setting.installation.paths.home / "broker.cedar").write_text("permit (")
        assert identity.lease is not None
        with pytest.raises(StorageError, match=r"refuses \(fault\): the broker cannot decide this"):
            served.client().renew(identity.lease)
    assert setting.reasons() == ["fault"]


@contextmanager
def _posted(served: Served, path: str, body: bytes) -> Iterator[http.client.HTTPResponse]:
    connection = _raw(served, served.parties.host)
    try:
        connection.request("POST", path, body)
        yield connection.getresponse()
    finally:
        connection.close()
