"""Requests and decisions as they travel: one canonical line, checked whole, and what tells a drill."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion import canonical
from palladion.approvals.documents import document_of
from palladion.approvals.request import (
    HOURS_MAX,
    Request,
    SignedDecision,
    SignedRequest,
    decode_exchange,
    encode_exchange,
    sign_request,
)
from palladion.errors import ApprovalError, FormatError, PalladionError, TamperError
from palladion.keys import Ed25519Signer
from tests.small_order import FORGED, WEAK

from .people import KEYS, SECRET, request, says

LEDGER = Ed25519Signer(b"\x05" * 32)


def test_a_request_comes_back_as_it_was_signed() -> None:
    signed = sign_request(request(), LEDGER)
    found = decode_exchange(encode_exchange(signed), what="it")
    assert isinstance(found, SignedRequest)
    assert found.verified(LEDGER.public_key) == signed.request


def test_a_decision_comes_back_as_it_was_signed() -> None:
    about = request()
    found = decode_exchange(encode_exchange(says("bob", about)), what="it")
    assert isinstance(found, SignedDecision)
    assert found.verified(about).key == str(KEYS["bob"].key)


def _verify(line: bytes, about: Request) -> None:
    found = decode_exchange(line, what="it")
    assert isinstance(found, SignedDecision)
    found.verified(about)


@given(st.data())
def test_one_flipped_bit_is_caught(data: st.DataObject) -> None:
    about = request()
    line = bytearray(encode_exchange(says("bob", about)))
    place = data.draw(st.integers(0, len(line) - 2))
    line[place] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(PalladionError):
        _verify(bytes(line), about)


def test_another_ledgers_request_is_not_taken_for_ours() -> None:
    signed = sign_request(request(), Ed25519Signer(b"\x06" * 32))
    with pytest.raises(TamperError, match="not of this installation"):
        signed.verified(LEDGER.public_key)


@pytest.mark.parametrize("hours", [0, -1, HOURS_MAX + 1])
def test_hours_have_a_limit(hours: int) -> None:
    with pytest.raises(ApprovalError, match="hours"):
        request(hours=hours)


@pytest.mark.parametrize(
    "changed",
    [
        {"uses": 2},
        {"v": 2},
        {"purpose": "anything"},
        {"expires": "2026-12-01T12:00:00.000000Z"},
        {"expires": "2026-06-01T12:00:00.000000Z"},
        {"created": "yesterday"},
        {"reason": "two\nlines"},
        {"reason": "\x1b[2Jclean"},
        {"reason": ""},
        {"more": "fields"},
    ],
)
def test_a_document_that_says_something_else_is_refused(changed: dict[str, object]) -> None:
    signed = document_of(sign_request(request(), LEDGER))
    line = canonical.encode({**signed, "request": {**signed["request"], **changed}})
    with pytest.raises(FormatError):
        decode_exchange(line, what="it")


def test_a_drill_looks_like_any_request_to_who_lacks_the_secret() -> None:
    drill, real = request(drill=True), request()
    assert drill.is_drill(SECRET)
    assert not real.is_drill(SECRET)
    assert document_of(drill).keys() == document_of(real).keys()
    with pytest.raises(TamperError, match="was not made by this installation"):
        drill.is_drill(b"\x01" * 32)


@pytest.mark.parametrize("weak", WEAK, ids=["order 1", "order 8"])
def test_a_ledger_for_which_anybody_can_sign_is_none(weak: bytes) -> None:
    forged = SignedRequest(request(), FORGED.hex())
    with pytest.raises(FormatError, match="the ledger's key is no"):
        forged.verified(weak)
