"""Who may approve: signed by the owner, each statement on the one before, one person once."""

from datetime import timedelta

import msgspec
import pytest

from palladion.approvals.roster import (
    Approver,
    Change,
    SignedStatement,
    check_statement,
    next_statement,
    sign_statement,
    verify_statement,
)
from palladion.errors import ApprovalError, FormatError, TamperError
from palladion.keys import Ed25519Signer
from tests.small_order import FORGED, WEAK

from .people import KEYS, NOW, ORIGIN, person, statement

OWNER = Ed25519Signer(b"\x09" * 32)


def _negative(key: str) -> str:
    """The key whose private key is that of the other, negated: the sign is the first bit of the last byte."""
    return key[:-2] + f"{int(key[-2:], 16) ^ 0x80:02x}"


def _verify(signed: SignedStatement, *, previous: object = None, origin: str = ORIGIN) -> None:
    verify_statement(signed, previous, owner=OWNER.public_key, origin=origin)  # type: ignore[arg-type]


def test_it_is_armed_once_there_are_as_many_as_are_needed() -> None:
    assert not statement("ada", needed=2).armed
    assert statement("ada", "bob", needed=2).armed
    assert not statement("ada", "bob", needed=0).armed


def test_what_the_owner_signed_is_verified() -> None:
    first = next_statement(None, Change(add=person("ada")), origin=ORIGIN, at=NOW)
    _verify(sign_statement(first, OWNER))
    second = next_statement(first, Change(needed=1), origin=ORIGIN, at=NOW)
    _verify(sign_statement(second, OWNER), previous=first)


def test_what_somebody_else_signed_is_refused() -> None:
    first = next_statement(None, Change(add=person("ada")), origin=ORIGIN, at=NOW)
    with pytest.raises(TamperError, match="not signed by the owner"):
        _verify(sign_statement(first, Ed25519Signer(b"\x08" * 32)))
    altered = msgspec.structs.replace(first, needed=9)
    with pytest.raises(TamperError, match="not signed by the owner"):
        _verify(SignedStatement(altered, sign_statement(first, OWNER).signature))
    with pytest.raises(TamperError, match=r"not of other\.example"):
        _verify(sign_statement(first, OWNER), origin="other.example")


def test_an_older_statement_does_not_come_back() -> None:
    first = next_statement(None, Change(add=person("ada")), origin=ORIGIN, at=NOW)
    second = next_statement(first, Change(add=person("bob")), origin=ORIGIN, at=NOW)
    for signed in (sign_statement(first, OWNER), sign_statement(second, OWNER)):
        with pytest.raises(ApprovalError, match="does not follow"):
            _verify(signed, previous=second)


@pytest.mark.parametrize(
    ("second", "what"),
    [
        (Approver("eve", ("user:eve",), str(KEYS["ada"].key)), "the key"),
        (Approver("eve", ("user:eve",), _negative(str(KEYS["ada"].key))), "the key"),
        (Approver("eve", ("user:ada",), str(KEYS["eve"].key)), "the account"),
        (Approver("eve", ("user:eve", "user:ada"), str(KEYS["eve"].key)), "the account"),
    ],
)
def test_one_person_is_not_two_approvers(second: Approver, what: str) -> None:
    with pytest.raises(ApprovalError, match=what):
        next_statement(statement("ada", "bob"), Change(add=second), origin=ORIGIN, at=NOW)
    # and not in a document that was made by hand either
    bad = msgspec.structs.replace(statement("ada"), approvers=(person("ada"), second))
    with pytest.raises(ApprovalError, match="one person approves once"):
        check_statement(msgspec.structs.replace(bad, sequence=1, previous=""), None)


def test_fewer_than_are_needed_are_not_left() -> None:
    armed = statement("ada", "bob")
    with pytest.raises(ApprovalError, match="1 approvers would be left where 2 are needed"):
        next_statement(armed, Change(remove="bob"), origin=ORIGIN, at=NOW)
    assert next_statement(armed, Change(remove="bob", needed=1), origin=ORIGIN, at=NOW).armed


def test_a_name_gets_another_key_and_stays_one_person() -> None:
    new = Approver("ada", ("user:ada",), str(KEYS["zoe"].key))
    changed = next_statement(statement("ada", "bob"), Change(add=new), origin=ORIGIN, at=NOW + timedelta(days=1))
    assert [item.name for item in changed.approvers] == ["ada", "bob"]
    assert changed.with_key(str(KEYS["ada"].key)) is None


def test_what_is_no_name_or_key_is_refused() -> None:
    with pytest.raises(FormatError):
        next_statement(None, Change(add=Approver("A B", ("user:a",), str(KEYS["ada"].key))), origin=ORIGIN, at=NOW)
    with pytest.raises(FormatError):
        next_statement(
            None, Change(add=Approver("ada", ("user:a\x1b[2J",), str(KEYS["ada"].key))), origin=ORIGIN, at=NOW
        )
    with pytest.raises(FormatError):
        next_statement(None, Change(add=Approver("ada", ("user:a",), "ed25519:00")), origin=ORIGIN, at=NOW)
    with pytest.raises(ApprovalError, match="no approver"):
        next_statement(statement("ada"), Change(remove="bob"), origin=ORIGIN, at=NOW)


@pytest.mark.parametrize("weak", WEAK, ids=["order 1", "order 8"])
def test_an_owner_for_whom_anybody_can_sign_is_none(weak: bytes) -> None:
    forged = SignedStatement(statement("ada"), FORGED.hex())
    with pytest.raises(FormatError, match="the owner's key is no"):
        verify_statement(forged, None, owner=weak, origin=ORIGIN)
    with pytest.raises(FormatError, match="the approver's key"):
        next_statement(None, Change(add=Approver("ada", ("user:a",), f"ed25519:{weak.hex()}")), origin=ORIGIN, at=NOW)
