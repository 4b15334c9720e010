"""Why a standing changed is in its record, of all members of a campaign, and in that of the case that it opens."""

from collections.abc import Iterable
from datetime import timedelta

import pytest

from palladion.errors import StorageError
from palladion.gate import whys as module
from palladion.gate.whys import Whys
from palladion.policy import RoutePolicy
from palladion.watch.explanation import Explanation
from palladion.watch.response import Verdict
from palladion.watch.why import Unlike

from .gates import MODEL, TRUSTED, Bench, House, open_gate

ODD = Unlike("clients", "numbers", (("contrast", 4.07),))
WHY = {"test": "clients", "looks": "numbers", "features": [["contrast", "+4.1"]]}


def _explained(model: str, unlike: Unlike, p_value: float = 0.01) -> Explanation:
    return Explanation(model, 9, 1.0, p_value, 1.0, ("a",), 1, 1, (), None, unlike)


@pytest.fixture
def bench(house: House, monkeypatch: pytest.MonkeyPatch) -> Bench:
    bench = open_gate(house)
    found = [_explained("other", Unlike("past"), 0.001), _explained(MODEL, ODD)]
    monkeypatch.setattr(bench.watch, "explain", lambda _client: found)
    return bench


def _ask(bench: Bench, verdict: Verdict, client: str = "acme") -> None:
    bench.watch.verdict = verdict
    bench.ask(client=client)


def test_a_change_says_its_cause_the_test_and_what_was_unlike(bench: Bench) -> None:
    _ask(bench, Verdict("degraded", "client", "they are odd"))
    (changed,) = (record for record in bench.journal.records if record.kind == "standing.changed")
    assert (changed.details["cause"], changed.details["why"]) == ("foreign-data", WHY)


@pytest.mark.parametrize(("cause", "test"), [("budget", "budget"), ("decoy", "decoy")])
def test_what_does_not_rest_on_queries_tells_none_of_them(bench: Bench, cause: str, test: str) -> None:
    _ask(bench, Verdict("degraded", cause, "they are odd"))  # type: ignore[arg-type]
    assert bench.journal.records[0].details["why"] == {"test": test}


def test_all_members_of_a_campaign_have_the_why_of_the_one_who_asked(bench: Bench) -> None:
    bench.watch.linked = frozenset(bench.house.ids[name] for name in ("acme", "initech"))
    _ask(bench, Verdict("suspended", "campaign", "they are odd together"))
    changed = [record.details for record in bench.journal.records if record.kind == "standing.changed"]
    assert [(item["cause"], item["why"]["test"]) for item in changed] == [("campaign", "group")] * 2
    why = bench.gate.stages.whys.of_case([bench.house.ids["initech"]])
    assert why is not None
    assert why.details() == {"cause": "campaign", "why": {**WHY, "test": "group"}}
    assert bench.gate.stages.whys.of_case([bench.house.ids["brief"]]) is None


def test_a_proposal_has_a_why_and_a_standing_that_rises_has_none(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = open_gate(house, RoutePolicy(model=MODEL, mode="observe"))
    monkeypatch.setattr(bench.watch, "explain", lambda _client: [_explained(MODEL, ODD)])
    _ask(bench, Verdict("degraded", "client", "they are odd"))
    assert (bench.kinds[0], bench.journal.records[0].details["why"]) == ("standing.proposed", WHY)
    risen = open_gate(house)
    risen.put("throttled", actor="watch")
    risen.clock.advance(timedelta(hours=1000))
    _ask(risen, TRUSTED)
    assert risen.kinds[0] == "standing.changed"
    assert not {"cause", "why"} & risen.journal.records[0].details.keys()


def test_who_rises_while_others_fall_has_no_why(bench: Bench) -> None:
    bench.put("throttled", actor="watch")
    bench.clock.advance(timedelta(hours=1000))
    bench.watch.linked = frozenset(bench.house.ids[name] for name in ("acme", "initech"))
    _ask(bench, Verdict("watched", "campaign", "they are odd together"))
    told = {record.details["from"]: record.details for record in bench.journal.records if "from" in record.details}
    assert (told["throttled"]["to"], told["trusted"]["to"]) == ("watched", "watched")
    assert "why" not in told["throttled"]
    assert told["trusted"]["why"]["test"] == "group"


def test_a_state_that_cannot_be_read_keeps_nobody_from_being_suspended(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_client: str) -> list[Explanation]:
        raise StorageError("the registry is gone")

    monkeypatch.setattr(bench.watch, "explain", fail)
    _ask(bench, Verdict("suspended", "client", "they are odd"))
    assert bench.standing() == "suspended"
    assert bench.journal.records[0].details["cause"] == "client"


def test_a_model_that_the_watch_does_not_know_is_explained_by_the_most_unusual_one(bench: Bench) -> None:
    whys = Whys(lambda: bench.watch)
    unlike = whys._unlike("acme", "third")
    assert unlike == Unlike("past")


def test_of_very_many_the_last_are_remembered(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KEPT_MAX", 1)
    whys = bench.gate.stages.whys
    bench.watch.linked = frozenset(bench.house.ids[name] for name in ("acme", "initech"))
    _ask(bench, Verdict("suspended", "campaign", "they are odd together"))

    def known(names: Iterable[str]) -> int:
        return sum(whys.of_case([bench.house.ids[name]]) is not None for name in names)

    assert known(("acme", "initech")) == 1
