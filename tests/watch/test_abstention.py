"""The strangest honest queries: no more than the share that was asked for lies beyond the limit, whoever asks."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from palladion.errors import FormatError
from palladion.model import safetensors
from palladion.watch.abstention import LIMITS, NO_ROWS, SHARE_MAX, Abstention
from palladion.watch.calibration_file import decode_calibration, encode_calibration
from palladion.watch.features import FEATURES, REPEATS
from palladion.watch.instruments import Episode
from palladion.watch.rows import Rows

from . import factories

SEED = 20261126


def test_no_more_than_the_share_of_further_honest_queries_lies_beyond_the_limit() -> None:
    """Split conformal prediction: on average over calibrations of the same size."""
    generator, beyond = np.random.default_rng(SEED), []
    for _ in range(400):
        drawn = generator.standard_normal(1500) ** 2
        beyond.append(
            [
                (generator.standard_normal(2000) ** 2 > Abstention.fit(drawn).limit(share)).mean()
                for share in (0.001, 0.01)
            ]
        )
    mean, noise = np.mean(beyond, axis=0), 3 * np.std(beyond, axis=0) / 20
    for found, error, share in zip(mean, noise, (0.001, 0.01), strict=True):
        assert found <= share + error, f"seed {SEED}"
        assert found > share / 2, f"seed {SEED}"


def test_a_smaller_share_has_a_further_limit() -> None:
    fitted = Abstention.fit(np.random.default_rng(SEED).random(20_000))
    assert len(fitted.limits) == LIMITS
    assert (np.diff(fitted.limits) <= 0).all()
    assert fitted.limit(0.0001) > fitted.limit(0.005) > fitted.limit(0.01)


def test_a_share_between_two_steps_refuses_no_more_than_it_says() -> None:
    fitted = Abstention.fit(np.random.default_rng(SEED).random(20_000))
    assert fitted.limit(0.00579) == fitted.limit(0.0057) > fitted.limit(0.0058)
    assert all(fitted.limit(step / 10_000) == fitted.limits[step - 1] for step in range(1, 101))


def test_few_queries_support_no_small_share_and_say_which() -> None:
    fitted = Abstention.fit(np.arange(499.0))
    assert fitted.share_min == 0.002
    assert fitted.limit(0.002) == 498
    for share in (0.0019, 0.0001, 0.0, -1, SHARE_MAX + 0.0001):
        with pytest.raises(ValueError, match=r"is not from 0\.002 to 0\.01"):
            fitted.limit(share)


def test_of_no_queries_no_share_is_supported() -> None:
    assert NO_ROWS.share_min > SHARE_MAX
    with pytest.raises(ValueError, match="is not from"):
        NO_ROWS.limit(SHARE_MAX)


@pytest.mark.slow
def test_so_many_queries_of_honest_clients_that_were_in_no_calibration_are_refused() -> None:
    calibration, generator = factories.calibration(), np.random.default_rng(SEED)
    refused = np.concatenate(
        [
            calibration.unlike(client.inputs, client.scores, 0.01)
            for client in (factories.honest(generator) for _ in range(500))
        ]
    )
    assert 0.002 < refused.mean() < 0.02, f"seed {SEED}: {refused.mean():.4f} of {len(refused)}"


@pytest.mark.parametrize("thief", [factories.foreign, factories.noise])
def test_thieves_of_other_rows_are_refused_far_more_often(thief: Callable[[np.random.Generator, int], Episode]) -> None:
    calibration, generator = factories.calibration(), np.random.default_rng(SEED)
    asked = thief(generator, 400)
    assert calibration.unlike(asked.inputs, asked.scores, 0.01).mean() > 0.2, f"seed {SEED}"


def test_a_query_is_refused_or_not_whatever_stands_beside_it_and_was_asked_before() -> None:
    calibration, generator = factories.calibration(), np.random.default_rng(SEED)
    asked = factories.mixing(generator, 60, 0.5)
    together = calibration.unlike(asked.inputs, asked.scores, 0.01)
    one_by_one = [
        bool(calibration.unlike(asked.inputs[row : row + 1], asked.scores[row : row + 1], 0.01)[0]) for row in range(60)
    ]
    backwards = calibration.unlike(asked.inputs[::-1], asked.scores[::-1], 0.01)[::-1]
    assert 0 < together.sum() < 60
    assert one_by_one == together.tolist() == backwards.tolist()
    # a repeat, of which the watch takes no notice, is not answered either
    twice = np.concatenate([asked.inputs, asked.inputs]), np.concatenate([asked.scores, asked.scores])
    assert calibration.unlike(*twice, 0.01).tolist() == together.tolist() * 2


def test_how_near_a_query_is_to_earlier_ones_does_not_count() -> None:
    instruments = factories.calibration().instruments
    scores = np.random.default_rng(SEED).standard_normal((20, len(FEATURES))).clip(-3, 3)
    other = scores.copy()
    other[:, REPEATS] = 3
    np.testing.assert_array_equal(instruments.distance(scores), instruments.distance(other))
    other[:, REPEATS + 1] = 3
    assert (instruments.distance(scores) != instruments.distance(other)).all()


@pytest.mark.parametrize("name", factories.hostile())
def test_rows_that_nobody_honest_sends_get_a_decision(name: str) -> None:
    rows: Rows = factories.hostile()[name]
    with np.errstate(all="ignore"):
        found = factories.calibration().unlike(rows, np.full((len(rows), factories.CLASSES), np.nan), 0.01)
    assert found.shape == (len(rows),)


def test_rows_of_another_size_are_refused() -> None:
    assert factories.calibration().unlike(np.zeros((2, 3)), np.full((2, factories.CLASSES), 0.25), 0.01).all()


def test_the_limits_are_kept_in_the_calibration_file() -> None:
    calibration = factories.calibration()
    again = decode_calibration(encode_calibration(calibration), what="it").abstention
    np.testing.assert_array_equal(again.limits, calibration.abstention.limits)
    assert again.rows == calibration.abstention.rows == 299 * factories.HORIZON


@pytest.mark.parametrize(
    "broken",
    [
        Abstention(np.arange(float(LIMITS)), 10),
        Abstention(np.zeros(LIMITS), 0),
        Abstention(np.zeros(LIMITS - 1), 10),
        Abstention(np.full(LIMITS, np.nan), 10),
    ],
    ids=["ascending", "of no queries", "too few", "not a number"],
)
def test_limits_that_cannot_be_any_are_refused(broken: Abstention) -> None:
    data = encode_calibration(replace(factories.calibration(), abstention=broken))
    with pytest.raises(FormatError, match="it"):
        decode_calibration(data, what="it")


def test_a_file_without_limits_is_refused() -> None:
    tensors, metadata = safetensors.parse(memoryview(encode_calibration(factories.calibration())), what="it")
    left = [tensor for name, tensor in tensors.items() if name != "abstention.limits"]
    with pytest.raises(FormatError, match=r"abstention\.limits"):
        decode_calibration(safetensors.serialise(left, metadata), what="it")
