"""Which attacks are made of what was answered, and with what confidence they are measured."""

from typing import Any

import numpy as np
import pytest

from palladion.redteam.membership.answers import Form
from palladion.redteam.membership.label_only import noise_probe
from palladion.redteam.membership.lira import lira
from palladion.redteam.membership.references import Exam, Sheet
from palladion.redteam.membership.scoring import accuracies, measure_all, notes_on, score
from palladion.redteam.membership.shadows import member_masks
from tests.redteam.membership.people import PLAN

ROWS, MODELS = 80, 16


def _sheets(models: int = MODELS) -> tuple[Sheet, Sheet, Any, Exam]:
    generator = np.random.default_rng(1)

    def sheet(count: int, lifted: Any) -> Sheet:
        confidences = generator.standard_normal((count, ROWS, 1)) + lifted[..., None]
        own = 1 / (1 + np.exp(-confidences[..., 0]))
        return Sheet(confidences, own, (own > 0.3).astype(np.int64), np.zeros((count, 0)), own[:, :50])

    trained = member_masks(models, ROWS, generator)
    labels = np.ones(ROWS, np.int64)
    exam = Exam(np.zeros((ROWS, 1)), labels, (), None, np.arange(50), noise_probe(np.zeros((ROWS, 1))), 1, 2)
    return sheet(2, trained[:2]), sheet(models, trained), trained, exam


def test_all_attacks_score_every_target_and_row() -> None:
    sheet, reference, trained, exam = _sheets()
    found = score(sheet, reference, trained, exam, Form("probabilities"))
    assert len(found) == 10
    assert all(values.shape == (2, ROWS) for values in found.values())
    assert np.array_equal(
        found["LiRA offline, variance of each row"],
        lira(reference.confidences, trained, sheet.confidences, mode="offline", variance="per-row"),
    )
    assert np.isnan(found["label-only"][:, 50:]).all()
    assert not np.isnan(found["label-only, LiRA"][:, :50]).any()


def test_attacks_that_have_too_little_are_left_out() -> None:
    few = set(score(*_sheets(2), Form("probabilities")))
    assert not any("pooled" in name or "each row" in name for name in few)
    labels = set(score(*_sheets(), Form("labels")))
    assert not any("threshold" in name or "each row" in name for name in labels)


def test_intervals_hold_together() -> None:
    sheet, reference, trained, exam = _sheets()
    scores = score(sheet, reference, trained, exam, Form("probabilities"))
    stages: list[int] = []
    found = measure_all(scores, trained[:2], PLAN, lambda done, total, stage="": stages.append(done))
    assert all(figures.confidence == pytest.approx(0.995) for figures in found.values())
    assert stages == list(range(11))
    assert found["LiRA online, fixed variance"].auc.value > 0.6


def test_accuracies_are_of_members_and_of_others() -> None:
    named, trained = np.array([[1, 0, 1, 0]]), np.array([[True, True, False, False]])
    assert accuracies(named, np.array([1, 0, 0, 1]), trained) == (1.0, 0.0)


def test_notes_say_what_bends_the_figures() -> None:
    _, _, trained, exam = _sheets()
    assert notes_on(exam, Form("probabilities"), trained[:2]) == ()
    said = " ".join(notes_on(exam, Form("labels"), np.ones((1, ROWS), np.bool_)))
    assert "labels alone" in said
    assert "100% of the rows" in said
