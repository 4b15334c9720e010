"""Verdicts: who was found to be honest counts as that, until something newer speaks against it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.incident.cases import open_case
from palladion.incident.verdicts import cleared_since, close_case, honest_clients
from palladion.ledger.record import decode_record
from palladion.lifecycle.clients import add_client as register
from palladion.registry import Records, Registry
from palladion.registry.rows import CaseVerdict, Standing
from tests.lifecycle.installations import ACTOR, NOW, Made, make
from tests.registry.factories import add_client


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(NOW)


@pytest.fixture
def records(tmp_path: Path, clock: ManualClock) -> Iterator[Records]:
    """A transaction of a new registry, at a clock that a test moves."""
    with Registry.open(tmp_path / "registry.sqlite", clock) as registry, registry.write() as opened:
        yield opened


def _close(records: Records, clock: ManualClock, verdict: CaseVerdict | None, *clients: str, cleared: int = 0) -> str:
    """A case about clients, closed an hour later; the first `cleared` of them were honest."""
    case = records.incidents.open("a case", actor=ACTOR, clients=clients).id
    clock.advance(timedelta(hours=1))
    records.incidents.close(case, actor=ACTOR, finding="x", verdict=verdict, cleared=clients[:cleared])
    clock.advance(timedelta(hours=1))
    return case


def _lower(records: Records, client: str, standing: Standing, actor: str = "watch") -> None:
    records.standings.change(client, standing, reason="odd", actor=actor)


def test_who_was_cleared_is_honest_and_nobody_else(records: Records, clock: ManualClock) -> None:
    one, two, three = (add_client(records, name).id for name in ("one", "two", "three"))
    _lower(records, one, "suspended")
    first = _close(records, clock, "theft", one, two, cleared=1)
    _close(records, clock, None, three)
    (found,) = honest_clients(records)
    assert (found.client, found.incident, found.closed_at) == (one, first, NOW + timedelta(hours=1))


def test_a_newer_case_speaks_against_a_client_open_or_closed(records: Records, clock: ManualClock) -> None:
    one, two, three = (add_client(records, name).id for name in ("one", "two", "three"))
    _close(records, clock, "false-alarm", one, two, three, cleared=3)
    assert {item.client for item in honest_clients(records)} == {one, two, three}
    _close(records, clock, "theft", one)
    records.incidents.open("again", actor=ACTOR, clients=[two])
    assert {item.client for item in honest_clients(records)} == {three}


def test_a_newer_verdict_clears_again(records: Records, clock: ManualClock) -> None:
    one = add_client(records).id
    _close(records, clock, "theft", one)
    second = _close(records, clock, "false-alarm", one, cleared=1)
    assert [item.incident for item in honest_clients(records)] == [second]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("standing", "actor", "honest"),
    [
        ("throttled", "watch", False),
        ("degraded", "watch", False),
        ("watched", "watch", True),
        ("throttled", "ada", True),
    ],
)
def test_what_the_watch_sees_later_speaks_against_a_client(
    records: Records, clock: ManualClock, standing: Standing, actor: str, honest: bool
) -> None:
    one = add_client(records).id
    _close(records, clock, "false-alarm", one, cleared=1)
    _lower(records, one, standing, actor)
    assert [item.client for item in honest_clients(records)] == ([one] if honest else [])


def test_those_cleared_are_counted_once_in_cases_closed_since(records: Records, clock: ManualClock) -> None:
    one, two = (add_client(records, name).id for name in ("one", "two"))
    _close(records, clock, "false-alarm", one, cleared=1)
    begin = clock.now()
    _close(records, clock, "false-alarm", one, two, cleared=2)
    _close(records, clock, "false-alarm", one, cleared=1)
    assert [cleared_since(records, moment) for moment in (NOW, begin, clock.now())] == [2, 2, 0]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    made = make(tmp_path_factory.mktemp("verdicts"))
    for name in ("web", "app"):
        register(made.installation, "acme", name, models=[], environment="test", expires=None, actor=ACTOR)
    return made


@pytest.mark.slow
@pytest.mark.parametrize(
    ("verdict", "honest", "cleared"),
    [("false-alarm", [], ["web", "app"]), ("theft", ["acme/app"], ["app"]), ("test", [], []), ("unclear", [], [])],
)
def test_a_verdict_is_recorded_with_pseudonyms_of_the_honest(
    made: Made, verdict: CaseVerdict, honest: list[str], cleared: list[str]
) -> None:
    case, _ = open_case(made.installation, "a case", ["acme/web", "acme/app"], text="", actor=ACTOR)
    closed, receipt = close_case(made.installation, case.id, "what it was", verdict, honest=honest, actor=ACTOR)
    with made.installation.open_registry() as registry, registry.read() as records:
        ids = [records.clients.named("acme", name).id for name in cleared]
        assert records.incidents.get(case.id) == closed
    assert (closed.state, closed.verdict, closed.finding) == ("closed", verdict, "what it was")
    assert closed.cleared == tuple(sorted(ids))
    record = decode_record(made.installation.read_ledger().entry(receipt.index), what="it")
    key = made.installation.open_gate_root().derive("pseudonyms")
    assert (record.kind, record.subject, record.actor) == ("incident.closed", f"incident:{case.id}", ACTOR)
    assert record.details == {
        "text": "what it was",
        "verdict": verdict,
        "cleared": sorted(pseudonym(key, client) for client in ids),
    }


def test_a_verdict_needs_a_sentence_a_client_of_the_case_and_an_open_case(made: Made) -> None:
    case, _ = open_case(made.installation, "a case", ["acme/web"], text="", actor=ACTOR)
    with pytest.raises(PalladionError, match="a sentence is needed"):
        close_case(made.installation, case.id, " ", "theft", actor=ACTOR)
    with pytest.raises(NotFoundError, match="does not concern acme/app"):
        close_case(made.installation, case.id, "x", "theft", honest=["acme/app"], actor=ACTOR)
    close_case(made.installation, case.id, "x", "theft", actor=ACTOR)
    with pytest.raises(ConflictError, match="is closed"):
        close_case(made.installation, case.id, "x", "false-alarm", actor=ACTOR)
