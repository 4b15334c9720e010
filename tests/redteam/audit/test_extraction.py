"""Extraction as a stage: who is tried at which door, what it costs, and when it says nothing."""

from typing import Any

import numpy as np
import pytest

from palladion.errors import InconclusiveError
from palladion.redteam import copying, generating, learners, students
from palladion.redteam.audit.extraction import EXTRACTION, SEEDS
from palladion.redteam.audit.result import StageResult
from palladion.redteam.audit.stage import Allowance, Plan
from palladion.redteam.audit.subject import Door
from palladion.redteam.copying import THIEVES
from tests.redteam.audit.subjects import subject

ROWS = np.random.default_rng(4).standard_normal((300, 4))
SCALE = np.array([[3.0, -1, -2], [0.5, 2, -1], [1, 1, 1], [0, -1, 2]])


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    real = learners.fit

    def fit(*given: Any, **more: Any) -> Any:
        return real(*given, **{**more, "steps": 40})

    monkeypatch.setattr(copying, "fit", fit)
    monkeypatch.setattr(generating, "fit", fit)
    monkeypatch.setattr(students, "KERNELS", {"arc": students.KERNELS["arc"]})
    monkeypatch.setattr(students, "FLOORS", (1.0,))
    monkeypatch.setattr(students, "RIDGES", (1e-2,))
    monkeypatch.setattr(students, "ROWS_TO_CHOOSE", 60)
    monkeypatch.setattr(students, "ROWS_AT_ONCE", 150)


def _answers(rows: Any) -> Any:
    scores = np.exp(rows @ SCALE)
    return scores / scores.sum(axis=1, keepdims=True)


def _run(queries: int = 1_000_000, doors: Any = None, seed: int = 1) -> StageResult:
    given = doors or (
        Door("undefended", _answers, "all"),
        Door("throttled", lambda rows: np.round(_answers(rows), 1), "reduced"),
        Door("degraded", lambda rows: np.eye(3)[_answers(rows).argmax(axis=1)], "label"),
    )
    attacked = subject(doors=given, rows=ROWS, labels=None, classes=3, whole=np.zeros(4, bool))
    return EXTRACTION.run(
        attacked, Plan(seed=seed), Allowance(queries, None, lambda done, total, stage="": None, lambda: 0.0)
    )


@pytest.mark.slow
def test_every_thief_is_tried_without_defences_and_the_best_at_every_door() -> None:
    found = _run()
    table = found.details["thieves"]
    raw = {item["thief"] for item in table if item["door"] == "undefended" and item["way"] == "raw"}
    assert raw == set(THIEVES)
    assert {item["way"] for item in table if item["door"] == "throttled"} == {"raw", "labels", "averaged"}
    # where labels alone are shown, what is raw is a label
    assert {item["way"] for item in table if item["door"] == "degraded"} == {"labels", "averaged"}
    keys = {figure.key for figure in found.figures}
    assert {
        f"extraction.fidelity.{count}.{door}" for count in (100, 1000) for door in ("undefended", "degraded")
    } <= keys
    for figure in found.figures:
        if figure.key.startswith("extraction.fidelity"):
            door = figure.key.rpartition(".")[2]
            queries = int(figure.key.split(".")[2])
            here = [item["mean"] for item in table if item["door"] == door and item["queries"] == queries]
            assert figure.value == max(here)


@pytest.mark.slow
def test_the_budget_is_never_exceeded_and_a_small_one_buys_less() -> None:
    least = SEEDS["quick"] * (len(THIEVES) + 3 + 3 + 4) * 100
    few = _run(least)
    assert few.queries <= least
    assert {figure.key.split(".")[2] for figure in few.figures if ".fidelity." in figure.key} == {"100"}
    with pytest.raises(InconclusiveError, match="too small"):
        _run(least - 1)


@pytest.mark.slow
def test_copycat_is_tried_from_labels_whoever_else_is() -> None:
    table = _run(SEEDS["quick"] * (len(THIEVES) + 10) * 100).details["thieves"]
    for door in ("undefended", "throttled", "degraded"):
        tried = [item["thief"] for item in table if item["door"] == door and item["way"] == "labels"]
        assert "foreign" in tried
        assert len(tried) == len(set(tried))


@pytest.mark.slow
def test_the_same_seed_says_the_same() -> None:
    few = SEEDS["quick"] * (len(THIEVES) + 10) * 100
    assert _run(few).document() == _run(few).document()
    assert _run(few).document() != _run(few, seed=2).document()


@pytest.mark.slow
def test_copies_that_learn_nothing_are_no_proof_of_safety() -> None:
    def stirred(rows: Any) -> Any:
        # what a wrapper does that gets the order of rows wrong
        return np.random.default_rng(len(rows)).permutation(_answers(rows))

    doors = (Door("undefended", stirred, "all"),)
    with pytest.raises(InconclusiveError, match="no thief's copy"):
        _run(SEEDS["quick"] * (len(THIEVES) + 10) * 100, doors)


def test_models_without_classes_are_left_out() -> None:
    assert "classes" in (EXTRACTION.missing(subject(classes=0)) or "")
