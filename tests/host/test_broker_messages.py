"""What comes over the network is read within limits, or refused with a sentence; nothing else happens."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.host.broker_messages import (
    ANSWER_BYTES_MAX,
    REQUEST_BYTES_MAX,
    Challenge,
    FileFront,
    KeyName,
    Refusal,
    Released,
    ReleaseRequest,
    Renewed,
    RenewRequest,
    SentWrap,
    answer_context,
    decode,
    encode,
    printable,
)

WRAP = SentWrap("x25519", "ab" * 8, {}, b"\x05" * 80)
FRONT = FileFront(b"header", b"\x01" * 74, 3, 300, b"\x02" * 32, b"\x03" * 64, WRAP)
REQUEST = ReleaseRequest(v=1, nonce=b"\x04" * 32, public_key=b"\x06" * 32, file=FRONT, purpose="exec")
MESSAGES: list[msgspec.Struct] = [
    REQUEST,
    RenewRequest(v=1, nonce=b"\x04" * 32, public_key=b"\x06" * 32, lease="ab" * 16, evidence=b"evidence"),
    Challenge(v=1, nonce=b"\x04" * 32, seconds=60, keys=(KeyName("x25519", "ab" * 8),)),
    Released(v=1, lease="ab" * 16, seconds=60, sealed=b"\x07" * 80),
    Renewed(v=1, lease="ab" * 16, seconds=60),
    Refusal(v=1, reason="nonce", message="no"),
]


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_messages_come_back_as_they_were(message: msgspec.Struct) -> None:
    assert decode(encode(message), type(message), size_max=REQUEST_BYTES_MAX, what="it") == message


@given(st.sampled_from(MESSAGES), st.data())
def test_what_was_changed_is_read_as_something_else_or_refused(message: msgspec.Struct, data: st.DataObject) -> None:
    encoded = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(encoded), type(message), size_max=REQUEST_BYTES_MAX, what="it")
    except FormatError:
        return
    assert decode(encode(found), type(message), size_max=REQUEST_BYTES_MAX, what="it") == found


@given(st.binary(max_size=200))
def test_what_is_no_message_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError):
        decode(data, ReleaseRequest, size_max=REQUEST_BYTES_MAX, what="it")


@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"nonce": b"\x04" * 31},
        {"public_key": b""},
        {"public_key": bytes(2049)},
        {"evidence": bytes(2 * 1024 * 1024 + 1)},
        {"purpose": "Exec"},
        {"purpose": "exec\n"},
        {"purpose": ""},
        {"approval": "a" * 65},
        {"file": msgspec.structs.replace(FRONT, header=bytes(16 * 1024 + 1))},
        {"file": msgspec.structs.replace(FRONT, root=bytes(31))},
        {"file": msgspec.structs.replace(FRONT, segments=0)},
        {"file": msgspec.structs.replace(FRONT, body_bytes=2**53)},
        {"file": msgspec.structs.replace(FRONT, wrap=msgspec.structs.replace(WRAP, blob=bytes(8193)))},
        {"file": msgspec.structs.replace(FRONT, wrap=msgspec.structs.replace(WRAP, kind="../x"))},
    ],
)
def test_a_field_beyond_its_limits_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError):
        decode(
            encode(msgspec.structs.replace(REQUEST, **changes)), ReleaseRequest, size_max=REQUEST_BYTES_MAX, what="it"
        )


@pytest.mark.parametrize("change", [b'"x":1,', b'"v":1,'], ids=["unknown", "twice"])
def test_a_member_that_is_unknown_is_refused_and_the_last_of_two_counts(change: bytes) -> None:
    data = encode(REQUEST).replace(b"{", b"{" + change, 1)
    if change.startswith(b'"x"'):
        with pytest.raises(FormatError):
            decode(data, ReleaseRequest, size_max=REQUEST_BYTES_MAX, what="it")
    else:
        assert decode(data, ReleaseRequest, size_max=REQUEST_BYTES_MAX, what="it") == REQUEST


def test_what_is_too_large_is_not_read() -> None:
    with pytest.raises(FormatError, match=f"at most {ANSWER_BYTES_MAX} are read"):
        decode(bytes(ANSWER_BYTES_MAX + 1), Released, size_max=ANSWER_BYTES_MAX, what="it")


def test_an_answer_is_bound_to_every_part_of_its_request() -> None:
    said: dict[str, Any] = {"client": "ab" * 32, "lease": "cd" * 16, "seconds": 60}
    changes: list[dict[str, Any]] = [
        {"nonce": bytes(32)},
        {"public_key": b"\x06" * 33},
        {"purpose": "serve"},
        {"evidence": b"x"},
        {"approval": "x"},
        *(
            {"file": msgspec.structs.replace(FRONT, **{name: value})}
            for name, value in (
                ("header", b"other"), ("floe_header", bytes(74)), ("segments", 4), ("body_bytes", 301),
                ("root", bytes(32)), ("signature", bytes(64)),
            )
        ),
    ]  # fmt: skip
    contexts = [answer_context(msgspec.structs.replace(REQUEST, **change), **said) for change in changes]
    contexts += [
        answer_context(REQUEST, **{**said, name: value})
        for name, value in (("client", "x"), ("lease", "x"), ("seconds", 61))
    ]
    contexts.append(answer_context(REQUEST, **said))

    assert len(set(contexts)) == len(changes) + 4
    # one part cannot grow at another's cost
    shifted = msgspec.structs.replace(REQUEST, purpose="exe", approval="c")
    assert answer_context(shifted, **said) not in contexts


def test_a_sentence_of_somebody_else_cannot_move_the_cursor() -> None:
    assert printable("no\x1b[2J\nyes\u202e") == "no?[2J?yes?"
    assert len(printable("x" * 5000)) == 1000
