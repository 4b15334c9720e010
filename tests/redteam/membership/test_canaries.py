"""Canaries: a training that keeps its word passes, and one whose noise is a tenth of what it states is caught."""

import math
from functools import partial
from typing import Any

import numpy as np
import pytest

from palladion.private.dp.accounting import epsilon_of, gaussian_epsilon, noise_for
from palladion.private.dp.linear import Descent, descend
from palladion.private.dp.randomness import Seeded
from palladion.redteam.membership.answers import softmax
from palladion.redteam.membership.canaries import DELTA as CANARY_DELTA
from palladion.redteam.membership.canaries import Audit, audit_linear, audit_scores, check_rates, separation
from palladion.redteam.membership.lira import lira

DELTA, CLASSES = 1e-4, 4
DESCENT = Descent(steps=20, rate=4.0, clipping=0.5, bias=0.0)


def _rows(count: int = 300, seed: int = 3) -> tuple[Any, Any]:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, CLASSES, count)
    return np.eye(CLASSES)[labels] + 0.5 * generator.standard_normal((count, CLASSES)), labels


def _learnt(rows: Any, labels: Any, *, epsilon: float, share: float, seed: int) -> Any:
    """Weights of a training that states `epsilon`, and has a `share` of the noise that it takes."""
    noise = share * noise_for(epsilon, DELTA, 1.0, DESCENT.steps)
    randomness = Seeded(np.random.default_rng(seed))
    return descend(
        rows,
        labels,
        classes=CLASSES,
        kind="classes",
        descent=DESCENT,
        noise_multiplier=noise,
        randomness=randomness,
    )


def _audit(epsilon: float, share: float, seed: int) -> Audit:
    return audit_linear(
        lambda rows, labels: _learnt(rows, labels, epsilon=epsilon, share=share, seed=seed),
        *_rows(),
        classes=CLASSES,
        epsilon=gaussian_epsilon(
            math.sqrt(DESCENT.steps) / noise_for(epsilon, DELTA, 1.0, DESCENT.steps), CANARY_DELTA
        ),
        canaries=1000 if epsilon < 2 else 4000,
        mu=math.sqrt(DESCENT.steps) / noise_for(epsilon, DELTA, 1.0, DESCENT.steps),
        generator=np.random.default_rng(seed + 100),
    )


@pytest.mark.slow
@pytest.mark.parametrize("epsilon", [1.0, 4.0])
def test_a_training_that_keeps_its_word_passes_and_a_broken_one_is_caught(epsilon: float) -> None:
    for seed in range(2):
        right, broken = _audit(epsilon, 1.0, seed), _audit(epsilon, 0.1, seed)
        assert not right.breaks
        assert right.bound.epsilon <= right.stated
        assert "nothing speaks against" in right.sentence
        assert broken.p_value < 1e-3
        assert broken.bound.epsilon > broken.stated > epsilon
        assert f"that is not ε = {broken.stated:.4g}" in broken.sentence


def test_guesses_that_are_as_good_as_a_coin_say_nothing() -> None:
    generator = np.random.default_rng(1)
    audit = audit_scores(generator.standard_normal(1000), generator.random(1000) < 0.5, epsilon=0.1, delta=0.0)
    assert not audit.breaks
    assert audit.guesses == 800


def test_guesses_that_are_always_right_break_any_small_epsilon() -> None:
    member = np.random.default_rng(1).random(1000) < 0.5
    audit = audit_scores(member.astype(float), member, epsilon=2.0, delta=1e-9)
    assert audit.breaks
    assert audit.right == audit.guesses == 800
    assert audit.bound.epsilon > 3


@pytest.mark.parametrize("scores", [np.zeros(3), np.full(4, np.nan), np.zeros((2, 2))])
def test_scores_that_do_not_fit_are_a_mistake(scores: Any) -> None:
    with pytest.raises(ValueError, match="do not fit"):
        audit_scores(scores, np.zeros(4, bool), epsilon=1.0, delta=0.0)


def test_weights_without_the_canaries_features_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="features expected"):
        audit_linear(
            lambda rows, labels: np.zeros((3, CLASSES)),
            *_rows(20),
            classes=CLASSES,
            epsilon=1.0,
            delta=DELTA,
            canaries=10,
            generator=np.random.default_rng(1),
        )


def _likelihoods(epsilon: float, share: float, *, models: int, targets: int) -> tuple[Any, Any]:
    """LiRA scores of targets by reference models, all of one training, on rows with labels that can only be learnt."""
    generator = np.random.default_rng(7)
    count, classes, features = 150, 4, 80
    rows = generator.standard_normal((count, features))
    labels = generator.integers(0, classes, count)
    member = generator.random((models + targets, count)) < 0.5
    confidences = []
    for index, mask in enumerate(member):
        weights = _learnt(rows[mask], labels[mask], epsilon=epsilon, share=share, seed=index)
        unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        own = softmax(unit @ weights[:-1])[np.arange(count), labels]
        confidences.append(np.log(own / (1 - own)))
    found = np.array(confidences)
    return lira(found[:models], member[:models], found[models:]), member[models:]


@pytest.mark.slow
@pytest.mark.parametrize("rate", [0.01, 0.05, 0.2])
def test_the_likelihood_ratio_attack_stays_below_what_epsilon_allows(rate: float) -> None:
    scores, member = _likelihoods(0.5, 1.0, models=24, targets=24)
    assert not check_rates(scores, member, epsilon=0.5, delta=DELTA, rate=rate).breaks


@pytest.mark.slow
def test_the_likelihood_ratio_attack_passes_what_epsilon_allows_where_noise_is_missing() -> None:
    scores, member = _likelihoods(0.5, 0.01, models=24, targets=24)
    found = check_rates(scores, member, epsilon=0.5, delta=DELTA, rate=0.05)
    assert found.breaks
    assert found.bound.epsilon > 0.5


def test_rates_need_members_and_others() -> None:
    with pytest.raises(ValueError, match="do not fit members"):
        check_rates(np.zeros((1, 4)), np.ones((1, 4), bool), epsilon=1.0, delta=0.0, rate=0.1)


@pytest.mark.slow
@pytest.mark.torch
def test_sampled_training_in_torch_passes_and_is_caught_without_its_noise() -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'palladion[torch]'")
    pytest.importorskip("opacus", reason="Opacus is not installed: pip install 'palladion[dp]'")
    pytest.importorskip("dp_accounting", reason="dp-accounting is not installed: pip install 'palladion[dp]'")
    from palladion.private.dp.modules import Training, fit

    steps, share = 20, 0.5
    noise = noise_for(1.0, DELTA, share, steps)
    stated = epsilon_of(noise, share, steps, CANARY_DELTA).epsilon

    def learnt(rows: Any, labels: Any, *, multiplier: float) -> Any:
        training = Training(steps=steps, batch_rows=len(rows) // 2, rate=4.0, clipping=0.5, momentum=0.0, ema=0.0)
        module = torch.nn.Linear(rows.shape[1], CLASSES, bias=False)
        torch.nn.init.zeros_(module.weight)
        made = fit(
            module,
            torch.tensor(rows, dtype=torch.float32),
            torch.tensor(labels),
            training=training,
            noise_multiplier=multiplier,
            randomness=Seeded(np.random.default_rng(5)),
        )
        return np.asarray(next(iter(made.parameters())).detach().numpy().T)

    for multiplier, breaks in ((noise, False), (noise / 10, True)):
        found = audit_linear(
            partial(learnt, multiplier=multiplier),
            *_rows(200),
            classes=CLASSES,
            epsilon=stated,
            canaries=800,
            generator=np.random.default_rng(3),
        )
        assert found.breaks == breaks, found.sentence


@pytest.mark.slow
def test_half_of_the_noise_missing_is_seen_in_how_well_canaries_are_told() -> None:
    right, half = _audit(1.0, 1.0, 11), _audit(1.0, 0.4, 11)
    assert right.separation is not None
    assert half.separation is not None
    assert right.separation.allowed == half.separation.allowed < 0.6
    assert not right.breaks
    assert half.p_value > 1e-3  # the test that holds for every private training does not see it
    assert half.separation.p_value < 1e-4
    assert half.breaks


def test_the_area_under_the_curve_is_that_of_normal_scores() -> None:
    generator = np.random.default_rng(1)
    member = generator.random(4000) < 0.5
    scores = generator.standard_normal(4000) + 0.5 * member
    found = separation(scores, member, 0.5)
    assert found.allowed == pytest.approx(0.6382, abs=1e-4)  # Φ(0.5 / √2)
    assert abs(found.auc - found.allowed) < 4 * found.deviation
    assert found.deviation == pytest.approx(0.0087, abs=5e-4)
    assert found.p_value > 1e-3
    assert separation(scores, member, 0.1).p_value < 1e-6


def test_a_single_member_cannot_be_told() -> None:
    with pytest.raises(ValueError, match="too few"):
        separation(np.zeros(4), np.array([True, False, False, False]), 1.0)
