"""What reference models answer to the judged rows, as the target would have shown it; batch by batch, resumable.

Each row is in half of the references. What a target hides is hidden from references too: an attacker who knows how it
answers trains his own to answer alike.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import InconclusiveError
from palladion.redteam.calibrate import Progress
from palladion.redteam.membership import answers
from palladion.redteam.membership.answers import Form, Labels, Rows
from palladion.redteam.membership.label_only import Probe
from palladion.redteam.membership.plan import AttackPlan
from palladion.redteam.membership.shadows import (
    Inputs,
    Mask,
    Network,
    Scorer,
    Trainer,
    member_masks,
    train_each,
    train_networks,
)
from palladion.redteam.membership.state import fingerprint, load_arrays, save_arrays

# What a view of rows is, for attacks that ask a row in several: rows in, as many rows out.
View = Callable[[Inputs], Inputs]
# Probabilities in (rows, classes), what the target would show of them out.
Disclosure = Callable[[Rows], Rows]

_NAMES = frozenset({"confidences", "own", "named", "population", "robustness"})


@dataclass(frozen=True, eq=False)
class Exam:
    """What every model is asked: judged rows (n, …) in some views, a population, and probes of the places `probed`."""

    rows: Inputs
    labels: Labels
    views: tuple[View, ...]
    population: tuple[Inputs, Labels] | None
    probed: NDArray[np.intp]
    probe: Probe
    probe_seed: int
    classes: int

    def seen(self) -> Iterator[Inputs]:
        """The judged rows in each view, as they are first."""
        yield self.rows
        for view in self.views:
            yield view(self.rows)


@dataclass(frozen=True, eq=False)
class Sheet:
    """What some models answered: confidences (models, n, views), probabilities of the true class (models, n), classes
    named (models, n), the true class's probabilities of the population (models, z), robustness of labels (models, m).
    """

    confidences: Rows
    own: Rows
    named: Labels
    population: Rows
    robustness: Rows


@dataclass(frozen=True, eq=False)
class Schooling:
    """What references are trained on and how: all rows, the plan, the user's own trainer, and what the target shows."""

    inputs: Inputs
    labels: Labels
    judged: NDArray[np.intp]
    plan: AttackPlan
    trainer: Trainer | None
    form: Form
    disclosure: Disclosure | None


def join(sheets: Sequence[Sheet]) -> Sheet:
    """One sheet of all models."""
    return Sheet(*(np.concatenate([getattr(sheet, name) for sheet in sheets]) for name in Sheet.__dataclass_fields__))


def examine(ask: Callable[[Inputs], Rows], exam: Exam, floor: float) -> Sheet:
    """The sheet of one model that answers with probabilities (rows, classes)."""
    confidences, first = [], None
    for rows in exam.seen():
        found = ask(rows)
        first = found if first is None else first
        confidences.append(answers.confidences(found, exam.labels, floor))
    if first is None:
        raise ValueError("rows are seen in one view at least")
    population = np.zeros(0)
    if exam.population is not None:
        population = answers.own(ask(exam.population[0]), exam.population[1])
    robustness = np.zeros(0)
    if len(exam.probed):
        robustness = exam.probe.scores(
            lambda rows: np.asarray(ask(rows).argmax(axis=1), np.int64),
            exam.rows[exam.probed],
            exam.labels[exam.probed],
            exam.probe_seed,
        )
    own = np.maximum(answers.own(first, exam.labels), floor)
    named = np.asarray(first.argmax(axis=1), np.int64)
    around = np.maximum(population, floor)
    return Sheet(np.stack(confidences, axis=-1)[None], own[None], named[None], around[None], robustness[None])


def examine_references(schooling: Schooling, exam: Exam, folder: Path | None, progress: Progress) -> tuple[Sheet, Mask]:
    """The sheet of all references, and which judged rows (models, n) each was trained on.

    Raises InconclusiveError where a user's trainer makes models that answer like none.
    """
    plan = schooling.plan
    masks = member_masks(plan.references, len(schooling.inputs), np.random.default_rng(plan.seed_of(2)))
    parts = [slice(start, start + plan.batch_references) for start in range(0, plan.references, plan.batch_references)]
    name = None if folder is None else _fingerprint(schooling, exam)
    paths = [None if folder is None else folder / f"references-{name}-{part.start:04}.npz" for part in parts]
    done = {index: sheet for index, path in enumerate(paths) if (sheet := _load(path)) is not None}
    tasks = {index: (schooling, exam, masks[part], part.start) for index, part in enumerate(parts) if index not in done}
    progress(len(done), len(parts), "references")
    for index, sheet in _run(tasks, plan.processes):
        path = paths[index]
        if path is not None:
            save_arrays(path, {column: getattr(sheet, column) for column in _NAMES})
        done[index] = sheet
        progress(len(done), len(parts), "references")
    return join([done[index] for index in range(len(parts))]), masks[:, schooling.judged]


Task = tuple[Schooling, Exam, Mask, int]


def _run(tasks: dict[int, Task], processes: int) -> Iterator[tuple[int, Sheet]]:
    if processes == 1 or len(tasks) < 2:
        for index, task in tasks.items():
            yield index, _batch(task)
        return
    with ProcessPoolExecutor(min(processes, len(tasks)), mp_context=get_context("spawn")) as pool:
        begun = {pool.submit(_batch, task): index for index, task in tasks.items()}
        try:
            for ended in as_completed(begun):
                yield begun[ended], ended.result()
        finally:
            # what has not begun is not waited for when one fails or the user stops
            pool.shutdown(wait=False, cancel_futures=True)


def _batch(task: Task) -> Sheet:
    schooling, exam, masks, first = task
    plan = schooling.plan
    models: Sequence[Scorer]
    if schooling.trainer is not None:
        models = train_each(schooling.trainer, schooling.inputs, schooling.labels, masks)
    else:
        seeds = [plan.seed_of(3, first + index) for index in range(len(masks))]
        models = train_networks(
            schooling.inputs, schooling.labels, masks, classes=exam.classes, recipe=plan.recipe, seeds=seeds
        )
    floor = schooling.form.floor
    return join([examine(_shown(model, schooling, exam.classes), exam, floor) for model in models])


def _shown(model: Scorer, schooling: Schooling, classes: int) -> Callable[[Inputs], Rows]:
    """A reference that shows what the target would."""
    form: Form | None = None

    def ask(rows: Inputs) -> Rows:
        nonlocal form
        found = np.asarray(model(rows))
        if isinstance(model, Network):
            whole = answers.softmax(found)
        else:
            try:
                form = form or answers.recognise(found, len(rows), classes)
                whole = answers.as_probabilities(found, form, len(rows), classes)
            except InconclusiveError as error:
                raise InconclusiveError(f"a reference of the trainer is no use: {error.message}") from None
        return answers.disclosed(whole, schooling.form) if schooling.disclosure is None else schooling.disclosure(whole)

    return ask


def _load(path: Path | None) -> Sheet | None:
    found = None if path is None else load_arrays(path, set(_NAMES))
    return None if found is None else Sheet(**found)


def _fingerprint(schooling: Schooling, exam: Exam) -> str:
    # how many work on it, and how much was asked of targets, changes no reference
    plan = replace(schooling.plan, processes=1, queries=None, resamples=100, confidence=0.95)
    own: list[Any] = [exam.views, schooling.trainer, schooling.disclosure]
    named = [
        [getattr(f, "__qualname__", type(f).__name__) for f in (part if isinstance(part, tuple) else (part,))]
        for part in own
    ]
    around: list[Any] = [] if exam.population is None else list(exam.population)
    return fingerprint(
        schooling.inputs, schooling.labels, schooling.judged, exam.probed, *around, plan, schooling.form, *named,
        exam.classes,
    )  # fmt: skip
