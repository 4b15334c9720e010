"""Measuring: each step beside an undefended model, within the time, and with as many seeds as are named."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from palladion.errors import FormatError, PalladionError
from palladion.gate.contract import make_contract
from palladion.model.read import read_memory
from palladion.model.run import open_session
from palladion.policy import RoutePolicy
from palladion.redteam import extraction, learners
from palladion.redteam.disclosed import Measurement, Plan, measure
from palladion.redteam.victim import meet
from tests.models import onnx_bytes

MODEL = read_memory({"model.onnx": memoryview(onnx_bytes(1))})
ROWS = np.random.default_rng(2).standard_normal((320, 4)).astype(np.float32)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    real = learners.fit
    monkeypatch.setattr(extraction, "choose", lambda *given, effort: real(*given, steps=60))


def _measure(plan: Plan, *, right: Any = None, seconds: Iterator[float] | None = None, **route: Any) -> Measurement:
    policy = RoutePolicy(model="m", mode="enforce", **route)
    opened = open_session(MODEL)
    victim = meet(opened, make_contract(policy, opened.outputs), {"x": ROWS}, right)
    clock = (lambda: 0.0) if seconds is None else lambda: next(seconds)
    return measure(victim, policy, plan, progress=lambda done, total, stage="": None, cpu_seconds=clock)


def test_every_standing_has_its_step_and_three_thieves() -> None:
    found = _measure(Plan(60, 2, 7), right=np.zeros(320, np.int64))
    assert [step.standing for step in found.steps] == ["trusted", "throttled", "degraded"]
    assert (found.rows, found.held_out, found.queries, list(found.seeds)) == (320, 96, 60, [7, 8])
    assert set(found.undefended.ways) == {"raw", "labels", "averaged"}
    # at the contract without limits, a thief gets what it gets without any defence
    assert found.steps[0].theft == found.undefended
    # labels are the same at every step, and the best way is never worse than they are
    for step in found.steps:
        assert step.theft.ways["labels"] == found.undefended.ways["labels"]
        assert step.theft.ways[step.theft.best].mean >= step.theft.ways["labels"].mean
    assert [step.honest["accuracy"] for step in found.steps] == [found.steps[0].honest["accuracy"]] * 3


def test_perturbation_is_measured_where_the_route_has_it() -> None:
    found = _measure(Plan(60, 1), perturbation="reverse-sigmoid", perturbation_max=0.3)
    assert [step.standing for step in found.steps] == ["trusted", "watched", "throttled", "degraded"]
    trusted, watched = (step.honest["change"] for step in found.steps[:2])
    assert (trusted or 0) < (watched or 0)


def test_no_decision_turns_at_any_step() -> None:
    found = _measure(Plan(60, 1), threshold=0.4)
    assert [step.honest["decisions_changed"] for step in found.steps] == [0, 0, None]


@pytest.mark.slow
def test_it_ends_when_the_next_seed_would_take_too_long() -> None:
    found = _measure(Plan(60, 5, minutes=1.0), seconds=iter([0.0, 25.0, 50.0, 75.0]))
    assert (list(found.seeds), found.planned_seeds) == ([1, 2], 5)


@pytest.mark.parametrize("queries", [10, 225])
def test_queries_that_do_not_fit_the_rows_are_refused(queries: int) -> None:
    with pytest.raises(PalladionError, match=f"{queries} queries cannot be measured"):
        _measure(Plan(queries, 1))


@pytest.mark.slow
@pytest.mark.parametrize("label", [-1, 3, 0.5])
def test_labels_that_are_no_classes_are_refused(label: float) -> None:
    with pytest.raises(FormatError, match="from 0 to 2"):
        _measure(Plan(60, 1), right=np.full(320, label))
