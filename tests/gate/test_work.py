"""Proof of work in the gate: who is asked, for which request, and that others notice nothing."""

from datetime import timedelta

import msgspec
import pytest

from palladion.policy import RoutePolicy
from palladion.registry.rows import Standing
from palladion.watch.proof_of_work import LIFETIME_S, solve

from .gates import MODEL, ROW, Bench, House, header, open_gate, problem


def asking(house: House, *routes: RoutePolicy) -> Bench:
    """A gate whose policy asks a throttled client for six bits."""
    bench = open_gate(house, *routes)
    policy = bench.gate.stages.policy
    watch = msgspec.structs.replace(policy.watch, proof_of_work=6)
    bench.gate.stages.limits.renew(msgspec.structs.replace(policy, watch=watch))
    return bench


@pytest.mark.parametrize("standing", ["watched", "throttled", "degraded"])
def test_who_stands_low_proves_work_for_each_request(house: House, standing: Standing) -> None:
    bench = asking(house)
    assert bench.ask().status == 200
    bench.put(standing)
    refused = bench.ask()
    challenge = header(refused, b"palladion-challenge")
    assert challenge is not None
    solved = {b"x-api-key": house.keys["acme"].encode(), b"palladion-work": solve(challenge.decode()).encode()}

    assert problem(refused) == "work-needed"
    assert bench.ask(headers=solved).status == 200
    assert problem(bench.ask([[9.0] * len(ROW)], headers=solved)) == "work-needed"
    bench.clock.advance(timedelta(seconds=LIFETIME_S + 1))
    assert problem(bench.ask(headers=solved)) == "work-needed"
    bench.put("trusted")
    assert bench.ask().status == 200


def test_a_route_that_observes_asks_for_none(house: House) -> None:
    bench = asking(house, RoutePolicy(model=MODEL, mode="observe"))
    bench.put("degraded")
    assert bench.ask().status == 200


def test_without_the_setting_nobody_is_asked(house: House) -> None:
    bench = open_gate(house)
    bench.put("degraded")
    assert bench.ask().status == 200


def test_what_is_no_header_is_no_proof(house: House) -> None:
    bench = asking(house)
    bench.put("throttled")
    odd = {b"x-api-key": house.keys["acme"].encode(), b"palladion-work": b"\xff\x00.1"}
    assert problem(bench.ask(headers=odd)) == "work-needed"
