"""The report says whom a route would have disturbed, and whom one did, of how many."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from palladion.ledger.record import Record
from palladion.watch.report import KINDS, Report

NOW = datetime(2026, 5, 1, tzinfo=UTC)
PATH = "/v1/models/fraud/predict"


def _report(*records: Record) -> Report:
    found = Report({PATH: "fraud"})
    found.take_all(records)
    assert {record.kind for record in records} <= KINDS
    return found


def _answer(client: str, *, mode: str = "observe", standing: str = "trusted", model: str = "fraud@1") -> Record:
    return Record("answer.given", NOW, client, model, {"queries": 3, "mode": mode, "standing": standing})


def _step(kind: str, client: str, standing: str, *, actor: str = "watch", minutes: int = 0, **more: Any) -> Record:
    details = {"from": "trusted", "to": standing, "reason": f"because {standing}", "route": PATH, **more}
    return Record(f"standing.{kind}", NOW + timedelta(minutes=minutes), actor, client, details)


def test_two_routes_of_one_model_do_not_share_the_answers_that_name_their_route() -> None:
    found = Report({PATH: "fraud", "/labels": "fraud"})
    one = _answer("client:1")
    found.take_all([replace(one, details={**one.details, "route": "/labels"}), _answer("client:2")])

    assert {route.route: (route.answers, route.clients) for route in found.routes()} == {
        PATH: (1, 1),
        "/labels": (2, 2),
    }


def test_a_client_of_concern_has_the_cause_of_its_worst_standing_in_words() -> None:
    why = {"test": "clients", "looks": "numbers", "features": [["contrast", "+4.1"]]}
    found = _report(
        _step("proposed", "client:1", "watched", cause="repeats"),
        _step("proposed", "client:1", "throttled", cause="foreign-data", why=why),
        _step("proposed", "client:2", "watched"),
    )
    first, second = found.clients()
    assert first.cause == "foreign-data"
    assert first.said.startswith(
        "by its queries beside those of honest clients; most unlike honest ones: contrast +4.1 ("
    )
    assert (second.cause, second.said) == ("", "")


def test_what_would_have_been_disturbed_is_told_as_shares() -> None:
    found = _report(
        *[_answer(f"client:{n}") for n in range(9)],
        _answer("client:thief"),
        _step("proposed", "client:thief", "watched"),
        _answer("client:thief"),
        _step("proposed", "client:thief", "throttled", minutes=1),
        _answer("client:thief"),
        _answer("client:thief", model="fraud@2"),
    )
    (route,) = found.routes()
    assert (route.route, route.model, route.enforced) == (PATH, "fraud", False)
    assert (route.clients, route.answers, route.queries) == (10, 13, 39)
    assert (route.clients_disturbed, route.share_of_clients) == (1, 0.1)
    # those after it would have been throttled, whichever version gave them
    assert (route.answers_disturbed, route.share_of_answers) == (2, 2 / 13)
    (client,) = found.clients()
    assert (client.client, client.standing, client.reason) == ("client:thief", "throttled", "because throttled")
    assert client.since == NOW + timedelta(minutes=1)


def test_answers_that_would_have_been_refused_are_counted_and_disturb_nobody() -> None:
    one = _answer("client:1")
    found = _report(one, replace(one, details={**one.details, "unlike": 2}))
    (route,) = found.routes()
    assert (route.answers, route.answers_unlike, route.clients_disturbed, route.answers_disturbed) == (2, 1, 0, 0)


def test_a_watched_client_is_named_and_not_disturbed() -> None:
    found = _report(_step("proposed", "client:odd", "watched"), _answer("client:odd"))
    (route,) = found.routes()
    assert (dict(route.by_standing), route.clients_disturbed, route.answers_disturbed) == ({"watched": 1}, 0, 0)


def test_what_was_enforced_stands_beside_it() -> None:
    found = _report(
        _step("changed", "client:thief", "degraded"),
        _answer("client:thief", mode="enforce", standing="degraded"),
        _answer("client:thief", mode="enforce", standing="watched"),
        _answer("client:other"),
    )
    observed, enforced = found.routes()
    assert (observed.enforced, observed.answers, observed.clients_disturbed) == (False, 1, 0)
    assert (enforced.enforced, enforced.answers, enforced.answers_disturbed) == (True, 2, 1)


@pytest.mark.parametrize(
    "record",
    [
        _step("changed", "client:it", "suspended", actor="user:ada"),
        _step("changed", "client:it", "trusted"),
        _step("changed", "client:it", "suspended", route=None),
    ],
    ids=["by-a-person", "raised", "of-no-route"],
)
def test_what_is_no_alarm_is_left_out(record: Record) -> None:
    assert _report(record).clients() == []


def test_a_standing_that_was_raised_since_keeps_the_worst() -> None:
    found = _report(_step("changed", "client:it", "degraded"), _step("changed", "client:it", "throttled"))
    assert [item.standing for item in found.clients()] == ["degraded"]


def test_routes_of_an_earlier_policy_are_known_from_the_start_of_the_gate() -> None:
    started = Record("gate.started", NOW, "gate", "home", {"routes": [{"path": "/old", "version": "spam@3"}]})
    (route,) = _report(started, _answer("client:it", model="spam@3")).routes()
    assert (route.route, route.model, route.answers) == ("/old", "spam", 1)


def test_refusals_are_counted_by_reason() -> None:
    refused = [
        Record("answer.refused", NOW, "gate", f"client:{n}", {"reason": "rate-limited", "requests": 5})
        for n in range(2)
    ]
    assert dict(_report(*refused).refused) == {"rate-limited": 10}


def test_memory_grows_with_clients_and_not_with_records() -> None:
    found = Report({PATH: "fraud"})
    found.take_all(_answer(f"client:{n % 5}") for n in range(20_000))
    assert found.records == 20_000
    assert sum(len(traffic.clients) for traffic in found.traffic.values()) == 5
