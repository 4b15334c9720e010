"""Noisy rows and columns of an aligned tensor have less say, and nothing changes where noise is the same everywhere."""

import numpy as np

from palladion.mark.align.noise import weigh_by_noise
from tests.mark.suspects import matrix, tensor

OURS = matrix(96, 64)


def noise(seed: int = 3) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    scale = np.sqrt(np.square(OURS).mean(axis=1, keepdims=True))
    drawn: np.ndarray[tuple[int, int], np.dtype[np.float64]] = np.random.default_rng(seed).standard_normal(OURS.shape)
    return np.asarray(scale * drawn, np.float32)


def test_even_noise_is_left_as_it_is() -> None:
    change = 0.1 * noise()

    weighed = weigh_by_noise(tensor("w", OURS), OURS + change) - OURS

    assert np.corrcoef(weighed.ravel(), change.ravel())[0, 1] > 0.98
    assert 0.9 < weighed.std() / change.std() < 1.05


def test_noise_is_weighed_by_the_inverse_of_its_variance() -> None:
    loud = np.where(np.arange(64) % 2, 4, 1)
    change = (0.1 * loud * noise()).astype(np.float32)

    weighed = weigh_by_noise(tensor("w", OURS), OURS + change) - OURS

    factor = np.sqrt(np.square(weighed).mean(axis=0) / np.square(change).mean(axis=0))
    assert 11 < factor[::2].mean() / factor[1::2].mean() < 18  # 4², drawn a little towards the average


def test_one_ruined_weight_does_not_silence_its_row_and_column() -> None:
    ruined = OURS + 0.1 * noise()
    ruined[5, 7] = 1e6

    weighed = weigh_by_noise(tensor("w", OURS), ruined) - OURS

    row = np.delete(weighed[5], 7)
    assert np.abs(row).mean() > 0.05 * np.abs(np.delete(ruined - OURS, 7, axis=1)[5]).mean()


def test_pruned_and_missing_weights_stay_what_they_are() -> None:
    copy = OURS + 0.01 * noise()
    copy[::2] = np.where(np.abs(OURS[::2]) > 0.02, 0, copy[::2])
    copy[:, 3] = np.nan

    weighed = weigh_by_noise(tensor("w", OURS), copy)

    assert np.array_equal(weighed == 0, copy == 0)
    assert np.array_equal(np.isnan(weighed), np.isnan(copy))


def test_a_tensor_that_carries_no_mark_is_passed_on() -> None:
    small = np.ones((3, 3), np.float32)

    assert weigh_by_noise(tensor("w", small), 2 * small) is not None
    assert np.array_equal(weigh_by_noise(tensor("w", small), 2 * small), 2 * small)
