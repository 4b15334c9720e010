"""Hardening as a whole: what it refuses, that it keeps honest accuracy, and that it claims no more than it saw."""

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError, PalladionError, UnsupportedFormatError
from palladion.redteam.harden import harden as room
from palladion.redteam.harden.harden import BUDGETS, HONEST_LOSS_MAX, api_of, harden, read_lesson
from palladion.redteam.harden.leftover import Robbed, Student
from palladion.redteam.harden.network import OPERATORS
from palladion.redteam.harden.objectives import Objective
from tests.redteam.harden.networks import network, read, table

SEEDS = (1, 2)


def lesson(count: int = 600, **kinds: Any) -> room.Lesson:
    rows, labels = table(count)
    return read_lesson(read(network(**kinds)), {"x": rows}, labels, seed=1)


def test_rows_that_judge_do_not_teach() -> None:
    found = lesson()
    parts = [set(part.tolist()) for part in (found.teaching, found.choosing, found.judging)]
    assert set.union(*parts) == set(range(600))
    assert [len(part) for part in parts] == [210, 90, 300]


def test_labels_are_needed_and_are_those_of_the_model() -> None:
    rows, labels = table(400)
    with pytest.raises(FormatError, match="no labels"):
        read_lesson(read(network()), {"x": rows}, None, seed=1)
    with pytest.raises(FormatError, match="of 2 classes, the model names 3"):
        read_lesson(read(network()), {"x": rows}, labels % 2, seed=1)
    with pytest.raises(PalladionError, match="too few"):
        read_lesson(read(network()), {"x": rows[:200]}, labels[:200], seed=1)


def test_probabilities_come_of_logits_too() -> None:
    rows, _ = table(400)
    one, other = lesson(), lesson(softmax=False)
    asked = rows[:50].astype(np.float64)
    assert api_of(one, one.model)(asked) == pytest.approx(api_of(other, other.model)(asked), abs=1e-6)


def test_one_seed_gives_no_interval() -> None:
    with pytest.raises(ValueError, match="two seeds"):
        harden(lesson(), "nasty", seeds=(1,))


@pytest.mark.torch
@pytest.mark.slow
def test_a_hardening_states_what_it_cost_and_what_students_get() -> None:
    pytest.importorskip("torch")
    told: list[str] = []
    found = harden(
        lesson(),
        "nasty",
        budgets=(60,),
        seeds=SEEDS,
        steps=30,
        progress=lambda stage, _done, _total: told.append(stage),
    )
    assert found.strength > 0
    assert found.honest.lost.mean <= HONEST_LOSS_MAX
    assert found.honest.rows == 300
    assert found.honest.lost.mean == pytest.approx(found.honest.before - found.honest.after)
    (left,) = found.leftovers
    assert left.before.accuracies != left.after.accuracies or left.before != left.after
    assert found.outcome == left.verdict
    document = json.loads(json.dumps(found.document(), allow_nan=False))
    assert document["students"][0]["queries"] == 60
    assert told[-1] == "students after, 60 queries"
    again = harden(lesson(), "nasty", budgets=(60,), seeds=SEEDS, steps=30, known=[left.before])
    assert again.document() == found.document()


@pytest.mark.torch
@pytest.mark.slow
def test_what_costs_honest_users_too_much_is_too_dear(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("torch")

    def ruinous(given: Any, rows: Any, labels: Any, _strength: float) -> Any:
        # every row as the class after its own
        from torch.nn.functional import cross_entropy

        return cross_entropy(given.network.logits(rows), (labels + 1) % 3)

    monkeypatch.setattr(room, "METHODS", {"nasty": Objective("", (1.0,), ruinous)})
    monkeypatch.setattr("palladion.redteam.harden.objectives.METHODS", {"nasty": Objective("", (1.0,), ruinous)})
    found = harden(lesson(), "nasty", budgets=(60,), seeds=SEEDS, steps=60)
    assert (found.outcome, found.strength, found.leftovers) == ("too dear", 0.0, ())
    # chosen by other rows, it is still refused by those that judge
    monkeypatch.setattr(room, "CHOOSING_LOSS_MAX", 1.0)
    found = harden(lesson(), "nasty", budgets=(60,), seeds=SEEDS, steps=60)
    assert (found.outcome, found.strength, found.leftovers) == ("too dear", 1.0, ())
    assert found.honest.lost.mean > HONEST_LOSS_MAX


@pytest.mark.torch
def test_a_graph_that_torch_computes_otherwise_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    wrong = {**OPERATORS, "Relu": lambda _torch, _, values: values[0]}
    monkeypatch.setattr("palladion.redteam.harden.network.OPERATORS", wrong)
    with pytest.raises(UnsupportedFormatError, match="do not in ONNX Runtime"):
        harden(lesson(), "nasty", seeds=SEEDS)
    wrong["Relu"] = lambda _torch, _, values: torch.matmul(values[0], values[0])
    with pytest.raises(UnsupportedFormatError, match="cannot be run in torch"):
        harden(lesson(), "nasty", seeds=SEEDS)


@pytest.mark.torch
@pytest.mark.parametrize(
    ("gains", "outcome"),
    [((0.2, 0.2), "benefit"), ((0.2, 0.0), "no benefit"), ((0.2, -0.2), "worse"), ((0.0, 0.0), "no benefit")],
)
def test_a_budget_without_gain_makes_a_hardening_worthless(
    monkeypatch: pytest.MonkeyPatch, gains: tuple[float, float], outcome: str
) -> None:
    pytest.importorskip("torch")
    monkeypatch.setattr(room, "tune", lambda *_arguments, **_options: None)
    students = dict(zip(BUDGETS, gains, strict=True))

    def robbed(queries: int, gain: float) -> Robbed:
        figures = tuple(0.7 - gain + wobble for wobble in (0.0, 0.01))
        return Robbed(queries, (Student("own rows", "raw", figures, figures),), (0.9, 0.9))

    monkeypatch.setattr(
        room, "rob", lambda _api, _rows, _labels, queries, _seeds, effort: robbed(queries, students[queries])
    )
    found = harden(lesson(), "nasty", seeds=SEEDS, known=[robbed(queries, 0.0) for queries in BUDGETS])
    assert found.outcome == outcome
    assert replace(found, outcome="benefit").document()["outcome"] == "benefit"
