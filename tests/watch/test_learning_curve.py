"""Learning curves: read between their points, turned into budgets, kept in one document, and limits of the watch."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.policy import WatchPolicy
from palladion.watch.coverage import BUCKETS
from palladion.watch.learning_curve import (
    KNOTS_MAX,
    Fit,
    budget_of,
    decode_curve,
    encode_curve,
    monotone,
    rounded,
)
from palladion.watch.watch import Asker, Watch
from tests.watch.curves import CURVE
from tests.watch.factories import calibration, honest

SEED = 41


def test_a_copy_is_read_between_the_points_and_from_knowing_nothing_on() -> None:
    assert [CURVE.at_most(buckets) for buckets in (0, 10, 20, 30)] == pytest.approx([0.25, 0.5, 0.65, 0.8])
    assert CURVE.expected([5, 20, 99]) == pytest.approx([0.35, 0.525, 0.6])
    assert CURVE.allowed([30, 99]) == pytest.approx([0.8, 0.8])


def test_beyond_what_was_measured_a_copy_may_be_whole() -> None:
    assert CURVE.at_most(31) == 1.0


def test_a_budget_is_the_most_buckets_that_leave_no_better_copy() -> None:
    for fidelity in (0.3, 0.5, 0.65, 0.79):
        budget = CURVE.budget(fidelity)
        assert CURVE.at_most(budget) <= fidelity < CURVE.at_most(budget + 1)


def test_a_budget_ends_where_the_measurement_does() -> None:
    assert CURVE.budget(0.8) == CURVE.budget(1.0) == 30


def test_no_bucket_is_left_where_a_copy_is_as_good_without_any() -> None:
    assert CURVE.budget(0.2) == 0


def test_the_stricter_of_two_budgets_counts() -> None:
    assert budget_of(0, 0, CURVE) == budget_of(0, 0.5, None) == 0
    assert budget_of(7, 0, CURVE) == budget_of(7, 0.5, CURVE) == budget_of(7, 0.5, None) == 7
    assert budget_of(20, 0.5, CURVE) == budget_of(0, 0.5, CURVE) == 10
    assert budget_of(0, 0.1, CURVE) == 1  # and not 0, which would be no limit


def test_a_line_that_falls_is_pooled_to_its_means() -> None:
    assert monotone(np.array([1.0, 3, 2, 2, 5, 4])) == pytest.approx([1, 7 / 3, 7 / 3, 7 / 3, 4.5, 4.5])
    assert monotone(np.array([3.0, 2, 1])) == pytest.approx([2, 2, 2])


def test_no_rising_line_is_nearer_than_the_pooled_one() -> None:
    generator = np.random.default_rng(SEED)
    for _ in range(50):
        values = generator.random(6)
        best = np.square(monotone(values) - values).sum()
        others = np.sort(generator.random((200, 6)), axis=1)
        assert best <= np.square(others - values).sum(axis=1).min() + 1e-12


def test_a_curve_survives_its_document() -> None:
    assert decode_curve(encode_curve(CURVE), what="it") == CURVE
    exact = replace(CURVE, mean=(0.451234567, 0.6), left_out=Fit(5, None, 1 / 3, None, -0.12345678))
    assert decode_curve(encode_curve(exact), what="it") == rounded(exact) != exact


@pytest.mark.parametrize(
    "parts",
    [
        {"coverage": (30, 10)},
        {"coverage": (10, BUCKETS + 1)},
        {"coverage": (0, 30)},
        {"coverage": (10,)},
        {"best": (0.8, 0.7)},
        {"best": (0.5, 1.1)},
        {"worst": (0.46, 0.5)},
        {"mean": (0.45, 0.9)},
        {"base": 0.6},
        {"base": -0.1},
        dict.fromkeys(("worst", "mean", "best"), (0.5,) * (KNOTS_MAX + 1))
        | {"coverage": tuple(range(1, KNOTS_MAX + 2))},
    ],
)
def test_what_is_no_rising_curve_is_none(parts: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="learning curve"):
        replace(CURVE, **parts)


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "learning-curve-2"},
        {"base": "nan"},
        {"base": "0.25"},
        {"base": 0.25},
        {"points": []},
        {"points": [[10, "0.4000", "0.4500"]]},
        {"points": [[10, "0.4000", "0.4500", "1.5000"]]},
        {"seeds": list(range(9000))},
        {"families": {str(number): encode_curve(CURVE)["left_out"] for number in range(17)}},
        {"more": 1},
    ],
)
def test_any_other_document_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(FormatError, match="the curve"):
        decode_curve(encode_curve(CURVE) | changes, what="the curve")
    with pytest.raises(FormatError):
        decode_curve([changes], what="it")


def _watched(**settings: Any) -> Watch:
    watch = Watch(WatchPolicy(**settings))
    watch.watch_model("fraud", calibration(), {})
    return watch


def test_the_watch_limits_a_copy_by_the_curve_of_the_model() -> None:
    episode = honest(np.random.default_rng(SEED))
    watch = _watched(fidelity_max=0.45)
    watch.learn("fraud", CURVE)
    asker, spent, covered = Asker("a", "acme"), [], 0
    for row in range(20):
        part = slice(row, row + 1)
        found = watch.observe(asker, "fraud", episode.inputs[part], episode.scores[part], now=1.0)
        covered += found.new_buckets
        spent.append(found.evidence.budget_spent)
        assert spent[-1] == (covered > CURVE.budget(0.45))
    assert not spent[0]
    assert found.verdict.cause == "budget"
    (explained,) = watch.explain("a")
    assert explained.fidelity == CURVE.at_most(covered)


def test_a_limit_follows_the_policy_and_the_curve() -> None:
    episode = honest(np.random.default_rng(SEED))
    watch, asker = _watched(), Asker("a", "acme")

    def spent() -> bool:
        return watch.observe(asker, "fraud", episode.inputs, episode.scores, now=1.0).evidence.budget_spent

    assert not spent()
    assert watch.explain("a")[0].fidelity is None
    watch.learn("fraud", CURVE)
    assert not spent()
    watch.renew(WatchPolicy(fidelity_max=0.3))
    assert spent()
    watch.learn("fraud", None)
    assert not spent()
    watch.learn("other", CURVE)  # of a model that is not watched, nothing comes
