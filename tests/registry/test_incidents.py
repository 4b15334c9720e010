"""Cases from open to closed, and their timelines."""

from datetime import timedelta

import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.registry import IncidentEvent, Registry
from tests.registry.factories import add_client


def test_a_case_lives_from_open_to_closed(registry: Registry, clock: ManualClock) -> None:
    start = clock.now()
    with registry.write() as records:
        client = add_client(records).id
        case = records.incidents.open("digits is being extracted", actor="watch", clients=[client, client], text="seen")
        assert (case.state, case.clients, case.opened_at, case.closed_at) == ("open", (client,), start, None)
        clock.advance(timedelta(minutes=5))
        assert records.incidents.acknowledge(case.id, actor="ada").state == "acknowledged"
        records.incidents.record(case.id, "acted", "suspended the client", actor="ada")
        records.incidents.record(case.id, "noted", "called the customer", actor="ada")
        closed = records.incidents.close(case.id, actor="grace", finding="extraction, stopped at 3 %")
    assert (closed.state, closed.closed_at, closed.finding) == ("closed", clock.now(), "extraction, stopped at 3 %")
    with registry.read() as records:
        assert records.incidents.get(case.id) == closed
        assert records.incidents.timeline(case.id) == [
            IncidentEvent(case.id, "opened", "seen", "watch", start),
            IncidentEvent(case.id, "acknowledged", "", "ada", clock.now()),
            IncidentEvent(case.id, "acted", "suspended the client", "ada", clock.now()),
            IncidentEvent(case.id, "noted", "called the customer", "ada", clock.now()),
            IncidentEvent(case.id, "closed", "extraction, stopped at 3 %", "grace", clock.now()),
        ]


def test_cases_are_listed_by_age_state_and_client(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        one, other = add_client(records, "one").id, add_client(records, "other").id
        first = records.incidents.open("first", actor="watch", clients=[one, other]).id
        clock.advance(timedelta(minutes=1))
        second = records.incidents.open("second", actor="watch", clients=[one]).id
        records.incidents.close(first, actor="ada", finding="nothing")
        assert [case.id for case in records.incidents.all()] == [first, second]
        assert [case.id for case in records.incidents.all(state="open")] == [second]
        assert [case.id for case in records.incidents.of_client(other)] == [first]
        assert records.incidents.get(first).clients == tuple(sorted([one, other]))


def test_a_closed_case_stays_closed(registry: Registry) -> None:
    with registry.write() as records:
        case = records.incidents.open("a case", actor="ada").id
        records.incidents.close(case, actor="ada", finding="a test")
        for attempt in (
            lambda: records.incidents.acknowledge(case, actor="ada"),
            lambda: records.incidents.record(case, "noted", "late", actor="ada"),
            lambda: records.incidents.close(case, actor="ada", finding="again"),
        ):
            with pytest.raises(ConflictError, match="is closed"):
                attempt()
        assert len(records.incidents.timeline(case)) == 2


def test_a_case_is_acknowledged_once(registry: Registry) -> None:
    with registry.write() as records:
        case = records.incidents.open("a case", actor="ada").id
        records.incidents.acknowledge(case, actor="ada")
        with pytest.raises(ConflictError, match="is acknowledged already"):
            records.incidents.acknowledge(case, actor="grace")


def test_an_unknown_case_or_client_is_refused(registry: Registry) -> None:
    with registry.write() as records, pytest.raises(NotFoundError, match="no incident with the id 'x'"):
        records.incidents.timeline("x")
    with pytest.raises(NotFoundError, match="no client with the id 'x'"), registry.write() as records:
        records.incidents.open("a case", actor="ada", clients=["x"])
    with registry.read() as records:
        assert records.incidents.all() == []


def test_a_case_takes_in_clients_each_once_and_another_title(registry: Registry) -> None:
    with registry.write() as records:
        one, two, three = (add_client(records, name).id for name in ("one", "two", "three"))
        case = records.incidents.open("a case", actor="ada", clients=[one]).id
        assert records.incidents.add_clients(case, [three, one, two, three]) == (three, two)
        assert records.incidents.get(case).clients == tuple(sorted([one, two, three]))
        assert records.incidents.add_clients(case, [two], title="another") == ()
        assert records.incidents.get(case).title == "another"
        for wrong in ("", "two\nlines"):
            with pytest.raises(PalladionError, match="the title"):
                records.incidents.add_clients(case, [], title=wrong)
        with pytest.raises(NotFoundError, match="no client with the id 'x'"):
            records.incidents.add_clients(case, ["x"])
        records.incidents.close(case, actor="ada", finding="a test")
        with pytest.raises(ConflictError, match="is closed"):
            records.incidents.add_clients(case, [two])


def test_the_last_event_of_each_case_is_known(registry: Registry) -> None:
    with registry.write() as records:
        first, second = (records.incidents.open(title, actor="ada").id for title in ("first", "second"))
        records.incidents.record(first, "noted", "seen again", actor="grace")
        found = records.incidents.last_events()
    assert {case: (event.kind, event.actor) for case, event in found.items()} == {
        first: ("noted", "grace"),
        second: ("opened", "ada"),
    }


def test_a_case_is_closed_with_a_verdict_and_with_those_who_were_honest(registry: Registry) -> None:
    with registry.write() as records:
        one, two = (add_client(records, name).id for name in ("one", "two"))
        case = records.incidents.open("a case", actor="ada", clients=[one, two]).id
        assert (records.incidents.get(case).verdict, records.incidents.get(case).cleared) == (None, ())
        closed = records.incidents.close(case, actor="ada", finding="one of two", verdict="theft", cleared=[two, two])
    assert (closed.verdict, closed.cleared) == ("theft", (two,))
    with registry.read() as records:
        assert records.incidents.all(state="closed") == [closed]
        assert records.incidents.of_client(one) == [closed]


def test_nobody_is_cleared_whom_a_case_does_not_concern_and_no_verdict_made_up(registry: Registry) -> None:
    with registry.write() as records:
        one, other = (add_client(records, name).id for name in ("one", "other"))
        case = records.incidents.open("a case", actor="ada", clients=[one]).id
        with pytest.raises(ConflictError, match="does not concern client"):
            records.incidents.close(case, actor="ada", finding="x", verdict="theft", cleared=[other])
        with pytest.raises(PalladionError, match="the verdict is 'guilty'"):
            records.incidents.close(case, actor="ada", finding="x", verdict="guilty")  # type: ignore[arg-type]
        assert records.incidents.get(case).state == "open"


def test_a_case_needs_a_title_and_an_actor(registry: Registry) -> None:
    with pytest.raises(PalladionError, match="the title"), registry.write() as records:
        records.incidents.open("", actor="ada")
    with pytest.raises(PalladionError, match="the actor"), registry.write() as records:
        records.incidents.open("a case", actor="")
