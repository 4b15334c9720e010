"""Accounts of ε: closed forms, two accountants beside each other, and a published figure."""

import math

import numpy as np
import pytest

from palladion.private.dp.accounting import (
    epsilon_of,
    gaussian_delta,
    gaussian_epsilon,
    noise_for,
    zcdp_epsilon,
)


def test_steps_over_all_rows_are_one_gaussian_mechanism() -> None:
    assert epsilon_of(2.0, 1.0, 4, 1e-5).epsilon == pytest.approx(gaussian_epsilon(1.0, 1e-5))
    # Balle and Wang, ICML 2018: at σ = 1 and sensitivity 1
    assert gaussian_epsilon(1.0, 1e-5) == pytest.approx(4.3772, abs=1e-3)


def test_the_closed_form_is_what_integration_finds() -> None:
    # E over the output x ~ N(μ, 1) of (1 - exp(ε - μ x + μ² / 2))⁺, by sums
    mu, epsilon = 1.3, 2.0
    x = np.linspace(-12, 14, 400_001)
    density = np.exp(-((x - mu) ** 2) / 2) / math.sqrt(2 * math.pi)
    excess = np.maximum(0.0, 1 - np.exp(np.minimum(epsilon - mu * x + mu**2 / 2, 0)))
    assert gaussian_delta(mu, epsilon) == pytest.approx(float((density * excess).sum() * (x[1] - x[0])), rel=1e-4)


@pytest.mark.parametrize("epsilon", [0.1, 1.0, 8.0])
def test_the_noise_for_a_budget_spends_it_and_no_more(epsilon: float) -> None:
    noise = noise_for(epsilon, 1e-5, 1.0, 50)
    assert epsilon * 0.999 < epsilon_of(noise, 1.0, 50, 1e-5).epsilon <= epsilon * (1 + 1e-9)


def test_too_little_noise_is_no_privacy() -> None:
    assert gaussian_epsilon(1000.0, 1e-5) == math.inf


@pytest.mark.parametrize("rho", [1e-4, 0.01, 1.0, 10.0])
def test_concentrated_privacy_is_between_its_mechanism_and_the_simple_bound(rho: float) -> None:
    found = zcdp_epsilon(rho, 1e-6)
    assert gaussian_epsilon(math.sqrt(2 * rho), 1e-6) <= found <= rho + 2 * math.sqrt(rho * math.log(1e6))
    assert zcdp_epsilon(0, 1e-6) == 0


@pytest.mark.parametrize(
    ("noise", "rate", "steps", "delta"),
    [
        (0, 1, 1, 0.1),
        (math.inf, 1, 1, 0.1),
        (math.nan, 1, 1, 0.1),
        (1, 0, 1, 0.1),
        (1, 2, 1, 0.1),
        (1, 1, 0, 0.1),
        (1, 1, 1, 0),
        (1, 1, 1, 1),
    ],
)
def test_figures_of_no_training_are_a_mistake(noise: float, rate: float, steps: int, delta: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        epsilon_of(noise, rate, steps, delta)


def test_a_budget_that_is_none_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="ε is 0"):
        noise_for(0.0, 1e-5, 1.0, 1)


@pytest.mark.slow
def test_two_accountants_of_sampled_training_agree_and_the_published_figure_is_met() -> None:
    pytest.importorskip("dp_accounting", reason="dp-accounting is not installed: pip install 'palladion[dp]'")
    # Abadi et al., CCS 2016: q = 0.01, σ = 4, 10 000 steps, δ = 1e-5 is ε = 1.26 by the moments accountant
    spent = epsilon_of(4.0, 0.01, 10_000, 1e-5)
    assert spent.epsilon_rdp is not None
    assert 0.8 < spent.epsilon < spent.epsilon_rdp < 1.26
    assert spent.accountant == "pld"


@pytest.mark.slow
def test_the_noise_for_sampled_training_spends_its_budget_and_no_more() -> None:
    pytest.importorskip("dp_accounting", reason="dp-accounting is not installed: pip install 'palladion[dp]'")
    noise = noise_for(2.0, 1e-5, 0.1, 50)
    assert 2.0 * 0.99 < epsilon_of(noise, 0.1, 50, 1e-5).epsilon <= 2.0
