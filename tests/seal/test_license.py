"""A licence opens what it names, where it says, while it holds; each refusal has a test of its own."""

import os
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import FormatError, LicenseError, PalladionError, Refusal, TamperError
from palladion.keys import Ed25519Signer
from palladion.seal.header import Header, header_digest
from palladion.seal.license import (
    ENTRIES_MAX,
    EXPIRY_WARNED,
    GRACE_DAYS_MAX,
    LICENSE_BYTES_MAX,
    Granted,
    License,
    VersionRange,
    authorise,
    check,
    decode_license,
    encode_license,
    new_license,
    renewed,
    verify_license,
)
from palladion.seal.machine import (
    CLOCK_TOLERANCE,
    LICENSES_SEEN_MAX,
    Accepted,
    LicensesSeen,
    Machine,
    machine_digest,
    request,
)
from palladion.seal.reader import open_sealed
from palladion.seal.revocations import RevokedVersions, revised
from palladion.seal.sign import publisher_id
from palladion.seal.structure import SealedInfo

from .factories import CREATED, Party

SIGNER = Ed25519Signer(b"\x31" * 32)
PUBLISHER = publisher_id(SIGNER.public_key)
PINNED = [SIGNER.public_key]
ISSUED = datetime(2026, 6, 1, tzinfo=UTC)
BEGINS = datetime(2026, 7, 1, tzinfo=UTC)
EXPIRES = datetime(2027, 7, 1, tzinfo=UTC)
NOW = datetime(2026, 9, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
HOST, OTHER_HOST = machine_digest("host", "pallr1a"), machine_digest("host", "pallr1b")
MACHINE_ID = machine_digest("machine-id", "3d1219c7c4c5404aaa1f6d2a48adfda4")
MACHINE = Machine({"host": (HOST,), "machine-id": (MACHINE_ID,)})


def sealed(party: Party | None = None, **fields: Any) -> SealedInfo:
    """What is verified of a sealed file."""
    header: Header = (party or Party(SIGNER)).header(**fields)
    return SealedInfo(header, header_digest(header.encode()), "ab" * 32, (), 1, 100, 1000)


FILE = sealed(license_required=True)


def terms(**fields: Any) -> License:
    """A licence for versions 2 to 4, on any machine, for a year."""
    values: dict[str, Any] = {
        "publisher": PUBLISHER,
        "licensee": "Acme Bank",
        "model": "fraud",
        "issued": ISSUED,
        "not_before": BEGINS,
        "not_after": EXPIRES,
        "versions": [VersionRange(2, 4)],
    }
    return new_license(**{**values, **fields})


def decide(
    held: License, *, info: SealedInfo = FILE, machine: Machine = MACHINE, now: datetime = NOW, **more: Any
) -> tuple[Granted, LicensesSeen]:
    return check(held, info, machine, now=now, **{"seen": LicensesSeen(), **more})


def refused(held: License, refusal: Refusal, *, match: str | None = None, **more: Any) -> LicenseError:
    """The error with which `license` is refused."""
    with pytest.raises(LicenseError, match=match) as caught:
        decide(held, **more)
    assert caught.value.refusal == refusal
    return caught.value


# the file and its signature


def test_a_licence_is_read_back_as_it_was_signed() -> None:
    given_terms = terms(machines=[{"host": HOST}], features=["batch"], grace_days=14, purpose="production")
    data = encode_license(given_terms, SIGNER)
    assert verify_license(data, PINNED, what="it") == given_terms
    assert decode_license(data, what="it") == given_terms
    assert data.count(b"\n") == 1


WHOLE = encode_license(terms(licensee="Müller & Söhne", machines=[{"host": HOST}], features=["batch"]), SIGNER)


@given(st.integers(0, len(WHOLE) * 8 - 1))
def test_one_flipped_bit_in_a_licence_is_found(bit: int) -> None:
    broken = bytearray(WHOLE)
    broken[bit // 8] ^= 1 << bit % 8
    with pytest.raises((FormatError, TamperError)):
        verify_license(bytes(broken), PINNED, what="it")


def change(data: bytes, **fields: Any) -> bytes:
    """The licence with other fields under its old signature."""
    document = canonical.decode(data[:-1], size_max=10**6, what="it")
    document["license"].update(fields)
    return canonical.encode(document) + b"\n"


@pytest.mark.parametrize(
    "fields",
    [
        {"not_after": "2099-01-01T00:00:00.000000Z"},
        {"machines": []},
        {"features": ["everything"]},
        {"sequence": 99},
        {"grace_days": 366},
        {"licensee": "Somebody Else"},
        {"versions": [{"first": 1, "last": 999}]},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_a_licence_that_its_holder_improved_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(TamperError, match="was altered"):
        verify_license(change(WHOLE, **fields), PINNED, what="it")


def test_a_licence_of_another_publisher_is_refused() -> None:
    thief = Ed25519Signer(os.urandom(32))
    own = encode_license(terms(publisher=publisher_id(thief.public_key)), thief)
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        verify_license(own, PINNED, what="it")
    # claims the publisher, signs with a key of his own
    with pytest.raises(TamperError, match="was altered"):
        verify_license(change(own, publisher=PUBLISHER), PINNED, what="it")


def test_only_its_publisher_can_sign_a_licence() -> None:
    with pytest.raises(ValueError, match="signs this, not"):
        encode_license(terms(), Ed25519Signer(os.urandom(32)))


def test_a_list_of_revocations_is_not_taken_for_a_licence() -> None:
    from palladion.seal.revocations import encode_revocations

    data = encode_revocations(revised(None, publisher=PUBLISHER, issued=ISSUED), SIGNER)
    with pytest.raises(FormatError, match="other members than license"):
        decode_license(data, what="it")


def test_a_signature_over_a_list_does_not_sign_a_licence() -> None:
    # the same bytes under the domain of another statement
    from palladion.seal.revocations import encode_signed

    one = terms()
    moved = encode_signed("revocations", one, PUBLISHER, SIGNER, size_max=10**6).replace(
        b'{"revocations":', b'{"license":'
    )
    with pytest.raises(TamperError):
        verify_license(moved, PINNED, what="it")


@pytest.mark.parametrize(
    "broken",
    [
        lambda d: d[:-1],
        lambda d: d + b"\n",
        lambda d: d.replace(b"\n", b"\r\n"),
        lambda d: b" " + d,
        lambda d: d[: len(d) // 2] + b"\n",
        lambda d: b"",
        lambda d: b"[]\n",
        lambda d: change(d, unknown=1),
        lambda d: change(d, v=2),
        lambda d: change(d, sequence=0),
        lambda d: change(d, machines=[{}]),
        lambda d: change(d, machines=[{"serial": HOST}]),
        lambda d: change(d, machines=[{"host": HOST}] * (ENTRIES_MAX + 1)),
        lambda d: change(d, versions=[]),
        lambda d: change(d, versions=[{"first": 4, "last": 2}]),
        lambda d: change(d, features=["a", "a"]),
        lambda d: change(d, licensee="Acme\x1b[2J"),
        lambda d: change(d, licensee=""),
        lambda d: change(d, not_after="2027-07-01"),
        lambda d: change(d, not_after="2026-07-01T00:00:00.000000Z"),
        lambda d: change(d, not_after="9999-12-31T00:00:00.000000Z"),
        lambda d: change(d, grace_days=GRACE_DAYS_MAX + 1),
        lambda d: change(d, model="../fraud"),
        lambda d: d[:-1].ljust(LICENSE_BYTES_MAX) + b"\n",
        lambda d: d.replace(b'"signature":"', b'"signature":"A'),
    ],
)
def test_what_is_no_licence_is_refused_before_its_signature_counts(broken: Callable[[bytes], bytes]) -> None:
    with pytest.raises(FormatError):
        verify_license(broken(WHOLE), PINNED, what="it")


@pytest.mark.parametrize(
    "fields",
    [
        {"versions": []},
        {"not_after": BEGINS},
        {"not_before": EXPIRES},
        {"licensee": "a\u202eb"},
        {"licensee": "x" * 201},
        {"machines": [{"host": "raw"}]},
        {"grace_days": -1},
        {"files": ["ab" * 32, "ab" * 32]},
        {"features": ["With Blanks"]},
        {"issued": datetime(2026, 6, 1)},  # noqa: DTZ001 (that is the mistake)
    ],
    ids=str,
)
def test_a_licence_that_no_reader_would_accept_is_not_made(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        terms(**fields)


def test_the_largest_licence_there_can_be_fits_its_limit_and_a_record_of_the_ledger() -> None:
    texts = [f"{number:064x}" for number in range(ENTRIES_MAX)]
    everything = terms(
        licensee="\U0001f3db" * 200,
        purpose="\U0001f3db" * 200,
        machines=[{"host": HOST, "machine-id": MACHINE_ID, "vm": HOST, "pod": HOST}] * ENTRIES_MAX,
        versions=[VersionRange(canonical.INTEGER_MAX - 1, canonical.INTEGER_MAX)] * ENTRIES_MAX,
        files=texts,
        features=texts,
        nonces=[text[32:] for text in texts],
    )
    data = encode_license(everything, SIGNER)
    assert len(data) <= LICENSE_BYTES_MAX
    assert verify_license(data, PINNED, what="it") == everything


# what it is for


def test_a_licence_opens_the_version_the_machine_and_the_time_it_names() -> None:
    granted, seen = decide(terms(machines=[{"host": HOST}], features=["batch"]))
    assert (granted.in_grace, granted.warnings) == (False, ())
    assert granted.has("batch")
    assert not granted.has("export")
    assert seen.latest == NOW


@pytest.mark.parametrize(("version", "opens"), [(1, False), (2, True), (3, True), (4, True), (5, False)])
def test_versions_are_those_of_the_ranges_ends_included(version: int, opens: bool) -> None:
    if opens:
        decide(terms(), info=sealed(version=version))
    else:
        refused(terms(), "model", info=sealed(version=version), match=r"is for fraud \(2-4\)")


def test_a_licence_for_another_model_is_refused() -> None:
    refused(terms(model="churn"), "model", match=r"this is fraud@3")


def test_a_licence_for_one_file_opens_no_other_file_of_that_version() -> None:
    other = sealed()
    only = terms(versions=[], files=[FILE.header_digest])
    decide(only)
    refused(only, "model", info=other, match="1 named file")
    refused(terms(versions=[VersionRange(9, 9)], files=[FILE.header_digest]), "model")


def test_a_licence_of_another_trusted_publisher_opens_nothing_of_this_one() -> None:
    # both are pinned: one must not licence what the other sells
    other = Ed25519Signer(os.urandom(32))
    held = terms(publisher=publisher_id(other.public_key))
    data = encode_license(held, other)
    with pytest.raises(LicenseError) as caught:
        authorise(data, FILE, [*PINNED, other.public_key], MACHINE, now=NOW, seen=LicensesSeen())
    assert caught.value.refusal == "publisher"


# the machine


def test_one_of_several_machines_is_enough() -> None:
    decide(terms(machines=[{"host": OTHER_HOST}, {"host": HOST}]))


def test_another_machine_is_refused_and_the_reason_names_the_kind() -> None:
    error = refused(terms(machines=[{"host": OTHER_HOST}]), "machine", match="its host is")
    assert HOST not in error.message


def test_a_machine_has_to_fit_in_every_kind_of_one_entry() -> None:
    both = {"host": HOST, "machine-id": MACHINE_ID}
    decide(terms(machines=[both]))
    refused(terms(machines=[both]), "machine", machine=Machine({"host": (HOST,)}))
    # half of one entry and half of another are no machine
    halves = [
        {"host": HOST, "machine-id": machine_digest("machine-id", "0")},
        {"host": OTHER_HOST, "machine-id": MACHINE_ID},
    ]
    refused(terms(machines=halves), "machine")


def test_a_copied_machine_id_without_the_host_key_is_refused() -> None:
    clone = Machine({"host": (OTHER_HOST,), "machine-id": (MACHINE_ID,)})
    refused(terms(machines=[{"host": HOST, "machine-id": MACHINE_ID}]), "machine", machine=clone)


def test_a_machine_that_shows_nothing_is_told_why() -> None:
    blind = Machine({}, {"machine-id": "/etc/machine-id: no such file or directory"})
    refused(terms(machines=[{"machine-id": MACHINE_ID}]), "machine", machine=blind, match="no such file or directory")


def test_many_machines_are_not_all_listed_in_the_refusal() -> None:
    entries = [{"host": machine_digest("host", str(number))} for number in range(9)]
    assert "and 6 more" in refused(terms(machines=entries), "machine").message


# the time


@pytest.mark.parametrize("zone", [UTC, timezone(timedelta(hours=14)), timezone(timedelta(hours=-12))])
def test_the_moment_counts_and_not_how_a_clock_spells_it(zone: timezone) -> None:
    held = terms()
    refused(held, "early", now=(BEGINS - CLOCK_TOLERANCE - MICROSECOND).astimezone(zone))
    decide(held, now=(BEGINS - CLOCK_TOLERANCE).astimezone(zone))
    decide(held, now=(EXPIRES - MICROSECOND).astimezone(zone))
    refused(held, "expired", now=EXPIRES.astimezone(zone))


def test_a_clock_without_a_time_zone_is_a_callers_mistake() -> None:
    with pytest.raises((ValueError, TypeError)):
        decide(terms(), now=NOW.replace(tzinfo=None))


def test_in_its_grace_a_licence_opens_with_a_warning_and_not_after() -> None:
    held = terms(grace_days=14)
    ends = EXPIRES + timedelta(days=14)
    assert not decide(held, now=EXPIRES - MICROSECOND)[0].in_grace
    for now in (EXPIRES, ends - MICROSECOND):
        granted, _ = decide(held, now=now)
        assert granted.in_grace
        assert "its grace ends at 2027-07-15T00:00:00.000000Z" in granted.warnings[0]
    error = refused(held, "expired", now=ends, match="its grace of 14 days is over")
    assert any("palladion license request" in hint for hint in error.hints)


def test_the_end_is_announced_ahead() -> None:
    held = terms()
    assert decide(held, now=EXPIRES - EXPIRY_WARNED - MICROSECOND)[0].warnings == ()
    assert "expires in 30 days" in decide(held, now=EXPIRES - EXPIRY_WARNED)[0].warnings[0]
    assert "expires in 0 days" in decide(held, now=EXPIRES - MICROSECOND)[0].warnings[0]


def test_a_clock_behind_the_last_opening_was_set_back() -> None:
    seen = LicensesSeen(latest=NOW)
    decide(terms(), now=NOW - CLOCK_TOLERANCE, seen=seen)
    refused(terms(), "clock", now=NOW - CLOCK_TOLERANCE - MICROSECOND, seen=seen, match="last opened a file at 2026-09")


def test_a_clock_behind_the_licences_own_date_was_set_back() -> None:
    late = terms(issued=NOW)
    refused(late, "clock", now=NOW - CLOCK_TOLERANCE - MICROSECOND, match="the licence was issued")


def test_a_clock_behind_the_files_own_date_was_set_back() -> None:
    early = terms(issued=CREATED - timedelta(days=9), not_before=CREATED - timedelta(days=9))
    refused(early, "clock", now=CREATED - CLOCK_TOLERANCE - MICROSECOND, match="the file was sealed")


def test_the_tolerance_does_not_add_up_over_many_openings() -> None:
    seen, now = LicensesSeen(latest=NOW), NOW
    _, seen = decide(terms(), now=now - CLOCK_TOLERANCE, seen=seen)
    assert seen.latest == NOW
    refused(terms(), "clock", now=now - 2 * CLOCK_TOLERANCE, seen=seen)


def test_an_expired_licence_does_not_come_back_by_setting_the_clock_back() -> None:
    held = terms()
    _, seen = decide(held, now=EXPIRES - timedelta(seconds=1))
    refused(held, "expired", now=EXPIRES + timedelta(days=1), seen=seen)
    refused(held, "clock", now=EXPIRES - timedelta(days=30), seen=seen)


# renewal


def test_a_renewal_raises_the_sequence_and_puts_the_old_licence_out_of_use() -> None:
    old = terms()
    new = renewed(old, issued=NOW, not_after=EXPIRES + timedelta(days=365))
    assert (new.serial, new.sequence) == (old.serial, 2)
    _, seen = decide(new)
    refused(old, "replayed", seen=seen, match="has accepted 2 already")
    assert decide(new, seen=seen, now=EXPIRES)[0].license == new


def test_two_renewals_of_one_sequence_are_not_both_accepted() -> None:
    old = terms()
    first, second = (renewed(old, issued=NOW, not_after=EXPIRES + timedelta(days=days)) for days in (1, 2))
    _, seen = decide(first)
    refused(second, "replayed", seen=seen)


def test_a_renewal_is_accepted_by_the_machine_that_asked_and_by_no_other() -> None:
    held = terms()
    challenge, asked = request(MACHINE, LicensesSeen(), now=NOW, serial=held.serial, sequence=1)
    answer = renewed(held, issued=NOW, not_after=EXPIRES, nonces=[challenge.nonce])
    refused(answer, "unasked", match="has not made")
    _, seen = decide(answer, seen=asked)
    assert seen.pending == ()
    # once accepted it stays accepted
    assert decide(answer, seen=seen, now=NOW + timedelta(days=1))[1].latest == NOW + timedelta(days=1)


def test_an_answer_to_an_older_request_is_refused_once_a_newer_sequence_was_accepted() -> None:
    held = terms()
    first, seen = request(MACHINE, LicensesSeen(), now=NOW)
    second, seen = request(MACHINE, seen, now=NOW)
    answers = [renewed(held, issued=NOW, not_after=EXPIRES, nonces=[first.nonce])]
    answers.append(renewed(answers[0], issued=NOW, not_after=EXPIRES, nonces=[second.nonce]))
    _, seen = decide(answers[1], seen=seen)
    refused(answers[0], "replayed", seen=seen)


def test_one_answer_serves_every_machine_of_a_group_that_asked() -> None:
    asked = [request(MACHINE, LicensesSeen(), now=NOW) for _ in range(3)]
    answer = renewed(terms(), issued=NOW, not_after=EXPIRES, nonces=[challenge.nonce for challenge, _ in asked])
    for _, seen in asked:
        decide(answer, seen=seen)


def test_a_renewal_after_a_change_of_hardware_is_for_the_new_machine_alone() -> None:
    old = terms(machines=[{"host": OTHER_HOST}])
    new = renewed(old, issued=NOW, not_after=EXPIRES, machines=[{"host": HOST}])
    decide(new)
    refused(new, "machine", machine=Machine({"host": (OTHER_HOST,)}))


def test_a_clock_that_ran_ahead_once_is_mended_by_a_renewal_and_by_nothing_else() -> None:
    held = terms()
    ahead = LicensesSeen(latest=datetime(2031, 1, 1, tzinfo=UTC), licenses={held.serial: Accepted(1, held.digest)})
    refused(held, "clock", seen=ahead)
    challenge, asked = request(MACHINE, ahead, now=NOW)
    refused(held, "clock", seen=asked)
    answer = renewed(held, issued=NOW + timedelta(hours=1), not_after=EXPIRES, nonces=[challenge.nonce])
    later = NOW + timedelta(hours=2)
    _, seen = decide(answer, seen=asked, now=later)
    assert (seen.latest, seen.mending) == (later, "")


def test_a_mending_request_kept_in_store_does_not_turn_the_clock_back_later() -> None:
    # he asks with the clock set back, opens as usual for a year, and installs the old answer when the year is over
    held = terms()
    challenge, stored = request(MACHINE, LicensesSeen(latest=NOW), now=NOW - timedelta(days=1))
    assert stored.mending
    answer = renewed(held, issued=NOW, not_after=EXPIRES, nonces=[challenge.nonce])
    _, seen = decide(held, seen=stored, now=EXPIRES - timedelta(days=1))
    refused(answer, "clock", seen=seen, now=NOW + timedelta(days=1))


def test_an_ordinary_renewal_does_not_turn_the_clock_back() -> None:
    held = terms()
    challenge, stored = request(MACHINE, LicensesSeen(latest=NOW), now=NOW)
    answer = renewed(held, issued=NOW, not_after=EXPIRES, nonces=[challenge.nonce])
    later = replace(stored, latest=NOW + timedelta(days=300))
    refused(answer, "clock", seen=later, now=NOW + timedelta(days=1))


def test_a_full_memory_refuses_new_licences_and_forgets_none() -> None:
    full = LicensesSeen(licenses={f"{number:032x}": Accepted(1, "ab" * 32) for number in range(LICENSES_SEEN_MAX)})
    refused(terms(), "replayed", seen=full, match="4096 licences and no more")


# revocation, and no licence at all


def test_a_revoked_licence_is_refused_with_the_reason() -> None:
    held = terms()
    listed = revised(None, publisher=PUBLISHER, issued=NOW, serials={held.serial: "not paid"})
    refused(held, "revoked", revocations=listed, match="was revoked: not paid")
    assert decide(terms(), revocations=listed)[1].revocations == {PUBLISHER: 1}


def test_a_revoked_version_is_refused_under_a_good_licence() -> None:
    rows = [RevokedVersions("fraud", 1, 3, "biased")]
    listed = revised(None, publisher=PUBLISHER, issued=NOW, versions=rows)
    refused(terms(), "revoked", revocations=listed, match="biased")
    decide(terms(), revocations=listed, info=sealed(version=4))


def test_a_list_of_another_publisher_revokes_nothing_here() -> None:
    held = terms()
    listed = revised(None, publisher="0" * 16, issued=NOW, serials={held.serial: "x"})
    assert decide(held, revocations=listed)[1].revocations == {}


def test_a_renewal_does_not_lift_a_revocation() -> None:
    held = terms()
    listed = revised(None, publisher=PUBLISHER, issued=NOW, serials={held.serial: "stolen"})
    refused(renewed(held, issued=NOW, not_after=EXPIRES), "revoked", revocations=listed)


def test_a_licence_that_was_taken_away_is_missing_where_one_is_required() -> None:
    with pytest.raises(LicenseError) as caught:
        authorise(None, FILE, PINNED, MACHINE, now=NOW, seen=LicensesSeen())
    assert caught.value.refusal == "missing"
    assert any(".license" in hint for hint in caught.value.hints)


def test_a_file_that_asks_for_no_licence_opens_without_one_unless_it_is_revoked() -> None:
    free = sealed()
    assert authorise(None, free, PINNED, MACHINE, now=NOW, seen=LicensesSeen()) == (None, LicensesSeen())
    listed = revised(None, publisher=PUBLISHER, issued=NOW, files={free.header_digest: "leaked"})
    with pytest.raises(LicenseError, match="leaked"):
        authorise(None, free, PINNED, MACHINE, now=NOW, seen=LicensesSeen(), revocations=listed)


def test_a_licence_that_is_not_asked_for_still_has_to_hold() -> None:
    free = sealed()
    granted, _ = authorise(encode_license(terms(), SIGNER), free, PINNED, MACHINE, now=NOW, seen=LicensesSeen())
    assert granted is not None
    with pytest.raises(LicenseError, match="expired"):
        authorise(encode_license(terms(), SIGNER), free, PINNED, MACHINE, now=EXPIRES, seen=LicensesSeen())


class Untouchable:
    """An identity that must not be asked."""

    def unwrap(self, _wrap: object, _context: bytes) -> bytes | None:
        raise AssertionError("a key was touched before the licence was checked")


@pytest.mark.parametrize("data", [None, encode_license(terms(), SIGNER)], ids=["stripped", "expired"])
def test_no_key_is_touched_before_the_licence_is_checked(tmp_path: Path, data: bytes | None) -> None:
    party = Party(SIGNER)
    path = party.seal(tmp_path / "fraud.sealed", license_required=True)

    def accept(info: SealedInfo) -> None:
        authorise(data, info, PINNED, MACHINE, now=EXPIRES, seen=LicensesSeen())

    with pytest.raises(LicenseError):
        open_sealed(path, [Untouchable()], PINNED, accept=accept)


def test_a_refusal_remembers_nothing() -> None:
    # a clock that ran ahead for a moment must not lock the machine out for ever: only what was granted is remembered
    seen = LicensesSeen()
    refused(terms(), "expired", seen=seen, now=datetime(2099, 1, 1, tzinfo=UTC))
    assert seen == LicensesSeen()


FUTURE = st.datetimes(datetime(2026, 1, 1), datetime(2029, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001


@given(st.lists(FUTURE, max_size=6), FUTURE)
def test_whatever_the_order_of_openings_nothing_opens_outside_its_time(
    before: Iterable[datetime], now: datetime
) -> None:
    held, seen = terms(grace_days=10), LicensesSeen()
    for moment in [*before, now]:
        latest = seen.latest
        try:
            granted, seen = decide(held, now=moment, seen=seen)
        except LicenseError:
            continue
        assert BEGINS - CLOCK_TOLERANCE <= moment < held.ends
        assert granted.in_grace == (moment >= EXPIRES)
        assert latest is None or moment >= latest - CLOCK_TOLERANCE
        assert seen.latest == max(moment, latest or moment)


def test_the_error_is_of_the_one_tree_and_a_refused_request() -> None:
    assert issubclass(LicenseError, PalladionError)
    assert LicenseError.exit_code == 2


def test_a_licence_cannot_be_changed_in_memory() -> None:
    held = terms()
    with pytest.raises(AttributeError):
        held.sequence = 9  # type: ignore[misc]
    assert msgspec.structs.replace(held, sequence=9).digest != held.digest
