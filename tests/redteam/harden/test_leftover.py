"""What students get: alike before and after, by the best of them, and never by the model's own losses."""

from typing import Any

import numpy as np
import pytest

from palladion.redteam.harden.leftover import Robbed, Student, compare, rob
from tests.redteam.harden.networks import table


def robbed(fidelities: list[list[float]], accuracies: list[list[float]], own: list[float]) -> Robbed:
    pairs = zip(fidelities, accuracies, strict=True)
    return Robbed(100, tuple(Student("own rows", "raw", tuple(f), tuple(a)) for f, a in pairs), tuple(own))


def soft(rows: Any) -> Any:
    centres = 2 * np.random.default_rng(7).standard_normal((3, 6))
    logits = -0.5 * np.square(rows[:, None, :] - centres).sum(axis=2)
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


BEFORE = robbed([[0.9, 0.91, 0.92]], [[0.88, 0.89, 0.9]], [0.95, 0.95, 0.95])


def test_the_best_student_of_each_seed_counts() -> None:
    found = robbed([[0.9, 0.5], [0.6, 0.8]], [[0.7, 0.6], [0.5, 0.9]], [0.95, 0.95])
    assert found.best_fidelities() == pytest.approx([0.9, 0.8])
    assert found.behind() == pytest.approx([0.25, 0.05])


def test_nothing_is_gained_where_one_manner_gets_what_the_best_got() -> None:
    after = robbed([[0.2, 0.2, 0.2], [0.9, 0.92, 0.91]], [[0.2, 0.2, 0.2], [0.88, 0.9, 0.89]], [0.95, 0.95, 0.95])
    assert compare(BEFORE, after).verdict == "no benefit"


def test_a_benefit_is_one_where_both_figures_fall() -> None:
    after = robbed([[0.8, 0.82, 0.81]], [[0.78, 0.8, 0.79]], [0.95, 0.95, 0.95])
    found = compare(BEFORE, after)
    assert found.verdict == "benefit"
    assert found.fidelity_lost.mean == pytest.approx(0.1)
    assert found.further_behind.mean == pytest.approx(0.1)


def test_students_that_fall_with_the_model_are_no_benefit() -> None:
    after = robbed([[0.8, 0.82, 0.81]], [[0.78, 0.8, 0.79]], [0.85, 0.86, 0.84])
    assert compare(BEFORE, after).verdict == "no benefit"


def test_what_helps_students_is_worse() -> None:
    after = robbed([[0.95, 0.96, 0.97]], [[0.88, 0.89, 0.9]], [0.95, 0.95, 0.95])
    assert compare(BEFORE, after).verdict == "worse"


@pytest.mark.slow
def test_every_manner_copies_a_simple_model_and_labels_teach_less() -> None:
    rows, labels = table(400)
    found = rob(soft, rows.astype(np.float64), labels, 80, [1, 2])
    mean = {(item.thief, item.manner): np.mean(item.fidelities) for item in found.students}
    assert set(mean) == {
        *(("own rows", manner) for manner in ("raw", "labels", "softened", "averaged")),
        ("marginals", "raw"),
        ("marginals", "labels"),
    }
    assert min(mean.values()) > 0.7
    assert mean["own rows", "raw"] > mean["own rows", "labels"]
    assert found.queries == 80


@pytest.mark.slow
def test_no_budget_is_exceeded_and_the_same_seed_steals_the_same() -> None:
    rows, labels = table(400)
    asked: list[int] = []

    def counted(given: Any) -> Any:
        asked.append(len(given))
        return soft(given)

    one = rob(counted, rows.astype(np.float64), labels, 60, [3])
    # the rows held out, then each thief's and the averaging one's
    assert asked[0] == 160
    assert sorted(asked[1:]) == [60, 60, 60]
    assert rob(soft, rows.astype(np.float64), labels, 60, [3]) == one


@pytest.mark.slow
def test_labels_alone_are_used_by_who_does_not_believe_the_scores() -> None:
    rows, labels = table(400)

    def misleading(given: Any) -> Any:
        # the same classes, with scores that say nothing else that is right
        named = soft(given).argmax(axis=1)
        spread = np.random.default_rng(0).random((len(given), 3))
        spread[np.arange(len(given)), named] = spread.max(axis=1) + 0.01
        return spread / spread.sum(axis=1, keepdims=True)

    found = rob(misleading, rows.astype(np.float64), labels, 150, [1, 2])
    mean = {item.manner: np.mean(item.fidelities) for item in found.students if item.thief == "own rows"}
    assert mean["labels"] > mean["raw"]


def test_too_few_queries_are_refused() -> None:
    rows, labels = table(100)
    with pytest.raises(ValueError, match="too few"):
        rob(soft, rows.astype(np.float64), labels, 3, [1])
