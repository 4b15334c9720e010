"""Reverse engineering as a stage: what is said of each door, and how much of the model is solved there."""

from typing import Any

import numpy as np
import pytest

from palladion.errors import InconclusiveError
from palladion.redteam.audit.result import StageResult, parse_result
from palladion.redteam.audit.reverse_engineering import REVERSE_ENGINEERING
from palladion.redteam.audit.rules import RULES
from palladion.redteam.audit.stage import Allowance, Plan
from palladion.redteam.audit.subject import Door
from tests.redteam.audit.subjects import subject

ROWS = np.random.default_rng(4).standard_normal((400, 3))
SCALE = np.array([[2.0, -1, -2], [0.5, 2, -1], [1, 1, -1]])


def _linear(rows: Any) -> Any:
    scores = np.exp(rows @ SCALE)
    return scores / scores.sum(axis=1, keepdims=True)


def _smooth(rows: Any) -> Any:
    return _linear(np.sin(2 * rows))


LEAVES = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.1, 0.25, 0.65]])


def _tree(rows: Any) -> Any:
    return LEAVES[np.where(rows[:, 0] > 0.3, 0, np.where(rows[:, 1] > 0, 1, 2))]


def _many(rows: Any) -> Any:
    """More leaves than the budget of a test buys."""
    return LEAVES[np.floor(3 * rows).sum(axis=1).astype(int) % 3]


def _run(ask: Any, queries: int = 20_000, seed: int = 1) -> StageResult:
    doors = (
        Door("undefended", ask, "all"),
        Door("throttled", lambda rows: np.round(ask(rows), 1), "reduced"),
        Door("degraded", lambda rows: np.eye(3)[ask(rows).argmax(axis=1)], "label"),
    )
    attacked = subject(doors=doors, rows=ROWS, labels=None, classes=3)
    return REVERSE_ENGINEERING.run(
        attacked, Plan(seed=seed), Allowance(queries, None, lambda done, total, stage="": None, lambda: 0.0)
    )


def test_a_linear_model_is_solved_where_numbers_are_shown() -> None:
    found = _run(_linear)
    figures = {figure.key: figure for figure in found.figures}
    assert set(figures) == {f"reverse-engineering.fidelity.{door}" for door in ("undefended", "throttled")}
    assert figures["reverse-engineering.fidelity.undefended"].value == 1
    assert figures["reverse-engineering.fidelity.undefended"].low < 1  # type: ignore[operator]
    assert figures["reverse-engineering.fidelity.throttled"].value > 0.9
    first = found.observations[0]
    assert (first.rule, first.level, first.where) == ("reverse-engineering", "warning", "undefended")
    assert first.rule in RULES
    assert "linear" in first.text
    assert parse_result(found.document()).document() == found.document()


def test_a_tree_is_solved_from_labels_too() -> None:
    found = _run(_tree)
    assert {figure.key.rpartition(".")[2]: figure.value for figure in found.figures} == {
        "undefended": 1, "throttled": 1, "degraded": 1,
    }  # fmt: skip
    assert "trees" in found.observations[0].text


def test_of_other_models_it_is_only_said_what_they_are() -> None:
    found = _run(_smooth)
    assert found.figures == ()
    assert [seen.level for seen in found.observations] == ["note"] * 3
    assert "smooth" in found.observations[0].text
    assert "too coarse" in found.observations[2].text


def test_the_budget_is_never_exceeded() -> None:
    for ask in (_many, _linear):
        found = _run(ask, 10_000)
        assert found.queries <= 10_000
    with pytest.raises(InconclusiveError, match="too small"):
        _run(_tree, 3000)


def test_the_same_seed_says_the_same() -> None:
    assert _run(_tree).document() == _run(_tree).document()


def test_answers_that_are_all_alike_are_no_proof_of_safety() -> None:
    with pytest.raises(InconclusiveError, match="alike"):
        _run(lambda rows: np.full((len(rows), 3), 1 / 3))


def test_models_without_classes_are_left_out() -> None:
    assert "classes" in (REVERSE_ENGINEERING.missing(subject(classes=0)) or "")
    assert REVERSE_ENGINEERING.missing(subject()) is None
