"""Entries and revocations in targets metadata: written, read, chosen from, and refused."""

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tuf.api.metadata import Delegations, Targets

from palladion.errors import ConflictError, FormatError, NotFoundError
from palladion.release import entries
from palladion.release.entries import (
    Catalogue,
    Release,
    Revocation,
    add_release,
    add_revocation,
    catalogue_of,
    release_of,
    revoked_in,
)
from palladion.seal.header import HIDDEN_CHARACTERS
from tests.seal.factories import Party

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ONE = Release(
    model="fraud",
    version=1,
    purpose="served",
    file_id="1" * 32,
    header_digest="a" * 64,
    revoked=False,
    length=1000,
    sha256="b" * 64,
)


def _nth(number: int, **fields: Any) -> Release:
    digits = f"{number:x}"
    return replace(ONE, **{"file_id": digits.rjust(32, "0"), "header_digest": digits.rjust(64, "0"), **fields})


def _catalogue(*releases: Release, revoked: tuple[str, ...] = ()) -> Catalogue:
    targets = Targets()
    for release in releases:
        add_release(targets, release)
    for digest in revoked:
        add_revocation(targets, digest, Revocation("stolen", NOW))
    # as it would come back from a file
    return catalogue_of(Targets.from_dict(targets.to_dict()), NOW)


def test_what_was_added_comes_back_with_a_place_that_holds_its_digest() -> None:
    assert _catalogue(ONE).releases == (ONE,)
    assert ONE.name == f"fraud/1/{'1' * 32}.sealed"
    assert ONE.location == f"targets/fraud/1/{'b' * 64}.{'1' * 32}.sealed"


def test_the_highest_version_is_current() -> None:
    catalogue = _catalogue(_nth(9, version=9), _nth(10, version=10), _nth(2, version=2), _nth(11, model="other"))
    assert catalogue.current("fraud").version == 10


def test_a_served_version_comes_before_deliveries_and_a_delivery_by_its_id() -> None:
    delivered = _nth(5, version=7, purpose="delivery")
    catalogue = _catalogue(_nth(1), delivered)
    assert catalogue.current("fraud").version == 1
    assert catalogue.current("fraud", file_id=delivered.file_id) == delivered
    assert _catalogue(delivered).current("fraud") == delivered


def test_several_deliveries_of_one_version_have_to_be_told_apart() -> None:
    catalogue = _catalogue(_nth(1, purpose="delivery"), _nth(2, purpose="delivery"))
    with pytest.raises(ConflictError, match="2 sealed files of fraud version 1"):
        catalogue.current("fraud")


def test_two_served_files_of_one_version_are_refused_when_they_are_added() -> None:
    with pytest.raises(ConflictError, match="is in the channel as another sealed file"):
        _catalogue(_nth(1), _nth(2))
    _catalogue(_nth(1), _nth(1, sha256="c" * 64))  # the same file, rewrapped
    _catalogue(_nth(1, revoked=True), _nth(2))


def test_a_revoked_version_is_passed_over_and_a_model_with_no_other_is_refused() -> None:
    old, new = _nth(1), _nth(2, version=2)
    assert _catalogue(old, new, revoked=(new.header_digest,)).current("fraud") == old
    everything = _catalogue(old, new, revoked=(new.header_digest, old.header_digest))
    with pytest.raises(ConflictError, match=r"revoked on 2026-01-01: stolen"):
        everything.current("fraud")
    with pytest.raises(ConflictError):
        everything.current("fraud", file_id=old.file_id)


@pytest.mark.parametrize("how", ["mark", "list"])
def test_a_revocation_counts_by_the_mark_alone_and_by_the_list_alone(how: str) -> None:
    revoked = {ONE.header_digest: Revocation("stolen", NOW)} if how == "list" else {}
    catalogue = Catalogue((replace(ONE, revoked=how == "mark"),), revoked, NOW)
    with pytest.raises(ConflictError, match="revoked"):
        catalogue.current("fraud")


def test_a_file_outside_the_channel_can_be_revoked_too() -> None:
    catalogue = _catalogue(revoked=("c" * 64,))
    catalogue.check("a" * 64)
    with pytest.raises(ConflictError, match="cccccccccccccccc was revoked"):
        catalogue.check("c" * 64)


def test_unknown_models_and_ids_are_said() -> None:
    with pytest.raises(NotFoundError, match="no sealed file of spam"):
        _catalogue(ONE).current("spam")
    with pytest.raises(NotFoundError, match="with id 99"):
        _catalogue(ONE).current("fraud", file_id="99")


def test_the_first_reason_of_a_revocation_stays() -> None:
    targets = Targets()
    add_revocation(targets, "a" * 64, Revocation("stolen", NOW))
    add_revocation(targets, "a" * 64, Revocation("oh no, fine", NOW.replace(year=2030)))
    assert revoked_in(targets) == {"a" * 64: Revocation("stolen", NOW)}


@given(reason=st.text(st.characters(codec="utf-8"), max_size=300))
def test_every_reason_comes_back_as_it_was_or_is_refused(reason: str) -> None:
    targets = Targets()
    try:
        add_revocation(targets, "a" * 64, Revocation(reason, NOW))
    except ValueError:
        assert not 0 < len(reason) <= 200 or HIDDEN_CHARACTERS.search(reason)
    else:
        assert revoked_in(targets)["a" * 64].reason == reason


@pytest.mark.parametrize("digest", ["", "A" * 64, "a" * 63, "a" * 64 + "\n"])
def test_what_is_no_header_digest_cannot_be_revoked(digest: str) -> None:
    with pytest.raises(ValueError, match="64 hex digits"):
        add_revocation(Targets(), digest, Revocation("stolen", NOW))


@pytest.mark.parametrize(
    ("purpose", "version", "model"), [("original", 1, "m"), ("backup", 1, "m"), ("served", 0, "m"), ("served", 1, "")]
)
def test_what_is_not_meant_for_hosts_does_not_become_a_release(purpose: str, version: int, model: str) -> None:
    header = Party().header(purpose=purpose, version=version, model=model)
    with pytest.raises(ConflictError, match="not for a channel"):
        release_of(header, "a" * 64, length=1, sha256="b" * 64)


def _set(path: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        entry = document["targets"][ONE.name]
        part = entry["custom"] if path not in entry else entry
        part[path] = value

    return change


def _rename(name: str) -> Callable[[dict[str, Any]], None]:
    def change(document: dict[str, Any]) -> None:
        document["targets"][name] = document["targets"].pop(ONE.name)

    return change


DEFECTS: dict[str, Callable[[dict[str, Any]], None]] = {
    "no custom": _set("custom", None),
    "unknown member": _set("extra", 1),
    "a model that leads out": _set("model", "../../etc"),
    "version 0": _set("version", 0),
    "a version that is a text": _set("version", "1"),
    "an original": _set("purpose", "original"),
    "revoked by a text": _set("revoked", "no"),
    "another file id than its name says": _set("file_id", "2" * 32),
    "a header digest that is none": _set("header_digest", "x"),
    "a negative length": _set("length", -1),
    "a length that is no integer": _set("length", 1.5),
    "a length beyond every sealed file": _set("length", 2**60),
    "no SHA-256": _set("hashes", {"md5": "0" * 32}),
    "a SHA-256 that leads out": _set("hashes", {"sha256": "../" * 20 + "aaaa"}),
    "a name that leads out": _rename("../../etc/passwd"),
    "an absolute name": _rename("/etc/passwd"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_an_entry_that_no_publisher_of_ours_writes_is_refused(defect: str) -> None:
    targets = Targets()
    add_release(targets, ONE)
    document = targets.to_dict()
    DEFECTS[defect](document)
    with pytest.raises((FormatError, ValueError)):
        catalogue_of(Targets.from_dict(document), NOW)


_SINCE = "2026-01-01T00:00:00.000000Z"
LISTS: dict[str, object] = {
    "a list": [],
    "a text": "x",
    "a digest that is none": {"a": {"reason": "r", "since": _SINCE}},
    "no time": {"a" * 64: {"reason": "r"}},
    "no reason": {"a" * 64: {"reason": "", "since": _SINCE}},
    "a time that is none": {"a" * 64: {"reason": "r", "since": "yesterday"}},
    "an unknown member": {"a" * 64: {"reason": "r", "since": _SINCE, "until": _SINCE}},
}


@pytest.mark.parametrize("defect", LISTS)
def test_a_list_of_revocations_that_is_none_is_refused_and_not_taken_for_empty(defect: str) -> None:
    targets = Targets(unrecognized_fields={"x-palladion-revoked": LISTS[defect]})
    with pytest.raises(FormatError, match="list of revocations"):
        catalogue_of(targets, NOW)


def test_delegations_are_refused_since_nothing_of_ours_follows_them() -> None:
    with pytest.raises(FormatError, match="delegates"):
        catalogue_of(Targets(delegations=Delegations({}, {})), NOW)


def test_numbers_of_entries_are_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    targets = Targets()
    for number in range(1, 4):
        add_release(targets, _nth(number, version=number))
        add_revocation(targets, f"{number:064x}", Revocation("r", NOW))
    monkeypatch.setattr(entries, "RELEASES_MAX", 2)
    with pytest.raises(FormatError, match="more than the 2"):
        catalogue_of(targets, NOW)
    with pytest.raises(ConflictError, match="more than the 2"):
        add_release(targets, _nth(4, version=4))
    monkeypatch.setattr(entries, "REVOKED_MAX", 2)
    with pytest.raises(FormatError, match="more than 2"):
        revoked_in(targets)
