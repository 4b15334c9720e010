"""A report's document holds figures for JSON, and nothing that tells who is a member."""

import json
from dataclasses import replace

import numpy as np

from palladion.redteam.membership.figures import Estimate, Figures, Limits, Roc
from palladion.redteam.membership.report import MembershipReport, TargetRecord

FIGURES = Figures(
    Estimate(0.7000000001, 0.6, 0.8), Estimate(0.6, 0.5, 0.7), None, None, Roc((0.1, 1.0), (0.2, 1.0)), 50, 60, 1, 0.95,
    ("a note",),
)  # fmt: skip
REPORT = MembershipReport(
    "fail", ("because",), "labels", {"gap": FIGURES}, (TargetRecord("t", 10, 0.9, 0.8),), 10, 10, 16, 0.9, 0.8, 1,
    Limits(), (), np.arange(7), {"gap": np.full((1, 7), 0.123)},
)  # fmt: skip


def test_a_document_is_json_with_rounded_figures() -> None:
    found = json.loads(json.dumps(REPORT.document()))
    assert found["attacks"]["gap"]["auc"] == {"value": 0.7, "low": 0.6, "high": 0.8}
    assert found["targets"] == [{"name": "t", "queries": 10, "accuracy_members": 0.9, "accuracy_others": 0.8}]
    assert (found["rows"], found["strongest"], found["limits"]["auc"]) == (7, "gap", 0.6)


def test_a_document_tells_of_no_row() -> None:
    assert {"judged", "scores"}.isdisjoint(REPORT.document())
    assert "0.123" not in json.dumps(REPORT.document())


def test_the_strongest_is_by_the_bound() -> None:
    sure = replace(FIGURES, auc=Estimate(0.65, 0.64, 0.66))
    assert replace(REPORT, attacks={"wide": FIGURES, "sure": sure}).strongest == "sure"
    assert replace(REPORT, attacks={}).strongest is None
