"""Budgets of private answers: what was spent adds up by the tighter composition, and never goes beyond."""

import math

import pytest

from palladion.gate.disclosure.privacy import PrivacyBudget, answers_within, cost_of, spent_epsilon
from palladion.registry.privacy import PrivacySpent

DELTA = 1e-6
NOTHING = PrivacySpent()


def test_few_answers_cost_what_they_add_up_to_and_many_less() -> None:
    few, many = cost_of(0.1, 0.1**2 / 8, 3), cost_of(0.1, 0.1**2 / 8, 1000)
    assert spent_epsilon(few, DELTA) == pytest.approx(0.3)
    assert spent_epsilon(many, DELTA) < 15 < 1000 * 0.1


def test_a_mechanism_without_a_bound_of_its_own_is_counted_by_rho_alone() -> None:
    spent = cost_of(math.inf, 0.01, 5)
    assert spent.epsilon == math.inf
    assert 0 < spent_epsilon(spent, DELTA) < 2
    assert spent_epsilon(spent.plus(cost_of(0.1, 0.005, 1)), DELTA) < 2.1


def test_nothing_costs_nothing() -> None:
    assert spent_epsilon(NOTHING, DELTA) == 0


def test_both_budgets_have_to_allow_it() -> None:
    budget = PrivacyBudget(epsilon_per_client=1.0, epsilon_total=2.0, delta=DELTA)
    one, three = PrivacySpent(1, 1.0, 100.0), PrivacySpent(3, 3.0, 100.0)
    assert budget.allows(one, one)
    assert not budget.allows(three, one)
    assert not budget.allows(one, three)


def test_a_budget_buys_the_most_answers_that_fit_into_it() -> None:
    assert answers_within(1.0, 0.5, 8.0, DELTA) == 8
    many = answers_within(0.1, 0.1**2 / 8, 8.0, DELTA)
    assert many > 80
    assert spent_epsilon(cost_of(0.1, 0.1**2 / 8, many), DELTA) <= 8
    assert spent_epsilon(cost_of(0.1, 0.1**2 / 8, many + 1), DELTA) > 8
    assert answers_within(10.0, 50.0, 8.0, DELTA) == 0
    assert answers_within(1e-9, 1e-12, 8.0, DELTA, most=50) == 50


@pytest.mark.parametrize("epsilon", [0.0, -1.0, math.inf, math.nan])
def test_a_budget_that_is_no_positive_number_is_a_mistake(epsilon: float) -> None:
    with pytest.raises(ValueError, match="a positive number was expected"):
        PrivacyBudget(epsilon, 1.0, DELTA)
    with pytest.raises(ValueError, match="a positive number was expected"):
        PrivacyBudget(1.0, epsilon, DELTA)


@pytest.mark.parametrize(("epsilon", "rho", "rows"), [(0.0, 1.0, 1), (math.nan, 1.0, 1), (1.0, math.inf, 1), (1, 1, 0)])
def test_a_cost_that_is_none_is_a_mistake(epsilon: float, rho: float, rows: int) -> None:
    with pytest.raises(ValueError, match="cannot be spent"):
        cost_of(epsilon, rho, rows)
