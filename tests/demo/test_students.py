"""Students learn from what was answered, and nothing from nothing."""

import numpy as np
import pytest

from palladion.demo.students import fidelity

pytest.importorskip("sklearn", reason="the demo extra is not installed: pip install 'palladion[demo]'")

SEED = 3


def problem(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of 4 pixels; the class is the brightest one."""
    rows = np.random.default_rng(SEED).uniform(0, 16, (count, 4)).astype(np.float32)
    return rows, np.eye(4)[rows.argmax(axis=1)]


@pytest.mark.slow
def test_a_student_with_many_answers_agrees_and_one_with_few_does_not() -> None:
    rows, scores = problem(400)
    test, truth = problem(200)
    many = fidelity(rows, scores, test, truth.argmax(axis=1))
    few = fidelity(rows[:5], scores[:5], test, truth.argmax(axis=1))
    assert many > 0.85, SEED
    assert few < 0.5, SEED


def test_a_thief_with_no_answer_at_all_names_the_first_class() -> None:
    rows, scores = problem(100)
    victim = scores.argmax(axis=1)
    assert fidelity(rows[:0], scores[:0], rows, victim) == (victim == 0).mean()
