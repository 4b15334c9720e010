"""Holds what targets answered against what references answered: the scores of every attack, and their figures."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.calibrate import Progress
from palladion.redteam.membership.answers import Form, Labels, Rows
from palladion.redteam.membership.figures import Figures, measure
from palladion.redteam.membership.label_only import gap_scores
from palladion.redteam.membership.lira import lira
from palladion.redteam.membership.plan import PROBED_MIN, AttackPlan
from palladion.redteam.membership.references import Exam, Sheet
from palladion.redteam.membership.rmia import rmia

Mask = NDArray[np.bool_]

POOLED_MIN = 4  # references: two a side, which a deviation takes
PER_ROW_MIN = 16  # references, 8 a side: a deviation of fewer is a guess
UNLIKE = 0.1  # by which the share of members of a target may differ from the half that references learn from


def score(sheet: Sheet, reference: Sheet, trained: Mask, exam: Exam, form: Form) -> dict[str, Rows]:
    """Every attack's scores (targets, rows), higher for members; NaN where a row was not probed.

    `sheet` is of the targets, `reference` of models of which `trained` (models, rows) says what they learnt from.
    """
    held = (reference.confidences, trained, sheet.confidences)
    found = {} if form.kind == "labels" else {"global threshold": sheet.confidences.mean(axis=2)}
    found["gap"] = gap_scores(sheet.named, exam.labels)
    found["LiRA online, fixed variance"] = lira(*held)
    found["LiRA offline, fixed variance"] = lira(*held, mode="offline")
    if len(trained) >= POOLED_MIN:
        found["LiRA online, pooled variance"] = lira(*held, variance="pooled")
    if len(trained) >= PER_ROW_MIN and form.kind != "labels":
        found["LiRA online, variance of each row"] = lira(*held, variance="per-row")
        found["LiRA offline, variance of each row"] = lira(*held, mode="offline", variance="per-row")
    if exam.population is None:
        found["RMIA offline"] = rmia(reference.own, trained, sheet.own)
    else:
        found["RMIA offline"] = rmia(
            reference.own, trained, sheet.own,
            population_reference=reference.population, population_target=sheet.population,
        )  # fmt: skip
    if len(exam.probed):
        by_robustness = lira(reference.robustness, trained[:, exam.probed], sheet.robustness)
        for name, some in (("label-only", sheet.robustness), ("label-only, LiRA", by_robustness)):
            found[name] = np.full(sheet.own.shape, np.nan)
            found[name][:, exam.probed] = some
    return found


def measure_all(scores: Mapping[str, Rows], member: Mask, plan: AttackPlan, progress: Progress) -> dict[str, Figures]:
    """The figures of every attack. A figure's intervals of all attacks hold together (Bonferroni)."""
    each = 1 - (1 - plan.confidence) / len(scores)
    found = {}
    for index, (name, values) in enumerate(scores.items()):
        progress(index, len(scores), "figures")
        # the same resamples for every attack, whichever others are made
        generator = np.random.default_rng(plan.seed_of(5))
        found[name] = measure(values, member, generator, resamples=plan.resamples, confidence=each)
    progress(len(scores), len(scores), "figures")
    return found


def accuracies(named: Labels, labels: Labels, trained: Mask) -> tuple[float, float]:
    """How often models that name `named` (models, rows) are right about rows they were trained on, and about others."""
    right = named == labels
    return float(right[trained].mean()), float(right[~trained].mean())


def notes_on(exam: Exam, form: Form, member: Mask) -> tuple[str, ...]:
    """What a reader should know of how it was measured."""
    notes = []
    if form.kind == "labels":
        notes.append("the targets show labels alone: whoever sees probabilities of them gets more")
    if not len(exam.probed):
        notes.append(f"the budget left too little for label-only probes of {PROBED_MIN} rows")
    share = float(member.mean())
    if abs(share - 0.5) > UNLIKE:
        notes.append(
            f"targets were trained on {share:.0%} of the rows and references on half of them: with other sizes of "
            "training sets, attacks are weaker than they could be"
        )
    return tuple(notes)
