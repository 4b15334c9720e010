"""Rates of many limits at once against a list of everything that was ever admitted."""

from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.clock import ManualClock
from palladion.gate import rates as module
from palladion.gate.callers import Caller
from palladion.gate.problems import Problem
from palladion.gate.rates import SAVED_MAX, Rates
from palladion.policy import ContractPolicy, LimitsPolicy, Policy
from tests.lifecycle.installations import NOW

from .callers import caller

SHARED = ("user", "organisation", "network", "model", "total")
ADDRESS = "192.0.2.7"


@dataclass(eq=False)
class Limited:
    """Rates with a clock."""

    policy: Policy
    clock: ManualClock = field(default_factory=lambda: ManualClock(NOW))
    refused: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.rates = Rates(self.policy, self.clock, pseudonyms=b"p" * 32, refused=self.refused)

    def ask(self, asker: Caller | None = None, queries: int = 1, **more: Any) -> Problem | None:
        """The problem with a question, if there is one."""
        try:
            self.rates.admit(asker or caller(), more.pop("model", "fraud"), queries, **more)
        except Problem as problem:
            return problem
        return None

    def admitted(self, asker: Caller | None = None, **more: Any) -> int:
        """How many questions are admitted until one is not."""
        for count in range(1_000_000):
            if self.ask(asker, **more) is not None:
                return count
        raise AssertionError("no end")

    def after(self, seconds: float) -> "Limited":
        self.clock.advance(timedelta(seconds=seconds))
        return self


def limited(**limits: Any) -> Limited:
    """A client's own rate is out of the way unless `limits` say otherwise."""
    wide = {"queries_per_second": 1e6, "burst": 1_000_000}
    return Limited(Policy(limits=LimitsPolicy(**{**wide, **limits})))


# --- each limit by itself


@pytest.mark.parametrize("name", SHARED)
def test_each_limit_admits_its_burst_and_says_whose_it_is(name: str) -> None:
    gate = limited(**{f"{name}_queries_per_second": 0.5, f"{name}_burst": 3})
    who = caller(user="alice")
    assert gate.admitted(who, address=ADDRESS) == 3
    problem = gate.ask(who, address=ADDRESS)
    assert problem is not None
    assert (problem.kind, problem.status, problem.retry_after_seconds) == ("rate-limited", 429, 2)
    assert problem.detail == f"{module.WHOSE[name]} is used up"
    assert gate.refused == {f"{name}-rate": 2}
    assert gate.after(2).admitted(who, address=ADDRESS) == 1


@pytest.mark.parametrize("name", SHARED)
def test_without_a_burst_ten_seconds_queries_are_one(name: str) -> None:
    assert limited(**{f"{name}_queries_per_second": 0.7}).admitted(caller(user="alice"), address=ADDRESS) == 7
    assert limited(**{f"{name}_queries_per_second": 0.01}).admitted(caller(user="alice"), address=ADDRESS) == 1


@pytest.mark.parametrize(
    ("name", "other", "shares"),
    [
        ("user", {"asker": caller(user="bob")}, False),
        ("user", {"asker": caller("other", user="alice")}, False),
        ("user", {"asker": caller(user="ALICE")}, True),
        ("user", {"asker": caller()}, False),
        ("organisation", {"asker": caller("other", user="bob")}, True),
        ("organisation", {"asker": caller("web", "globex")}, False),
        ("network", {"asker": caller("web", "globex"), "address": ADDRESS}, True),
        ("network", {"asker": caller("web", "globex"), "address": f"::ffff:{ADDRESS}"}, True),
        ("network", {"address": "192.0.2.8"}, False),
        ("network", {"address": None}, False),
        ("model", {"asker": caller("web", "globex")}, True),
        ("model", {"model": "spam"}, False),
        ("total", {"asker": caller("web", "globex"), "model": "spam", "address": "192.0.2.8"}, True),
    ],
    ids=str,
)
def test_who_shares_a_limit_and_who_does_not(name: str, other: dict[str, Any], shares: bool) -> None:
    gate = limited(**{f"{name}_queries_per_second": 1.0, f"{name}_burst": 1})
    assert gate.ask(caller(user="alice"), address=ADDRESS) is None
    refused = gate.ask(**{"asker": caller(user="alice"), "address": ADDRESS, **other})
    assert (refused is not None) == shares


def test_hosts_of_one_ipv6_network_share_its_rate() -> None:
    gate = limited(network_queries_per_second=1.0, network_burst=5)
    addresses = [f"2001:db8:0:1::{host:x}" for host in range(100)]
    assert sum(gate.ask(address=address) is None for address in addresses) == 5
    assert gate.ask(address="2001:db8:0:2::1") is None


# --- contracts


def test_a_client_under_contract_has_its_own_rate_and_others_have_theirs() -> None:
    limits = LimitsPolicy(queries_per_second=1.0, burst=2)
    contract = ContractPolicy(client="acme/web", queries_per_second=4.0, burst=9)
    gate = Limited(Policy(limits=limits, contract=(contract,)))
    assert [gate.admitted(caller()), gate.admitted(caller("other"))] == [9, 2]
    assert gate.after(1).admitted(caller()) == 4


@pytest.mark.parametrize(
    ("contract", "burst"),
    [
        (ContractPolicy(client="acme/web"), 2),
        (ContractPolicy(client="acme/web", burst=5), 5),
        (ContractPolicy(client="acme/web", queries_per_second=3.0), 30),
        (ContractPolicy(client="acme"), 2),
    ],
    ids=str,
)
def test_what_a_contract_does_not_say_is_as_for_all(contract: ContractPolicy, burst: int) -> None:
    limits = LimitsPolicy(queries_per_second=1.0, burst=2)
    assert Limited(Policy(limits=limits, contract=(contract,))).admitted() == burst


def test_a_throttled_client_gets_a_part_of_its_own_rate_alone() -> None:
    gate = limited(queries_per_second=4.0, burst=16, organisation_queries_per_second=4.0, organisation_burst=16)
    assert gate.admitted(divisor=4) == 4
    assert gate.admitted(caller("other")) == 12


# --- all or nothing


def test_what_one_limit_refuses_costs_nothing_of_the_others() -> None:
    gate = limited(queries_per_second=1.0, burst=100, model_queries_per_second=1.0, model_burst=5)
    assert gate.admitted() == 5
    for _ in range(1000):
        assert gate.ask() is not None
    assert gate.admitted(model="spam") == 5
    assert gate.ask(queries=90, model="chat") is not None, "more than the model's burst"
    gate.rates.renew(Policy(limits=LimitsPolicy(queries_per_second=1.0, burst=100)))
    assert gate.admitted() == 90


def test_the_longest_wait_is_told() -> None:
    gate = limited(model_queries_per_second=2.0, model_burst=1, total_queries_per_second=0.25, total_burst=1)
    assert gate.ask() is None
    problem = gate.ask()
    assert problem is not None
    assert problem.retry_after_seconds == 4
    assert gate.refused == {"total-rate": 1}


def test_more_rows_than_any_burst_are_told_so() -> None:
    gate = limited(user_queries_per_second=1.0, user_burst=4)
    problem = gate.ask(caller(user="alice"), queries=4, rows=5)
    assert problem is not None
    assert problem.detail == "5 rows are more than can ever be asked at once: send fewer"
    assert (problem.retry_after_seconds, gate.refused) == (0, {"user-rate": 1})


class Oracle:
    """Every limit as a list of all that it admitted; a bucket is filled anew from that list for each question."""

    def __init__(self, rates: dict[str, tuple[int, int]]) -> None:
        self._rates = rates
        self._events: dict[tuple[str, str], list[tuple[Fraction, int]]] = {}

    def _level(self, name: str, key: str, now: Fraction) -> Fraction:
        level, last = Fraction(0), now
        per_second = self._rates[name][0]
        for index, (moment, units) in enumerate(self._events.get((name, key), [])):
            level = max(Fraction(0), level - (moment - last) * per_second if index else level) + units
            last = moment
        return max(Fraction(0), level - (now - last) * per_second)

    def ask(self, keys: dict[str, str], now: Fraction, units: int) -> bool:
        if any(self._level(name, key, now) + units > self._rates[name][1] for name, key in keys.items()):
            return False
        for name, key in keys.items():
            self._events.setdefault((name, key), []).append((now, units))
        return True


POWERS = st.sampled_from([1, 2, 4, 8])  # so that a double holds every state exactly
QUESTION = st.tuples(
    st.integers(0, 64), st.integers(1, 3), st.integers(0, 3), st.sampled_from(["", "alice", "bob"]),
    st.sampled_from(["192.0.2.7", "192.0.2.8"]), st.sampled_from(["fraud", "spam"]),
)  # fmt: skip


@given(st.lists(QUESTION, max_size=40), st.tuples(*[st.tuples(POWERS, st.integers(1, 6))] * 6))
def test_no_more_and_no_less_is_admitted_than_by_a_list_of_everything(
    questions: list[tuple[int, int, int, str, str, str]], drawn: tuple[tuple[int, int], ...]
) -> None:
    names = ("client", *SHARED)
    settings: dict[str, Any] = {"queries_per_second": float(drawn[0][0]), "burst": drawn[0][1]}
    for name, (per_second, burst) in zip(names[1:], drawn[1:], strict=True):
        settings |= {f"{name}_queries_per_second": float(per_second), f"{name}_burst": burst}
    gate, oracle = limited(**settings), Oracle(dict(zip(names, drawn, strict=True)))
    elapsed = Fraction(0)
    for gap, units, who, user, address, model in questions:
        elapsed += Fraction(gap, 64)
        gate.after(gap / 64)
        asker = caller(f"client{who % 2}", f"org{who // 2}", user=user or None)
        keys = {
            "client": asker.id,
            "user": f"{asker.id}/{user}",
            "organisation": asker.client.organisation,
            "network": address,
            "model": model,
            "total": "",
        }
        if not user:
            del keys["user"]
        expected = oracle.ask(keys, elapsed, units)
        assert (gate.ask(asker, units, model=model, address=address) is None) == expected


# --- time


def test_a_clock_set_back_admits_nobody_anew_and_locks_nobody_out() -> None:
    gate = limited(queries_per_second=1.0, burst=5)
    assert gate.admitted() == 5
    gate.after(-86_400)
    assert gate.admitted() == 0
    assert gate.after(3).admitted() == 3
    gate.after(-10)
    assert gate.admitted() == 0
    assert gate.after(1).admitted() == 1


def test_a_smaller_burst_does_not_lock_out_who_had_spent_a_larger_one() -> None:
    gate = limited(queries_per_second=1.0, burst=1000)
    assert gate.ask(queries=1000) is None
    gate.rates.renew(Policy(limits=LimitsPolicy(queries_per_second=1.0, burst=5)))
    assert gate.ask() is not None
    assert gate.after(2).admitted() == 2


# --- memory


def test_names_that_somebody_makes_up_fill_no_memory_and_lock_out_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "USERS_OF_ONE_MAX", 50)
    gate = limited(user_queries_per_second=0.1, user_burst=10)
    answered = sum(gate.ask(caller(user=f"made-up-{number}")) is None for number in range(500))
    assert answered == 50
    refused = gate.ask(caller(user="another"))
    assert refused is not None
    assert refused.retry_after_seconds == 1
    assert gate.ask(caller("other", user="alice")) is None
    assert gate.after(10).ask(caller(user="another")) is None
    assert len(dict(gate.rates.states())["user"]) <= 2


def test_strangers_and_refused_questions_leave_nothing_behind() -> None:
    gate = limited(user_queries_per_second=1.0, total_queries_per_second=1.0, total_burst=1)
    assert gate.ask() is None
    for number in range(100):
        assert gate.ask(caller(f"client{number}", user=f"user{number}")) is not None
    assert {name: len(states) for name, states in gate.rates.states()} == {
        "client": 1, "user": 0, "organisation": 0, "network": 0, "model": 0, "total": 1,
    }  # fmt: skip


def test_what_a_client_touched_is_let_go_when_it_does_not_count_any_more() -> None:
    gate = limited(user_queries_per_second=1.0, user_burst=1)
    for number in range(5):
        gate.ask(caller(user=f"user{number}"))
    assert len(gate.rates.shared(caller().id)) == 5
    gate.after(2)
    gate.rates.forget()
    assert gate.rates.shared(caller().id) == {}


# --- restart


def _restarted(gate: Limited, clients: list[Caller]) -> Limited:
    again = Limited(gate.policy, ManualClock(gate.clock.now()))
    for one in clients:
        again.rates.restore(one.id, gate.rates.own(one.id), gate.rates.shared(one.id))
    return again


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", ["client", *SHARED])
def test_after_a_restart_nobody_begins_anew(name: str, order: int) -> None:
    prefix = "" if name == "client" else f"{name}_"
    gate = limited(**{f"{prefix}queries_per_second": 1.0, f"{prefix}burst": 10})
    clients = [caller(user="alice"), caller("other", user="alice")]
    spent = [gate.ask(clients[0], address=ADDRESS) for _ in range(3)]
    spent += [gate.ask(clients[1], address=ADDRESS) for _ in range(4)]
    again = _restarted(gate, clients[::order])
    assert again.admitted(clients[0], address=ADDRESS) == (7 if name in {"client", "user"} else 3)


@pytest.mark.parametrize("prefix", ["", "model_"])
def test_a_clock_set_back_before_it_changes_nothing_of_it(prefix: str) -> None:
    gate = limited(**{f"{prefix}queries_per_second": 1.0, f"{prefix}burst": 10})
    gate.ask(queries=7)
    gate.after(-3600).ask()
    again = _restarted(gate, [caller()])
    assert again.admitted() == 2
    assert again.after(4).admitted() == 4


@pytest.mark.parametrize("order", [1, -1])
def test_of_rows_that_were_saved_at_different_times_the_latest_state_counts(order: int) -> None:
    gate = limited(total_queries_per_second=1.0, total_burst=10)
    rows = []
    for asker, queries in ((caller("first"), 2), (caller("second"), 5)):
        gate.ask(asker, queries)
        rows.append((asker.id, gate.rates.own(asker.id), gate.rates.shared(asker.id)))
    again = Limited(gate.policy, ManualClock(gate.clock.now()))
    for row in rows[::order]:
        again.rates.restore(*row)
    assert again.admitted() == 3


def test_what_came_back_is_saved_again_with_what_is_new() -> None:
    gate = limited(model_queries_per_second=1.0, model_burst=10)
    gate.ask(queries=6)
    once = _restarted(gate, [caller()])
    once.ask(model="spam")
    twice = _restarted(once, [caller()])
    assert twice.admitted() == 4


def test_a_row_holds_no_more_states_than_fit_and_no_names() -> None:
    gate = limited(user_queries_per_second=0.001, user_burst=1)
    for number in range(SAVED_MAX + 100):
        gate.ask(caller(user=f"user{number}"))
    shared = gate.rates.shared(caller().id)
    assert len(shared) == SAVED_MAX
    assert not any("user1" in key.removeprefix("user:") for key in shared)


def test_states_of_limits_that_are_off_now_are_not_taken_up() -> None:
    gate = limited()
    gate.rates.restore("id", 0.0, {"nonsense:x": 1e12, "model:fraud": NOW.timestamp() + 100})
    assert gate.ask() is None


def test_an_end_user_that_is_held_has_a_part_of_the_rate_and_the_client_all_of_it() -> None:
    limited = Limited(Policy(limits=LimitsPolicy(queries_per_second=4, burst=8)))
    ann, bob = caller(user="ann"), caller(user="bob")
    assert limited.admitted(ann, user_divisor=4) == 2
    assert limited.refused == {"user-rate": 1}
    assert limited.admitted(bob) == 6
    limited.clock.advance(timedelta(seconds=1))
    # a query a second of four, and the client's own rate is what it was
    assert limited.admitted(ann, user_divisor=4) == 1
    assert limited.admitted(bob) == 3


def test_more_rows_than_an_end_users_part_are_told_to_be_too_many() -> None:
    limited = Limited(Policy(limits=LimitsPolicy(queries_per_second=4, burst=8)))
    found = limited.ask(caller(user="ann"), 8, rows=8, user_divisor=4)
    assert found is not None
    assert "send fewer" in found.detail
    assert limited.ask(caller(user="bob"), 8, rows=8) is None


def test_what_an_end_user_has_spent_of_its_part_is_found_again() -> None:
    limited = Limited(Policy(limits=LimitsPolicy(queries_per_second=4, burst=8)))
    ann = caller(user="ann")
    limited.admitted(ann, user_divisor=4)
    other = Limited(limited.policy)
    other.rates.restore(ann.id, limited.rates.own(ann.id), limited.rates.shared(ann.id))
    assert other.admitted(ann, user_divisor=4) == 0
