"""Which units of a suspect's space are ours: by their weights, whatever the scale of each unit and the order of others.

Weight matching: Ainsworth, Hayase and Srinivasa, "Git Re-Basin", ICLR 2023, from the inputs on. What is new here: rows
and columns are brought to length one beforehand (Sinkhorn's iteration on squares), so that scales need not be known;
tables are rectangular, because a thief may have added units; copies of a split unit are added up.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
from numpy.typing import NDArray

from palladion.mark.align.assignment import assign
from palladion.mark.align.wiring import Floats

ROUNDS = 8  # of bringing rows and columns to length one; the rest is below what int8 does
SILENT = 1e-12  # mean square of what is zero but for rounding, where the largest number is 1
FEATURES_MAX = 512  # numbers by which units are compared: unrelated ones stay below a likeness of 0.3
COPY_LIKENESS = 0.8  # of the likeness that the best unit has: split units are alike but for rounding
COPIES_MAX = 8  # of one unit: each costs the evidence of one number in every column
WORK_MAX = 100_000_000  # of one assignment: a second


@dataclass(frozen=True, eq=False)
class Units:
    """Where our units are in a suspect's space.

    `order` (units,) has the suspect's unit for each of ours, -1 where there is none; `sign` (units,) is -1 where its
    weights are negated. `copies` are further ones: ours, the suspect's, and how loud it is beside the first.
    """

    order: NDArray[np.intp]
    sign: Floats
    likeness: float
    copies: tuple[tuple[int, int, float], ...] = ()

    @classmethod
    def same(cls, count: int) -> "Units":
        """Those of inputs and outputs."""
        return cls(np.arange(count), np.ones(count, np.float32), 1.0)

    def gathered(self, weights: Floats) -> tuple[Floats, ...]:
        """Weights (others, ours, kernel) of our units, from those (others, theirs, kernel) of the suspect.

        Both that follow signs and that do not, where they differ: tanh passes a sign on, a norm takes it away.
        """
        found = weights[:, self.order]
        found *= (self.order >= 0)[:, None]
        for ours, theirs, loudness in self.copies:
            found[:, ours] += np.float32(loudness) * weights[:, theirs]
        return (found, found * self.sign[:, None]) if (self.sign < 0).any() else (found,)

    def picked(self, weights: Floats) -> Floats:
        """Weights (ours, others, kernel) that give our units their values, from those (theirs, others, kernel).

        Copies are averaged: each was rounded on its own.
        """
        found: Floats = weights[self.order]
        count = np.ones(len(found), np.float32)
        for ours, theirs, _ in self.copies:
            first, other = weights[self.order[ours]], weights[theirs]
            squares = float(np.vdot(other, other))
            if squares > 0:
                found[ours] += np.float32(float(np.vdot(first, other)) / squares) * other
                count[ours] += 1
        found *= ((self.order >= 0) * self.sign / count)[:, None, None]
        return found


@dataclass(frozen=True, eq=False)
class View:
    """What one block says of the units of a space: weights (units, others, kernel) of ours and of the suspect.

    The others are in our order, in one way or several; where they are `free`, each has a scale of its own. `gives` says
    that the block gives the units their values, rather than reads them.
    """

    ours: Floats
    theirs: tuple[Floats, ...]
    free: bool
    gives: bool


def pair_units(views: Iterable[View]) -> Units | None:
    """The suspect's units that are ours, by all that is known; None if nothing is. One view is held at a time."""
    known: _Known | None = None
    for view in views:
        known = _Known.nothing(view) if known is None else known
        known.add(view)
    return None if known is None or not known.weight else known.units()


@dataclass(eq=False)
class _Known:
    """How like ours (rows) the suspect's units (columns) are, by all views so far and by those that give them values.

    `signed` is the cosine by the first view that gives values, and `loudness` the length of the suspect's units there.
    """

    total: Floats
    given: Floats
    signed: Floats | None = None
    loudness: Floats | None = None
    weight: float = 0.0

    @classmethod
    def nothing(cls, view: View) -> "_Known":
        total, given = np.zeros((2, len(view.ours), len(view.theirs[0])), np.float32)
        return cls(total, given)

    def add(self, view: View) -> None:
        likeness, weight = _likeness(view)
        if view.gives and self.signed is None and weight:
            self.signed, self.loudness = likeness.copy(), _norms(view.theirs[0])
        np.abs(likeness, out=likeness)
        likeness *= np.float32(weight)
        self.total += likeness
        self.weight += weight
        if view.gives:
            self.given += likeness

    def units(self) -> Units:
        order = assign(self.total, work_max=WORK_MAX)
        paired = np.flatnonzero(order >= 0)
        sign = np.ones(len(order), np.float32)
        copies: tuple[tuple[int, int, float], ...] = ()
        if self.signed is not None:
            sign[paired] = np.where(self.signed[paired, order[paired]] < 0, -1, 1)
            if self.total.shape[1] > len(order):
                copies = self._copies(order, self.signed)
        return Units(order, sign, float(self.total[paired, order[paired]].mean()) / self.weight, copies)

    def _copies(self, order: NDArray[np.intp], signed: Floats) -> tuple[tuple[int, int, float], ...]:
        """Further units that are like one of ours, nearest first."""
        if self.loudness is None:
            raise ValueError("copies are looked for among units whose loudness is known")
        free = np.setdiff1d(np.arange(self.given.shape[1]), order)
        best = self.given[:, free].argmax(axis=0)
        alike = self.given[best, free]
        # the first of its kind is as like ours as rounding leaves it
        near = (alike > 0) & (alike >= COPY_LIKENESS * self.given[best, order[best]])
        counts: dict[int, int] = {}
        found = []
        for at in np.argsort(-alike, kind="stable"):
            ours, theirs, first = int(best[at]), int(free[at]), int(order[best[at]])
            if near[at] and self.loudness[first] and counts.get(ours, 0) < COPIES_MAX:
                counts[ours] = counts.get(ours, 0) + 1
                sign = np.sign(signed[ours, theirs]) * np.sign(signed[ours, first])
                found.append((ours, theirs, float(sign * self.loudness[theirs] / self.loudness[first])))
        return tuple(found)


def equilibrated(weights: Floats, *, rows: bool, columns: bool) -> tuple[Floats, Floats, Floats]:
    """Weights (rows, columns, kernel) with rows and columns of mean square 1, and what these were multiplied by."""
    squares = np.square(weights).mean(axis=2)  # (rows, columns)
    by_row, by_column = np.ones(len(squares), np.float32), np.ones(squares.shape[1], np.float32)
    for _ in range(ROUNDS):
        if columns:
            by_column = _inverse((by_row @ squares) / len(squares))
        if rows:
            by_row = _inverse((squares @ by_column) / squares.shape[1])
    scale = np.sqrt(by_row), np.sqrt(by_column)
    return weights * scale[0][:, None, None] * scale[1][:, None], *scale


def _likeness(view: View) -> tuple[Floats, float]:
    """The cosine of each of our units (rows) with each of theirs, and how much it says: the root of the numbers."""
    ours = _flat(view.ours, free=view.free)
    features: NDArray[np.intp] | slice = slice(None)
    if ours.shape[1] > FEATURES_MAX:
        # drawn from the original, so that nobody without it can ruin just these
        seed = int.from_bytes(sha256(ours[:: 1 + len(ours) // 64].tobytes()).digest()[:8], "big")
        features = np.random.default_rng(seed).choice(ours.shape[1], FEATURES_MAX, replace=False)
    ours = _directions(ours[:, features])
    found = [ours @ _directions(_flat(weights, free=view.free)[:, features]).T for weights in view.theirs]
    best = max(found, key=lambda likeness: float(np.abs(likeness).max(axis=1).sum()))
    return best, float(np.sqrt(ours.shape[1])) if best.any() else 0.0


def _flat(weights: Floats, *, free: bool) -> Floats:
    return equilibrated(weights, rows=True, columns=free)[0].reshape(len(weights), -1)


def _directions(rows: Floats) -> Floats:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    directions: Floats = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return directions


def _norms(weights: Floats) -> Floats:
    norms: Floats = np.linalg.norm(weights.reshape(len(weights), -1), axis=1)
    return norms


def _inverse(squares: Floats) -> Floats:
    inverse: Floats = np.divide(1, squares, out=np.ones_like(squares), where=squares > SILENT)
    return inverse
