"""A publisher's list of what is not to be opened any more: signed, growing, and not to be turned back."""

import os
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import FormatError, LicenseError, TamperError
from palladion.keys import Ed25519Signer
from palladion.seal.header import header_digest
from palladion.seal.machine import LicensesSeen
from palladion.seal.revocations import RevokedVersions, check_revoked, encode_revocations, revised, verify_revocations
from palladion.seal.sign import publisher_id
from palladion.seal.structure import SealedInfo

from .factories import Party

SIGNER = Ed25519Signer(b"\x31" * 32)
PUBLISHER = publisher_id(SIGNER.public_key)
NOW = datetime(2026, 9, 1, tzinfo=UTC)
SERIAL = "ab" * 16


def sealed(**fields: Any) -> SealedInfo:
    header = Party(SIGNER).header(**fields)
    return SealedInfo(header, header_digest(header.encode()), "ab" * 32, (), 1, 100, 1000)


FILE = sealed()
FIRST = revised(None, publisher=PUBLISHER, issued=NOW, serials={SERIAL: "not paid"})
SECOND = revised(FIRST, publisher=PUBLISHER, issued=NOW, files={FILE.header_digest: "leaked"})
WHOLE = encode_revocations(SECOND, SIGNER)


def test_a_list_is_read_back_as_it_was_signed() -> None:
    assert verify_revocations(WHOLE, [SIGNER.public_key], what="it") == SECOND


@given(st.integers(0, len(WHOLE) * 8 - 1))
def test_one_flipped_bit_in_a_list_is_found(bit: int) -> None:
    broken = bytearray(WHOLE)
    broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises((FormatError, TamperError)):
        verify_revocations(bytes(broken), [SIGNER.public_key], what="it")


def test_a_list_of_somebody_else_is_refused() -> None:
    thief = Ed25519Signer(os.urandom(32))
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        verify_revocations(WHOLE, [thief.public_key], what="it")
    with pytest.raises(ValueError, match="signs this"):
        encode_revocations(SECOND, thief)


def test_a_list_grows_and_what_stands_on_it_stays() -> None:
    again = revised(SECOND, publisher=PUBLISHER, issued=NOW, serials={SERIAL: "another reason", "cd" * 16: "stolen"})
    assert again.sequence == 3
    assert again.serials == {SERIAL: "not paid", "cd" * 16: "stolen"}
    assert again.files == SECOND.files


def test_nobody_revises_the_list_of_another_publisher() -> None:
    with pytest.raises(ValueError, match="is publisher"):
        revised(FIRST, publisher="0" * 16, issued=NOW)


@pytest.mark.parametrize(("version", "reason"), [(1, None), (2, "biased"), (5, "biased"), (6, None)])
def test_ranges_of_versions_are_revoked_ends_included(version: int, reason: str | None) -> None:
    rows = [RevokedVersions("churn", 0, 99, "old"), RevokedVersions("fraud", 2, 5, "biased")]
    listed = revised(None, publisher=PUBLISHER, issued=NOW, versions=rows)
    assert listed.revoked(sealed(version=version)) == reason


def test_one_file_is_revoked_and_its_siblings_are_not() -> None:
    assert SECOND.revoked(FILE) == "leaked"
    assert SECOND.revoked(sealed()) is None


def test_a_list_says_nothing_of_another_publishers_file() -> None:
    header = Party().header()
    foreign = SealedInfo(header, FILE.header_digest, "ab" * 32, (), 1, 100, 1000)
    assert SECOND.revoked(foreign) is None


def test_a_host_that_has_seen_a_list_refuses_the_one_before_and_none() -> None:
    free = sealed()
    seen = check_revoked(free, SECOND, LicensesSeen())
    assert seen.revocations == {PUBLISHER: 2}
    for listed, found in ((FIRST, "list 1"), (None, "none")):
        with pytest.raises(LicenseError, match=f"seen revocation list 2 .* {found} is here") as caught:
            check_revoked(free, listed, seen)
        assert caught.value.refusal == "replayed"
    assert check_revoked(free, SECOND, seen) == seen


def test_a_list_of_another_publisher_does_not_stand_in_for_the_one_seen() -> None:
    other = revised(None, publisher="0" * 16, issued=NOW)
    with pytest.raises(LicenseError, match="none is here"):
        check_revoked(sealed(), other, LicensesSeen(revocations={PUBLISHER: 1}))


@pytest.mark.parametrize(
    "fields",
    [
        {"v": 2},
        {"more": 1},
        {"sequence": 0},
        {"serials": {"ab": "short"}},
        {"serials": {SERIAL: ""}},
        {"serials": {SERIAL: "x" * 201}},
        {"files": {"x" * 64: "not hex"}},
        {"versions": [{"model": "fraud", "first": 3, "last": 2, "reason": "backwards"}]},
        {"serials": {SERIAL: "a\x1b[2Jb"}},
        {"issued": "yesterday"},
    ],
    ids=str,
)
def test_what_is_no_list_is_refused(fields: dict[str, Any]) -> None:
    document = canonical.decode(WHOLE[:-1], size_max=10**6, what="it")
    document["revocations"].update(fields)
    with pytest.raises(FormatError):
        verify_revocations(canonical.encode(document) + b"\n", [SIGNER.public_key], what="it")


def test_a_reason_that_could_not_be_read_is_not_written() -> None:
    with pytest.raises(ValueError, match="do not print"):
        revised(None, publisher=PUBLISHER, issued=NOW, serials={SERIAL: "a\u202eb"})
