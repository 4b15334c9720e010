"""Budgets: reserved before, settled after, and never passed, however many ask at once."""

from collections import Counter
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.clock import ManualClock
from palladion.gate.budgets import ORGANISATION, STEP_TOKENS, WEIGHTS, Budgets, Reservation, heaviest, weight
from palladion.gate.callers import Caller
from palladion.gate.contract import Contract
from palladion.gate.disclosure import LEVELS, Level, Terms
from palladion.gate.places import Places
from palladion.gate.problems import Problem
from palladion.gate.rates import WHOSE
from palladion.policy import ContractPolicy, EgressPolicy, LimitsPolicy, Policy, RoutePolicy
from tests.lifecycle.installations import NOW

from .callers import caller

SECONDS = 20.0


@dataclass(eq=False)
class Budgeted:
    """Budgets with a clock."""

    policy: Policy
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    refused: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.places = Places(self.policy, self.refused)
        self.budgets = Budgets(self.policy, self.clock, self.places, refused=self.refused)

    def open(self, asker: Caller | None = None, **amounts: float) -> Reservation:
        held = self.budgets.open(asker or caller(), "fraud", seconds=SECONDS)
        held.reserve(**amounts)
        return held

    def spent(self, asker: Caller | None = None) -> tuple[float, ...]:
        return tuple(self.budgets.spent((asker or caller()).id)[1])[:3]

    def after(self, **time: float) -> "Budgeted":
        self.clock.advance(timedelta(**time))
        return self


def budgeted(*contracts: ContractPolicy, **limits: Any) -> Budgeted:
    return Budgeted(Policy(limits=LimitsPolicy(**limits), contract=contracts))


def refusal(gate: Budgeted, asker: Caller | None = None, **amounts: float) -> Problem:
    with pytest.raises(Problem) as refused:
        gate.open(asker, **amounts)
    return refused.value


# --- what a budget allows


def test_without_budgets_nothing_is_counted() -> None:
    gate = budgeted()
    gate.open(queries=10**12, tokens=10**12).settle()
    assert gate.spent() == (0, 0, 0)
    assert gate.budgets.changed == set()


@pytest.mark.parametrize("unit", ["queries", "tokens", "information"])
@pytest.mark.parametrize("whose", ["client", "organisation"])
def test_what_is_spent_is_refused_until_the_day_is_over(unit: str, whose: str) -> None:
    gate = budgeted(**{f"{'organisation_' if whose == 'organisation' else ''}{unit}_per_day": 10})
    amounts = [dict[str, Any](**{unit: amount}) for amount in (2, 3, 8, 10)]
    gate.open(**amounts[2]).settle(8, queries=8, information=8)
    problem = refusal(gate, **amounts[1])
    assert (problem.kind, problem.status) == ("budget-spent", 429)
    assert problem.detail == f"today's budget of {unit} of this {whose} has less left than the request needs"
    assert gate.refused == {f"{whose}-{unit}": 1}
    gate.open(**amounts[0]).release()
    gate.after(seconds=problem.retry_after_seconds - 1)
    refusal(gate, **amounts[1])
    gate.after(seconds=1).open(**amounts[3])


def test_answers_are_counted_when_they_left_and_the_one_that_passes_the_budget_is_the_last() -> None:
    contract = ContractPolicy(client="acme", queries_per_day=100)
    gate = Budgeted(Policy(egress=EgressPolicy(answer_fraction_per_day=0.5), contract=(contract,)))
    gate.open(queries=1).settle(answers=0.4)
    gate.open(queries=1).settle(answers=0.2)
    problem = refusal(gate, queries=1)
    assert problem.detail == "today's budget of answers of this client has less left than the request needs"
    assert gate.refused == {"client-answers": 1}
    gate.open(caller("other"), queries=1)
    # and after a restart, until the day is over
    again = Budgeted(gate.policy, gate.clock)
    again.budgets.restore(caller().id, "acme", *gate.budgets.spent(caller().id))
    refusal(again, queries=1)
    again.after(seconds=problem.retry_after_seconds).open(queries=1)


def test_the_time_to_wait_ends_at_midnight_in_utc() -> None:
    gate = budgeted(queries_per_day=1)
    gate.open(queries=1).settle()
    moment = gate.clock.now() + timedelta(seconds=refusal(gate, queries=1).retry_after_seconds)
    assert (moment.hour, moment.minute, moment.second) == (0, 0, 0)


def test_what_is_more_than_a_whole_days_budget_is_not_told_to_come_back() -> None:
    assert refusal(budgeted(tokens_per_day=100), tokens=101).retry_after_seconds == 0


def test_an_organisation_has_one_budget_and_its_clients_theirs() -> None:
    gate = budgeted(queries_per_day=6, organisation_queries_per_day=10)
    gate.open(caller(), queries=6).settle()
    assert "of this client" in refusal(gate, caller(), queries=1).detail
    assert "of this organisation" in refusal(gate, caller("other"), queries=5).detail
    gate.open(caller("other"), queries=4)
    gate.open(caller("web", "globex"), queries=6)


def test_a_refusal_holds_nothing_of_any_budget() -> None:
    gate = budgeted(queries_per_day=10, organisation_tokens_per_day=10)
    for _ in range(50):
        refusal(gate, queries=1, tokens=11)
    gate.open(queries=10, tokens=10)


@pytest.mark.parametrize(
    ("contract", "queries"),
    [
        (ContractPolicy(client="acme/web", queries_per_day=20), 20),
        (ContractPolicy(client="acme/web", queries_per_day=0), 10**12),
        (ContractPolicy(client="acme/web", tokens_per_day=5), 10),
        (ContractPolicy(client="acme/other", queries_per_day=20), 10),
    ],
    ids=str,
)
def test_a_contract_changes_what_it_names(contract: ContractPolicy, queries: int) -> None:
    gate = budgeted(contract, queries_per_day=10)
    gate.open(queries=queries)
    if queries < 10**12:
        refusal(gate, queries=1)


# --- reserve, then settle


def test_what_is_reserved_counts_until_it_is_settled() -> None:
    gate = budgeted(tokens_per_day=100)
    held = gate.open(tokens=80)
    refusal(gate, tokens=30)
    held.settle(10)
    assert gate.spent() == (0, 10, 0)
    gate.open(tokens=90)


def test_more_than_was_reserved_is_charged_in_full() -> None:
    gate = budgeted(tokens_per_day=100)
    gate.open(tokens=10).settle(500)
    assert gate.spent() == (0, 500, 0)


def test_without_figures_what_was_reserved_was_used_but_for_information() -> None:
    gate = budgeted(queries_per_day=100, information_per_day=100)
    held = gate.open(queries=2, tokens=7, information=2)
    held.reserve(queries=3, information=3)
    held.settle()
    assert gate.spent() == (5, 7, 0)


def test_it_is_settled_or_released_once() -> None:
    gate = budgeted(queries_per_day=100)
    held = gate.open(queries=5)
    held.settle(queries=3)
    held.settle(queries=50)
    held.release()
    assert gate.spent() == (3, 0, 0)


def test_what_a_block_did_not_settle_it_gives_back() -> None:
    gate = budgeted(queries_per_day=100)
    with pytest.raises(Problem), gate.open(queries=5):
        raise Problem("bad-input")
    with gate.open(queries=7) as held:
        held.settle()
    assert gate.spent() == (7, 0, 0)


def test_a_stream_learns_when_it_passes_what_there_is() -> None:
    gate = budgeted(tokens_per_day=1000)
    held = gate.open(tokens=100)
    assert not held.exceeded(100)
    assert not held.exceeded(101)
    assert gate.spent() == (0, 101 + STEP_TOKENS, 0), "more is reserved by steps"
    refusal(gate, tokens=700)
    other = gate.open(tokens=600)
    assert not held.exceeded(400)
    assert held.exceeded(401)
    assert gate.refused["client-tokens"] == 2
    other.release()
    assert not held.exceeded(401)
    held.settle(401)
    assert gate.spent() == (0, 401, 0)


def test_a_stream_without_a_budget_never_passes_it() -> None:
    assert not budgeted().open().exceeded(10**12)
    assert not budgeted(queries_per_day=1).open(queries=1).exceeded(10**12)


def test_what_is_reserved_before_midnight_and_settled_after_counts_once() -> None:
    gate = budgeted(tokens_per_day=100)
    held = gate.open(tokens=60)
    gate.after(days=1)
    gate.open(tokens=100).release()
    held.settle(70)
    assert gate.spent() == (0, 10, 0)


# --- leaks


def test_what_nobody_settles_expires_and_is_counted() -> None:
    gate = budgeted(queries_per_day=10, model_requests_max=1)
    gate.open(queries=10).begin()
    refusal(gate, queries=1)
    gate.after(seconds=SECONDS).open(queries=10).begin()
    assert gate.budgets.expired == 1


def test_what_has_just_expired_is_found_by_whoever_finds_no_room() -> None:
    gate = budgeted(queries_per_day=10)
    gate.budgets.open(caller(), "fraud", seconds=0.5).reserve(queries=10)
    refusal(gate, queries=1)
    gate.after(seconds=0.5).open(queries=10)


def test_a_settlement_that_comes_too_late_still_counts_in_full() -> None:
    gate = budgeted(queries_per_day=10)
    held = gate.open(queries=4)
    gate.after(seconds=SECONDS).open(queries=1)
    assert gate.spent() == (1, 0, 0)
    held.settle()
    assert gate.spent() == (5, 0, 0)


def test_a_stream_that_gives_signs_of_life_does_not_expire() -> None:
    gate = budgeted(tokens_per_day=100, model_requests_max=1)
    held = gate.open(tokens=50)
    held.begin()
    for tokens in range(50):
        gate.after(seconds=SECONDS - 1)
        assert not held.exceeded(tokens)
    refusal(gate, tokens=51)
    with pytest.raises(Problem, match="as many requests as it may"):
        gate.open(tokens=1).begin()


def test_a_stream_that_was_taken_for_lost_reserves_again_all_that_it_used() -> None:
    gate = budgeted(tokens_per_day=100)
    held = gate.open(tokens=50)
    gate.after(seconds=SECONDS).open(tokens=60).settle()
    assert gate.budgets.expired == 1
    assert not held.exceeded(40)
    assert held.exceeded(41)


def test_a_place_at_a_model_is_held_as_long_as_its_reservation() -> None:
    gate = budgeted(model_requests_max=1)
    with gate.open() as held:
        held.begin()
        held.begin()
        with pytest.raises(Problem):
            gate.open().begin()
    with gate.open() as again:
        again.begin()
    assert gate.budgets.expired == 0


# --- restart


def test_what_was_spent_today_comes_back_and_makes_up_the_organisations() -> None:
    gate = budgeted(queries_per_day=10, organisation_queries_per_day=15)
    for name, queries in (("web", 8), ("other", 5)):
        gate.open(caller(name), queries=queries).settle()
    again = Budgeted(gate.policy)
    for name in ("other", "web"):
        again.budgets.restore(caller(name).id, "acme", *gate.budgets.spent(caller(name).id))
    assert again.budgets.spent(f"{ORGANISATION}acme") == gate.budgets.spent(f"{ORGANISATION}acme")
    refusal(again, caller("third"), queries=3)
    again.open(caller("third"), queries=2)
    refusal(again, caller("web"), queries=3)


def test_what_was_spent_yesterday_does_not_come_back() -> None:
    gate = budgeted(queries_per_day=10)
    gate.open(queries=10).settle()
    again = Budgeted(gate.policy).after(days=1)
    again.budgets.restore(caller().id, "acme", *gate.budgets.spent(caller().id))
    again.open(queries=10)


def test_accounts_of_days_that_are_over_are_forgotten() -> None:
    gate = budgeted(queries_per_day=10, organisation_queries_per_day=10)
    held = gate.open(queries=4)
    gate.after(days=1).budgets.forget()
    assert gate.budgets.organisations == {}
    held.settle()
    assert gate.spent() == (0, 0, 0), "it was counted when it was reserved"


# --- information


def test_every_level_has_a_weight_and_less_never_weighs_more() -> None:
    assert WEIGHTS.keys() == set(LEVELS.values())
    assert 1.0 == weight("contract", "scores") >= weight("reduced", "scores") >= weight("label", "scores") > 0
    assert weight("contract", "label") == weight("label", "scores")


LABELS = RoutePolicy(model="fraud", path="/labels", answer="label")
SCORES = RoutePolicy(model="fraud", path="/scores")


def _heaviest(routes: list[RoutePolicy], *, level: Level = "contract", scopes: tuple[str, ...] = ()) -> float:
    """What a bucket weighs that a client asks on the route for labels."""
    asker = caller()
    asker = replace(asker, client=replace(asker.client, scopes=scopes))
    here = Terms(Contract("p", None, "classes", "label", 17, 0), level)
    return heaviest(here, asker, "fraud", routes, lambda _, route, contract: Terms(contract, level))


def test_a_label_weighs_as_much_as_the_scores_that_another_route_gives() -> None:
    assert _heaviest([LABELS]) == WEIGHTS["label"]
    assert _heaviest([LABELS, SCORES]) == WEIGHTS["contract"]
    assert _heaviest([SCORES, LABELS]) == WEIGHTS["contract"]


def test_scores_that_a_client_cannot_have_are_not_charged() -> None:
    assert _heaviest([LABELS, SCORES], level="label") == WEIGHTS["label"]
    assert _heaviest([LABELS, SCORES], scopes=("route:/labels",)) == WEIGHTS["label"]
    assert _heaviest([LABELS, RoutePolicy(model="churn")]) == WEIGHTS["label"]


def test_a_route_on_which_a_client_gets_nothing_adds_no_weight() -> None:
    here = Terms(Contract("p", None, "classes", "label", 17, 0), "contract")
    assert heaviest(here, caller(), "fraud", [SCORES], lambda *_: None) == WEIGHTS["label"]


def test_the_page_has_every_weight_and_every_limit() -> None:
    page = (Path(__file__).resolve().parents[2] / "docs" / "limits.md").read_text(encoding="utf-8")
    table = page.partition("<!-- begin weights -->\n")[2].partition("<!-- end weights -->")[0]
    assert table.strip().splitlines()[2:] == [f"| `{level}` | {number:g} |" for level, number in WEIGHTS.items()]
    settings = [field.name for field in msgspec.structs.fields(LimitsPolicy)]
    assert [name for name in settings if f"{name}`" not in page] == []
    assert [name for name in WHOSE if f"`{name}-rate`" not in page] == []


# --- against a list of everything


STEP = st.tuples(st.sampled_from(["open", "settle", "release", "minute", "day"]), st.integers(0, 7), st.integers(0, 30))


@given(st.lists(STEP, max_size=60))
def test_no_day_has_more_reserved_and_spent_than_its_budgets(steps: list[tuple[str, int, int]]) -> None:
    gate = budgeted(tokens_per_day=60, organisation_tokens_per_day=100)
    held = list[tuple[Reservation, str, int, float]]()  # who, day, and tokens that are held
    spent = dict[tuple[str, int], float]()
    for what, who, tokens in steps:
        gate.after(**{"minute": {"seconds": 5}, "day": {"days": 1}}.get(what, {}))
        day = gate.clock.now().toordinal()
        held = [item for item in held if item[0].expires > gate.clock.now().timestamp()]
        mine = sum(item[3] for item in held if item[1:3] == (str(who % 3), day)) + spent.get((str(who % 3), day), 0)
        ours = sum(item[3] for item in held if item[2] == day) + sum(n for (_, d), n in spent.items() if d == day)
        if what == "open":
            fits = tokens == 0 or (mine + tokens <= 60 and ours + tokens <= 100)
            try:
                held.append((gate.open(caller(str(who % 3)), tokens=tokens), str(who % 3), day, tokens))
            except Problem:
                assert not fits
            else:
                assert fits
        elif held and what in {"settle", "release"}:
            reservation, client, when, reserved = held.pop(who % len(held))
            used = min(tokens, reserved) if what == "settle" else 0
            reservation.settle(used) if what == "settle" else reservation.release()
            spent[client, when] = spent.get((client, when), 0) + (used if when == day else reserved)
