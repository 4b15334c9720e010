"""The student that a thief of `copying` fits: one of several kinds, chosen by answers that it was not shown.

Kernel machines in closed form, that is ridge regression on the answers or on their logarithms, and networks. The
kernels `arc` and `tangent` are those of infinitely wide networks with one hidden layer (Cho and Saul, NIPS 2009; Jacot
et al., arXiv:1806.07572): few answers teach them more than they teach a network. What the victim says of other rows
takes no part in the choice.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.committees import fit_committee
from palladion.redteam.learners import Goal

Rows = NDArray[np.float64]
Places = NDArray[np.intp]
Kernel = Callable[[Rows, Rows], Rows]
Effort = Literal["machines", "all"]

FOLDS = 5
ROWS_OF_ALL_FOLDS = 400  # with more answers, one fold holds out enough of them to choose by
ROWS_TO_CHOOSE = 500  # that a kind is tried on
ROWS_AT_ONCE = 2000  # of one machine, whose cost grows with the cube; more answers make several, which are averaged
RIDGES = (1e-4, 1e-2, 1e-1)  # of the mean of the kernel's diagonal
FLOORS = (1.0, 0.1)  # of the mean deviation of columns: about one scale for all of them, and one for each
LEAST = 1e-9  # probability whose logarithm is believed; one that rounds says nothing below half of its least
ROWS_OF_NETWORKS = 200  # below, networks learn less than machines whatever they are asked
WIDTHS = ((128,), (128, 64))  # of networks' hidden layers
ERRORS = 1.0  # standard errors: of kinds that are as good as the best, the first is taken (Breiman et al. 1984)


class Fitted(Protocol):
    """A student that was fitted."""

    def answers(self, rows: Rows) -> Rows:
        """What the victim would say of rows (n, inputs), as (n, outputs); of classes, only which is largest counts."""
        ...


@dataclass(frozen=True)
class Kind:
    """A kernel machine: the kernel, how columns are scaled, the ridge, and whether it learns logarithms."""

    kernel: str
    floor: float
    ridge: float
    logs: bool


@dataclass(frozen=True, eq=False)
class Machine:
    """Kernel machines of one kind that were fitted, each on its own part of the answers. Says the mean of them."""

    kind: Kind
    scaled: Callable[[Rows], Rows]
    parts: tuple[tuple[Rows, Rows], ...]  # scaled rows (m, inputs), and their weights (m, outputs)
    offset: Rows

    def answers(self, rows: Rows) -> Rows:
        """Answers or their logarithms (n, outputs), as the kind is."""
        inputs, kernel = self.scaled(rows), KERNELS[self.kind.kernel]
        return np.asarray(np.mean([kernel(inputs, at) @ weights for at, weights in self.parts], axis=0) + self.offset)


def choose(rows: Rows, answers: Rows, goal: Goal, generator: np.random.Generator, *, effort: Effort = "all") -> Fitted:
    """The student of `answers` (rows, outputs): of the kind that named most held-out answers as the victim did.

    Of numbers, the kind whose squared error is least. `effort` "machines" tries no networks, which take most of the
    time. Deterministic per generator.
    """
    if len(rows) < 2:
        return fit_machine(rows, answers, Kind(next(iter(KERNELS)), FLOORS[0], RIDGES[0], logs=False), generator)
    fold = generator.permutation(len(rows)) % FOLDS
    rounds = min(FOLDS, len(rows)) if len(rows) <= ROWS_OF_ALL_FOLDS else 1
    splits = [(_some(fold != index), _some(fold == index)) for index in range(rounds)]
    held = np.concatenate([ours for _, ours in splits])
    tried: list[tuple[Rows, Callable[[], Fitted]]] = []
    for kind, said in _machines(rows, answers, goal, splits):
        tried.append((_right(said, answers[held], goal), _later(rows, answers, kind, generator)))
    if effort == "all" and len(rows) >= ROWS_OF_NETWORKS:
        scaled = _scaling(rows, FLOORS[0])
        for widths in WIDTHS:
            networks = fit_committee(rows, answers, goal, generator, parts=fold, widths=widths, scaled=scaled)
            said = np.concatenate([networks.without(index, rows[ours]) for index, (_, ours) in enumerate(splits)])
            tried.append((_right(said, answers[held], goal), lambda found=networks: found))  # type: ignore[misc]
    best = max((right for right, _ in tried), key=lambda right: float(right.mean()))
    return next(make for right, make in tried if _as_good(right, best))()


def fit_machine(rows: Rows, answers: Rows, kind: Kind, generator: np.random.Generator) -> Machine:
    """Machines of a kind that learn all of the answers, in parts of `ROWS_AT_ONCE` at most."""
    scaled = _scaling(rows, kind.floor)
    inputs, targets = scaled(rows), _targets(answers, logs=kind.logs)
    offset = targets.mean(axis=0)
    parts = np.array_split(generator.permutation(len(rows)), -(-len(rows) // ROWS_AT_ONCE))
    found = []
    for part in parts:
        gram = KERNELS[kind.kernel](inputs[part], inputs[part])
        found.append((inputs[part], _weights(gram, targets[part] - offset, kind.ridge)))
    return Machine(kind, scaled, tuple(found), offset)


def _machines(
    rows: Rows, answers: Rows, goal: Goal, splits: list[tuple[Places, Places]]
) -> Iterator[tuple[Kind, Rows]]:
    """Each kind, and what it says of the rows held out of every split, one split after the other."""
    # the logarithms of labels are no other than labels, but for a factor
    manners = (False,) if goal == "numbers" or _are_labels(answers) else (True, False)
    targets = np.stack([_targets(answers, logs=logs) for logs in manners])  # (manners, n, outputs)
    for floor in FLOORS:
        inputs = _scaling(rows, floor)(rows)
        for name, kernel in KERNELS.items():
            found: dict[Kind, list[Rows]] = {}
            for shown, held in splits:
                gram, across = kernel(inputs[shown], inputs[shown]), kernel(inputs[held], inputs[shown])
                learnt = targets[:, shown]
                offset = learnt.mean(axis=1, keepdims=True)
                for ridge in RIDGES:
                    # all at once: solving costs the same for one column and for twenty
                    weights = _weights(gram, np.hstack(list(learnt - offset)), ridge)
                    said = np.stack(np.hsplit(across @ weights, len(manners))) + offset
                    for logs, part in zip(manners, said, strict=True):
                        found.setdefault(Kind(name, floor, ridge, logs), []).append(part)
            yield from ((kind, np.concatenate(said)) for kind, said in found.items())


def _later(rows: Rows, answers: Rows, kind: Kind, generator: np.random.Generator) -> Callable[[], Fitted]:
    return lambda: fit_machine(rows, answers, kind, generator)


def _some(wanted: NDArray[np.bool_]) -> Places:
    """Places of wanted rows, as many as a kind is tried on; folds are at random, so that the first are any."""
    return np.flatnonzero(wanted)[:ROWS_TO_CHOOSE]


def _right(said: Rows, answers: Rows, goal: Goal) -> Rows:
    """How well each row was guessed (n,): 1 or 0, or less its squared error."""
    if goal == "probabilities":
        return np.asarray(said.argmax(axis=1) == answers.argmax(axis=1), np.float64)
    return np.asarray(-np.square((said - answers) / np.maximum(answers.std(axis=0), LEAST)).sum(axis=1))


def _as_good(right: Rows, best: Rows) -> bool:
    lost = best - right
    return bool(lost.mean() <= ERRORS * lost.std() / np.sqrt(len(lost)))


def _are_labels(answers: Rows) -> bool:
    return bool((answers.max(axis=1) >= 1).all())


def _targets(answers: Rows, *, logs: bool) -> Rows:
    if not logs:
        return answers
    positive = answers[answers > 0]
    least = max(LEAST, float(positive.min()) / 2 if len(positive) else LEAST)
    found = np.log(np.maximum(answers, least))
    return np.asarray(found - found.mean(axis=1, keepdims=True))


def _weights(gram: Rows, targets: Rows, ridge: float) -> Rows:
    raised = gram + ridge * max(float(np.trace(gram)) / len(gram), LEAST) * np.eye(len(gram))
    return np.asarray(np.linalg.solve(raised, targets))


def _scaling(rows: Rows, floor: float) -> Callable[[Rows], Rows]:
    mean, deviation = rows.mean(axis=0), rows.std(axis=0)
    divisor = np.maximum(deviation, floor * deviation.mean() or 1.0)
    return lambda raw: np.asarray((raw - mean) / divisor)


def _arc(one: Rows, other: Rows) -> Rows:
    lengths, turn, angle = _angles(one, other)
    return np.asarray(lengths * (np.sqrt(1 - turn**2) + (np.pi - angle) * turn) / np.pi)


def _tangent(one: Rows, other: Rows) -> Rows:
    lengths, turn, angle = _angles(one, other)
    return np.asarray(lengths * (np.sqrt(1 - turn**2) + 2 * (np.pi - angle) * turn) / np.pi)


def _angles(one: Rows, other: Rows) -> tuple[Rows, Rows, Rows]:
    """Products of lengths, cosines and angles (n, m) of rows with a 1 before them, which is the first layer's shift."""
    products = one @ other.T + 1
    lengths = np.sqrt(np.outer((one**2).sum(axis=1) + 1, (other**2).sum(axis=1) + 1))
    turn = np.clip(products / lengths, -1, 1)
    return lengths, turn, np.arccos(turn)


def _gauss(one: Rows, other: Rows) -> Rows:
    return np.asarray(np.exp(-_squared(one, other) / 2))


def _laplace(one: Rows, other: Rows) -> Rows:
    return np.asarray(np.exp(-np.sqrt(_squared(one, other))))


def _squared(one: Rows, other: Rows) -> Rows:
    """Squared distances (n, m), of one input on average."""
    found = (one**2).sum(axis=1)[:, None] - 2 * one @ other.T + (other**2).sum(axis=1)
    return np.asarray(np.maximum(found, 0) / one.shape[1])


def _linear(one: Rows, other: Rows) -> Rows:
    return np.asarray(one @ other.T)


# from the one that is taken where others are no better
KERNELS: Mapping[str, Kernel] = MappingProxyType(
    {"arc": _arc, "tangent": _tangent, "gauss": _gauss, "laplace": _laplace, "linear": _linear}
)
