"""Standings: a verdict changes a client or a campaign, or is proposed once; time raises what the watch lowered."""

from dataclasses import replace
from typing import Any

import pytest

from palladion.gate import standing as module
from palladion.gate.callers import WATCH, Caller
from palladion.gate.directory import Directory
from palladion.gate.modes import Modes
from palladion.gate.standing import Standings, Step
from palladion.policy import ContractPolicy, Policy, RoutePolicy, WatchPolicy
from palladion.registry import StandingChange
from palladion.registry.rows import Standing
from palladion.watch.response import Cause, Evidence, Verdict
from palladion.watch.watch import Observation
from tests.gate.rolls import read_roll

from .gates import MODEL, House, at

ENFORCE = RoutePolicy(model=MODEL, mode="enforce")
OBSERVE = RoutePolicy(model=MODEL, mode="observe")


class Table:
    """Standings over a directory, and the calls that every test makes."""

    def __init__(self, house: House) -> None:
        self.ids = house.ids
        self.directory = Directory(house.root.derive("client-key-pepper"))
        with house.installation.open_registry() as registry, registry.read() as records:
            self.directory.load(read_roll(records))
        self.standings = Standings(self.directory, WatchPolicy(recover_hours=24), Modes(Policy()))

    def settle(
        self,
        standing: Standing,
        *,
        route: RoutePolicy = ENFORCE,
        concerned: tuple[str, ...] = ("acme",),
        cause: Cause | None = "client",
        quiet_hours: float = 0.0,
        hours: float = 0.0,
    ) -> list[Step]:
        """What a request of acme brings whose verdict asks for `standing`."""
        verdict = Verdict(standing, cause, "they are odd")
        observation = Observation(Evidence(), verdict, 1, 0, quiet_hours, calibrated=True)
        caller = self.directory.callers[self.ids["acme"]]
        clients = {self.ids[name] for name in concerned}
        return self.standings.settle(caller, clients, route, observation, at(hours))

    def put(self, standing: Standing, *, hours: float = 0.0, actor: str = WATCH) -> None:
        self.directory.change(StandingChange(self.ids["acme"], standing, "", actor, at(hours)))

    def standing(self, name: str = "acme") -> Standing:
        return self.directory.callers[self.ids[name]].standing


@pytest.fixture
def table(house: House) -> Table:
    return Table(house)


def test_nothing_unusual_changes_nothing(table: Table) -> None:
    assert table.settle("trusted", cause=None) == []
    assert table.settle("trusted", cause=None, route=OBSERVE) == []


def test_an_enforcing_route_lowers_a_client_at_once(table: Table) -> None:
    before = table.directory.callers[table.ids["acme"]]
    (step,) = table.settle("throttled")
    assert step == Step(before, StandingChange(before.id, "throttled", "they are odd", WATCH, at(0)), None)
    assert table.standing() == "throttled"
    assert table.settle("throttled") == []


def test_suspicion_alone_never_raises(table: Table) -> None:
    table.put("degraded")
    assert table.settle("watched") == []
    assert table.standing() == "degraded"


def test_a_campaigns_verdict_changes_every_member_that_stands_better(table: Table) -> None:
    table.settle("degraded", concerned=("globex",))
    steps = table.settle("throttled", concerned=("acme", "globex", "initech"), cause="campaign")
    assert sorted(step.change.client for step in steps) == sorted([table.ids["acme"], table.ids["initech"]])
    assert [table.standing(name) for name in ("acme", "globex", "initech", "brief")] == [
        *("throttled", "degraded", "throttled", "trusted")
    ]


ALL = ("acme", "globex", "initech")


def _looked_at(table: Table, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The clients that are looked at from now on."""
    seen: list[str] = []
    target = table.standings._target

    def look(known: Caller, *arguments: Any) -> Standing:
        seen.append(known.id)
        return target(known, *arguments)

    monkeypatch.setattr(table.standings, "_target", look)
    return seen


@pytest.mark.parametrize("route", [ENFORCE, OBSERVE])
def test_members_whom_a_verdict_changes_no_more_are_not_looked_through_again(
    table: Table, monkeypatch: pytest.MonkeyPatch, route: RoutePolicy
) -> None:
    for _ in range(2):
        table.settle("throttled", route=route, concerned=ALL, cause="campaign")
    seen = _looked_at(table, monkeypatch)
    for _ in range(3):
        assert table.settle("throttled", route=route, concerned=ALL, cause="campaign") == []
    assert seen == [table.ids["acme"]] * 3


@pytest.mark.parametrize("route", [ENFORCE, OBSERVE])
def test_members_are_looked_through_again_when_the_verdict_or_the_members_are_others(
    table: Table, route: RoutePolicy
) -> None:
    for _ in range(2):
        table.settle("throttled", route=route, concerned=ALL, cause="campaign")
    assert len(table.settle("throttled", route=route, concerned=(*ALL, "brief"), cause="campaign")) == 1
    assert len(table.settle("degraded", route=route, concerned=ALL, cause="campaign")) == 3
    other = RoutePolicy(model="other", mode="observe")
    assert len(table.settle("suspended", route=other, concerned=ALL, cause="campaign")) == 3


def test_a_member_that_a_person_raised_is_lowered_again(table: Table) -> None:
    for _ in range(3):
        table.settle("throttled", concerned=ALL, cause="campaign")
    table.directory.change(StandingChange(table.ids["globex"], "trusted", "", "user:ada", at(0)))
    (step,) = table.settle("throttled", concerned=ALL, cause="campaign")
    assert step.change.client == table.ids["globex"]


@pytest.mark.parametrize("how", ["forget", "revert"])
def test_a_member_whose_proposal_was_taken_back_is_proposed_again(table: Table, how: str) -> None:
    steps = table.settle("throttled", route=OBSERVE, concerned=ALL, cause="campaign")
    table.settle("throttled", route=OBSERVE, concerned=ALL, cause="campaign")
    if how == "forget":
        table.standings.forget(table.ids["globex"])
    else:
        table.standings.revert([step for step in steps if step.change.client == table.ids["globex"]])
    (step,) = table.settle("throttled", route=OBSERVE, concerned=ALL, cause="campaign")
    assert step.change.client == table.ids["globex"]


def test_what_is_remembered_of_campaigns_has_a_limit(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SETTLED_MEMBERS_MAX", 5)
    for concerned in (ALL, ("acme", "globex"), ("acme", "initech")) * 2:
        table.settle("throttled", concerned=concerned, cause="campaign")
        assert sum(len(item[-1]) for item in table.standings._settled) <= 5
    assert table.standings._settled != set()


def test_a_member_that_was_revoked_is_left_out(table: Table) -> None:
    verdict = Verdict("throttled", "campaign", "")
    observation = Observation(Evidence(), verdict, 1, 0, 0.0, calibrated=True)
    caller = table.directory.callers[table.ids["acme"]]
    steps = table.standings.settle(caller, {"gone", caller.id}, ENFORCE, observation, at(0))
    assert [step.change.client for step in steps] == [caller.id]


def test_an_observing_route_only_proposes_and_does_it_once(table: Table) -> None:
    (step,) = table.settle("throttled", route=OBSERVE)
    assert (step.change.standing, step.proposed_on) == ("throttled", OBSERVE.route)
    assert table.standing() == "trusted"
    assert table.settle("throttled", route=OBSERVE) == []
    assert table.settle("watched", route=OBSERVE) == []


def test_what_is_worse_than_proposed_is_proposed_again(table: Table) -> None:
    standings: list[Standing] = ["watched", "throttled", "throttled", "suspended"]
    proposed = [[step.change.standing for step in table.settle(standing, route=OBSERVE)] for standing in standings]
    assert proposed == [["watched"], ["throttled"], [], ["suspended"]]


def test_each_observing_route_proposes_for_itself(table: Table) -> None:
    other = RoutePolicy(model="other", mode="observe")
    assert table.settle("throttled", route=OBSERVE) != []
    assert table.settle("throttled", route=other) != []


def test_what_a_client_is_already_is_not_proposed(table: Table) -> None:
    table.put("degraded")
    assert table.settle("throttled", route=OBSERVE) == []


def test_after_a_person_forgave_a_client_proposals_begin_anew(table: Table) -> None:
    table.settle("throttled", route=OBSERVE)
    table.settle("throttled", route=OBSERVE, concerned=("globex",))
    table.standings.forget(table.ids["acme"])
    assert table.settle("throttled", route=OBSERVE) != []
    assert table.settle("throttled", route=OBSERVE, concerned=("globex",)) == []


def test_quiet_hours_raise_what_the_watch_lowered_by_one_step(table: Table) -> None:
    table.put("degraded")
    assert table.settle("trusted", cause=None, quiet_hours=23.9, hours=100) == []
    (step,) = table.settle("trusted", cause=None, quiet_hours=24, hours=100)
    assert (step.change.standing, step.raised) == ("throttled", True)
    assert step.change.reason == "nothing suspicious for 24 hours"
    # the next step up needs as many hours again
    assert table.settle("trusted", cause=None, quiet_hours=1000, hours=123) == []
    assert table.settle("trusted", cause=None, quiet_hours=1000, hours=124) != []


def test_time_does_not_raise_what_a_person_lowered(table: Table) -> None:
    table.put("throttled", actor="user:ada")
    assert table.settle("trusted", cause=None, quiet_hours=1000, hours=1000) == []


def test_time_lifts_no_suspension(table: Table) -> None:
    table.put("suspended")
    assert table.settle("trusted", cause=None, quiet_hours=1000, hours=1000) == []


def test_time_raises_the_one_who_asks_and_no_other_member(table: Table) -> None:
    for name in ("acme", "globex"):
        table.directory.change(StandingChange(table.ids[name], "throttled", "", WATCH, at(0)))
    table.settle("trusted", cause="campaign", concerned=("acme", "globex"), quiet_hours=1000, hours=1000)
    assert (table.standing("acme"), table.standing("globex")) == ("watched", "throttled")


def test_what_could_not_be_recorded_is_taken_back_and_asked_for_again(table: Table) -> None:
    before = table.directory.callers[table.ids["acme"]]
    steps = table.settle("throttled")
    table.standings.revert(steps)
    assert table.directory.callers[before.id] == before
    assert table.settle("throttled", hours=1) != []


def test_a_proposal_that_could_not_be_recorded_is_made_again(table: Table) -> None:
    steps = table.settle("throttled", route=OBSERVE)
    table.standings.revert(steps)
    assert table.settle("throttled", route=OBSERVE) != []


def test_taking_back_does_not_undo_what_came_later(table: Table) -> None:
    steps = table.settle("throttled")
    table.put("suspended", hours=1, actor="user:ada")
    table.standings.revert(steps)
    assert table.standing() == "suspended"
    table.standings.revert([replace(steps[0], change=replace(steps[0].change, client="gone"))])


@pytest.fixture
def bound(table: Table) -> Table:
    """A table at which acme has a contract."""
    table.standings.renew(WatchPolicy(recover_hours=24), Modes(Policy()), contracts={("acme", "acme")})
    return table


def test_a_client_with_a_contract_is_degraded_at_most_and_a_person_asked_once(bound: Table) -> None:
    asked, made = bound.settle("suspended")
    assert (asked.change.standing, asked.proposed_on, asked.for_a_person) == ("suspended", ENFORCE.route, True)
    assert (made.change.standing, made.proposed_on, made.for_a_person) == ("degraded", None, False)
    assert (asked.change.reason, made.change.reason) == ("they are odd", f"they are odd; {module.UNDER_CONTRACT}")
    assert bound.standing() == "degraded"
    assert bound.settle("suspended", hours=1) == []


def test_a_client_with_a_contract_that_is_degraded_already_is_asked_about(bound: Table) -> None:
    (first,) = bound.settle("degraded")
    (asked,) = bound.settle("suspended")
    assert (first.change.standing, asked.change.standing, asked.for_a_person) == ("degraded", "suspended", True)
    assert bound.standing() == "degraded"


def test_other_steps_of_a_client_with_a_contract_are_the_gates(bound: Table) -> None:
    (step,) = bound.settle("throttled")
    assert (step.change.standing, step.change.reason, step.for_a_person) == ("throttled", "they are odd", False)


def test_a_contract_of_one_member_keeps_no_other_of_a_campaign_from_being_suspended(bound: Table) -> None:
    steps = bound.settle("suspended", concerned=ALL, cause="campaign")
    after = {step.change.client: step.change.standing for step in steps if step.proposed_on is None}
    assert after == {bound.ids[name]: "degraded" if name == "acme" else "suspended" for name in ALL}
    assert bound.settle("suspended", concerned=ALL, cause="campaign") == []


def test_what_a_person_decided_about_a_client_with_a_contract_stays(bound: Table) -> None:
    bound.put("suspended", actor="ada")
    assert bound.settle("suspended") == []
    assert bound.standing() == "suspended"


def test_a_client_with_a_contract_that_rose_is_asked_about_anew(bound: Table) -> None:
    bound.settle("suspended")
    (step,) = bound.settle("trusted", cause=None, quiet_hours=1000, hours=1000)
    assert (step.raised, bound.standing()) == (True, "throttled")
    assert [step.for_a_person for step in bound.settle("suspended", hours=1001)] == [True, False]


def test_a_question_to_a_person_that_could_not_be_recorded_is_asked_again(bound: Table) -> None:
    bound.standings.revert(bound.settle("suspended"))
    assert bound.standing() == "trusted"
    assert [step.for_a_person for step in bound.settle("suspended", hours=1)] == [True, False]


def test_a_route_that_observes_asks_no_person(bound: Table) -> None:
    (step,) = bound.settle("suspended", route=OBSERVE)
    assert (step.proposed_on, step.for_a_person) == (OBSERVE.route, False)


def test_a_campaign_of_observed_clients_is_looked_through_anew_once_they_are_enforced(table: Table) -> None:
    def renew(mode: Any) -> None:
        contract = ContractPolicy(client="globex", mode=mode)
        table.standings.renew(WatchPolicy(recover_hours=24), Modes(Policy(contract=(contract,))), contracts=())

    renew("observe")
    both = ("acme", "globex")
    changed, proposed = table.settle("throttled", concerned=both, cause="campaign")
    assert {changed.proposed_on, proposed.proposed_on} == {None, ENFORCE.route}
    assert table.settle("throttled", concerned=both, cause="campaign") == []
    renew("enforce")
    (step,) = table.settle("throttled", concerned=both, cause="campaign")
    assert (step.change.client, step.proposed_on) == (table.ids["globex"], None)
    assert table.standing("globex") == "throttled"


def test_so_many_proposals_are_remembered_and_the_oldest_is_made_again(
    table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PROPOSED_MAX", 1)
    assert len(table.settle("throttled", route=OBSERVE)) == 1
    assert table.settle("throttled", route=OBSERVE) == []
    assert len(table.settle("throttled", route=OBSERVE, concerned=("globex",))) == 1
    assert len(table.settle("throttled", route=OBSERVE)) == 1
