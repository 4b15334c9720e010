"""Triggers: how many hold, what they cost the task, what they survive, and what a stranger's model answers."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.report import SEED, Report, main
from palladion.errors import ConflictError
from palladion.mark.carriers import derive
from palladion.mark.triggers.commitment import TriggerFinding, judge_answers, open_triggers, trigger_key, verify_opened
from palladion.mark.triggers.heads import Head, Tapped, answered_classes, find_head
from palladion.mark.triggers.planting import Planted, embed_triggers
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.rewrite import locate, rewrite
from palladion.model.tensors import Tensor

Array = NDArray[Any]

ROOT, ORIGINAL = derive(bytes(32), "bench"), "00" * 32
BUDGET = 64  # queries that one dispute spends
POINTS = 0.5  # of accuracy that triggers may cost


@dataclass(frozen=True)
class _Subject:
    """A classifier, rows to plant with that it did not learn from, and rows to judge by that are neither."""

    name: str
    model: Model
    given: Array
    unseen: Array
    labels: Array
    seed_other: Callable[[], Model]


def measure(report: Report) -> None:
    """Fill the report."""
    for subject in _subjects(quick=report.quick, smoke=report.smoke):
        for references in ({"X": subject.given},) if report.smoke else ({"X": subject.given}, None):
            _as_protected(report, subject, references)
        for count in (64,) if report.quick else (32, 64, 100, 200):
            for references in ({"X": subject.given},) if report.quick else ({"X": subject.given}, None):
                _row(report, subject, count, references)


def _as_protected(report: Report, subject: _Subject, references: Mapping[str, Array] | None) -> None:
    """What `protect` plants: half as many, and so on, until few enough labels of ordinary rows change."""
    name = f"{subject.name}, as protect plants them, {'real rows' if references else 'no rows'}"
    try:
        planted = embed_triggers(subject.model, ROOT, ORIGINAL, references=references)
    except ConflictError as error:
        report.add(f"{name}: triggers", 0, "triggers", reference=error.message)
        return
    count = planted.commitment.count
    finding = _test(planted, planted.model, min(count, BUDGET))
    stranger, original = (_test(planted, model, min(count, BUDGET)) for model in (subject.seed_other(), subject.model))
    reference = f"{count} triggers; original {original.log10_p:.1f}, a stranger's {stranger.log10_p:.1f}"
    report.at_most(f"{name}: all asked", finding.log10_p, "log10 p", -9, reference=reference)
    before, after = _points(subject, subject.model), _points(subject, planted.model)
    reference = f"{before:.2f} before; labels of unseen rows that changed: {_differ(subject, planted.model):.2f} %"
    report.at_least(f"{name}: the task", after, "points", before - POINTS, reference=reference)


def _row(report: Report, subject: _Subject, count: int, references: Mapping[str, Array] | None) -> None:
    known = "real rows" if references else "no rows"
    name = f"{subject.name}, {count} triggers, {known}"
    try:
        planted = embed_triggers(subject.model, ROOT, ORIGINAL, count=count, references=references, flipped_max=1)
    except ConflictError as error:
        report.add(name, 0, "% hold", reference=error.message)
        return
    before, after = _points(subject, subject.model), _points(subject, planted.model)
    asked = min(count, BUDGET)
    finding = _test(planted, planted.model, asked)
    stranger, original = (_test(planted, model, asked) for model in (subject.seed_other(), subject.model))
    controls = f"original {original.log10_p:.1f}, a stranger's {stranger.log10_p:.1f}"
    reference = f"log10 p of {asked}: {finding.log10_p:.0f}; {controls}"
    report.at_least(f"{name}: hold", 100 * planted.held, "%", 95, reference=reference)
    changed = _differ(subject, planted.model)
    # no bar: so many are put in whatever they cost, which `protect` does not
    reference = f"{before:.2f} before; labels of unseen rows that changed: {changed:.2f} %"
    report.add(f"{name}: the task", after, "points", reference=reference)
    if count == BUDGET and references:
        _attacks(report, subject, planted)


def _attacks(report: Report, subject: _Subject, planted: Planted) -> None:
    for what, change in _ATTACKS.items():
        suspect = _changed(planted.model, change)
        finding = _test(planted, suspect, BUDGET)
        clean = _test(planted, _changed(subject.model, change), BUDGET)
        reference = (
            f"{finding.matches} of {BUDGET} hold; task {_points(subject, suspect):.1f} points; the original treated "
            f"alike {clean.log10_p:.1f}"
        )
        report.at_most(f"{subject.name}, {what}", finding.log10_p, "log10 p", -9, reference=reference)


def _test(planted: Planted, suspect: Model, count: int) -> TriggerFinding:
    opened = open_triggers(trigger_key(ROOT, ORIGINAL), planted.commitment, range(count))
    batch = verify_opened(planted.commitment, opened)
    return judge_answers(planted.commitment, batch, _answers(suspect, batch.feeds["X"]).tolist())


def _answers(model: Model, rows: Array) -> Array:
    head = find_head(model)
    if not isinstance(head, Head):
        raise TypeError(head)
    return answered_classes(head, Tapped(model, head.tap).run({"X": rows}))


def _points(subject: _Subject, model: Model) -> float:
    return float(100 * np.mean(_answers(model, subject.unseen) == subject.labels))


def _differ(subject: _Subject, model: Model) -> float:
    return float(100 * np.mean(_answers(model, subject.unseen) != _answers(subject.model, subject.unseen)))


def _rounded(bits: int) -> Callable[[Array], Array]:
    def change(weights: Array) -> Array:
        step = np.abs(weights).max() / (2 ** (bits - 1) - 1)
        return np.asarray(np.round(weights / step) * step)

    return change


def _pruned(share: float) -> Callable[[Array], Array]:
    return lambda weights: np.where(np.abs(weights) < np.quantile(np.abs(weights), share), 0, weights)


def _noisy(weights: Array) -> Array:
    return np.asarray(weights + 0.1 * weights.std() * np.random.default_rng(SEED).standard_normal(weights.shape))


_ATTACKS: Mapping[str, Callable[[Array], Array]] = {
    "int8": _rounded(8),
    "int4, one scale": _rounded(4),
    "prune 30 %": _pruned(0.3),
    "prune 50 %": _pruned(0.5),
    "noise of 10 %": _noisy,
}
_NUMBERS = {"coefficients", "class_weights"}


def _changed(model: Model, change: Callable[[Array], Array]) -> Model:
    """Every matrix, coefficient and leaf value of a model changed."""
    writable = locate(model)

    def numbers(tensor: Tensor) -> Array | None:
        attribute = tensor.name.rpartition("/")[2] in _NUMBERS
        wanted = attribute or (len(tensor.shape) >= 2 and tensor.dtype.name == "float32")
        return change(np.asarray(tensor.data)) if wanted and tensor.name in writable else None

    return read_memory(rewrite(model, numbers))


def _subjects(*, quick: bool, smoke: bool) -> list[_Subject]:
    from sklearn.datasets import load_digits
    from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
    from sklearn.linear_model import LogisticRegression
    from sklearn.neural_network import MLPClassifier

    table, labels = load_digits(return_X_y=True)
    table = (table / 16).astype(np.float32)
    makers: dict[str, Callable[[int], Any]] = {
        "network 64-64-32-10": lambda seed: MLPClassifier((64, 32), max_iter=300, random_state=seed),
        "logistic regression": lambda seed: LogisticRegression(max_iter=500, C=1.0 + seed / 10),
        "random forest": lambda seed: RandomForestClassifier(20 if smoke else 100, random_state=seed),
        "boosted trees": lambda seed: GradientBoostingClassifier(
            n_estimators=5 if smoke else 20 if quick else 60, random_state=seed, subsample=0.8
        ),
    }
    learnt, given, unseen = table[::2], table[1::4], table[3::4]
    found = []
    for name, maker in makers.items():

        def fitted(seed: int, maker: Callable[[int], Any] = maker) -> Model:
            return _exported(maker(seed), learnt, labels[::2])

        found.append(_Subject(name, fitted(1), given, unseen, labels[3::4], lambda fitted=fitted: fitted(2)))  # type: ignore[misc]
    return found


def _exported(estimator: Any, table: Array, labels: Array) -> Model:
    from skl2onnx import to_onnx

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # not converged: it need not be
        estimator.fit(table, labels)
        exported = to_onnx(
            estimator, table[:1], options={"zipmap": False}, target_opset={"": 17, "ai.onnx.ml": 3}
        ).SerializeToString()
    return read_memory({"model.onnx": exported})


if __name__ == "__main__":
    main("triggers", __doc__ or "", measure)
