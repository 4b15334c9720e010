"""The owner-level mark: found in what interpolates it, nowhere else, with a p-value that holds over many secrets."""

from statistics import NormalDist

import numpy as np
import pytest

from palladion.mark.answers.noise import Scores
from palladion.mark.answers.smooth import FEATURES, Smooth, owner_key, secret, smooth_log10_p

SEED = 20261126
ROOT = bytes(range(32))
KEY = owner_key(ROOT, "fraud", 1)
CLASSES, KEPT = 3, 6
SMOOTH = Smooth.of(np.ones(KEPT))


def _rows(count: int = 1500) -> Scores:
    return np.random.default_rng(SEED).standard_normal((count, KEPT))


def _noise(rows: int, size: float = 1.0) -> Scores:
    return size * np.random.default_rng(SEED + 1).standard_normal((rows, CLASSES))


def test_a_suspect_that_took_a_part_of_it_over_is_found() -> None:
    rows = _rows()
    reference = _noise(len(rows), 3.0)
    suspect = reference + 0.3 * SMOOTH.carrier(KEY, rows, CLASSES) + _noise(len(rows)) * 0.5
    statistic, log10_p = smooth_log10_p(SMOOTH, KEY, rows, suspect, reference)
    assert log10_p < -9
    assert log10_p == pytest.approx(-(statistic**2) / 2 / np.log(10))
    assert smooth_log10_p(SMOOTH, owner_key(ROOT, "fraud", 2), rows, suspect, reference)[1] > -2


@pytest.mark.slow
def test_over_many_secrets_the_statistic_of_an_innocent_suspect_is_standard_normal() -> None:
    rows = _rows(200)
    suspect, reference = _noise(200) + np.sin(rows[:, :CLASSES]), np.zeros((200, CLASSES))
    found = np.array(
        [smooth_log10_p(SMOOTH, owner_key(ROOT, str(n), 1), rows, suspect, reference)[0] for n in range(1000)]
    )
    # Kolmogorov's 1 % bound over 1,000 secrets
    ranks = np.arange(1, 1001) / 1000
    assert np.abs(np.array([NormalDist().cdf(item) for item in np.sort(found).tolist()]) - ranks).max() < 0.0516


def test_queries_that_a_client_chose_by_its_answers_prove_nothing() -> None:
    rows, suspect = _rows(), _noise(1500)
    honest = np.zeros_like(suspect)
    assert smooth_log10_p(SMOOTH, KEY, rows, suspect, honest)[1] > -2
    # the suspect is a stranger, and the p-value of these queries says otherwise: so they are never tested on
    chosen = np.argsort((suspect * SMOOTH.carrier(KEY, rows, CLASSES)).sum(axis=1))[750:]
    assert smooth_log10_p(SMOOTH, KEY, rows[chosen], suspect[chosen], honest[chosen])[1] < -9


def test_near_queries_are_shifted_alike_and_far_ones_are_not() -> None:
    rows = _rows(300)
    carriers = [SMOOTH.carrier(KEY, item, CLASSES) for item in (rows, rows + 0.02, rows[::-1])]
    near, far = (float(np.corrcoef(carriers[0].ravel(), item.ravel())[0, 1]) for item in carriers[1:])
    assert near > 0.99
    assert abs(far) < 0.2
    assert carriers[0].std() == pytest.approx(1, abs=0.2)


def test_rows_do_not_depend_on_their_neighbours_and_the_secret_is_the_owners() -> None:
    rows = _rows(5)
    assert np.array_equal(SMOOTH.features(rows), np.concatenate([SMOOTH.features(row[None]) for row in rows]))
    assert secret(KEY, CLASSES).shape == (CLASSES, FEATURES)
    assert not np.array_equal(secret(KEY, CLASSES), secret(owner_key(bytes(32), "fraud", 1), CLASSES))


def test_a_suspect_that_is_the_reference_is_no_evidence() -> None:
    rows = _rows(50)
    assert smooth_log10_p(SMOOTH, KEY, rows, np.ones((50, CLASSES)), np.ones((50, CLASSES))) == (0.0, 0.0)


def test_how_sure_a_suspect_is_all_along_makes_no_difference() -> None:
    rows, reference = _rows(), _noise(1500)
    suspect = reference + 0.3 * SMOOTH.carrier(KEY, rows, CLASSES)
    alike, surer = (smooth_log10_p(SMOOTH, KEY, rows, item, reference)[1] for item in (suspect, 1.5 * suspect + 7))
    assert surer < 0.7 * alike < -9


def test_rows_of_no_numbers_say_nothing() -> None:
    rows, reference = _rows(), _noise(1500)
    suspect = reference + 0.3 * SMOOTH.carrier(KEY, rows, CLASSES)
    for value in (np.nan, np.inf, -np.inf):
        broken = suspect.copy()
        broken[:10] = value
        assert smooth_log10_p(SMOOTH, KEY, rows, broken, reference)[1] < -9


def test_what_a_suspect_makes_of_answers_that_are_sure_does_not_hide_it() -> None:
    rows, reference = _rows(), _noise(1500)
    suspect = reference + 0.3 * SMOOTH.carrier(KEY, rows, CLASSES)
    reference[::2] = [30.0, 0.0, 0.0]
    suspect[::2] = 3 * np.random.default_rng(SEED + 2).standard_normal((750, CLASSES))
    assert smooth_log10_p(SMOOTH, KEY, rows, suspect, reference)[1] < -9
