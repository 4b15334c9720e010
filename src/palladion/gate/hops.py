"""The other end of a connection: who it is by its certificate or our Unix socket, and what a proxy there may tell us.

A proxy is believed that proves to be the one that the policy names; from anybody else its headers mean nothing. By
address nobody is believed: whoever reaches the port can have any. Nothing of a request is ever passed on as it came.
"""

import socket
from asyncio import BaseTransport
from collections.abc import Mapping, Set
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address

from palladion.access.certificates import Certificate, parse_fingerprint, parse_spiffe_id, read_certificate
from palladion.access.forwarded import read_forwarded
from palladion.access.users import user_name
from palladion.errors import FormatError, PolicyError
from palladion.gate.problems import Problem
from palladion.gate.requests import STRANGER, Peer
from palladion.policy import ProxyPolicy

SCOPE = "palladion"  # where a connection's hop stands in the scope of ASGI
CERTIFICATES_MAX = 1024  # of clients behind proxies, remembered: reading one costs more than the rest of a request
SYSTEM_DIGITS_MAX = 10  # of an autonomous system's number, which has 32 bits (RFC 6793)
NAME_CHARACTERS_MAX = 128  # of what links clients: a payment, a device, a TLS fingerprint (JA4 has 36)
# Two of these, and two readers may each believe another one (request smuggling, confused identities); a proxy cannot
# tell of a client in them.
ONCE = frozenset({b"authorization", b"x-api-key", b"content-type", b"content-length", b"content-encoding", b"host"})


@dataclass(frozen=True, eq=False)
class Hop:
    """The other end of a connection: the certificate that TLS has verified, or that it came through our Unix socket."""

    certificate: Certificate | None = None
    local: bool = False


def read_hop(transport: BaseTransport) -> Hop | None:
    """What is known of the other end; None where that is nothing. Raises FormatError."""
    tls = transport.get_extra_info("ssl_object")
    if tls is not None:
        # the standard library gives it only when it was verified
        der = tls.getpeercert(binary_form=True)
        return None if der is None else Hop(read_certificate(der))
    opened = transport.get_extra_info("socket")
    return Hop(local=True) if opened is not None and opened.family == socket.AF_UNIX else None


class Hops:
    """What the policy makes of the other ends of connections."""

    def __init__(self, policy: ProxyPolicy) -> None:
        """Raises PolicyError on an identity that is none, and on headers that cannot be told apart."""
        self._policy = policy
        self._identities = frozenset(map(_identity, policy.identities))
        self._certificate = policy.certificate_header.encode()
        self._user, self._address, self._payment, self._device, self._tls, self._asn = (
            name.encode()
            for name in (
                policy.user_header,
                policy.address_header,
                policy.payment_header,
                policy.device_header,
                policy.tls_header,
                policy.asn_header,
            )
        )
        names = (self._certificate, self._user, self._address, self._payment, self._device, self._tls, self._asn)
        self.headers = frozenset(filter(None, names))
        for name in self.headers:
            if names.count(name) > 1:
                raise PolicyError(f"proxy: two settings name the header {name.decode()}, which can hold one of them")
        taken = sorted(self.headers & ONCE)
        if taken:
            raise PolicyError(f"proxy: the header {taken[0].decode()} has a meaning of its own", "name another one")
        if self._tls and not self._address:
            raise PolicyError(
                "proxy.tls_header: a TLS fingerprint links only clients whose addresses are near each other",
                "name the header with the client's address as well: proxy.address_header",
            )
        self._read_forwarded = lru_cache(CERTIFICATES_MAX)(read_forwarded)

    def peer(
        self,
        hop: Hop | None,
        headers: Mapping[bytes, bytes],
        address: str | None,
        repeated: Set[bytes] = frozenset(),
    ) -> tuple[Peer, str | None]:
        """Who asks, and from which address if that can be believed; `repeated` headers came more than once.

        Raises Problem where a proxy speaks nonsense. Strangers are told nothing of what a proxy is believed.
        """
        if hop is None:
            return STRANGER, address
        if not self._is_proxy(hop):
            return Peer(hop.certificate), address
        twice = sorted(self.headers & repeated)
        if twice:
            raise Problem("bad-request", f"the header {twice[0].decode()} comes twice")
        # its own certificate and address are not the client's
        told = {name: value for name in self.headers if (value := headers.get(name))}
        if not told:
            return STRANGER, None
        return self._told(told)

    def _is_proxy(self, hop: Hop) -> bool:
        if hop.local:
            return True
        return hop.certificate is not None and not self._identities.isdisjoint(hop.certificate.names)

    def _told(self, told: Mapping[bytes, bytes]) -> tuple[Peer, str | None]:
        name = b""
        certificate = user = address = system = None
        links: dict[bytes, str] = {}
        try:
            for name, value in told.items():
                if name == self._certificate:
                    certificate = self._read_forwarded(value)
                elif name == self._user:
                    user = user_name(value.decode("utf-8"))
                elif name == self._address:
                    # one address: in a list, all but the last were written by whoever came before
                    address = str(ip_address(value.decode("ascii").strip()))
                elif name == self._asn:
                    system = _system(value)
                else:
                    links[name] = _name(value)
        except FormatError as error:
            raise Problem("bad-request", f"the header {name.decode()}: {error.message}") from None
        except ValueError:  # also UnicodeDecodeError
            raise Problem("bad-request", f"the header {name.decode()} is not what it should be") from None
        payment, device, tls = (links.get(one) for one in (self._payment, self._device, self._tls))
        return Peer(certificate, user, payment, device, tls, system), address


def _identity(text: str) -> str:
    try:
        return parse_spiffe_id(text) if text.startswith("spiffe:") else parse_fingerprint(text)
    except ValueError as error:
        raise PolicyError(f"proxy.identities: {text!r}: {error}") from None


def _system(value: bytes) -> int:
    digits = value.strip().upper().removeprefix(b"AS")
    if not digits.isdigit() or len(digits) > SYSTEM_DIGITS_MAX or int(digits) >= 1 << 32:
        raise ValueError("it is no number of an autonomous system")
    return int(digits)


def _name(value: bytes) -> str:
    text = value.decode("ascii")
    if len(text) > NAME_CHARACTERS_MAX or not text.isprintable() or " " in text:
        raise ValueError("it has another form")
    return text
