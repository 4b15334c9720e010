"""Alerts as syslog messages: RFC 5424 over TLS (RFC 5425), and on the loopback over TCP (RFC 6587) or UDP (RFC 5426).

No syslog transport says that a receiver has read something: a message is there when the other machine has taken all of
it, over UDP when nobody said that nobody listens.
"""

import socket
import ssl
from contextlib import closing, suppress
from dataclasses import dataclass, field
from types import MappingProxyType
from urllib.parse import urlsplit

from palladion.clock import Clock, timestamp
from palladion.errors import StorageError
from palladion.incident.alerts.messages import Message, event_of, subject_of, text, title
from palladion.policy.alerting import AlertPolicy
from palladion.transit.url import is_loopback

FACILITY = 13  # "log audit" (RFC 5424 §6.2.1), as the export of entries has it
APPLICATION = "palladion"
STRUCTURED_DATA_ID = "palladion@32473"  # the enterprise number that RFC 5612 keeps for examples: we have none
MESSAGE_BYTES_MAX = 8192  # what a receiver should take (RFC 5425 §4.3.1)
DATAGRAM_BYTES_MAX = 2048  # the same of RFC 5426 §3.2
VALUE_CHARACTERS_MAX = 128
SEND_SECONDS = 10.0  # as of the other channels
CLOSE_SECONDS = 1.0  # in which a receiver that has read the end closes; most do at once
_BOM = b"\xef\xbb\xbf"  # says that the text is UTF-8 (§6.4)
_SEVERITIES = MappingProxyType({"critical": 2, "warning": 4, "info": 6})
_SCHEMES = ("tls", "tcp", "udp")


@dataclass(frozen=True)
class Place:
    """Where a receiver listens, and how: tls, tcp or udp."""

    scheme: str
    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.scheme}://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


def parse_place(address: str) -> Place:
    """The place of `tls://host:port`, or of `tcp://` or `udp://` on this machine. Raises ValueError."""
    try:
        parts = urlsplit(address)
        found = Place(parts.scheme, parts.hostname or "", parts.port or 0)
    except ValueError:
        found = Place("", "", 0)
    if found.scheme not in _SCHEMES or not found.host or not found.port or address.lower() != str(found):
        raise ValueError("tls://host:port, or tcp:// or udp:// of this machine, was expected, and nothing more")
    if found.scheme != "tls" and not is_loopback(found.host):
        raise ValueError(f"{found} is not encrypted, and not on this machine: tls:// was expected")
    return found


@dataclass(frozen=True)
class Syslog:
    """A receiver of syslog messages."""

    policy: AlertPolicy
    place: Place
    tls: ssl.SSLContext | None = field(repr=False)
    clock: Clock
    source: str

    def send(self, message: Message) -> None:
        """See `Channel`. What refreshes only is not sent: a log has it."""
        if message.action == "refresh":
            return
        udp = self.place.scheme == "udp"
        data = encode(
            message,
            names=self.policy.names,
            moment=timestamp(self.clock.now()),
            source=self.source,
            bytes_max=DATAGRAM_BYTES_MAX if udp else MESSAGE_BYTES_MAX,
        )
        try:
            if udp:
                self._send_datagram(data)
            else:
                self._send_stream(b"%d %s" % (len(data), data))
        except OSError as error:  # TLS errors are of this kind too
            reason = str(error.strerror or error).lower()
            raise StorageError(f"{self.policy.name} cannot be sent to: {reason}", "see docs/alerts.md") from None

    def _send_stream(self, frame: bytes) -> None:
        with closing(socket.create_connection((self.place.host, self.place.port), SEND_SECONDS)) as plain:
            connection = plain
            if self.tls is not None:
                connection = self.tls.wrap_socket(plain, server_hostname=self.place.host)
            with closing(connection):
                connection.settimeout(SEND_SECONDS)
                connection.sendall(frame)
                connection.shutdown(socket.SHUT_WR)
                # one that refuses us, or our certificate, says so now; one that stays open has taken it
                connection.settimeout(CLOSE_SECONDS)
                with suppress(TimeoutError):
                    while connection.recv(4096):
                        pass

    def _send_datagram(self, data: bytes) -> None:
        family = socket.AF_INET6 if ":" in self.place.host else socket.AF_INET
        with closing(socket.socket(family, socket.SOCK_DGRAM)) as connection:
            connection.settimeout(0.05)  # the kernel answers at once for a port on this machine where nobody listens
            connection.connect((self.place.host, self.place.port))
            connection.send(data)
            with suppress(TimeoutError):
                connection.recv(1)


def encode(message: Message, *, names: bool, moment: str, source: str, bytes_max: int) -> bytes:
    """The message: facts as structured data, then title and text, cut where it is too long."""
    topic, alert = message.topic, message.topic.alert
    facts = (
        ("alert", topic.id),
        ("kind", alert.kind),
        ("severity", alert.severity),
        ("subject", subject_of(alert, names=names)),
        ("case", alert.case or ""),
        ("count", str(topic.count)),
        ("message", message.id),
    )
    parameters = " ".join(f'{name}="{_value(value)}"' for name, value in facts if value)
    priority = FACILITY * 8 + _SEVERITIES[alert.severity]
    header = f"<{priority}>1 {moment} {_printable(source, 255)} {APPLICATION} - {event_of(message)}"
    head = f"{header} [{STRUCTURED_DATA_ID} {parameters}] ".encode("ascii", "replace") + _BOM
    told = f"{title(message, names=names)} | {text(message, names=names).replace(chr(10), ' | ')}"
    shown = "".join(c if c.isprintable() else "?" for c in told).encode()
    return head + shown[: max(0, bytes_max - len(head))].decode(errors="ignore").encode()


def _printable(text_: str, characters_max: int) -> str:
    """A field of the header: printable US-ASCII without spaces (§6)."""
    return "".join(c if "!" <= c <= "~" else "?" for c in text_)[:characters_max] or "-"


def _value(text_: str) -> str:
    # §6.3.3: these three, each after a backslash, and no other
    shown = "".join(c if " " <= c <= "~" else "?" for c in text_[:VALUE_CHARACTERS_MAX])
    return shown.replace("\\", "\\\\").replace('"', '\\"').replace("]", "\\]")
