"""Terms: what holds for one caller, and that the watch alone reduces no contract's precision."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, get_args

import pytest

from palladion.gate.callers import WATCH, Caller
from palladion.gate.contract import Contract
from palladion.gate.disclosure import LEVELS
from palladion.gate.disclosure.terms import Terms, own_contracts, terms_of
from palladion.policy import ContractPolicy, Policy, RoutePolicy
from palladion.registry import Client
from palladion.registry.rows import Standing

NOW = datetime(2026, 11, 26, tzinfo=UTC)
ROUTE = RoutePolicy(model="fraud", mode="enforce")
CONTRACT = Contract("p", None, "classes", "scores", 2, 3)


def _caller(standing: Standing, decided_by: str = WATCH) -> Caller:
    client = Client("client-1", "acme", "web", (), "trusted", NOW, None)
    return Caller(client, standing, NOW, decided_by)


def _own(**changes: Any) -> Any:
    return own_contracts(Policy(contract=(ContractPolicy(client="acme/web", **changes),)))


def _terms(standing: Standing, own: Any, decided_by: str = WATCH, route: RoutePolicy = ROUTE) -> Terms | None:
    return terms_of(_caller(standing, decided_by), standing, route, CONTRACT, own)


@pytest.mark.parametrize("standing", get_args(Standing))
def test_without_a_contract_of_its_own_the_standing_says_it(standing: Standing) -> None:
    expected = None if standing == "suspended" else Terms(CONTRACT, LEVELS[standing])
    assert _terms(standing, {}) == expected


@pytest.mark.parametrize("standing", ["trusted", "watched", "throttled", "degraded"])
def test_a_contract_keeps_its_precision_whatever_the_watch_decides(standing: Standing) -> None:
    promised = replace(CONTRACT, decimals=6, top_k=0)
    assert _terms(standing, _own(decimals=6, top_k=0)) == Terms(promised, "contract")


@pytest.mark.parametrize("standing", ["throttled", "degraded"])
def test_a_person_can_reduce_a_contract(standing: Standing) -> None:
    found = _terms(standing, _own(decimals=6), decided_by="operator:ann")
    assert found == Terms(replace(CONTRACT, decimals=6), LEVELS[standing])


@pytest.mark.parametrize("decided_by", [WATCH, "operator:ann"])
def test_a_suspension_holds_for_contracts_too(decided_by: str) -> None:
    assert _terms("suspended", _own(decimals=6), decided_by) is None


def test_a_contract_about_rates_alone_promises_no_precision() -> None:
    assert _own(queries_per_second=100.0) == {}
    assert _own(answer="label").keys() == {("acme", "web")}


def test_others_are_not_under_the_contract() -> None:
    own = own_contracts(Policy(contract=(ContractPolicy(client="acme/other", decimals=6),)))
    assert _terms("throttled", own) == Terms(CONTRACT, "reduced")


def test_perturbation_begins_with_being_watched() -> None:
    route = RoutePolicy(model="fraud", mode="enforce", perturbation="reverse-sigmoid", perturbation_max=0.1)
    assert _terms("trusted", {}, route=route) == Terms(CONTRACT, "contract")
    for standing, level in (("watched", "contract"), ("throttled", "reduced"), ("degraded", "label")):
        expected = Terms(CONTRACT, level, "reverse-sigmoid", 0.1)  # type: ignore[arg-type]
        assert _terms(standing, {}, route=route) == expected  # type: ignore[arg-type]


def test_a_contract_is_not_perturbed_before_a_person_decides() -> None:
    route = RoutePolicy(model="fraud", mode="enforce", perturbation="reverse-sigmoid")
    assert _terms("throttled", _own(decimals=6), route=route) == Terms(replace(CONTRACT, decimals=6), "contract")
    found = _terms("throttled", _own(decimals=6), "operator:ann", route)
    assert found is not None
    assert found.perturbation == "reverse-sigmoid"


def test_a_label_is_promised_only_where_there_is_one() -> None:
    vectors = Contract("v", None, "embedding", "scores", 17, 0)
    found = terms_of(_caller("trusted"), "trusted", ROUTE, vectors, _own(answer="label"))
    assert found is not None
    assert found.contract.answer == "scores"
