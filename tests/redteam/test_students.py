"""Students: the kind that fits is found by held-out answers alone, and every machine learns what it can."""

from functools import partial
from typing import Any

import numpy as np
import pytest

from palladion.redteam import students
from palladion.redteam.committees import fit_committee
from palladion.redteam.students import KERNELS, Kind, Machine, choose, fit_machine

ROWS = np.random.default_rng(5).standard_normal((500, 6)) * [1, 1, 1, 20, 1, 1] + 3
WEIGHTS = np.random.default_rng(6).standard_normal((6, 3))


def _softmax(logits: Any) -> Any:
    found = np.exp(logits - logits.max(axis=1, keepdims=True))
    return found / found.sum(axis=1, keepdims=True)


def _linear(rows: Any) -> Any:
    return _softmax((rows - 3) / [1, 1, 1, 20, 1, 1] @ WEIGHTS)


def _bent(rows: Any) -> Any:
    """A network with one hidden layer."""
    hidden = np.maximum((rows - 3) / [1, 1, 1, 20, 1, 1] @ np.random.default_rng(7).standard_normal((6, 16)), 0)
    return _softmax(hidden @ np.random.default_rng(8).standard_normal((16, 3)))


def _agreement(student: Any, victim: Any, rows: Any) -> float:
    return float((student.answers(rows).argmax(axis=1) == victim(rows).argmax(axis=1)).mean())


@pytest.mark.parametrize("kernel", KERNELS)
def test_every_machine_explains_what_it_was_shown(kernel: str) -> None:
    rows = ROWS[:60]
    made = fit_machine(rows, _linear(rows), Kind(kernel, 0.1, 1e-4, True), np.random.default_rng(1))
    assert _agreement(made, _linear, rows) > 0.95


def test_a_linear_victim_is_solved_from_its_logarithms() -> None:
    rows = ROWS[:40]
    made = fit_machine(rows, _linear(rows), Kind("linear", 0.1, 1e-9, True), np.random.default_rng(1))
    told, truth = made.answers(ROWS[40:]), np.log(_linear(ROWS[40:]))
    assert np.abs(told - truth + truth.mean(axis=1, keepdims=True)).max() < 1e-3


def test_kernels_of_wide_networks_are_the_means_over_networks() -> None:
    generator = np.random.default_rng(2)
    one, other = generator.standard_normal((4, 3)), generator.standard_normal((5, 3))
    weights = generator.standard_normal((4, 100_000))

    def hidden(rows: Any) -> Any:
        return np.maximum(np.c_[rows, np.ones(len(rows))] @ weights, 0)

    layer = hidden(one) @ hidden(other).T * 2 / weights.shape[1]
    assert np.allclose(KERNELS["arc"](one, other), layer, rtol=0.05, atol=0.05)
    # what the first layer's own gradients add
    active = (hidden(one) > 0).astype(float) @ (hidden(other) > 0).T.astype(float) * 2 / weights.shape[1]
    assert np.allclose(KERNELS["tangent"](one, other), layer + active * (one @ other.T + 1), rtol=0.05, atol=0.1)


@pytest.mark.slow
def test_the_choice_knows_a_straight_victim_from_a_bent_one() -> None:
    straight = choose(ROWS[:200], _linear(ROWS[:200]), "probabilities", np.random.default_rng(1), effort="machines")
    bent = choose(ROWS[:200], _bent(ROWS[:200]), "probabilities", np.random.default_rng(1), effort="machines")
    assert _agreement(straight, _linear, ROWS[200:]) > 0.97
    assert _agreement(bent, _bent, ROWS[200:]) > 0.85
    assert isinstance(bent, Machine)
    assert bent.kind.kernel != "linear"


def test_who_is_told_labels_alone_learns_no_logarithms() -> None:
    labels = np.eye(3)[_bent(ROWS[:150]).argmax(axis=1)]
    made = choose(ROWS[:150], labels, "probabilities", np.random.default_rng(1), effort="machines")
    assert isinstance(made, Machine)
    assert not made.kind.logs
    assert _agreement(made, _bent, ROWS[200:]) > 0.7


def test_logarithms_end_at_half_of_what_is_the_least_said(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    def keep(gram: Any, targets: Any, ridge: float) -> Any:
        seen.append(targets)
        return np.zeros_like(targets)

    monkeypatch.setattr(students, "_weights", keep)
    rounded = np.array([[0.9, 0.1, 0.0], [0.1, 0.9, 0.0]] * 3)
    made = fit_machine(ROWS[:6], rounded, Kind("arc", 1.0, 1e-4, True), np.random.default_rng(1))
    logs = np.log(np.array([[0.9, 0.1, 0.05], [0.1, 0.9, 0.05]] * 3))
    assert np.allclose(made.offset, (logs - logs.mean(axis=1, keepdims=True)).mean(axis=0))


def test_many_answers_make_several_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(students, "ROWS_AT_ONCE", 100)
    made = fit_machine(ROWS[:250], _bent(ROWS[:250]), Kind("arc", 0.1, 1e-2, True), np.random.default_rng(1))
    assert sorted(len(rows) for rows, _ in made.parts) == [83, 83, 84]
    assert _agreement(made, _bent, ROWS[250:]) > 0.8


@pytest.mark.slow
def test_numbers_are_learnt_as_numbers() -> None:
    def victim(rows: Any) -> Any:
        return 1000 + 30 * rows[:, :2] * rows[:, 1:3]

    made = choose(ROWS[:300], victim(ROWS[:300]), "numbers", np.random.default_rng(1), effort="machines")
    wrong = np.square(made.answers(ROWS[300:]) - victim(ROWS[300:])).sum()
    assert wrong < 0.1 * np.square(victim(ROWS[300:]) - victim(ROWS[300:]).mean(axis=0)).sum()


@pytest.mark.parametrize("count", [1, 2, 4, 30])
def test_few_answers_that_may_all_be_the_same_break_nothing(count: int) -> None:
    same = np.tile([0.2, 0.5, 0.3], (count, 1))
    made = choose(ROWS[:count], same, "probabilities", np.random.default_rng(1))
    assert (made.answers(ROWS[:20]).argmax(axis=1) == 1).all()


def test_the_same_seed_makes_the_same_student() -> None:
    one, other = (choose(ROWS[:50], _bent(ROWS[:50]), "probabilities", np.random.default_rng(4)) for _ in range(2))
    assert one.answers(ROWS).tolist() == other.answers(ROWS).tolist()


@pytest.mark.slow
def test_networks_are_taken_where_they_see_more_than_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    # machines that are given a useless kernel
    monkeypatch.setattr(students, "KERNELS", {"linear": lambda one, other: np.zeros((len(one), len(other)))})
    monkeypatch.setattr(students, "fit_committee", partial(fit_committee, steps=200))
    made = choose(ROWS[:300], _bent(ROWS[:300]), "probabilities", np.random.default_rng(1))
    assert not isinstance(made, Machine)
    assert _agreement(made, _bent, ROWS[300:]) > 0.85
