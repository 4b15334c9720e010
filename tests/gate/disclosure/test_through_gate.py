"""Contracts of clients and perturbation, seen from the answers that leave the gate."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np

from palladion.lifecycle.installation import Installation
from palladion.policy import ContractPolicy, RoutePolicy
from tests.gate.gates import MODEL, Bench, House, answer, open_gate

WATCH = "watch"


def _bench(house: House, **contract: Any) -> Bench:
    own = ContractPolicy(client="acme", **contract)
    policy = msgspec.structs.replace(house.installation.policy, contract=(own,))
    installation = Installation(house.installation.paths, policy, house.installation.clock)
    return open_gate(replace(house, installation=installation))


def _scores(bench: Bench, client: str = "acme") -> list[list[float]]:
    scores: list[list[float]] = answer(bench.ask(client=client))["outputs"]["probabilities"]
    return scores


def test_a_client_under_contract_keeps_its_precision_until_a_person_decides(house: House) -> None:
    bench = _bench(house, decimals=5)
    promised = _scores(bench)
    for standing in ("throttled", "degraded"):
        bench.put(standing, actor=WATCH)
        assert _scores(bench) == promised
        assert bench.journal.records[-1].details["disclosed"] == "contract"
    bench.put("degraded", actor="user:ann")
    assert set(answer(bench.ask())["outputs"]) == {"label"}
    assert bench.journal.records[-1].details["disclosed"] == "label"


def test_a_client_without_one_loses_it_at_once(house: House) -> None:
    bench = _bench(house, decimals=5)
    bench.put("degraded", client="globex", actor=WATCH)
    assert set(answer(bench.ask(client="globex"))["outputs"]) == {"label"}


def test_a_contract_says_how_precise_answers_are(house: House) -> None:
    bench = _bench(house, decimals=2, top_k=1)
    (own,), (others,) = _scores(bench), _scores(bench, "globex")
    assert sum(score > 0 for score in own) == 1
    assert max(own) == round(max(others), 2)


def test_a_client_under_contract_is_suspended_all_the_same(house: House) -> None:
    bench = _bench(house, decimals=5)
    bench.put("suspended", actor=WATCH)
    assert bench.ask().status == 403


def test_answers_are_perturbed_for_those_who_are_watched_alone(house: House) -> None:
    route = RoutePolicy(model=MODEL, mode="enforce", perturbation="modelguard-w", perturbation_max=0.3)
    bench = open_gate(house, route)
    trusted = _scores(bench)
    bench.put("watched", actor=WATCH)
    watched = _scores(bench)
    assert _scores(bench, "globex") == trusted
    assert not np.allclose(watched, trusted)
    assert np.argmax(watched) == np.argmax(trusted)
    assert np.abs(np.subtract(watched, trusted)).sum() / 2 <= 0.3 + 1e-6
