"""File identities: HPKE and text forms."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError, KeysError
from palladion.keys import Wrap
from palladion.seal.bech32 import encode_key
from palladion.seal.recipients import FileIdentity, FileRecipient, parse_recipient

# RFC 7748 §6.1: Alice
PRIVATE = bytes.fromhex("77076d0a7318a57d3c16c17251b26645df4c6bf9a2a4b6e8a2b3b0b6a5d0c92a")
SECRET = bytes(range(32))


@given(secret=st.binary(max_size=64), context=st.binary(max_size=64))
def test_secrets_survive_the_round_trip(secret: bytes, context: bytes) -> None:
    identity = FileIdentity.generate()
    wrap = identity.recipient.wrap(secret, context)
    assert (wrap.kind, wrap.key_id, wrap.parameters) == ("x25519", identity.recipient.key_id, {})
    assert identity.unwrap(wrap, context) == secret


def test_a_wrap_for_another_key_is_not_tried() -> None:
    wrap = FileIdentity.generate().recipient.wrap(SECRET, b"context")
    assert FileIdentity.generate().unwrap(wrap, b"context") is None
    assert FileIdentity.generate().unwrap(Wrap("passphrase", wrap.key_id, {}, wrap.blob), b"context") is None


def test_another_context_does_not_open() -> None:
    identity = FileIdentity.generate()
    with pytest.raises(KeysError, match="does not open"):
        identity.unwrap(identity.recipient.wrap(SECRET, b"context"), b"other")


def test_one_flipped_bit_is_found() -> None:
    identity = FileIdentity.generate()
    wrap = identity.recipient.wrap(SECRET, b"context")
    for bit in range(len(wrap.blob) * 8):
        blob = bytearray(wrap.blob)
        blob[bit // 8] ^= 1 << bit % 8
        # RFC 7748 §5: the top bit of a public key is ignored; HPKE hashes the whole encoding, so it is found too
        with pytest.raises(KeysError):
            identity.unwrap(Wrap(wrap.kind, wrap.key_id, {}, bytes(blob)), b"context")


@pytest.mark.parametrize("size", [0, 31, 47, 79, 81])
def test_a_blob_of_another_length_is_refused(size: int) -> None:
    identity = FileIdentity.generate()
    with pytest.raises(KeysError):
        identity.unwrap(Wrap("x25519", identity.recipient.key_id, {}, bytes(size)), b"context")


def test_parameters_are_refused() -> None:
    identity = FileIdentity.generate()
    with pytest.raises(FormatError, match="has parameters"):
        identity.unwrap(Wrap("x25519", identity.recipient.key_id, {"suite": 1}, bytes(80)), b"context")


@given(st.binary(min_size=32, max_size=32))
def test_recipients_survive_the_text_form(private: bytes) -> None:
    recipient = FileIdentity(private).recipient
    assert str(recipient).startswith("pallr1x")
    assert parse_recipient(str(recipient)) == recipient


@pytest.mark.parametrize("public", [bytes(32), b"\x01" + bytes(31), bytes.fromhex("ec" + "ff" * 30 + "7f")])
def test_keys_of_low_order_are_refused(public: bytes) -> None:
    with pytest.raises(FormatError, match="low order"):
        parse_recipient(encode_key("pallr", public, tag="x"))
    with pytest.raises(ValueError):
        FileRecipient(public)


@pytest.mark.parametrize("text", ["", "age1qqqq", "passphrase", "pallp1e", "x" * 91])
def test_texts_that_name_no_recipient_are_refused(text: str) -> None:
    with pytest.raises(FormatError, match="the recipient "):
        parse_recipient(text)


def test_private_keys_are_not_printed() -> None:
    identity = FileIdentity(PRIVATE)
    shown = f"{identity!r} {identity} {vars(identity)}"
    assert PRIVATE.hex() not in shown
    assert identity.unsafe_text()[30:60] not in shown
