"""Rows from entries that are not as one would like them: later ones, many, of odd shapes, of releases to come."""

from dataclasses import replace
from typing import Any

import pytest

from palladion.incident.dossier import telling as module
from palladion.incident.dossier.gather import _model
from palladion.incident.dossier.history import Entry, History, read_history
from palladion.incident.dossier.names import Names
from palladion.incident.dossier.telling import Registered, Telling

from .stories import Story


@pytest.fixture
def history(story: Story) -> History:
    return read_history(story.made.installation.read_ledger(), story.case, frozenset(story.accounts))


def _telling(story: Story, history: History, names: Names | None = None) -> Telling:
    with story.made.installation.open_registry() as registry, registry.read() as records:
        case = records.incidents.get(story.case)
        models = [_model(records, history, "house")]
    return Telling(Registered(case, names or Names({}), {}, {}, models), history, story.made.clock.now())


def _replace(history: History, kind: str, **details: Any) -> Entry:
    """Put other details into the first entry of a kind."""
    entry = next(history.of(kind))
    other = Entry(entry.index, entry.data, replace(entry.record, details={**entry.record.details, **details}))
    history.entries[history.entries.index(entry)] = other
    return other


def test_a_version_that_was_protected_after_the_suspect_was_acquired_does_not_precede(
    story: Story, history: History
) -> None:
    assert {row.precedes for row in _telling(story, history).commitments()} == {True}
    custody = next(history.of("custody.recorded"))
    history.entries[history.entries.index(custody)] = replace(custody, index=1)
    assert {row.precedes for row in _telling(story, history).commitments()} == {False}


def test_clients_that_are_called_like_fields_or_years_take_nothing_from_a_control(
    story: Story, history: History
) -> None:
    (plain,) = _telling(story, history).controls()
    odd = Names(dict.fromkeys([*plain, "2026", "ended"], "client-name:1"))
    (covered,) = _telling(story, history, odd).controls()
    assert covered.keys() == plain.keys()
    assert [covered[name] for name in ("recorded", "ended")] == [plain[name] for name in ("recorded", "ended")]
    assert covered["since"] == "client-name:1-01-01"


def test_without_an_acquisition_nothing_is_said_of_before(story: Story, history: History) -> None:
    _replace(history, "custody.recorded", step="examined")
    assert {row.precedes for row in _telling(story, history).commitments()} == {None}


def test_of_a_long_timeline_the_middle_is_left_out_and_that_is_said(
    story: Story, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, _ = _telling(story, history).timeline()
    monkeypatch.setattr(module, "TIMELINE_MAX", 6)
    cut, left_out = _telling(story, history).timeline()
    assert cut == [*whole[:3], *whole[-3:]]
    assert left_out == len(whole) - 6


def test_a_test_before_the_case_counts_where_its_suspect_is_in_custody(story: Story, history: History) -> None:
    first, second, odd = history.of("mark.tested")
    early = _telling(story, history)._case.opened_at.replace(year=2020)
    for entry in (first, odd):
        at = history.entries.index(entry)
        history.entries[at] = replace(entry, record=replace(entry.record, time=early))
    rows = _telling(story, history).comparison()
    assert [(row.entry, row.exhibit) for row in rows] == [(first.index, True), (second.index, True)]


@pytest.mark.parametrize(
    "details",
    [
        {"versions": None, "tested": "many", "looked_for": ["x"]},
        {"versions": [5, "x"], "suspect": 5},
        {"versions": [{"version": 5, "log10_p": []}]},
        {"versions": [{"version": "house@1", "log10_p": "-1", "recipients": 3, "accused": "all"}]},
    ],
)
def test_a_test_of_a_shape_that_is_not_known_is_shown_as_it_is(
    story: Story, history: History, details: dict[str, Any]
) -> None:
    _replace(history, "mark.tested", **details)
    row = _telling(story, history).comparison()[0]
    assert row.results
    assert isinstance(row.tested, int)


def test_a_gate_and_a_version_of_later_releases_are_no_stumbling_block(story: Story, history: History) -> None:
    _replace(history, "gate.started", routes={"a": 1})
    _replace(history, "model.protected", marks=["x", {"kind": "later"}])
    told = _telling(story, history)
    gate = told.gate()
    assert gate is not None
    assert gate.routes == []
    assert told.commitments()[0].what == "content of the version"


def test_what_is_cited_is_what_was_told(story: Story, history: History) -> None:
    told = _telling(story, history)
    assert told.cited == {}
    rows = told.custody()
    assert told.cited.keys() == {row.entry for row in rows}
