"""The oracle counts, stops at its budget, goes on where it was interrupted, and knows a wrong wrapper."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.errors import InconclusiveError, PalladionError
from palladion.redteam.membership.answers import Form
from palladion.redteam.membership.oracle import BATCH_ROWS, CountedOracle, check_as_good, check_learnt
from palladion.redteam.membership.state import Journal

ROWS = np.arange(2 * BATCH_ROWS + 10, dtype=float)[:, None]


class _Victim:
    def __init__(self, fail_at: int | None = None) -> None:
        self.batches: list[int] = []
        self.fail_at = fail_at

    def __call__(self, rows: NDArray[Any]) -> NDArray[Any]:
        if len(self.batches) == self.fail_at:
            raise KeyboardInterrupt
        self.batches.append(len(rows))
        return np.concatenate([rows, 1 - rows], axis=1) / 1e6


def test_every_query_is_counted_in_batches() -> None:
    victim = _Victim()
    oracle = CountedOracle(victim, 10_000, 2)
    assert oracle.answers(ROWS).shape == (len(ROWS), 2)
    assert victim.batches == [BATCH_ROWS, BATCH_ROWS, 10]
    assert oracle.queries == len(ROWS)


def test_nothing_is_asked_beyond_the_budget() -> None:
    victim = _Victim()
    oracle = CountedOracle(victim, BATCH_ROWS + 9, 2)
    with pytest.raises(PalladionError, match="budget"):
        oracle.answers(ROWS)
    assert victim.batches == [BATCH_ROWS]
    assert oracle.queries == BATCH_ROWS


def test_an_interrupted_one_asks_only_what_is_missing(tmp_path: Path) -> None:
    broken = CountedOracle(_Victim(fail_at=2), 10_000, 2, Journal(tmp_path, "t"))
    with pytest.raises(KeyboardInterrupt):
        broken.answers(ROWS)
    victim = _Victim()
    again = CountedOracle(victim, 10_000, 2, Journal(tmp_path, "t"))
    assert np.array_equal(again.answers(ROWS), _Victim()(ROWS))
    assert victim.batches == [10]
    # the batch that was cut short may have arrived: it counts twice
    assert again.queries == len(ROWS) + 10


def test_answers_that_change_their_shape_are_refused() -> None:
    shapes = iter([(BATCH_ROWS, 2), (BATCH_ROWS, 3)])
    with pytest.raises(InconclusiveError, match="shape"):
        CountedOracle(lambda _: np.zeros(next(shapes)), 10_000, 2).answers(ROWS)
    with pytest.raises(InconclusiveError, match="shape"):
        CountedOracle(lambda _: np.array(1.0), 10_000, 2).answers(ROWS)
    with pytest.raises(InconclusiveError, match="shape"):
        CountedOracle(lambda rows: rows[:-1], 10_000, 2).answers(ROWS)


def test_names_are_the_highest_classes() -> None:
    oracle = CountedOracle(lambda rows: np.tile([-1.0, 2.0], (len(rows), 1)), 100, 2)
    assert oracle.names(ROWS[:3], Form("logits")).tolist() == [1, 1, 1]


def test_chance_on_the_training_data_is_a_wrong_wrapper() -> None:
    generator = np.random.default_rng(1)
    labels = generator.integers(0, 4, 400)
    for named in (generator.integers(0, 4, 400), np.zeros(400, np.int64), (labels + 1) % 4):
        with pytest.raises(InconclusiveError, match="by chance"):
            check_learnt(named, labels, 4)
    check_learnt(np.where(generator.random(400) < 0.4, labels, named), labels, 4)


def test_a_class_that_is_named_always_does_not_pass_for_knowledge() -> None:
    labels = (np.arange(1000) < 20).astype(np.int64)
    with pytest.raises(InconclusiveError, match=r"98\.0%"):
        check_learnt(np.zeros(1000, np.int64), labels, 2)
    check_learnt(labels, labels, 2)


def test_classes_that_no_label_has_are_counted_as_wrong() -> None:
    labels = np.arange(300) % 3
    check_learnt(np.where(np.arange(300) % 5 == 0, 7, labels), labels, 3)


def test_a_target_far_below_its_references_is_a_wrong_wrapper() -> None:
    with pytest.raises(InconclusiveError, match="never saw"):
        check_as_good(0.30, 0.90, 10)
    check_as_good(0.55, 0.90, 10)
