"""Membership inference on targets from end to end: ask them, train references, score, measure and judge.

The auditor holds the rows that a target was trained on, and others like them. Nothing here says "safe": an attack that
cannot work, because the wrapper around the target is wrong, ends inconclusive with the reason.
"""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import numpy as np

from palladion import files
from palladion.errors import InconclusiveError
from palladion.redteam.calibrate import Progress
from palladion.redteam.membership import answers
from palladion.redteam.membership.answers import Form, Labels, Rows
from palladion.redteam.membership.figures import Limits, judge
from palladion.redteam.membership.label_only import Probe, boundary_probe, noise_probe
from palladion.redteam.membership.oracle import CountedOracle, check_as_good, check_learnt
from palladion.redteam.membership.plan import AttackPlan, Target, spend
from palladion.redteam.membership.references import (
    Disclosure,
    Exam,
    Schooling,
    Sheet,
    View,
    examine,
    examine_references,
    join,
)
from palladion.redteam.membership.report import MembershipReport, TargetRecord
from palladion.redteam.membership.scoring import accuracies, measure_all, notes_on, score
from palladion.redteam.membership.shadows import Inputs, Mask, Trainer
from palladion.redteam.membership.state import Journal

FIRST_ROWS = 200  # asked before all others: what is wrong with a wrapper shows in them


def attack_membership(
    inputs: Inputs,
    labels: Labels,
    targets: Sequence[Target],
    plan: AttackPlan,
    *,
    trainer: Trainer | None = None,
    views: Sequence[View] = (),
    disclosure: Disclosure | None = None,
    population: tuple[Inputs, Labels] | None = None,
    limits: Limits | None = None,
    folder: Path | None = None,
    progress: Progress | None = None,
) -> MembershipReport:
    """Attack `targets`, which were each trained on some of `inputs` (rows, …) with `labels` (rows,), numbers from 0 on.

    `trainer` makes references as the targets were made, else networks of the plan's recipe. `views` are further ways
    to ask a row. `disclosure` is what the targets do to probabilities before they answer, where it is more than
    rounding and hiding, which are found out. `population` are further rows with labels for RMIA, that no target was
    trained on. `folder` keeps what is done, so that the same call goes on where it was interrupted; targets, trainers,
    views and disclosure are known there by their names alone.

    Several targets, trained on different rows, are pooled: with one alone, intervals are about that one. Raises
    ValueError for arrays that do not fit, PalladionError for too few rows or queries, BusyError where another process
    uses the folder.
    """
    classes = _check(inputs, labels, targets, population)
    probe: Probe = noise_probe(inputs) if plan.probe == "noise" else boundary_probe(inputs, labels)
    around = 0 if population is None else len(population[0])
    spending = spend(plan, targets, views=1 + len(views), population=around, per_probe=probe.queries_per_row)
    judged = spending.judged
    exam = Exam(
        inputs[judged], labels[judged], tuple(views), population, spending.probed, probe, plan.seed_of(4), classes
    )  # fmt: skip
    member = np.stack([target.member[judged] for target in targets])
    tell = progress or _quiet
    run = _Run(targets, exam, member, budget=plan.queries, folder=folder, tell=tell)
    if folder is not None:
        files.make_private_directory(folder)
    with nullcontext() if folder is None else files.exclusive_lock(folder / "lock", what=f"the state in {folder}"):
        empty = MembershipReport(
            "inconclusive", (), None, {}, (), 0, spending.queries, plan.references, None, None, plan.seed,
            limits or Limits(), (), judged,
        )  # fmt: skip
        try:
            sheet, form = run.targets()
            schooling = Schooling(inputs, labels, judged, plan, trainer, form, disclosure)
            reference, trained = examine_references(schooling, exam, folder, tell)
            accuracy = accuracies(reference.named, exam.labels, trained)
            records = run.records(sheet, accuracy[1])
        except InconclusiveError as error:
            return replace(empty, reasons=(error.message, *error.hints), queries=run.queries)
    scores = score(sheet, reference, trained, exam, form)
    figures = measure_all(scores, member, plan, tell)
    judgement = judge(figures, empty.limits)
    return replace(
        empty, outcome=judgement.outcome, reasons=judgement.reasons, form=str(form), attacks=figures, targets=records,
        queries=run.queries, reference_accuracy_members=accuracy[0], reference_accuracy_others=accuracy[1],
        scores=scores, notes=notes_on(exam, form, member),
    )  # fmt: skip


class _Run:
    """The targets of one attack, as they are asked."""

    def __init__(
        self,
        targets: Sequence[Target],
        exam: Exam,
        member: Mask,
        *,
        budget: int | None,
        folder: Path | None,
        tell: Progress,
    ) -> None:
        self._targets, self._exam, self._member, self._tell = targets, exam, member, tell
        self._oracles = [
            CountedOracle(
                target.ask,
                budget,
                exam.classes,
                None if folder is None else Journal(folder / f"target-{index:03}", target.name),
            )
            for index, target in enumerate(targets)
        ]

    @property
    def queries(self) -> int:
        """How many queries all targets were asked."""
        return sum(oracle.queries for oracle in self._oracles)

    def targets(self) -> tuple[Sheet, Form]:
        """What all targets answer, and in what form."""
        sheets, forms = [], []
        for index, target in enumerate(self._targets):
            self._tell(index, len(self._targets), "targets")
            try:
                sheet, form = self._meet(index)
            except InconclusiveError as error:
                raise InconclusiveError(f"{target.name}: {error.message}", *error.hints) from None
            sheets.append(sheet)
            forms.append(form)
        self._tell(len(self._targets), len(self._targets), "targets")
        return join(sheets), _common(forms)

    def records(self, sheet: Sheet, reference: float) -> tuple[TargetRecord, ...]:
        """How good each target is; `reference` is how good references are on rows that they never saw."""
        found = []
        for index, (target, oracle) in enumerate(zip(self._targets, self._oracles, strict=True)):
            inside, outside = accuracies(sheet.named[index, None], self._exam.labels, self._member[index, None])
            try:
                check_as_good(inside, reference, self._exam.classes)
            except InconclusiveError as error:
                raise InconclusiveError(f"{target.name}: {error.message}", *error.hints) from None
            found.append(TargetRecord(target.name, oracle.queries, inside, outside))
        return tuple(found)

    def _meet(self, index: int) -> tuple[Sheet, Form]:
        exam, oracle, member = self._exam, self._oracles[index], self._member[index]
        # 1. a few rows first: a wrong wrapper must not cost the whole budget
        first = oracle.answers(exam.rows[:FIRST_ROWS])
        form = answers.recognise(first, len(first), exam.classes)
        named = answers.as_probabilities(first, form, len(first), exam.classes).argmax(axis=1)
        learnt = member[: len(first)]
        if learnt.any():
            check_learnt(named[learnt], exam.labels[: len(first)][learnt], exam.classes)
        # 2. all others; what looks rounded in a few may not be
        rest = oracle.answers(exam.rows[FIRST_ROWS:]) if len(exam.rows) > FIRST_ROWS else first[:0]
        whole = np.concatenate([first, rest])
        form = answers.recognise(whole, len(whole), exam.classes)
        known = answers.as_probabilities(whole, form, len(whole), exam.classes)
        check_learnt(known[member].argmax(axis=1), exam.labels[member], exam.classes)

        # 3. further views, the population and probes
        def ask(rows: Inputs) -> Rows:
            return known if rows is exam.rows else oracle.probabilities(rows, form)

        return examine(ask, exam, form.floor), form


def _check(inputs: Inputs, labels: Labels, targets: Sequence[Target], population: tuple[Inputs, Labels] | None) -> int:
    """How many classes there are."""
    for rows, named in ((inputs, labels), *([] if population is None else [population])):
        if rows.ndim < 2 or rows.dtype.kind not in "biuf" or not np.isfinite(rows).all():
            raise ValueError(f"rows of {rows.dtype} and shape {rows.shape}: finite numbers (rows, …) were expected")
        if named.shape != (len(rows),) or named.dtype.kind not in "iu" or (len(named) and named.min() < 0):
            raise ValueError(
                f"labels of {named.dtype} and shape {named.shape} do not number the classes of {len(rows)} rows"
            )
    if not targets:
        raise ValueError("no target was given")
    for target in targets:
        if target.member.shape != (len(inputs),) or target.member.dtype != np.bool_:
            raise ValueError(f"the members of {target.name} are {target.member.shape}, one truth a row was expected")
    return int(max(labels.max(), 1 if population is None else population[1].max(), 1)) + 1


def _common(forms: Sequence[Form]) -> Form:
    """The finest of the targets' forms. Raises InconclusiveError where they are of several kinds."""
    kinds = {form.kind for form in forms}
    if len(kinds) > 1:
        raise InconclusiveError(
            f"the targets answer with {', '.join(sorted(kinds))}", "attack those of a kind together"
        )
    decimals, shown = ({getattr(form, name) for form in forms} for name in ("decimals", "shown"))
    return Form(
        forms[0].kind,
        None if None in decimals else max(decimals, default=None),
        None if None in shown else max(shown, default=None),
    )


def _quiet(done: int, total: int, stage: str = "") -> None:
    """Tells nobody."""
