"""Controls that people record: kept by the ledger alone, with owner, evidence and days."""

from datetime import UTC, date, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import ConflictError, FormatError, NotFoundError, PalladionError
from palladion.incident.measures import (
    Measure,
    end_measure,
    find_measure,
    measure_document,
    measures,
    record_measure,
    register,
)
from palladion.ledger.record import Record
from tests.lifecycle.installations import ACTOR, NOW, Made, make


@pytest.fixture
def made(tmp_path: Path) -> Made:
    return make(tmp_path)


def _record(made: Made, **changed: Any) -> str:
    told: dict[str, Any] = {
        "control": "agreements with all staff",
        "category": "agreement",
        "owner": "legal",
        "evidence": "folder 12",
        "since": date(2026, 1, 1),
        "expires": date(2026, 12, 31),
        "file": None,
        "actor": ACTOR,
    } | changed
    return record_measure(made.installation, told.pop("control"), **told)[0]


def _all(made: Made) -> list[Measure]:
    return measures(made.installation.read_ledger())


def test_a_control_is_read_from_the_ledger_as_it_was_recorded(made: Made, tmp_path: Path) -> None:
    path = tmp_path / "scan.pdf"
    path.write_bytes(b"signed")
    identifier = _record(made, file=path)
    (found,) = _all(made)
    assert (found.id, found.control, found.owner, found.category) == (
        identifier,
        "agreements with all staff",
        "legal",
        "agreement",
    )
    assert (found.evidence, found.sha256) == ("folder 12", sha256(b"signed").hexdigest())
    assert (found.since, found.expires, found.recorded) == (date(2026, 1, 1), date(2026, 12, 31), NOW)


def test_it_is_in_force_on_its_days_until_it_is_ended(made: Made) -> None:
    identifier = _record(made)
    made.clock.advance(timedelta(days=2))
    ended, receipt = end_measure(made.installation, identifier[:3], "replaced", actor=ACTOR)
    (found,) = _all(made)
    assert found == ended
    assert (found.ended_entry, found.reason) == (receipt.index, "replaced")
    moments = [
        (datetime(2025, 12, 31, 23, 59, tzinfo=UTC), "not yet"),
        (datetime(2026, 1, 1, tzinfo=UTC), "in force"),
        (made.clock.now() - timedelta(microseconds=1), "in force"),
        (made.clock.now(), "ended"),
        (datetime(2028, 1, 1, tzinfo=UTC), "ended"),
    ]
    assert [found.state(moment) for moment, _ in moments] == [state for _, state in moments]


def test_it_expires_after_its_last_day(made: Made) -> None:
    _record(made)
    (found,) = _all(made)
    assert found.state(datetime(2026, 12, 31, 23, tzinfo=UTC)) == "in force"
    assert found.state(datetime(2027, 1, 1, tzinfo=UTC)) == "expired"
    assert measure_document(found, NOW)["state"] == "in force"


@pytest.mark.slow
def test_it_cannot_be_ended_twice_or_if_it_is_not_there(made: Made) -> None:
    identifier = _record(made)
    end_measure(made.installation, identifier, "replaced", actor=ACTOR)
    with pytest.raises(ConflictError, match="was ended on 2026-06-01"):
        end_measure(made.installation, identifier, "again", actor=ACTOR)
    for unknown in ("", "zz"):
        with pytest.raises(NotFoundError, match="no measures"):
            end_measure(made.installation, unknown, "why", actor=ACTOR)


@pytest.mark.slow
def test_a_beginning_of_an_id_has_to_name_one(made: Made) -> None:
    _record(made)
    (found,) = _all(made)
    with pytest.raises(NotFoundError, match="2 measures"):
        find_measure([found, found], found.id[:1])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"control": ""}, "the control is empty"),
        ({"control": "x\x1b"}, "control characters"),
        ({"control": "x" * 201}, "201 characters"),
        ({"owner": " "}, "the owner"),
        ({"evidence": ""}, "what shows the control"),
        ({"evidence": "x" * 2001}, "2001 characters"),
        ({"category": "magic"}, "category"),
        ({"expires": date(2025, 1, 1)}, "before it begins"),
    ],
)
def test_what_cannot_be_a_control_is_refused_and_not_recorded(
    made: Made, changed: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(PalladionError, match=complaint):
        _record(made, **changed)
    assert _all(made) == []


def test_a_record_of_another_shape_is_an_error_and_of_another_kind_none() -> None:
    assert list(register(iter([(0, Record("it.was", NOW, "a", "b"))]))) == []
    with pytest.raises(FormatError, match="entry 7"):
        list(register(iter([(7, Record("measure.recorded", NOW, "a", "measure:1", {"control": "x"}))])))
    assert list(register(iter([(8, Record("measure.ended", NOW, "a", "measure:1", {"reason": "x"}))]))) == []
