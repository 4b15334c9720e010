"""Alerts as syslog, against receivers that read RFC 5424 and the framing of each transport to the letter."""

import re
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from palladion.clock import ManualClock
from palladion.errors import PolicyError, StorageError
from palladion.incident.alerts.channels import Channel, open_channels
from palladion.incident.alerts.messages import Message
from palladion.incident.alerts.syslog import (
    DATAGRAM_BYTES_MAX,
    MESSAGE_BYTES_MAX,
    VALUE_CHARACTERS_MAX,
    encode,
    parse_place,
)
from palladion.policy.alerting import AlertPolicy
from tests.gate.certificates import Authority, address

from .factories import CASE, CLIENT, NOW, topic

MESSAGE = Message(topic(), "alert", 1)
# §6 of the RFC: the header, one element of structured data, a BOM and the text
_FORM = re.compile(
    rb"<(?P<priority>\d{1,3})>1 (?P<time>\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z) (?P<host>[!-~]{1,255}) palladion - "
    rb'(?P<event>[!-~]{1,32}) \[palladion@32473(?P<data>(?: [a-z]+="(?:[^"\\\]]|\\["\\\]])*")+)\] '
    rb"\xef\xbb\xbf(?P<text>.*)",
    re.DOTALL,
)


def _read(data: bytes) -> tuple[int, str, dict[str, str], str]:
    found = _FORM.fullmatch(data)
    assert found is not None, data
    facts = re.findall(r' ([a-z]+)="((?:[^"\\\]]|\\["\\\]])*)"', found["data"].decode())
    return int(found["priority"]), found["event"].decode(), dict(facts), found["text"].decode()


def _encode(message: Message, *, bytes_max: int = MESSAGE_BYTES_MAX, source: str = "home") -> bytes:
    return encode(message, names=False, moment="2026-06-01T12:00:00.000000Z", source=source, bytes_max=bytes_max)


def _open(home: Path, **settings: Any) -> Channel:
    policy = AlertPolicy(**{"name": "log", "kind": "syslog", **settings})
    (channel,) = open_channels([policy], home, ManualClock(NOW), source="home")
    return channel


@contextmanager
def _listening(context: ssl.SSLContext | None = None) -> Iterator[tuple[int, list[bytes]]]:
    """A receiver of one connection, and what it got until the end of it."""
    got: list[bytes] = []

    def serve() -> None:
        plain, _ = listener.accept()
        try:
            with context.wrap_socket(plain, server_side=True) if context else plain as connection:
                while piece := connection.recv(4096):
                    got.append(piece)
        except OSError:
            return

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], got
        thread.join(5)


def test_a_message_says_what_a_receiver_sorts_by() -> None:
    priority, event, facts, text = _read(_encode(MESSAGE))
    assert (priority, event) == (13 * 8 + 2, "alert.opened")
    assert (facts["subject"], facts["case"], facts["severity"], facts["message"]) == (
        CLIENT,
        CASE,
        "critical",
        MESSAGE.id,
    )
    assert f"{CLIENT} was suspended" in text
    assert _read(_encode(Message(topic(severity="info"), "ended", 2)))[:2] == (13 * 8 + 6, "alert.ended")


@pytest.mark.parametrize("odd", ['a"b]c\\d', "line\nbreak\r\x00", "ü\u202e😀", "x" * 9000, "]" * 9000, "é" * 9000])
@pytest.mark.parametrize("bytes_max", [DATAGRAM_BYTES_MAX, MESSAGE_BYTES_MAX])
def test_whatever_is_in_an_alert_stays_in_its_place(odd: str, bytes_max: int) -> None:
    message = Message(topic(subject=odd, sentence=odd, case=odd), "alert", 1)
    data = _encode(message, bytes_max=bytes_max, source=odd)
    _, _, facts, text = _read(data)
    assert len(data) <= bytes_max
    assert b"\n" not in data
    assert set(facts) == {"alert", "kind", "severity", "subject", "case", "count", "message"}
    assert len(facts["case"]) <= 2 * VALUE_CHARACTERS_MAX
    assert text.isprintable()


def test_over_tcp_the_length_comes_first(tmp_path: Path) -> None:
    with _listening() as (port, got):
        _open(tmp_path, url=f"tcp://127.0.0.1:{port}").send(MESSAGE)
    length, _, rest = b"".join(got).partition(b" ")
    assert int(length) == len(rest)
    assert _read(rest)[1] == "alert.opened"


def test_over_udp_a_datagram_is_a_message(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as there:
        there.bind(("127.0.0.1", 0))
        there.settimeout(5)
        port = there.getsockname()[1]
        channel = _open(tmp_path, url=f"udp://127.0.0.1:{port}")
        channel.send(MESSAGE)
        assert _read(there.recv(65_536))[2]["case"] == CASE
    with pytest.raises(StorageError, match="log cannot be sent to: connection refused"):
        channel.send(MESSAGE)


def test_over_tls_only_whom_the_authority_vouches_for_gets_it(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    issued = authority.issue("server", [address("127.0.0.1")])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(issued.path, issued.key)
    with _listening(context) as (port, got):
        _open(tmp_path, url=f"tls://127.0.0.1:{port}", ca=authority.path.name).send(MESSAGE)
    assert _read(b"".join(got).partition(b" ")[2])[1] == "alert.opened"
    with (
        _listening(context) as (port, got),
        pytest.raises(StorageError, match="certificate verify failed"),
    ):
        _open(tmp_path, url=f"tls://127.0.0.1:{port}", ca=other.path.name).send(MESSAGE)
    assert got == []


def test_nobody_there_is_an_error_and_what_refreshes_only_is_not_sent(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    channel = _open(tmp_path, url=f"tcp://127.0.0.1:{port}")
    with pytest.raises(StorageError, match="log cannot be sent to: connection refused"):
        channel.send(MESSAGE)
    channel.send(Message(topic(), "refresh", 1))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "alert log: syslog needs a url"),
        ({"url": "udp://192.0.2.1:514"}, "not encrypted, and not on this machine"),
        ({"url": "tcp://logs.example:601"}, "not encrypted, and not on this machine"),
        ({"url": "tls://logs.example"}, "was expected, and nothing more"),
        ({"url": "tls://logs.example:6514/path"}, "was expected, and nothing more"),
        ({"url": "tls://u:p@logs.example:6514"}, "was expected, and nothing more"),
        ({"url": "https://logs.example:6514"}, "was expected, and nothing more"),
        ({"url": "tls://logs.example:6514", "secret": "s"}, "syslog takes no secret"),
        ({"url": "tls://logs.example:6514", "ca": "none.pem"}, "ca cannot be used: No such file"),
        ({"url": "udp://127.0.0.1:514", "ca": "none.pem"}, "ca is for tls"),
    ],
)
def test_what_could_not_send_safely_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PolicyError, match=message) as refused:
        _open(tmp_path, **settings)
    assert "u:p" not in str(refused.value)


def test_places_are_read_as_they_are_written() -> None:
    for text in ("tls://logs.example:6514", "udp://[::1]:514", "tcp://localhost:601"):
        assert str(parse_place(text)) == text
