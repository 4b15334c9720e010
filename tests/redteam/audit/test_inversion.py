"""Inversion as a stage: what is tried where, what counts, and when it says nothing."""

from typing import Any

import numpy as np
import pytest

from palladion.errors import InconclusiveError
from palladion.redteam import inversion, learners
from palladion.redteam.audit.inversion import INVERSION, SEEDS
from palladion.redteam.audit.result import StageResult, parse_result
from palladion.redteam.audit.stage import Allowance, Plan
from palladion.redteam.audit.subject import Door
from palladion.redteam.inversion import TABLES, WAYS, queries_min
from tests.redteam.audit.subjects import subject

ROWS = np.random.default_rng(4).standard_normal((300, 4)) * np.array([1, 10, 100, 1000])
CENTRES = np.array([[2.0, 0, 0, 0], [-1, 15, 0, 0], [-1, -15, 0, 0]])
RUNS = SEEDS["quick"] * (len(WAYS) * len(TABLES) + 1)


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    real = learners.fit
    monkeypatch.setattr(inversion, "fit", lambda *given, **more: real(*given, **more, steps=30))
    monkeypatch.setattr(inversion, "CLIMBS", 10)


def _answer(rows: Any) -> Any:
    distance = np.square((rows[:, None] - CENTRES) / np.array([1, 10, 100, 1000])).sum(axis=2)
    scores = np.exp(distance.min(axis=1, keepdims=True) - distance)
    return scores / scores.sum(axis=1, keepdims=True)


def _run(queries: int = 20_000, seed: int = 1, ask: Any = _answer, **changes: Any) -> StageResult:
    doors = (
        Door("undefended", ask, "all"),
        Door("degraded", lambda rows: np.eye(3)[ask(rows).argmax(axis=1)], "label"),
    )
    labels = _answer(ROWS).argmax(axis=1)
    attacked = subject(
        **{"doors": doors, "rows": ROWS, "labels": labels, "classes": 3, "whole": np.zeros(4, bool), **changes}
    )
    return INVERSION.run(
        attacked, Plan(seed=seed), Allowance(queries, None, lambda done, total, stage="": None, lambda: 0.0)
    )


@pytest.mark.slow
def test_every_way_is_tried_first_and_the_best_at_every_door() -> None:
    found = _run()
    attempts = found.details["attempts"]
    first = {(item["way"], item["family"]) for item in attempts if item["door"] == "undefended"}
    assert first == {(way, family) for way in WAYS for family in TABLES}
    (other,) = [item for item in attempts if item["door"] == "degraded"]
    best = max((item for item in attempts if item["door"] == "undefended"), key=lambda item: item["correlation"])
    assert (other["way"], other["family"]) == (best["way"], best["family"])
    figures = {figure.key: figure for figure in found.figures}
    assert set(figures) == {
        f"inversion.{name}.{door}" for name in ("correlation", "named") for door in ("undefended", "degraded")
    }
    guess = max(item["guess"] for item in attempts if item["door"] == "undefended")
    assert figures["inversion.correlation.undefended"].value == pytest.approx(best["correlation"] - guess)
    assert figures["inversion.correlation.undefended"].value > 0.3
    assert figures["inversion.named.undefended"].value == pytest.approx(2 / 3)
    pictures = found.details["pictures"]["doors"]
    assert {name: np.shape(rows) for name, rows in pictures.items()} == {"undefended": (3, 4), "degraded": (3, 4)}
    assert parse_result(found.document()).document() == found.document()


@pytest.mark.slow
def test_the_budget_is_never_exceeded() -> None:
    least = RUNS * queries_min(3) + len(ROWS)
    assert _run(least).queries <= least
    with pytest.raises(InconclusiveError, match="too small"):
        _run(least - 1)


@pytest.mark.slow
def test_the_same_seed_says_the_same() -> None:
    assert _run(4000).document() == _run(4000).document()
    assert _run(4000).document() != _run(4000, seed=2).document()


@pytest.mark.slow
def test_what_a_thief_can_guess_is_no_advantage() -> None:
    def random(rows: Any) -> Any:
        # answers that hang on nothing that a class looks like
        bits = np.floor(np.abs(rows).sum(axis=1) * 1e4) % 3
        return np.eye(3)[bits.astype(int)]

    found = {figure.key: figure for figure in _run(ask=random).figures}
    figure = found["inversion.correlation.degraded"]
    assert figure.low is not None
    assert figure.low < 0.1


def test_pictures_come_in_levels() -> None:
    rows = np.random.default_rng(5).random((300, 36))
    labels = (rows[:, 0] > 0.5).astype(np.int64)

    def ask(asked: Any) -> Any:
        high = 1 / (1 + np.exp(5 - 10 * asked[:, 0]))
        return np.column_stack([1 - high, high])

    doors = (Door("undefended", ask, "all"),)
    found = _run(10_000, doors=doors, rows=rows, labels=labels, classes=2, whole=np.zeros(36, bool), image=(6, 6))
    shown = found.details["pictures"]
    assert shown["image"] == [6, 6]
    levels = np.array(shown["doors"]["undefended"])
    assert levels.shape == (2, 36)
    assert levels.min() >= 0
    assert levels.max() <= 255
    assert levels[1, 0] > levels[0, 0] + 100


def test_answers_that_are_all_alike_are_no_proof_of_safety() -> None:
    with pytest.raises(InconclusiveError, match="alike"):
        _run(ask=lambda rows: np.full((len(rows), 3), 1 / 3))


def test_a_class_without_rows_cannot_be_judged() -> None:
    with pytest.raises(InconclusiveError, match="2 of 3 classes"):
        _run(labels=np.arange(300) % 2)


def test_what_cannot_be_inverted_is_left_out() -> None:
    for changes in ({"classes": 0}, {"classes": 101}, {"rows": ROWS[:, :1], "whole": np.zeros(1, bool)}):
        assert INVERSION.missing(subject(**changes))
    assert INVERSION.missing(subject()) is None
