"""Reverse engineering: what kind of model answers is told apart, and linear models and trees come back whole."""

from typing import Any

import numpy as np
import pytest

from palladion.redteam.reverse import (
    BATCH_ROWS,
    SAMPLES,
    find_paths,
    linear_error,
    look,
    look_queries,
    solve,
    time_of,
)

GENERATOR = np.random.default_rng(7)
UNITS = np.array([1.0, 10, 100, 0.1])
ROWS = GENERATOR.standard_normal((400, 4)) * UNITS + 3 * UNITS
WEIGHTS = GENERATOR.standard_normal((4, 3)) / UNITS[:, None]


def _softmax(scores: Any) -> Any:
    found = np.exp(scores - scores.max(axis=1, keepdims=True))
    return found / found.sum(axis=1, keepdims=True)


def _linear(rows: Any) -> Any:
    return _softmax((rows - 3 * UNITS) @ WEIGHTS).astype(np.float32)


def _network(rows: Any) -> Any:
    hidden = np.maximum((rows - 3 * UNITS) / UNITS @ np.random.default_rng(1).standard_normal((4, 20)), 0)
    return _softmax(hidden @ np.random.default_rng(2).standard_normal((20, 3)) / 3).astype(np.float32)


def _tree(rows: Any) -> Any:
    """Five leaves, two of which answer alike."""
    said = np.array([[0.9, 0.1], [0.2, 0.8], [0.35, 0.65], [0.9, 0.1], [0.6, 0.4]])
    left = np.where(rows[:, 1] > 32, 0, np.where(rows[:, 3] > 0.25, 1, 2))
    right = np.where(rows[:, 2] > 310, 3, 4)
    return said[np.where(rows[:, 0] > 3.1, right, left)]


def _forest(rows: Any) -> Any:
    """Twelve trees of one threshold each, either class as often."""
    generator = np.random.default_rng(3)
    columns, places, worth = generator.integers(0, 4, 12), generator.standard_normal(12), generator.standard_normal(12)

    def votes(asked: Any) -> Any:
        return (((asked - 3 * UNITS) / UNITS)[:, columns] > places) @ worth

    return _softmax(np.column_stack([votes(rows) - np.median(votes(ROWS)), np.zeros(len(rows))]) / 2)


def _rounded(rows: Any) -> Any:
    """A network's answers, rounded to one decimal and then made to sum to 1, as the gate does."""
    said = np.round(_many(rows), 1)
    return said / said.sum(axis=1, keepdims=True)


def test_a_network_that_is_rounded_before_it_sums_to_one_is_not_taken_for_trees() -> None:
    looks = look(_rounded, ROWS, np.random.default_rng(1))
    assert (looks.kind, looks.decimals) == ("unknown", 1)


def _likeliest(ask: Any, rows: Any, decimals: int | None, count: int = 1) -> Any:
    """The likeliest classes alone, rounded, and the others with equal shares of what is left."""
    said = np.asarray(ask(rows), np.float64)
    shown = np.argsort(-said, axis=1)[:, :count]
    values = np.take_along_axis(said, shown, axis=1)
    values = values if decimals is None else np.round(values, decimals)
    found = np.repeat((1 - values.sum(axis=1, keepdims=True)) / (said.shape[1] - count), said.shape[1], axis=1)
    np.put_along_axis(found, shown, values, axis=1)
    return found


def _many(rows: Any) -> Any:
    hidden = np.maximum((rows - 3 * UNITS) / UNITS @ np.random.default_rng(1).standard_normal((4, 20)), 0)
    return _softmax(hidden @ np.random.default_rng(2).standard_normal((20, 8)) / 2)


def _eight(rows: Any) -> Any:
    return _softmax((rows - 3 * UNITS) / UNITS @ np.random.default_rng(4).standard_normal((4, 8)))


def _leaves(rows: Any) -> Any:
    """A forest of eight classes."""
    generator = np.random.default_rng(3)
    columns, places = generator.integers(0, 4, 24), generator.standard_normal(24)
    return _softmax((((rows - 3 * UNITS) / UNITS)[:, columns] > places) @ generator.standard_normal((24, 8)))


@pytest.mark.parametrize(
    ("ask", "decimals", "count", "kind"),
    [
        (_many, 1, 1, "unknown"),
        (_many, None, 1, "unknown"),
        (_many, None, 2, "unknown"),
        (_eight, None, 1, "unknown"),
        (_leaves, None, 1, "piecewise constant"),
        (_leaves, None, 2, "piecewise constant"),
    ],
)
def test_a_door_that_shows_the_likeliest_alone_is_not_taken_for_trees_or_a_linear_model(
    ask: Any, decimals: int | None, count: int, kind: str
) -> None:
    looks = look(lambda rows: _likeliest(ask, rows, decimals, count), ROWS, np.random.default_rng(1))
    assert (looks.kind, looks.decimals) == (kind, decimals)


@pytest.mark.parametrize(
    ("ask", "kind"),
    [(_linear, "linear"), (_network, "smooth"), (_tree, "piecewise constant"), (_forest, "piecewise constant")],
)
def test_kinds_are_told_apart(ask: Any, kind: str) -> None:
    asked = []

    def counted(rows: Any) -> Any:
        asked.append(len(rows))
        return ask(rows)

    looks = look(counted, ROWS, np.random.default_rng(1))
    assert looks.kind == kind
    assert sum(asked) == looks.queries <= look_queries(4)
    assert looks.alone
    assert asked[-BATCH_ROWS:] == [1] * BATCH_ROWS


@pytest.mark.parametrize("decimals", [0, 1, 2])
@pytest.mark.parametrize("ask", [_linear, _network])
def test_rounding_is_not_taken_for_trees(ask: Any, decimals: int) -> None:
    looks = look(lambda rows: np.round(ask(rows).astype(float), decimals), ROWS, np.random.default_rng(1))
    assert looks.decimals == decimals
    assert looks.kind == "unknown"
    fine = look(lambda rows: np.round(ask(rows).astype(float), 5), ROWS, np.random.default_rng(1))
    assert fine.decimals == 5
    assert fine.kind == ("linear" if ask is _linear else "smooth")


def test_all_of_a_linear_model_is_solved() -> None:
    found = solve(_linear, ROWS, np.random.default_rng(1))
    assert found is not None
    truth = WEIGHTS - WEIGHTS[:, :1]
    assert np.abs((found.weights - truth) * UNITS[:, None]).max() < 1e-3
    assert np.abs(found.answers(ROWS) - _linear(ROWS)).max() < 1e-4
    assert found.queries <= 5 * 2 * 5


def test_rounded_answers_take_more_equations() -> None:
    def rounded(rows: Any) -> Any:
        return np.round(_linear(rows).astype(float), 2)

    few, many = (solve(rounded, ROWS, np.random.default_rng(1), spare=spare) for spare in (2, 20))
    assert few is not None
    assert many is not None
    errors = [np.abs(found.answers(ROWS) - _linear(ROWS)).mean() for found in (few, many)]
    assert errors[1] < errors[0]
    assert (many.answers(ROWS).argmax(axis=1) == _linear(ROWS).argmax(axis=1)).mean() > 0.97


def test_a_sure_model_is_asked_nearer_to_the_middle() -> None:
    def sure(rows: Any) -> Any:
        return _softmax(15 * (rows - 3 * UNITS) @ WEIGHTS)

    found = solve(sure, ROWS, np.random.default_rng(1))
    assert found is not None
    assert np.abs((found.weights - 15 * (WEIGHTS - WEIGHTS[:, :1])) * UNITS[:, None]).max() < 0.1


def test_labels_solve_nothing() -> None:
    def labels(rows: Any) -> Any:
        return np.eye(3)[_linear(rows).argmax(axis=1)]

    assert solve(labels, ROWS, np.random.default_rng(1)) is None
    found = solve(_linear, ROWS, np.random.default_rng(1))
    assert found is not None
    assert linear_error(found, ROWS, labels(ROWS)) is None


def test_a_tree_comes_back_with_its_thresholds() -> None:
    found = find_paths(_tree, ROWS[:100], 5000, np.random.default_rng(1))
    assert found.complete
    inner = found.columns >= 0
    true = {0: 3.1, 1: 32, 2: 310, 3: 0.25}
    assert set(found.columns[inner]) == set(true)
    for column, threshold in zip(found.columns[inner], found.thresholds[inner], strict=True):
        assert threshold == pytest.approx(true[int(column)], abs=1e-4 * UNITS[column])
    assert np.allclose(found.answers(ROWS[100:]), _tree(ROWS[100:]))


@pytest.mark.slow
def test_many_trees_come_back_as_far_as_the_budget_goes() -> None:
    asked = []

    def counted(rows: Any) -> Any:
        asked.append(len(rows))
        return _forest(rows)

    agreed = []
    for queries in (SAMPLES, 8000):
        asked.clear()
        found = find_paths(counted, ROWS[:200], queries, np.random.default_rng(1))
        assert not found.complete
        assert sum(asked) == found.queries <= queries
        agreed.append((found.answers(ROWS[200:]).argmax(axis=1) == _forest(ROWS[200:]).argmax(axis=1)).mean())
    assert agreed[0] < 0.6
    assert agreed[1] > 0.95
    with pytest.raises(ValueError, match="too few"):
        find_paths(counted, ROWS, SAMPLES - 1, np.random.default_rng(1))


def test_answers_that_hang_on_the_batch_are_noticed() -> None:
    def batched(rows: Any) -> Any:
        return _network(rows) + 1e-5 * len(rows)

    assert not look(batched, ROWS, np.random.default_rng(1)).alone


def test_times_are_of_each_row_at_its_fastest() -> None:
    class Clock:
        now = 0.0

        def __call__(self) -> float:
            return self.now

    clock = Clock()
    turns = []

    def ask(rows: Any) -> Any:
        turns.append(rows[0, 0])
        # the first round is slow
        clock.now += rows[0, 0] + (5 if len(turns) <= 2 else 0)
        return rows

    assert time_of(ask, np.array([[1.0], [2.0]]), clock).tolist() == [1.0, 2.0]
    assert turns == [1.0, 2.0] * 5
