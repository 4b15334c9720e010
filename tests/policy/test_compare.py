"""What differs between two policies, and what names one."""

import tomllib
from typing import Any

import msgspec
import pytest

from palladion.policy import ContractPolicy, GatePolicy, Policy, RoutePolicy, WatchPolicy, parse_policy
from palladion.policy.compare import Change, compare, digest, same, same_table, told

ONE, TWO = RoutePolicy(model="one"), RoutePolicy(model="two")


def test_a_policy_is_the_same_as_itself_whatever_the_order_of_its_tables() -> None:
    assert compare(Policy(route=(ONE, TWO)), Policy(route=(TWO, ONE))) == []


def test_settings_that_differ_are_named_with_both_values() -> None:
    after = Policy(gate=GatePolicy(rows_max=1), watch=WatchPolicy(degrade_after=9))
    assert compare(Policy(), after) == [Change("gate.rows_max", 256, 1), Change("watch.degrade_after", 8, 9)]


def test_routes_are_told_apart_by_their_path() -> None:
    after = msgspec.structs.replace(TWO, mode="enforce")
    changes = compare(Policy(route=(ONE, TWO)), Policy(route=(after, ONE)))
    assert changes == [Change("route[/v1/models/two/predict].mode", "observe", "enforce")]
    assert changes[0].setting == "route.mode"


def test_tables_that_come_and_go_are_shown_with_what_is_set_in_them() -> None:
    changes = compare(Policy(route=(ONE,)), Policy(route=(TWO,)))
    assert changes == [
        Change("route[/v1/models/one/predict]", {"model": "one"}, None),
        Change("route[/v1/models/two/predict]", None, {"model": "two"}),
    ]
    assert [change.setting for change in changes] == ["route", "route"]


def test_a_path_with_brackets_of_its_own_does_not_confuse() -> None:
    change = Change("contract[a].b].burst", 1, 2)
    assert change.setting == "contract.burst"


def test_contracts_are_told_apart_by_their_client() -> None:
    before = Policy(contract=(ContractPolicy(client="acme", burst=5),))
    after = Policy(contract=(ContractPolicy(client="acme", burst=6),))
    assert compare(before, after) == [Change("contract[acme].burst", 5, 6)]


@pytest.mark.parametrize("changed", [{"gate": GatePolicy(rows_max=1)}, {"route": (ONE,)}])
def test_the_digest_binds_every_setting(changed: dict[str, Any]) -> None:
    assert digest(Policy(**changed)) != digest(Policy())
    assert digest(Policy(**changed)) == digest(Policy(**changed))
    assert len(digest(Policy())) == 64


def test_what_is_no_number_is_the_same_as_what_is_none() -> None:
    assert same(float("nan"), float("-nan"))
    assert not same(float("nan"), 1.0)
    one, other = (parse_policy(b'[[route]]\nmodel = "one"', "it").route[0] for _ in range(2))
    assert same_table(one, other)
    assert not same_table(one, TWO)


def test_what_a_change_tells_reads_as_people_write_it() -> None:
    text = """
[[contract]]
client = "acme/web"
burst = 7

[[route]]
model = "a"
protocol = "json"
upstream = "http://127.0.0.1:1"
reasoning = true
inputs = [{ name = "x", type = "int8", path = "$.a[*]" }]
"""
    contract, route = compare(Policy(), parse_policy(text.encode(), "it"))
    assert told(contract.after) == 'client = "acme/web", burst = 7'
    assert told(contract.before) == ""
    assert 'inputs = [{ name = "x", type = "int8", path = "$.a[*]", shape = [] }]' in told(route.after)
    assert "reasoning = true" in told(route.after)
    assert [told("observe"), told(7), told(True), told(("a", "b"))] == ["observe", "7", "true", '["a", "b"]']


def test_settings_that_are_told_can_be_written_as_they_are() -> None:
    table = {
        "model": 'with "quotes"',
        "burst": 2.5,
        "on": False,
        "list": ["a"],
        "inner": {"a": 1},
        "none": float("inf"),
    }
    assert tomllib.loads(f"it = {{ {told(table)} }}")["it"] == table
