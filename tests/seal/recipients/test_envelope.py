"""The envelope of the key services: what it binds and commits to, and what keeps keys out of logs and off the wire."""

import hashlib
import hmac
import logging
import time

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError, KeysError, StorageError
from palladion.seal.recipients.envelope import (
    Envelope,
    Limits,
    ask,
    is_confidential,
    quiet,
    refused,
    unavailable,
)

SECRET = bytes(range(32))
LIMITS = Limits(connect_seconds=1, read_seconds=1, attempts=3, pause_seconds=0.5)


def _enclosed(context: bytes = b"context") -> tuple[bytes, Envelope]:
    keys: list[bytes] = []
    envelope = Envelope.enclose(SECRET, context, lambda key: keys.append(key) or b"wrapped")  # type: ignore[func-returns-value]
    return keys[0], envelope


def _derived(key: bytes, context: bytes) -> bytes:
    """HKDF-Expand-SHA-384 by hand (RFC 5869 §2.3), as docs/format.md §7 has it."""
    info = b"palladion/v1/key-service" + context
    first = hmac.digest(key, info + b"\x01", hashlib.sha384)
    return (first + hmac.digest(key, first + info + b"\x02", hashlib.sha384))[:64]


@given(
    secret=st.binary(min_size=32, max_size=32),
    context=st.binary(max_size=300),
    wrapped=st.binary(min_size=1, max_size=99),
)
def test_secrets_survive_the_round_trip(secret: bytes, context: bytes, wrapped: bytes) -> None:
    keys: list[bytes] = []

    def wrap_key(key: bytes) -> bytes:
        keys.append(key)
        return wrapped

    blob = Envelope.enclose(secret, context, wrap_key).encode()
    envelope = Envelope.decode(blob, kind="x")
    assert (envelope.wrapped_key, envelope.encode()) == (wrapped, blob)
    assert envelope.open(keys[0], context, key_id="k") == secret


def test_the_layout_is_that_of_the_format() -> None:
    key, envelope = _enclosed()
    derived = _derived(key, b"context")
    blob = envelope.encode()
    assert blob[:32] == derived[32:]
    assert AESGCM(derived[:32]).decrypt(bytes(12), blob[32:80], b"context") == SECRET
    assert blob[80:] == b"wrapped"


def test_every_changed_bit_in_front_is_found() -> None:
    key, envelope = _enclosed()
    for bit in range(80 * 8):
        front = bytearray(envelope.front)
        front[bit // 8] ^= 1 << bit % 8
        with pytest.raises(KeysError):
            Envelope(bytes(front), b"wrapped").open(key, b"context", key_id="k")


def test_another_key_or_context_does_not_open() -> None:
    key, envelope = _enclosed()
    for wrong, context in ((bytes(32), b"context"), (key, b"other"), (key[:31], b"context"), (b"", b"context")):
        with pytest.raises(KeysError, match="does not open"):
            envelope.open(wrong, context, key_id="k")


def test_one_envelope_cannot_open_under_two_keys() -> None:
    # AES-GCM commits to no key: a service that lets two plaintexts pass must not choose between two secrets
    key, envelope = _enclosed()
    another = bytes(32)
    sealed = AESGCM(_derived(another, b"context")[:32]).encrypt(bytes(12), SECRET, b"context")
    with pytest.raises(KeysError, match="does not open"):
        Envelope(envelope.front[:32] + sealed, b"wrapped").open(another, b"context", key_id="k")
    with pytest.raises(KeysError, match="is damaged"):
        Envelope(envelope.front[:32] + sealed, b"wrapped").open(key, b"context", key_id="k")


def test_a_renewed_envelope_keeps_its_front() -> None:
    key, envelope = _enclosed()
    renewed = envelope.renewed(b"wrapped anew")
    assert renewed.encode() == envelope.front + b"wrapped anew"
    assert renewed.open(key, b"context", key_id="k") == SECRET


@pytest.mark.parametrize("size", [0, 80, 80 + 6145])
def test_blobs_of_impossible_sizes_are_refused(size: int) -> None:
    with pytest.raises(FormatError, match=f"of kind x has {size} bytes, expected 81 to 6224"):
        Envelope.decode(bytes(size), kind="x")


def test_envelopes_do_not_print_what_they_hold() -> None:
    assert repr(_enclosed()[1]) == "Envelope()"


@pytest.mark.parametrize(
    ("url", "confidential"),
    [
        ("https://kms.example.com", True),
        ("http://kms.example.com", False),
        ("http://127.0.0.1:8200", True),
        ("http://127.8.9.1", True),
        ("http://[::1]:8200", True),
        ("http://localhost:8200", True),
        ("http://localhost.example.com", False),
        ("http://127.0.0.1.example.com", False),
        ("http://127.0.0.1@example.com", False),
        ("http://0.0.0.0", False),
        ("ftp://127.0.0.1", False),
        ("127.0.0.1", False),
    ],
)
def test_keys_travel_under_tls_or_not_at_all(url: str, confidential: bool) -> None:
    assert is_confidential(url) is confidential


def test_a_call_is_repeated_while_there_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    calls: list[int] = []

    def fail() -> int:
        calls.append(1)
        raise StorageError("no answer")

    with pytest.raises(StorageError):
        ask(fail, LIMITS)
    assert (len(calls), pauses) == (3, [0.5, 1.0])
    assert ask(lambda: 7, LIMITS) == 7
    assert len(pauses) == 2


def test_what_a_service_says_is_shown_only_if_it_is_a_word() -> None:
    assert "AccessDenied" in str(refused("S", "decrypt", "k", "AccessDenied"))
    for said in ("token=hvs.secret", "a\x1b[2Jb", "x" * 65, "", None, 7, ["a"]):
        for error in (refused("S", "decrypt", "k", said), unavailable("S", "k", said)):
            assert str(error).endswith("no reason that could be shown")


def test_debug_records_are_dropped_in_the_middle_of_a_call_only(caplog: pytest.LogCaptureFixture) -> None:
    own, other = logging.getLogger("lib.endpoint"), logging.getLogger("library")
    caplog.set_level(logging.DEBUG)
    with quiet("lib"):
        own.debug("body with a key")
        own.warning("slow")
        other.debug("another's")
    own.debug("afterwards")
    assert [record.getMessage() for record in caplog.records] == ["slow", "another's", "afterwards"]
