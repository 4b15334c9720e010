"""How a model is built, from its answers alone: whether it is linear, made of trees, or neither; and then all of it.

A linear model's log odds are linear, so that a few rows give every weight by solving equations; a tree's answers change
only where a value passes one of its thresholds, which are found by halving. Source: Tramèr et al., "Stealing Machine
Learning Models via Prediction APIs", USENIX Security 2016, §4.1 and §4.2. Of networks nothing more is learned here: see
`copying`.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palladion.redteam.extraction import Api, Rows
from palladion.redteam.rounding import form, in_order

Kind = Literal["linear", "piecewise constant", "smooth", "unknown"]

ALIKE = 6  # decimals to which answers are compared: the last ones depend on how many rows are computed at once
LINES, POINTS = 12, 65  # straight lines between rows, and the points on each that are asked
SCALES = (1 / 64, 1 / 8, 1.0)  # parts of each line that they lie on: a forest has too many thresholds on all of it
JUMPS_MIN = 4  # of which something is said
JUMP_MIN = 1e-6  # smaller ones are float32's own
APART = 0.5  # of jumps with no change before and behind: a tree's; of something smooth all neighbours change
CERTAIN = 1e-5  # probabilities beyond it have lost too many digits for log odds
# of the way from the middle: where probabilities are certain, nearer rows say more
SHRUNK = (1.0, 0.5, 0.2, 0.05, 0.01)
USABLE = 0.9
STIRRED = 0.1  # of a column's deviation
SPARE_ROWS = 2.0  # equations for each unknown: one would fit anything
LINEAR_ERROR = 0.01  # of the log odds' deviation, on rows that were not used
LOOKED_AT = 256  # rows
DECIMALS_TOLD = 3  # answers with fewer say that a model is linear or made of trees, and of others nothing
BATCH_ROWS = 16  # that are asked together and one by one
PLACES_MAX = 20_000  # of a tree
SAMPLES = 40  # rows that are asked in a box before it counts as pure
AT_ONCE = 16  # boxes that are split in one go: single queries take a service long
PROPOSALS = 4  # thresholds for each split, of which the one that tells most is taken
HALVINGS = 22  # of the way between two values: thresholds to its 4-millionth part


@dataclass(frozen=True)
class Looks:
    """What answers look like. `decimals` is None where they are not rounded, `distinct` how many of `rows` differ.

    `apart` is the share of jumps along lines with no change beside them, `linear_error` that of the best linear model's
    log odds; None where there was nothing to tell them by. `alone` says whether a row is answered alike whatever else
    is asked with it.
    """

    kind: Kind
    decimals: int | None
    distinct: int
    rows: int
    apart: float | None
    linear_error: float | None
    alone: bool
    queries: int


@dataclass(frozen=True, eq=False)
class Linear:
    """A linear model: log odds of each class against the first are `rows @ weights + bias` (inputs, classes)."""

    weights: Rows
    bias: Rows
    queries: int

    def answers(self, rows: Rows) -> Rows:
        """Probabilities (rows, classes)."""
        found = rows @ self.weights + self.bias
        found = np.exp(found - found.max(axis=1, keepdims=True))
        return np.asarray(found / found.sum(axis=1, keepdims=True))


@dataclass(frozen=True, eq=False)
class Tree:
    """A tree of thresholds, all of them the model's own: rows (n, inputs) go to the next place where they are above.

    `columns` (places,) are -1 at leaves; `below` and `above` name the next place; `said` (places, classes) is what is
    answered there. `complete` is False where the budget ended it before all leaves looked pure.
    """

    columns: NDArray[np.int64]
    thresholds: Rows
    below: NDArray[np.int64]
    above: NDArray[np.int64]
    said: Rows
    complete: bool
    queries: int

    def answers(self, rows: Rows) -> Rows:
        """Answers (rows, classes)."""
        place = np.zeros(len(rows), np.int64)
        while (inner := self.columns[place] >= 0).any():
            values = rows[np.arange(len(rows)), np.maximum(self.columns[place], 0)]
            onwards = np.where(values > self.thresholds[place], self.above[place], self.below[place])
            place = np.where(inner, onwards, place)
        return np.asarray(self.said[place])


def look(ask: Api, rows: Rows, generator: np.random.Generator) -> Looks:
    """What kind of model answers, from rows (n, inputs) like honest ones: a part of them, and points between."""
    counted = _Counted(ask)
    used = rows[generator.permutation(len(rows))[:LOOKED_AT]]
    answers = counted(used)
    shown = form(answers)
    apart = _jumps_apart(in_order(counted) if shown.spread else counted, rows, shown.step, generator)
    solved = None if shown.spread else solve(counted, rows, generator)
    error = None if solved is None else linear_error(solved, used, answers)
    some = used[:BATCH_ROWS]
    together, single = counted(some), np.concatenate([counted(row[None]) for row in some])
    kind: Kind = "smooth"
    if error is not None and error <= LINEAR_ERROR:
        kind = "linear"
    elif apart is not None and apart >= APART:
        kind = "piecewise constant"
    elif apart is None or shown.spread or (shown.decimals is not None and shown.decimals < DECIMALS_TOLD):
        kind = "unknown"
    distinct = len(np.unique(answers, axis=0))
    alone = bool(np.abs(together - single).max() < 10.0**-ALIKE)
    return Looks(kind, shown.decimals, distinct, len(used), apart, error, alone, counted.queries)


def look_queries(width: int) -> int:
    """The most queries that a look at a model of so many inputs takes."""
    lines = len(SCALES) * LINES * POINTS
    return LOOKED_AT + lines + len(SHRUNK) * int(SPARE_ROWS * (width + 1)) + 2 * BATCH_ROWS


def solve(ask: Api, rows: Rows, generator: np.random.Generator, *, spare: float = SPARE_ROWS) -> Linear | None:
    """The linear model that answers fit best; None where too few of them are between 0 and 1 to solve it.

    Asks `spare` rows for each unknown of a class, and again nearer to the middle for as long as a tenth are too sure.
    """
    counted = _Counted(ask)
    middle, deviation = rows.mean(axis=0), rows.std(axis=0)
    width = rows.shape[1]
    drawn = rows[generator.integers(0, len(rows), int(spare * (width + 1)))]
    # at random as well: rows of few kinds leave some directions open
    drawn = drawn + STIRRED * deviation * generator.standard_normal(drawn.shape)
    for share in SHRUNK:
        asked = middle + share * (drawn - middle)
        said = counted(asked)
        usable = _usable(said)
        if usable.mean() >= USABLE:
            break
    if usable.sum() < width + 1:
        return None
    unit = np.where(deviation > 0, deviation, 1.0)
    equations = np.concatenate([(asked[usable] - middle) / unit, np.ones((int(usable.sum()), 1))], axis=1)
    solved = np.linalg.lstsq(equations, _odds(said[usable]), rcond=1e-9)[0]
    weights = solved[:-1] / unit[:, None]
    return Linear(weights, solved[-1] - middle @ weights, counted.queries)


def linear_error(found: Linear, rows: Rows, answers: Rows) -> float | None:
    """The median error of its log odds on other rows, of their deviation; None where no answers are between 0 and 1."""
    usable = _usable(answers)
    if usable.sum() < 2:
        return None
    truth = _odds(answers[usable])[:, 1:]
    spread = float(truth.std())
    wrong = float(np.median(np.abs((rows[usable] @ found.weights + found.bias)[:, 1:] - truth)))
    return wrong / spread if spread > 0 else None


def _usable(said: Rows) -> NDArray[np.bool_]:
    return np.asarray((said > CERTAIN).all(axis=1) & (said < 1 - CERTAIN).all(axis=1))


def _odds(said: Rows) -> Rows:
    logs = np.log(np.maximum(said, 1e-12))
    return np.asarray(logs - logs[:, :1])


def _jumps_apart(ask: Api, rows: Rows, step: float, generator: np.random.Generator) -> float | None:
    """The share of jumps along lines between rows with no change beside them, on the shortest lines that show enough.

    Steps of rounding are no jumps: a tree's are larger.
    """
    least = max(JUMP_MIN, step)
    for scale in SCALES:
        alone = jumps = 0
        for _ in range(LINES):
            start, end = rows[generator.integers(0, len(rows), 2)]
            begin = generator.random() * (1 - scale)
            share = (begin + scale * np.linspace(0, 1, POINTS))[:, None]
            steps = np.abs(np.diff(ask((1 - share) * start + share * end), axis=0)).max(axis=1)
            # beside a jump of something smooth there are steps of rounding, at least
            jumped, changed = steps > least, steps > JUMP_MIN
            before, behind = np.append(False, changed[:-1]), np.append(changed[1:], False)
            jumps += int(jumped.sum())
            alone += int((jumped & ~before & ~behind).sum())
        if jumps >= JUMPS_MIN:
            return alone / jumps
    return None


class _Counted:
    def __init__(self, ask: Api, decimals: int | None = None) -> None:
        self.queries = 0
        self._ask, self._decimals = ask, decimals

    def __call__(self, rows: Rows) -> Rows:
        self.queries += len(rows)
        said = np.asarray(self._ask(rows), np.float64)
        return said if self._decimals is None else np.round(said, self._decimals)


@dataclass(eq=False)
class _Node:
    """A box that is being split: rows of the thief's own that lie in it, and all that was asked there."""

    place: int
    low: Rows
    high: Rows
    own: Rows
    rows: Rows
    said: Rows

    @property
    def impurity(self) -> float:
        """The share of what was asked here that is not answered as most of it."""
        return 1 - float(np.unique(self.said, axis=0, return_counts=True)[1].max()) / len(self.said)


class _Growing:
    """A tree of the model's thresholds, grown where most rows are answered unlike each other."""

    def __init__(self, ask: Api, rows: Rows, queries: int, generator: np.random.Generator) -> None:
        self._ask, self._queries, self._generator = _Counted(ask, ALIKE), queries, generator
        self._columns, self._thresholds = [-1], [0.0]
        self._below, self._above = [0], [0]
        self._said: list[Rows] = []
        self._low, self._high = rows.min(axis=0), rows.max(axis=0)
        width = rows.shape[1]
        self._split_cost = PROPOSALS * (int(np.ceil(np.log2(width + 1))) + 2 + HALVINGS) + 2 * SAMPLES
        nothing = np.empty((0, width))
        first = _Node(0, self._low.copy(), self._high.copy(), rows, nothing, nothing)
        self._waiting = [self._filled(first)]
        self._said.append(self._waiting[0].said.mean(axis=0))

    def grown(self) -> Tree:
        complete = False
        while len(self._columns) <= PLACES_MAX:
            impure = [node for node in self._waiting if node.impurity > 0]
            affordable = (self._queries - self._ask.queries) // self._split_cost
            if not impure or not affordable:
                complete = not impure
                break
            # the more honest rows a box holds, the more it matters
            impure.sort(key=lambda node: -(len(node.own) + 1) * node.impurity)
            chosen = impure[: min(AT_ONCE, affordable)]
            self._waiting = impure[len(chosen) :]
            self._split(chosen)
        return Tree(
            np.array(self._columns), np.array(self._thresholds), np.array(self._below), np.array(self._above),
            np.stack(self._said), complete, self._ask.queries,
        )  # fmt: skip

    def _split(self, nodes: list[_Node]) -> None:
        kinds = [np.unique(node.said, axis=0, return_inverse=True)[1].reshape(-1) for node in nodes]
        starts, ends = [], []
        for node, kind in zip(nodes, kinds, strict=True):
            for _ in range(PROPOSALS):
                start = int(self._generator.integers(len(kind)))
                starts.append(node.rows[start])
                ends.append(node.rows[self._generator.choice(np.flatnonzero(kind != kind[start]))])
        columns, thresholds = self._thresholds_between(np.stack(starts), np.stack(ends))
        for index, (node, kind) in enumerate(zip(nodes, kinds, strict=True)):
            lanes = range(index * PROPOSALS, (index + 1) * PROPOSALS)
            left = [_disorder(kind, node.rows[:, columns[lane]] > thresholds[lane]) for lane in lanes]
            best = lanes[int(np.argmin(left))]
            self._part(node, int(columns[best]), float(thresholds[best]))

    def _part(self, node: _Node, column: int, threshold: float) -> None:
        self._columns[node.place], self._thresholds[node.place] = column, threshold
        self._below[node.place], self._above[node.place] = len(self._columns), len(self._columns) + 1
        for above in (False, True):
            low, high = node.low.copy(), node.high.copy()
            (low if above else high)[column] = threshold
            own, asked = ((rows[:, column] > threshold) == above for rows in (node.own, node.rows))
            child = _Node(len(self._columns), low, high, node.own[own], node.rows[asked], node.said[asked])
            child = self._filled(child)
            self._columns.append(-1)
            self._thresholds.append(0.0)
            self._below.append(0)
            self._above.append(0)
            self._said.append(child.said.mean(axis=0))
            self._waiting.append(child)

    def _thresholds_between(self, origins: Rows, goals: Rows) -> tuple[NDArray[np.int64], Rows]:
        """Where answers change on the way between pairs of rows (lanes, inputs), one column after the other."""
        lanes, width = origins.shape
        each = np.arange(lanes)
        said = self._ask(origins)
        turn = self._generator.permuted(np.tile(np.arange(width), (lanes, 1)), axis=1)  # when a column changes
        # 1. the column: with all before it changed the answer is the same, with it another
        alike, other = np.zeros(lanes, np.int64), np.full(lanes, width)
        while (other - alike > 1).any():
            middle = (alike + other) // 2
            same = self._same(np.where(turn < middle[:, None], goals, origins), said)
            alike, other = np.where(same, middle, alike), np.where(same, other, middle)
        columns = (turn == alike[:, None]).argmax(axis=1)
        # 2. the value
        tried = np.where(turn < alike[:, None], goals, origins)
        inner, outer = origins[each, columns], goals[each, columns]
        for _ in range(HALVINGS):
            middle_value = (inner + outer) / 2
            tried[each, columns] = middle_value
            same = self._same(tried, said)
            inner, outer = np.where(same, middle_value, inner), np.where(same, outer, middle_value)
        return columns, (inner + outer) / 2

    def _same(self, rows: Rows, said: Rows) -> NDArray[np.bool_]:
        return np.asarray((self._ask(rows) == said).all(axis=1))

    def _filled(self, node: _Node) -> _Node:
        """With rows asked in it: the thief's own, mixtures of their columns, and any."""
        wanted = SAMPLES - len(node.rows)
        if wanted <= 0:
            return node
        drawn = node.low + (node.high - node.low) * self._generator.random((wanted, len(node.low)))
        if len(node.own):
            picked = self._generator.integers(0, len(node.own), drawn.shape)
            mixed = node.own[picked, np.arange(len(node.low))]
            owned = node.own[self._generator.integers(0, len(node.own), wanted)]
            kind = self._generator.integers(0, 4, wanted)[:, None]
            drawn = np.where(kind == 0, drawn, np.where(kind == 1, mixed, owned))
        said = self._ask(drawn)
        return _Node(
            node.place, node.low, node.high, node.own,
            np.concatenate([node.rows, drawn]), said if not len(node.said) else np.concatenate([node.said, said]),
        )  # fmt: skip


def find_paths(ask: Api, rows: Rows, queries: int, generator: np.random.Generator) -> Tree:
    """What a model of trees answers, as one tree: thresholds by halving the way between rows that differ in an answer.

    Of a single tree it finds all that honest rows meet, also where leaves answer alike; of many trees as much as
    `queries` buy. Rows (n, inputs) are the thief's own. Raises ValueError for fewer queries than a first look takes.
    """
    if queries < SAMPLES:
        raise ValueError(f"{queries} queries are too few for the first {SAMPLES}")
    return _Growing(ask, rows, queries, generator).grown()


def _disorder(kinds: NDArray[np.intp], above: NDArray[np.bool_]) -> float:
    """The entropy of what is answered, once it is known on which side a row lies."""
    found = 0.0
    for side in (kinds[above], kinds[~above]):
        if len(side):
            shares = np.bincount(side) / len(side)
            found -= len(side) / len(kinds) * float((shares * np.log(np.maximum(shares, 1e-12))).sum())
    return found


Clock = Callable[[], float]


def time_of(ask: Api, rows: Rows, clock: Clock, *, repeats: int = 5) -> Rows:
    """The shortest seconds in which each row (n,) is answered alone: whether time depends on what is asked.

    In turns, so that a busy neighbour slows all of them; what a clock says differs from run to run.
    """
    best = np.full(len(rows), np.inf)
    for _ in range(repeats):
        for index, row in enumerate(rows):
            started = clock()
            ask(row[None])
            best[index] = min(best[index], clock() - started)
    return best
