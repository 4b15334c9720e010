"""Label-only probes: rows far from the boundary score higher, and what is asked is what was said."""

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam.membership.label_only import boundary_probe, gap_scores, noise_probe

SEED = 6


class _Halves:
    """Class 1 right of 0 in the first column; counts what it is asked."""

    def __init__(self) -> None:
        self.queries = 0
        self.seen: list[NDArray[Any]] = []

    def __call__(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        self.queries += len(rows)
        self.seen.append(rows)
        return (rows.reshape(len(rows), -1)[:, 0] > 0).astype(np.int64)


def _rows(count: int = 200) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    rows = np.random.default_rng(SEED).standard_normal((count, 3))
    return rows, (rows[:, 0] > 0).astype(np.int64)


def test_the_gap_is_whether_the_model_is_right() -> None:
    assert gap_scores(np.array([[1, 0], [1, 1]]), np.array([1, 1])).tolist() == [[1.0, 0.0], [1.0, 1.0]]


def test_the_boundary_is_measured_along_the_lines() -> None:
    rows, labels = _rows()
    victim = _Halves()
    probe = boundary_probe(rows, labels)
    scores = probe.scores(victim, rows, labels, 1)
    assert victim.queries == len(rows) * probe.queries_per_row
    # the boundary lies at 0 of the first column: lines to it are as long as a row is far from it
    far = np.abs(rows[:, 0])
    assert np.corrcoef(scores, far)[0, 1] > 0.8
    # of one row by hand: the share of its way to the end at which the first column is 0
    one = boundary_probe(np.array([[-1.0, 0.0, 0.0], [3.0, 0.0, 0.0]]), np.array([0, 1]))
    found = one.scores(_Halves(), np.array([[3.0, 0.0, 0.0]]), np.array([1]), 1)
    length = np.sqrt(np.square(4 / 2.0) / 3)
    assert found[0] == pytest.approx(0.75 * length, abs=1.01 * length / 2**5)


def test_rows_that_are_labelled_wrong_are_at_the_boundary() -> None:
    rows, labels = _rows()
    scores = boundary_probe(rows, labels).scores(_Halves(), rows, 1 - labels, 1)
    assert (scores == 0).all()


def test_lines_end_at_rows_of_other_classes() -> None:
    rows = np.arange(12, dtype=float)[:, None]
    labels = np.array([0, 1, 2] * 4)
    probe = boundary_probe(rows, labels)
    for seed in range(20):
        asked = np.array([0, 1, 2, 7] * 5)  # 7 is a class of nobody else
        ends = labels[probe._ends(asked, np.random.default_rng(seed))]
        assert (ends != asked).all()
        assert set(ends.tolist()) == {0, 1, 2}
    alone = boundary_probe(rows, np.zeros(12, np.int64))
    with pytest.raises(ValueError, match="another class"):
        alone.scores(_Halves(), rows, np.zeros(12, np.int64), 1)


def test_noise_turns_rows_near_the_boundary_first() -> None:
    rows, labels = _rows()
    victim = _Halves()
    probe = noise_probe(rows)
    scores = probe.scores(victim, rows, labels, 1)
    assert victim.queries == len(rows) * probe.queries_per_row
    assert ((scores >= 0) & (scores <= 1)).all()
    near = np.abs(rows[:, 0]) < 0.3
    assert scores[near].mean() < 0.8
    assert scores[~near & (np.abs(rows[:, 0]) > 1)].mean() > 0.98


def test_noise_keeps_columns_in_their_range_and_whole_numbers_whole() -> None:
    rows = np.random.default_rng(SEED).integers(0, 5, (50, 2, 2)).astype(np.uint8)
    victim = _Halves()
    noise_probe(rows).scores(victim, rows, np.zeros(50, np.int64), 1)
    assert all(asked.dtype == np.uint8 and asked.shape == rows.shape for asked in victim.seen)
    assert max(int(asked.max()) for asked in victim.seen) == 4
    assert any((asked != rows).any() for asked in victim.seen)


def test_the_same_seed_asks_the_same_of_every_model() -> None:
    rows, labels = _rows(20)
    one, other, third = _Halves(), _Halves(), _Halves()
    probe = noise_probe(rows)
    probe.scores(one, rows, labels, 3)
    probe.scores(other, rows, labels, 3)
    probe.scores(third, rows, labels, 4)
    assert np.array_equal(one.seen[5], other.seen[5])
    assert not np.array_equal(one.seen[5], third.seen[5])
