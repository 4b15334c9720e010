"""What a host makes of a broker's answers: no is no, and whatever else is in between is asked again."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from palladion.errors import FormatError, PalladionError, StorageError
from palladion.host import broker
from palladion.host.broker import BrokerClient, Lease, nothing_attested
from palladion.host.broker_messages import ANSWER_BYTES_MAX, BrokerRefusedError, Challenge, Refusal, Renewed, encode
from palladion.seal.http import Answer

LEASE = Lease("ab" * 16, "fraud", 1, "cd" * 16, 60, 1060.0)
CHALLENGE = encode(Challenge(v=1, nonce=b"\x04" * 32, seconds=60, keys=()))
CLIENT = BrokerClient(
    "https://broker.example", ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT), "ef" * 32, nothing_attested, lambda: 2000.0, True
)


def _answering(monkeypatch: pytest.MonkeyPatch, *answers: tuple[int, bytes]) -> None:
    left = list(answers)

    @contextmanager
    def exchange(*_: Any, **__: Any) -> Iterator[Answer]:
        status, body = left.pop(0)
        yield Answer(status, iter([body]))

    monkeypatch.setattr(broker, "exchange", exchange)


def _said(reason: str) -> bytes:
    return encode(Refusal(v=1, reason=reason, message="no"))


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (403, _said("revoked"), BrokerRefusedError),
        (404, _said("unknown"), BrokerRefusedError),
        (429, _said("busy"), StorageError),
        (503, _said("busy"), StorageError),
        (500, _said("fault"), StorageError),
        (502, b"<html>Bad Gateway</html>", StorageError),
        (503, b"Service Unavailable", StorageError),
        (429, b"slow down", StorageError),
        (403, b"<html>Forbidden</html>", FormatError),
        (302, _said("busy"), FormatError),
        (200, b"{}", FormatError),
        (200, b" " * (ANSWER_BYTES_MAX + 1), FormatError),
        (503, b" " * (ANSWER_BYTES_MAX + 1), FormatError),
    ],
)
def test_a_no_is_told_from_a_not_now(
    monkeypatch: pytest.MonkeyPatch, status: int, body: bytes, error: type[PalladionError]
) -> None:
    _answering(monkeypatch, (200, CHALLENGE), (status, body))
    with pytest.raises(error) as caught:
        CLIENT.renew(LEASE)
    assert type(caught.value) is error


def test_a_lease_is_counted_from_when_it_was_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, (200, CHALLENGE), (200, encode(Renewed(v=1, lease=LEASE.id, seconds=90))))
    assert CLIENT.renew(LEASE).until == 2090


def test_an_answer_about_another_lease_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, (200, CHALLENGE), (200, encode(Renewed(v=1, lease="12" * 16, seconds=90))))
    with pytest.raises(FormatError, match="another lease"):
        CLIENT.renew(LEASE)


def test_a_broker_with_a_password_in_its_address_is_not_asked() -> None:
    from dataclasses import replace

    with pytest.raises(PalladionError, match="without user and password"):
        replace(CLIENT, url="https://user@broker.example").renew(LEASE)
