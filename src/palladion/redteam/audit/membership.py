"""Membership as a stage: references of our own, trained on the owner's rows, against every door of the subject."""

from typing import Any

import numpy as np

from palladion.redteam.audit.result import Figure, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Door, Subject
from palladion.redteam.membership.attack import attack_membership
from palladion.redteam.membership.figures import Estimate
from palladion.redteam.membership.plan import AttackPlan, Target
from palladion.redteam.membership.report import MembershipReport

REFERENCES = {"quick": 8, "standard": 16, "thorough": 64}
_FIGURES = (
    ("auc", "area under the ROC curve of the strongest attack on membership"),
    ("tpr_at_1_percent", "members found at 1 % of false alarms"),
    ("tpr_at_01_percent", "members found at 0.1 % of false alarms"),
)


def _missing(subject: Subject) -> str | None:
    if subject.training is None:
        return "it needs rows that the model was trained on, and others with labels: --training"
    if subject.classes < 2:
        return "only models that name classes are attacked so far"
    return None


def _run(subject: Subject, plan: Plan, allowance: Allowance) -> StageResult:
    reports = {}
    for index, door in enumerate(subject.doors):
        allowance.progress(index, len(subject.doors), f"membership, {door.name}")
        reports[door.name] = _attack(subject, door, plan, allowance)
    useful = {name: report for name, report in reports.items() if report.outcome != "inconclusive" or report.attacks}
    if not useful:
        reasons = tuple(f"{name}: {reason}" for name, report in reports.items() for reason in report.reasons[:1])
        return StageResult(
            "membership", "inconclusive", reasons, queries=sum(item.queries for item in reports.values())
        )
    figures = [figure for name, report in useful.items() for figure in _figures(name, report)]
    details: dict[str, Any] = {name: report.document() for name, report in reports.items()}
    queries = sum(report.queries for report in reports.values())
    notes = tuple(f"{name}: {note}" for name, report in useful.items() for note in report.notes)
    return StageResult("membership", "done", notes, tuple(figures), (), queries, details)


def _attack(subject: Subject, door: Door, plan: Plan, allowance: Allowance) -> MembershipReport:
    training = subject.training
    if training is None:
        raise ValueError("membership needs rows of training")
    spent = AttackPlan(
        references=REFERENCES[plan.profile],
        seed=plan.seed,
        queries=allowance.queries // len(subject.doors),
        processes=plan.processes,
        confidence=1 - 0.05 / len(subject.doors),
    )
    folder = None if allowance.folder is None else allowance.folder / door.name
    target = Target(f"{subject.name}, {door.name}", door.ask, training.member)
    return attack_membership(
        training.rows.astype(np.float32), training.labels, [target], spent, folder=folder, progress=allowance.progress
    )


def _figures(door: str, report: MembershipReport) -> list[Figure]:
    """The strongest attack's: an owner has to hold against all of them."""
    found = []
    for name, words in _FIGURES:
        estimates: list[Estimate] = [
            estimate for item in report.attacks.values() if (estimate := getattr(item, name)) is not None
        ]
        if estimates:
            best = max(estimates, key=lambda estimate: estimate.low)
            key = f"membership.{name}.{door}"
            found.append(Figure(key, f"{words}, {door}", best.value, best.low, best.high, "of 1"))
    return found


MEMBERSHIP = Stage("membership", 1, "membership: who was in the training data", 1.0, _missing, _run)
