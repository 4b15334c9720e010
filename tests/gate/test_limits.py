"""Limits together: through the gate, at once, in every order, and over a restart."""

import math
import struct
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.clock import ManualClock
from palladion.errors import BusyError, FormatError
from palladion.gate.chat.budget import Budget
from palladion.gate.checks import ROUTES_MAX
from palladion.gate.limits import Limits, Saved, decode_saved, encode_saved, nobodys
from palladion.gate.problems import Problem
from palladion.gate.rates import SAVED_MAX
from palladion.lifecycle.open import find_version
from palladion.policy import ContractPolicy, LimitsPolicy, Policy, RoutePolicy
from palladion.registry.gate_states import DATA_BYTES_MAX
from palladion.registry.rows import Standing
from palladion.watch.watch import Watch
from tests.lifecycle.installations import NOW

from .callers import caller
from .gates import (
    MODEL,
    ROW,
    Bench,
    House,
    add_calibration,
    answer,
    failing,
    header,
    open_gate,
    problem,
    stub,
    tiny_calibration,
)

MANY = {"requests_max": 4096}
EVERY_RATE = {
    f"{name}queries_per_second": 1.0
    for name in ("", "user_", "organisation_", "network_", "model_", "total_")
}  # fmt: skip


def _information(bench: Bench, client: str = "acme") -> float:
    return bench.gate.stages.limits.budgets.spent(bench.house.ids[client])[1].information


# --- at once


@pytest.mark.slow
@pytest.mark.parametrize(
    "limits",
    [
        {"queries_per_second": 1.0, "burst": 100},
        {"total_queries_per_second": 1.0, "total_burst": 100},
        {"network_queries_per_second": 1.0, "network_burst": 100},
        {"queries_per_day": 100},
        {"organisation_queries_per_day": 100},
        {"information_per_day": 100},
        {
            **EVERY_RATE,
            "burst": 100,
            **{f"{name}_burst": 100 for name in ("organisation", "network", "model", "total")},
        },
    ],
    ids=lambda limits: next(iter(limits)) + f" and {len(limits) - 1} more",
)
def test_a_thousand_requests_of_one_key_at_once_are_never_over_admitted(house: House, limits: dict[str, Any]) -> None:
    bench = open_gate(house, gate=MANY, limits={"queries_per_second": 1e6, "burst": 1_000_000, **limits})
    responses = bench.ask_all([bench.request(address="192.0.2.7") for _ in range(1000)])
    assert sum(response.status == 200 for response in responses) == 100
    assert {response.status for response in responses} == {200, 429}
    assert bench.gate.stages.answered == 100
    assert bench.gate.stages.limits.refused.total() == 900
    assert bench.gate.stages.limits.budgets.expired == 0


def test_a_thousand_requests_of_many_rows_never_pass_a_budget(house: House) -> None:
    wide = {"queries_per_second": 1e6, "burst": 1_000_000}
    bench = open_gate(house, gate=MANY, limits={**wide, "queries_per_day": 100})
    bench.ask_all([bench.request([ROW] * 7) for _ in range(300)])
    # while bodies are read each holds one query; who then finds no room for the others gives it back
    assert bench.gate.stages.answered <= 100
    while bench.ask().status == 200:
        pass
    assert bench.gate.stages.answered == 100


def test_no_more_requests_than_places_are_worked_on_for_one_model(house: House) -> None:
    bench = open_gate(house, limits={"model_requests_max": 3})
    responses = bench.ask_all([bench.request() for _ in range(20)])
    assert [response.status for response in responses].count(200) == 3
    refused = [response for response in responses if response.status != 200]
    assert {(problem(response), header(response, b"retry-after")) for response in refused} == {("busy", b"1")}
    assert bench.ask().status == 200, "each place was given back"


def test_language_models_reserve_of_the_same_budgets(house: House) -> None:
    bench = open_gate(house, limits={"tokens_per_day": 100, "queries_per_day": 3, "model_requests_max": 2})
    asker = bench.gate.stages.directory.callers[bench.house.ids["acme"]]
    budget: Budget = bench.gate.stages
    route = RoutePolicy(model="chat", protocol="openai", answer_seconds=300)
    held = budget.reserve(asker, route, queries=1, tokens=80, information=1)
    with pytest.raises(Problem, match="budget of tokens"):
        budget.reserve(asker, route, queries=1, tokens=30, information=1)
    bench.clock.advance(timedelta(seconds=299))
    assert not held.exceeded(90)
    held.settle(90)
    _, spent = bench.gate.stages.limits.budgets.spent(asker.id)
    assert (spent.queries, spent.tokens) == (1, 90)
    assert bench.gate.stages.limits.budgets.expired == 0


def test_who_finds_no_place_at_the_model_reserves_nothing(house: House) -> None:
    bench = open_gate(house, limits={"tokens_per_day": 100, "model_requests_max": 1})
    asker = bench.gate.stages.directory.callers[bench.house.ids["acme"]]
    route = RoutePolicy(model="chat", protocol="openai")
    bench.gate.stages.reserve(asker, route, tokens=10)
    with pytest.raises(Problem, match="busy"):
        bench.gate.stages.reserve(asker, route, tokens=10)
    assert bench.gate.stages.limits.budgets.spent(asker.id)[1].tokens == 10


# --- what is told


def test_a_spent_budget_says_which_and_until_when_and_nothing_of_others(house: House) -> None:
    bench = open_gate(house, limits={"organisation_queries_per_day": 2})
    assert [bench.ask().status for _ in range(3)] == [200, 200, 429]
    refused = bench.ask()
    assert problem(refused) == "budget-spent"
    assert answer(refused)["detail"] == (
        "today's budget of queries of this organisation has less left than the request needs"
    )
    midnight = (NOW + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
    assert header(refused, b"retry-after") == str(math.ceil((midnight - NOW).total_seconds())).encode()
    assert bench.gate.stages.refusals[bench.house.ids["acme"], "budget-spent"] == 2
    assert bench.ask(client="globex").status == 200


def test_a_client_has_one_limit_whichever_header_its_key_comes_in(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_second": 1.0, "burst": 2})
    key = house.keys["acme"].encode()
    spellings = [{b"authorization": b"Bearer " + key}, {b"x-api-key": key}, {b"authorization": b"bearer  " + key}]
    assert [bench.ask(headers=headers).status for headers in spellings] == [200, 200, 429]


def test_a_suspended_client_is_told_that_and_not_of_its_budget(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_day": 1})
    bench.ask()
    bench.put("suspended")
    assert problem(bench.ask()) == "suspended"


def test_answers_as_large_as_the_policy_lets_leave_are_the_last_of_a_day(house: House) -> None:
    (served,) = open_gate(house).gate.served.values()
    assert served.model_bytes > 1000
    size = len(open_gate(house).ask().body)
    share = 1.5 * size / served.model_bytes
    bench = open_gate(house, egress={"answer_fraction_per_day": share})
    assert [bench.ask().status for _ in range(3)] == [200, 200, 429]
    spent = bench.gate.stages.limits.budgets.spent(bench.house.ids["acme"])[1]
    assert spent.answers == pytest.approx(2 * size / served.model_bytes, rel=0.05)
    saved = bench.gate.stages.limits.changes()[bench.house.ids["acme"]]
    assert decode_saved(encode_saved(saved)).answers == spent.answers
    again = open_gate(house, egress={"answer_fraction_per_day": share})
    again.gate.stages.limits.restore([(bench.house.ids["acme"], saved)])
    assert again.ask().status == 429
    assert again.ask(client="globex").status == 200


def test_rows_of_before_answers_were_counted_are_read() -> None:
    old = b"limits 2\n" + msgspec.msgpack.encode([1.5, {}, "acme", 20_000, (1, 2, 0.5)])
    assert decode_saved(old) == Saved(1.5, {}, "acme", 20_000, (1, 2, 0.5))


def test_a_body_is_not_read_where_the_budget_is_spent(house: House) -> None:
    async def unread() -> bytes:
        raise AssertionError("the body was read")

    bench = open_gate(house, limits={"queries_per_day": 1})
    bench.ask()
    assert problem(bench.ask(body=unread)) == "budget-spent"


# --- what is spent


@pytest.mark.parametrize(
    "change", [{"body": b"no json"}, {"rows": [[1.0]]}, {"rows": [ROW] * 300}, {"rows": [ROW] * 9}], ids=str
)
def test_what_is_not_answered_costs_nothing_of_a_budget(house: House, change: dict[str, Any]) -> None:
    bench = open_gate(house, limits={"queries_per_day": 8, "information_per_day": 8})
    for _ in range(20):
        assert bench.ask(**change).status in {400, 422, 429}
    assert bench.ask([ROW] * 8).status == 200


def test_a_model_that_fails_costs_nothing_of_a_budget(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_day": 1})
    served = bench.gate.served
    bench.change_served(source=stub(bench, failing(ValueError("broken"))))
    assert bench.ask().status == 500
    bench.gate.serve(served)
    assert bench.ask().status == 200


def test_a_description_costs_a_query_of_the_rate_and_none_of_the_day(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_second": 1.0, "burst": 2, "queries_per_day": 1})
    assert [bench.ask(method="GET").status, bench.ask().status, bench.ask(method="GET").status] == [200, 200, 429]


@pytest.mark.parametrize(
    ("standing", "promised", "spent"),
    [("trusted", "scores", 4.0), ("throttled", "scores", 4.0), ("degraded", "scores", 2.0), ("trusted", "label", 2.0)],
)
def test_information_is_new_buckets_by_the_weight_of_what_was_disclosed(
    house: House, standing: Standing, promised: Any, spent: float
) -> None:
    route = RoutePolicy(model=MODEL, mode="enforce", answer=promised)
    bench = open_gate(house, route, limits={"information_per_day": 100})
    bench.put(standing)
    assert bench.ask([ROW] * 4).status == 200
    # nobody knows what is new to a client where a model is not calibrated: each query counts as a bucket
    assert _information(bench) == spent


def test_where_a_calibrated_watch_finds_nothing_new_nothing_is_spent(house: House) -> None:
    bench = open_gate(house, limits={"information_per_day": 4})
    bench.watch.p_value = 0.5
    for _ in range(5):
        assert bench.ask([ROW] * 4).status == 200
    assert _information(bench) == 0
    assert problem(bench.ask([ROW] * 5)) == "budget-spent", "as many new buckets as rows would have had no room"


def test_an_answer_that_does_not_leave_costs_no_query_of_a_budget(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_day": 2, "information_per_day": 100})
    bench.journal.error = BusyError("too many records wait")
    assert [problem(bench.ask()) for _ in range(5)] == ["unrecorded"] * 5
    # what it would have told is charged: to the watch, it is not new any more
    assert _information(bench) == 5
    bench.journal.error = None
    assert [bench.ask().status for _ in range(3)] == [200, 200, 429]


def test_an_answer_that_is_late_once_it_was_observed_costs_its_information(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_day": 10, "information_per_day": 100})
    stages = bench.gate.stages
    real = stages.together._turn

    def turn() -> None:
        real()
        for deadline in list(stages.deadlines._open):
            deadline.expire()  # in the turn of the loop in which it was observed

    stages.together._turn = turn  # type: ignore[method-assign]
    assert problem(bench.ask([ROW] * 3)) == "busy"
    spent = stages.limits.budgets.spent(bench.house.ids["acme"])[1]
    assert (spent.queries, spent.information) == (0, 3)


def test_a_contract_counts_from_the_next_request(house: House) -> None:
    bench = open_gate(house, limits={"queries_per_day": 1})
    policy = bench.gate.stages.policy
    assert [bench.ask().status for _ in range(2)] == [200, 429]
    contract = ContractPolicy(client="acme", queries_per_day=3)
    bench.gate.stages.limits.renew(msgspec.structs.replace(policy, contract=(contract,)))
    assert [bench.ask().status for _ in range(3)] == [200, 200, 429]
    assert [bench.ask(client="globex").status for _ in range(2)] == [200, 429]


def test_contracts_of_clients_that_do_not_exist_are_told() -> None:
    policy = Policy(contract=(ContractPolicy(client="acme/web"), ContractPolicy(client="globex")))
    assert nobodys(policy, [caller("web", "acme").client, caller("web", "globex").client]) == ["globex/globex"]


# --- restart

FULL = Saved(1.5, {"total:": 2.5, "user:00ff": 3.5}, "acme", 20_000, (1, 2, 0.5), 0.25)
STATE = st.floats(0, 1e12)


@pytest.mark.slow
@given(
    st.builds(
        Saved,
        STATE,
        st.dictionaries(st.text(max_size=30), STATE, max_size=20),
        st.text(max_size=64),
        st.integers(0, 10**6),
        st.tuples(STATE, STATE, STATE),
    )
)
def test_what_is_saved_comes_back(saved: Saved) -> None:
    assert decode_saved(encode_saved(saved)) == saved


def test_a_state_of_the_first_version_is_read() -> None:
    assert decode_saved(struct.pack("<d", 1_700_000_000.25)) == Saved(1_700_000_000.25)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        struct.pack("<d", math.nan),
        struct.pack("<d", -1.0),
        b"limits 3\n" + encode_saved(FULL)[9:],
        encode_saved(FULL)[:-1],
        encode_saved(FULL) + b"\x00",
        encode_saved(msgspec.structs.replace(FULL, own=math.inf)),
        encode_saved(msgspec.structs.replace(FULL, spent=(0, -1, 0))),
        encode_saved(msgspec.structs.replace(FULL, answers=-1)),
        encode_saved(msgspec.structs.replace(FULL, shared={"total:": math.nan})),
        encode_saved(msgspec.structs.replace(FULL, shared={str(n): 1.0 for n in range(SAVED_MAX + 1)})),
        b"limits 2\n" + msgspec.msgpack.encode([1.0, {}, "acme", 20_000, ["many", 0, 0]]),
    ],
    ids=lambda data: repr(data[:24]),
)
def test_what_was_not_written_here_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match="a saved limit"):
        decode_saved(data)


def test_the_largest_row_fits_into_the_registry() -> None:
    models = [f"model:{'x' * 61}{number:03}" for number in range(ROUTES_MAX)]
    networks = [f"network:2001:db8:ffff:{number:04x}::/64" for number in range(SAVED_MAX - ROUTES_MAX - 2)]
    shared = dict.fromkeys([*models, *networks, "total:", f"organisation:{'x' * 64}"], 1_700_000_000.1)
    assert len(encode_saved(Saved(1.5, shared, "x" * 64, 20_000, (1e12, 1e12, 1e12)))) <= DATA_BYTES_MAX


def test_only_those_who_asked_since_are_saved() -> None:
    limits = Limits(Policy(), ManualClock(NOW), pseudonyms=b"p" * 32, work=b"w" * 32)
    limits.rates.admit(caller("one"), MODEL, 1)
    limits.rates.admit(caller("two"), MODEL, 1)
    assert limits.changes().keys() == {caller("one").id, caller("two").id}
    limits.rates.admit(caller("two"), MODEL, 1)
    assert limits.changes().keys() == {caller("two").id}
    assert limits.changes() == {}


def test_an_organisations_budget_is_found_again_in_the_rows_of_its_clients() -> None:
    policy = Policy(limits=LimitsPolicy(organisation_queries_per_day=10))
    limits = Limits(policy, ManualClock(NOW), pseudonyms=b"p" * 32, work=b"w" * 32)
    assert [_ask(limits, name, 4) for name in ("one", "two")] == ["answered"] * 2
    again = Limits(policy, ManualClock(NOW), pseudonyms=b"p" * 32, work=b"w" * 32)
    again.restore([(client, decode_saved(encode_saved(saved))) for client, saved in limits.changes().items()])
    assert "of this organisation" in _ask(again, "three", 3)
    assert _ask(again, "three", 2) == "answered"


@pytest.mark.slow
@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.booleans()), max_size=30))
def test_restarts_at_any_time_change_no_decision(steps: list[tuple[str, int, bool]]) -> None:
    policy = Policy(
        limits=LimitsPolicy(
            queries_per_second=0.25, burst=8, total_queries_per_second=0.5, total_burst=12, queries_per_day=11,
            organisation_queries_per_day=25,
        )
    )  # fmt: skip
    clock = ManualClock(NOW)
    steady = Limits(policy, clock, pseudonyms=b"p" * 32, work=b"w" * 32)
    restarted = Limits(policy, clock, pseudonyms=b"p" * 32, work=b"w" * 32)
    rows: dict[str, bytes] = {}
    for name, queries, restart in steps:
        clock.advance(timedelta(seconds=1))
        decisions = [_ask(limits, name, queries) for limits in (steady, restarted)]
        assert decisions[0] == decisions[1]
        if restart:
            rows |= {client: encode_saved(saved) for client, saved in restarted.changes().items()}
            restarted = Limits(policy, clock, pseudonyms=b"p" * 32, work=b"w" * 32)
            restarted.restore([(client, decode_saved(row)) for client, row in rows.items()])


def _ask(limits: Limits, name: str, queries: int) -> str:
    try:
        with limits.budgets.open(caller(name), MODEL, seconds=20) as held:
            held.reserve(queries=queries)
            limits.rates.admit(caller(name), MODEL, queries)
            held.settle()
    except Problem as refused:
        return f"{refused.detail} {refused.retry_after_seconds:.6f}"
    return "answered"


@pytest.mark.slow
@pytest.mark.parametrize("first", ["/scores", "/labels"])
def test_scores_cost_what_scores_weigh_whichever_route_is_asked_first(house: House, tmp_path: Path, first: str) -> None:
    own = house.copy(tmp_path)
    calibration = tiny_calibration(find_version(own.installation, MODEL).content_digest)
    add_calibration(own.installation, calibration)
    labels = RoutePolicy(model=MODEL, mode="enforce", path="/labels", answer="label")
    scores = RoutePolicy(model=MODEL, mode="enforce", path="/scores")
    bench = open_gate(own, labels, scores, limits={"information_per_day": 1000, "burst": 1000})
    bench.gate.stages.watch = Watch(bench.gate.stages.policy.watch)
    bench.gate.stages.watch.watch_model(MODEL, calibration, {})
    rows = np.random.default_rng(1).standard_normal((32, 4)).tolist()
    for path in (first, "/labels", "/scores"):
        assert bench.ask(rows, path=path).status == 200
    state = bench.gate.stages.watch.explain(own.ids["acme"])[0]
    assert _information(bench) == state.buckets
