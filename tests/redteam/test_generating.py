"""Data-free theft: it needs the columns' ranges alone, counts all it asks, and finds where copy and model differ."""

from typing import Any

import numpy as np
import pytest

from palladion.redteam import generating
from palladion.redteam.extraction import Target
from palladion.redteam.generating import generated


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generating, "STUDENT_STEPS", 20)


POOL = np.random.default_rng(6).uniform([0, -4, 10], [16, 4, 20], (200, 3))
WHOLE = np.array([True, False, False])


def _answer(rows: Any) -> Any:
    second = 1 / (1 + np.exp(-(rows[:, 1] + (rows[:, 0] - 8) / 4)))
    return np.stack([1 - second, second], axis=1)


def _target() -> Target:
    pool = np.where(WHOLE, np.rint(POOL), POOL)
    return Target(pool[:100], pool[100:], _answer(pool[100:]), "probabilities", WHOLE)


def test_every_row_that_is_asked_counts_and_is_one_that_the_model_takes() -> None:
    asked: list[Any] = []

    def api(rows: Any) -> Any:
        asked.append(rows)
        return _answer(rows)

    rows, answers = generated(_target(), api, 75, np.random.default_rng(1))
    assert np.array_equal(np.concatenate(asked), rows)
    assert len(rows) == len(answers) == 75
    assert np.array_equal(answers, _answer(rows))
    assert np.array_equal(rows[:, 0], np.rint(rows[:, 0]))
    low, high = _target().pool.min(axis=0), _target().pool.max(axis=0)
    assert ((rows >= low) & (rows <= high)).all()


def test_no_row_of_the_pool_is_used() -> None:
    one = _target()
    turned = Target(one.pool[::-1] * 1.0, one.held_out, one.truth, one.goal, one.whole)
    inside = one.pool.copy()
    inside[1:-1] = np.clip(inside[1:-1].mean(axis=0), inside.min(axis=0), inside.max(axis=0))
    inside[0], inside[-1] = one.pool.min(axis=0), one.pool.max(axis=0)
    flat = Target(inside, one.held_out, one.truth, one.goal, one.whole)
    rows = [generated(given, _answer, 40, np.random.default_rng(1))[0] for given in (one, turned, flat)]
    assert np.array_equal(rows[0], rows[1])
    assert np.array_equal(rows[0], rows[2])


def test_it_moves_to_where_it_is_sent() -> None:
    maker = generating._Generator(np.zeros(3), np.ones(3), np.random.default_rng(2))
    before = maker.rows(200).mean(axis=0)
    for _ in range(30):
        maker.climb(np.tile([1.0, 0.0, -1.0], (len(maker.rows(50)), 1)))
    after = maker.rows(200).mean(axis=0)
    assert after[0] > before[0] + 0.1
    assert after[2] < before[2] - 0.1


def test_the_same_seed_asks_the_same_and_other_answers_lead_elsewhere() -> None:
    def other(rows: Any) -> Any:
        return _answer(rows * [1, -1, 1])

    one, two, three = (generated(_target(), api, 80, np.random.default_rng(3))[0] for api in (_answer, _answer, other))
    assert np.array_equal(one, two)
    assert np.array_equal(one[:32], three[:32])
    assert not np.array_equal(one, three)
