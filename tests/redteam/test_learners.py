"""Students: they learn what a small network can, from probabilities, labels and numbers, and always the same."""

import numpy as np
import pytest
from numpy.typing import NDArray

from palladion.redteam.learners import Student, fit

SEED = 17


def _rows(count: int) -> NDArray[np.float64]:
    return np.random.default_rng(SEED).standard_normal((count, 5)) * 3 + 10


def _victim(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    weights = np.random.default_rng(SEED + 1).standard_normal((5, 3))
    logits = (rows - 10) @ weights
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=1, keepdims=True))


@pytest.mark.slow
def test_a_student_learns_probabilities_and_labels() -> None:
    rows, fresh = _rows(600)[:300], _rows(600)[300:]
    truth = _victim(rows)
    for answers in (truth, np.eye(3)[truth.argmax(axis=1)]):
        student = fit(rows, answers, "probabilities", np.random.default_rng(1), steps=400)
        told = student.answers(fresh)
        assert np.allclose(told.sum(axis=1), 1)
        assert (told.argmax(axis=1) == _victim(fresh).argmax(axis=1)).mean() > 0.9


@pytest.mark.slow
def test_a_student_learns_numbers_in_their_own_unit() -> None:
    rows = _rows(400)
    values = 1000 + 50 * rows[:, :2] - 30 * rows[:, 1:3]
    student = fit(rows[:300], values[:300], "numbers", np.random.default_rng(1), steps=800)
    wrong = np.square(student.answers(rows[300:]) - values[300:]).sum()
    assert wrong < 0.05 * np.square(values[300:] - values[300:].mean(axis=0)).sum()


def test_the_same_seed_makes_the_same_student() -> None:
    rows = _rows(50)
    one, other = (fit(rows, _victim(rows), "probabilities", np.random.default_rng(4), steps=20) for _ in range(2))
    assert one.answers(rows).tolist() == other.answers(rows).tolist()


def test_columns_that_never_change_break_nothing() -> None:
    rows = np.ones((40, 3))
    student = fit(rows, np.full((40, 2), 7.0), "numbers", np.random.default_rng(4), steps=5)
    assert np.isfinite(student.answers(rows)).all()


def test_slopes_are_those_of_the_largest_output() -> None:
    generator = np.random.default_rng(3)
    rows = generator.standard_normal((60, 4))
    student = fit(rows, np.eye(3)[generator.integers(0, 3, 60)], "probabilities", generator, steps=50)
    first, shift, second, bias = student.layers
    # without standardising, so that inputs and columns of the first layer are the same
    raw = Student((first, shift, second, bias), lambda given: given, "probabilities", student.offset, student.unit)

    def largest(given: NDArray[np.float64], place: int) -> float:
        return float((np.maximum(given @ first + shift, 0) @ second + bias)[place])

    for row, slope in zip(rows[:20], raw.slopes(rows[:20]), strict=True):
        place = int((raw.hidden(row[None])[0] @ second + bias).argmax())
        for column in range(4):
            step = np.zeros(4)
            step[column] = 1e-6
            found = (largest(row + step, place) - largest(row - step, place)) / 2e-6
            assert abs(found - slope[column]) < 1e-4
