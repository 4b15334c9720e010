"""The publisher's signature: only pinned keys count."""

import os

import pytest

from palladion.errors import FormatError, TamperError
from palladion.keys import Ed25519Signer
from palladion.seal.sign import parse_publisher, publisher_id, publisher_text, verify_signature
from tests.small_order import FORGED, WEAK

# RFC 8032 §7.1, TEST 2
SECRET = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = bytes.fromhex("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c")
SIGNED = bytes.fromhex(
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)


def test_a_published_signature_verifies() -> None:
    assert Ed25519Signer(SECRET).public_key == PUBLIC
    assert verify_signature(b"\x72", SIGNED, publisher=publisher_id(PUBLIC), pinned=[PUBLIC], what="it") == PUBLIC


def test_the_key_is_found_among_several() -> None:
    others = [Ed25519Signer(os.urandom(32)).public_key for _ in range(3)]
    pinned = [*others[:2], PUBLIC, others[2]]
    assert verify_signature(b"\x72", SIGNED, publisher=publisher_id(PUBLIC), pinned=pinned, what="it") == PUBLIC


def test_a_publisher_who_is_not_pinned_is_refused() -> None:
    other = Ed25519Signer(os.urandom(32)).public_key
    for pinned in ([], [other]):
        with pytest.raises(TamperError, match=f"none of the {len(pinned)} that are trusted"):
            verify_signature(b"\x72", SIGNED, publisher=publisher_id(PUBLIC), pinned=pinned, what="it")


def test_naming_a_pinned_publisher_does_not_make_a_signature_his() -> None:
    other = Ed25519Signer(os.urandom(32))
    with pytest.raises(TamperError, match="it was altered"):
        verify_signature(b"\x72", other.sign(b"\x72"), publisher=publisher_id(PUBLIC), pinned=[PUBLIC], what="it")


def test_one_flipped_bit_in_signature_or_message_is_found() -> None:
    for bit in range(512):
        broken = bytearray(SIGNED)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(TamperError):
            verify_signature(b"\x72", bytes(broken), publisher=publisher_id(PUBLIC), pinned=[PUBLIC], what="it")
    with pytest.raises(TamperError):
        verify_signature(b"\x73", SIGNED, publisher=publisher_id(PUBLIC), pinned=[PUBLIC], what="it")


def test_a_publisher_survives_the_text_form() -> None:
    assert publisher_text(PUBLIC).startswith("pallp1e")
    assert parse_publisher(publisher_text(PUBLIC)) == PUBLIC


def test_a_recipient_is_not_taken_for_a_publisher() -> None:
    with pytest.raises(FormatError, match="does not begin with pallp1"):
        parse_publisher("pallr1xva570pglqd4q9udguz3njtse0v2c6wmp49fkguk6rt5mmjxuhapq5utpck")


def test_keys_of_another_length_are_a_callers_mistake() -> None:
    with pytest.raises(ValueError, match="got 31"):
        publisher_id(PUBLIC[:31])


@pytest.mark.parametrize("weak", WEAK, ids=["order 1", "order 8"])
def test_a_publisher_for_whom_anybody_can_sign_is_none(weak: bytes) -> None:
    with pytest.raises(FormatError, match="the publisher's key is no"):
        parse_publisher(publisher_text(weak))
    with pytest.raises(FormatError, match="the publisher's key is no"):
        verify_signature(b"any", FORGED, publisher=publisher_id(weak), pinned=[weak], what="it")
    assert parse_publisher(publisher_text(PUBLIC)) == PUBLIC
