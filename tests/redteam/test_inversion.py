"""Inversion: rows that look like a class come of answers, within the budget, and of nothing else."""

from typing import Any

import numpy as np
import pytest

from palladion.redteam import inversion, learners
from palladion.redteam.inversion import (
    WAYS,
    Attempt,
    Thief,
    invert,
    likeness,
    queries_min,
    truth_of,
)
from palladion.redteam.pool import Pool

# four classes of pictures, each bright in one corner
CORNERS = np.zeros((4, 6, 6))
for _index, (_down, _right) in enumerate([(0, 0), (0, 3), (3, 0), (3, 3)]):
    CORNERS[_index, _down : _down + 3, _right : _right + 3] = 1
FLAT = CORNERS.reshape(4, 36)
GENERATOR = np.random.default_rng(3)
LABELS = np.repeat(np.arange(4), 30)
ROWS = np.clip(FLAT[LABELS] + 0.2 * GENERATOR.standard_normal((120, 36)), 0, 1)
TRUTH = truth_of(ROWS, LABELS, 4, pictures=True)


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies that learn little, and short climbs."""
    real = learners.fit
    monkeypatch.setattr(inversion, "fit", lambda *given, **more: real(*given, **more, steps=30))
    monkeypatch.setattr(inversion, "CLIMBS", 5)


def _answer(rows: Any) -> Any:
    scores = np.exp(rows @ (FLAT - FLAT.mean(axis=0)).T)
    return scores / scores.sum(axis=1, keepdims=True)


def _labels(rows: Any) -> Any:
    return np.eye(4)[_answer(rows).argmax(axis=1)]


def _pictures() -> Thief:
    pool = Pool(ROWS.astype(np.float32).reshape(-1, 6, 6), np.zeros(len(ROWS), np.int64), (6, 6))
    return Thief(pool, np.zeros(36, bool))


@pytest.mark.slow
@pytest.mark.parametrize("answer", [_answer, _labels])
@pytest.mark.parametrize("way", WAYS)
def test_classes_are_recognised_beyond_what_a_thief_can_guess(way: str, answer: Any) -> None:
    found = invert(_pictures(), answer, 4, Attempt(way, "smooth", 1500, 1))
    like, guess = likeness(found.rows, TRUTH), likeness(np.repeat(found.prior[None], 4, axis=0), TRUTH)
    assert like.named.all()
    assert like.correlation.min() > 0.5
    assert like.correlation.mean() > guess.correlation.mean() + 0.4
    assert guess.named.sum() <= 1


@pytest.mark.slow
def test_climbs_lead_to_where_the_model_is_surer(monkeypatch: pytest.MonkeyPatch) -> None:
    climbed = invert(_pictures(), _answer, 4, Attempt("copied", "smooth", 1000, 1)).rows
    monkeypatch.setattr(inversion, "CLIMBS", 0)
    begun = invert(_pictures(), _answer, 4, Attempt("copied", "smooth", 1000, 1)).rows
    assert (np.diag(_answer(climbed)) > np.diag(_answer(begun)) + 0.01).all()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("way", WAYS)
def test_the_budget_is_kept_and_rows_are_the_models(way: str) -> None:
    asked: list[Any] = []

    def api(rows: Any) -> Any:
        asked.append(rows)
        return _answer(rows)

    for queries in (queries_min(4), 501):
        asked.clear()
        found = invert(_pictures(), api, 4, Attempt(way, "strokes", queries, 1))
        sent = np.concatenate(asked)
        assert len(sent) == found.queries
        assert queries - 4 * 4 < found.queries <= queries
        assert sent.min() >= 0
        assert sent.max() <= 1
    with pytest.raises(ValueError, match="too few"):
        invert(_pictures(), api, 4, Attempt(way, "strokes", queries_min(4) - 1, 1))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("way", WAYS)
def test_answers_that_say_nothing_leave_the_guess(way: str) -> None:
    found = invert(_pictures(), lambda rows: np.full((len(rows), 4), 0.25), 4, Attempt(way, "smooth", 600, 1))
    assert likeness(found.rows, TRUTH).named.sum() <= 2
    never = invert(_pictures(), lambda rows: np.eye(4)[np.zeros(len(rows), int)], 4, Attempt(way, "smooth", 600, 1))
    assert np.isfinite(never.rows).all()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("way", WAYS)
def test_tables_keep_their_ranges_and_whole_columns(way: str) -> None:
    rows = np.column_stack([GENERATOR.integers(0, 9, 200), 50 * GENERATOR.standard_normal(200)]).astype(float)
    thief = Thief(Pool(rows.astype(np.float32), np.zeros(200, np.int64)), np.array([True, False]))

    def api(asked: Any) -> Any:
        assert np.array_equal(asked[:, 0], np.rint(asked[:, 0]))
        assert (asked >= rows.min(axis=0) - 1e-3).all()
        high = 1 / (1 + np.exp(4 - asked[:, 0]))
        return np.column_stack([1 - high, high])

    found = invert(thief, api, 2, Attempt(way, "marginals", 600, 1))
    assert found.rows[1, 0] > found.rows[0, 0] + 2
    assert np.array_equal(found.rows[:, 0], np.rint(found.rows[:, 0]))
    with pytest.raises(ValueError, match="pictures"):
        invert(thief, api, 2, Attempt(way, "strokes", 600, 1))


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("way", WAYS)
def test_the_same_seed_finds_the_same(way: str) -> None:
    one, two, other = (
        invert(_pictures(), _answer, 4, Attempt(way, "smooth", 400, seed)).rows for seed in (1, 1, 2)
    )  # fmt: skip
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_likeness_is_of_the_own_class() -> None:
    exact = likeness(FLAT, TRUTH)
    assert exact.named.all()
    assert exact.correlation.min() > 0.99
    assert exact.strangers.max() == 0
    turned = likeness(FLAT[[1, 0, 2, 3]], TRUTH)
    assert turned.named.tolist() == [False, False, True, True]
    assert turned.strangers[:2].min() >= 30
    assert turned.correlation[0] < 0
    assert likeness(np.zeros((4, 36)), TRUTH).correlation.tolist() == [0.0] * 4


def test_columns_of_tables_weigh_alike() -> None:
    rows = np.array([[0.0, 1000], [1, 1010], [0.1, 3000], [1.1, 3010]])
    labels = np.array([0, 1, 0, 1])
    pictures, table = (truth_of(rows, labels, 2, pictures=kind) for kind in (True, False))
    found = np.array([[0.0, 3000], [1.0, 1000]])
    assert likeness(found, table).named.tolist() == [True, True]
    assert likeness(found, pictures).named.tolist() == [False, False]
    with pytest.raises(ValueError, match="needs rows"):
        truth_of(rows, labels, 3, pictures=False)
