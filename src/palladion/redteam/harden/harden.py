"""Hardens a classifier: fine-tunes it by one method, holds it to its honest accuracy, and measures what students get.

Rows are shared: one half teaches, of which three tenths choose the strength; the other half judges, and no weight has
seen it here. What was chosen is judged once, so that no interval is the best of several.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, PalladionError, UnsupportedFormatError
from palladion.gate.contract import as_probabilities, make_contract
from palladion.model.model import Model
from palladion.model.run import Session, open_session
from palladion.policy import RoutePolicy
from palladion.redteam.extraction import Api, Interval, Rows
from palladion.redteam.harden.leftover import Leftover, Robbed, Student, compare, rob
from palladion.redteam.harden.network import HINT, Network, require_torch
from palladion.redteam.harden.objectives import METHODS, STEPS, Method, tune
from palladion.redteam.students import Effort
from palladion.redteam.victim import Victim, meet

HONEST_LOSS_MAX = 0.01  # of accuracy: what a hardening may cost honest users
CHOOSING_LOSS_MAX = 0.01  # where the strength is chosen; on few rows, less would be no row at all
TEACHES, CHOOSES = 0.5, 0.3  # of all rows, and of those that teach
BUDGETS = (1000, 10_000)
SEEDS_MIN = 5
SAME = 1e-3  # of a probability: how far torch and ONNX Runtime may be apart
_NORMAL = 1.96
Outcome = Literal["benefit", "no benefit", "worse", "too dear"]
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Honest:
    """Accuracy on the judge's rows before and after, and what was lost, paired by row."""

    rows: int
    before: float
    after: float
    lost: Interval


@dataclass(frozen=True, eq=False)
class Hardened:
    """What came of it. `model` is the hardened model; `outcome` says whether it is worth anything.

    `too dear`: it costs honest users more than `HONEST_LOSS_MAX`, and students were not measured. `strength` is 0 where
    no strength kept within it where it was chosen.
    """

    method: Method
    strength: float
    model: Model
    honest: Honest
    leftovers: tuple[Leftover, ...]
    outcome: Outcome

    def document(self) -> dict[str, Any]:
        """All of it but the model, as JSON."""
        return {
            "method": self.method,
            "strength": self.strength,
            "honest": asdict(self.honest) | {"lost_max": HONEST_LOSS_MAX},
            "students": [_as_document(item) for item in self.leftovers],
            "outcome": self.outcome,
        }


@dataclass(frozen=True, eq=False)
class Lesson:
    """A classifier and rows with labels, read and checked: `rows` (n, *shape) as the model takes them."""

    model: Model
    victim: Victim
    rows: NDArray[np.float32]
    labels: NDArray[np.int64]
    teaching: NDArray[np.intp]
    choosing: NDArray[np.intp]
    judging: NDArray[np.intp]


def read_lesson(model: Model, feeds: Mapping[str, NDArray[Any]], labels: NDArray[Any] | None, *, seed: int) -> Lesson:
    """What is needed to harden `model`. Raises PalladionError on models and rows that cannot be used; needs no torch.

    `labels` (n,) are numbers of classes from 0 on, each of which occurs.
    """
    session = open_session(model)
    contract = make_contract(RoutePolicy(model="harden"), session.outputs)
    if contract.kind != "classes" or len(session.inputs) != 1:
        raise UnsupportedFormatError("the model does not answer rows of one input with scores of classes", HINT)
    if labels is None:
        raise FormatError("the rows have no labels", "an array y beside x, with a class for each row")
    victim = meet(session, contract, feeds, labels)
    rows = feeds[session.inputs[0].name][: len(victim.rows)].astype(np.float32)
    classes = victim.truth.shape[1]
    right = labels[: len(rows)].astype(np.int64)
    if not np.array_equal(np.unique(right), np.arange(classes)):
        raise FormatError(f"the labels are of {len(np.unique(right))} classes, the model names {classes}")
    order = np.random.default_rng((seed, 7)).permutation(len(rows))
    taught = order[: int(TEACHES * len(rows))]
    cut = int(CHOOSES * len(taught))
    return Lesson(model, victim, rows, right, taught[cut:], taught[:cut], order[len(taught) :])


def harden(
    lesson: Lesson,
    method: Method,
    *,
    budgets: Sequence[int] = BUDGETS,
    seeds: Sequence[int] = range(1, 1 + SEEDS_MIN),
    effort: Effort = "machines",
    steps: int = STEPS,
    known: Sequence[Robbed] = (),
    progress: Progress = lambda _stage, _done, _total: None,
) -> Hardened:
    """Fine-tune by `method` at the greatest strength that honest users do not notice, and rob model and result alike.

    `known` is what these seeds got of the model before, of budgets where that was measured. Deterministic per seeds on
    one machine. Raises MissingExtraError without torch, UnsupportedFormatError for layers that cannot be trained.
    """
    if len(seeds) < 2:
        raise ValueError("an interval needs two seeds or more")
    network = Network(lesson.model, lesson.victim.contract.scores or "", is_logits=lesson.victim.is_logits)
    _check_same(network, lesson)
    strength, model = _strongest(network, lesson, method, seed=seeds[0], steps=steps, progress=progress)
    before, after = api_of(lesson, lesson.model), api_of(lesson, model)
    honest = _honest(lesson, before, after)
    if strength == 0 or honest.lost.mean > HONEST_LOSS_MAX:
        return Hardened(method, strength, model, honest, (), "too dear")
    rows, labels = lesson.victim.rows[lesson.judging], lesson.labels[lesson.judging]
    leftovers = []
    for place, queries in enumerate(budgets):
        progress(f"students before, {queries} queries", place, len(budgets))
        first = next((item for item in known if item.queries == queries), None)
        first = first or rob(before, rows, labels, queries, seeds, effort=effort)
        progress(f"students after, {queries} queries", place, len(budgets))
        leftovers.append(compare(first, rob(after, rows, labels, queries, seeds, effort=effort)))
    return Hardened(method, strength, model, honest, tuple(leftovers), _outcome(leftovers))


def api_of(lesson: Lesson, model: Model) -> Api:
    """`model`, which has the graph of the lesson's, as a thief asks it: flat rows in, probabilities out."""
    session: Session = open_session(model)
    port, scores = session.inputs[0], lesson.victim.contract.scores or ""
    shape = lesson.rows.shape[1:]
    size = port.shape[0] if isinstance(port.shape[0], int) else 1024

    def ask(rows: Rows) -> Rows:
        parts = []
        for start in range(0, len(rows), size):
            part = rows[start : start + size]
            # a batch of a fixed size is filled up
            filled = np.concatenate([part, np.repeat(part[:1], size - len(part), axis=0)])
            feed = filled.astype(port.dtype).reshape(-1, *shape)
            parts.append(session.run({port.name: feed})[scores][: len(part)].astype(np.float64))
        found = np.concatenate(parts)
        return np.asarray(as_probabilities(found) if lesson.victim.is_logits else found)

    return ask


def _check_same(network: Network, lesson: Lesson) -> None:
    """Refuse a graph that torch does not compute as ONNX Runtime does."""
    torch = require_torch()
    some = lesson.teaching[:64]
    try:
        with torch.no_grad():
            found = network.logits(torch.from_numpy(lesson.rows[some])).softmax(dim=1).numpy()
    except (RuntimeError, IndexError, TypeError, ValueError) as error:
        raise UnsupportedFormatError(f"the layers cannot be run in torch: {str(error)[:200]}", HINT) from None
    expected = lesson.victim.truth[some]
    if found.shape != expected.shape or not np.abs(found - expected).max() <= SAME:
        raise UnsupportedFormatError("the layers compute in torch what they do not in ONNX Runtime", HINT)


def _strongest(
    network: Network, lesson: Lesson, method: Method, *, seed: int, steps: int, progress: Progress
) -> tuple[float, Model]:
    """The greatest strength that loses little on the rows that choose, and its model; 0 and the model as it was."""
    strength, model = 0.0, lesson.model
    strengths, taught = METHODS[method].strengths, lesson.teaching
    flat, right = lesson.victim.rows[lesson.choosing], lesson.labels[lesson.choosing]
    known = _hits(api_of(lesson, lesson.model), flat, right).mean()
    for place, tried in enumerate(strengths):
        progress(f"fine-tune, {method} {tried}", place, len(strengths))
        tune(network, lesson.rows[taught], lesson.labels[taught], method, tried, seed=seed, steps=steps)
        made = network.as_model()
        if known - _hits(api_of(lesson, made), flat, right).mean() > CHOOSING_LOSS_MAX:
            continue
        strength, model = tried, made
    return strength, model


def _honest(lesson: Lesson, before: Api, after: Api) -> Honest:
    rows, labels = lesson.victim.rows[lesson.judging], lesson.labels[lesson.judging]
    one, other = _hits(before, rows, labels), _hits(after, rows, labels)
    lost = one - other
    half = _NORMAL * float(lost.std(ddof=1)) / len(lost) ** 0.5
    mean = float(lost.mean())
    return Honest(len(rows), float(one.mean()), float(other.mean()), Interval(mean, mean - half, mean + half))


def _hits(api: Api, rows: Rows, labels: NDArray[np.int64]) -> NDArray[np.float64]:
    said = api(rows)
    if not np.isfinite(said).all():
        raise PalladionError("the fine-tuned model answers some rows with NaN or infinity", "try another method")
    return np.asarray(said.argmax(axis=1) == labels, np.float64)


def _outcome(leftovers: Sequence[Leftover]) -> Outcome:
    """As good as with the budget where it is worst: a thief takes the budget that suits him."""
    verdicts = {item.verdict for item in leftovers}
    if "worse" in verdicts:
        return "worse"
    return "benefit" if verdicts == {"benefit"} else "no benefit"


def _as_document(item: Leftover) -> dict[str, Any]:
    return {
        "queries": item.before.queries,
        "before": [_student(student) for student in item.before.students],
        "after": [_student(student) for student in item.after.students],
        "fidelity_lost": asdict(item.fidelity_lost),
        "further_behind": asdict(item.further_behind),
        "verdict": item.verdict,
    }


def _student(student: Student) -> dict[str, Any]:
    return asdict(student) | {
        "fidelity": float(np.mean(student.fidelities)),
        "accuracy": float(np.mean(student.accuracies)),
    }
