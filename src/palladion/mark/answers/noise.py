"""Marks in answers: each client's own small shifts between the two highest classes, alike for queries that are alike.

A shift is Laplace noise on the log-odds of the two, so the chance that it turns the label is known exactly, for every
answer: exp(-margin / strength) / 2. That is what the test of a student rests on (`students`).
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from palladion.mark.carriers import derive, normals

# Cuts through the space of queries. Twelve, with the two classes, keep 5,000 queries on digits apart well enough; more
# of them would let a jitter that changes no answer reach other noise, and average it out.
CUTS = 12
OFFSET = 0.5  # of a cut from the centre, in standard deviations of honest rows across it: parallel to none through it
HASH_BYTES = 16
STRENGTH_MAX = 4.0  # nats: beyond, answers that the model is sure of would turn
_TINY = 1e-300  # a probability of 0 has a finite logarithm, far beyond all margins that can turn
_STEPS = 2**53
_SUM_REACH = 1e-3  # what a sum of probabilities may be away from 1
_SUM_DOUBT = 1e-6  # around that reach, where the order in which numbers are added may decide
_EXP_MAX = 709.0  # beyond, exp overflows soon
_DRAWN = struct.Struct("<Q")
_TWO = struct.Struct("<II")

Scores = NDArray[np.float64]


def client_key(root: bytes, client: str, model: str, number: int) -> bytes:
    """The secret of one client's answers from one version; `root` is the gate root's "answer-marks", 32 bytes."""
    return derive(root, "answers", client, model, str(number))


def are_probabilities(scores: Scores) -> NDArray[np.bool_]:
    """Which rows of class scores (rows, classes) are probabilities (rows,); the others are taken for logits."""
    # by the functions behind the methods, which take twice the time on few rows; each answer comes by here
    positive = np.logical_and.reduce(scores >= 0, axis=1)
    return np.asarray(positive & (np.abs(np.add.reduce(scores, axis=1) - 1) < _SUM_REACH))


@dataclass(frozen=True, eq=False)
class Cells:
    """Which queries are alike: those on the same side of every secret cut. `cuts` (kept, CUTS), `offsets` (CUTS,)."""

    cuts: Scores
    offsets: Scores

    @classmethod
    def draw(cls, root: bytes, deviations: Scores) -> "Cells":
        """The cuts of a version, from the gate root's "answer-marks" key.

        `deviations` (kept,) are those of honest rows along the coordinates that will be hashed.
        """
        kept = len(deviations)
        drawn = normals(derive(root, "cells"), (kept + 1) * CUTS).astype(np.float64)
        cuts = drawn[: kept * CUTS].reshape(kept, CUTS)
        return cls(cuts, OFFSET * drawn[kept * CUTS :] * np.sqrt(np.square(cuts * deviations[:, None]).sum(axis=0)))

    def hashes(self, coordinates: Scores) -> list[bytes]:
        """The query hash of each row of `coordinates` (rows, kept): `HASH_BYTES` each."""
        # row by row, as `palladion.watch.rows` says: the hash of a query must not depend on its neighbours
        sides = np.packbits(np.matmul(coordinates[:, None, :], self.cuts)[:, 0, :] > self.offsets, axis=1)
        packed, size = sides.tobytes(), sides.shape[1]
        return [_hash(packed[start : start + size]) for start in range(0, len(packed), size)]


@dataclass(frozen=True, eq=False)
class Pairs:
    """The two highest classes of each row: `first` is the label, `second` the next (rows,).

    `margins` (rows,) are the log-odds of the first against the second, never below 0; NaN where scores are no numbers.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    margins: Scores

    @classmethod
    def of(cls, scores: Scores, probabilities: NDArray[np.bool_]) -> "Pairs":
        """The pairs of `scores` (rows, classes), of which the rows in `probabilities` (rows,) are such, others logits.

        Raises ValueError for fewer than two classes.
        """
        if scores.ndim != 2 or scores.shape[1] < 2:
            raise ValueError(f"scores of the shape {scores.shape} name no two classes")
        rows = np.arange(len(scores))
        first = scores.argmax(axis=1)
        others = scores.copy()
        others[rows, first] = -np.inf
        second = others.argmax(axis=1)
        high, low = scores[rows, first], scores[rows, second]
        with np.errstate(invalid="ignore"):
            odds = np.log(np.maximum(high, _TINY)) - np.log(np.maximum(low, _TINY))
            margins = np.where(probabilities, odds, high - low)
        return cls(first, second, margins)

    @property
    def upward(self) -> NDArray[np.bool_]:
        """Whether the label is the lower-numbered of the two: noise has one direction, whichever of them leads."""
        return self.first < self.second


# not frozen, as one is made for each answer
@dataclass(eq=False, slots=True)
class Pair:
    """The two highest classes of one row, as `Pairs` has them of many: `high` and `low` are their scores.

    With `marked` it is the same to the last bit, in a twentieth of the time: an array of one row costs NumPy as much as
    one of a hundred.
    """

    first: int
    second: int
    high: float
    low: float
    margin: float
    probability: bool

    @classmethod
    def of(cls, scores: list[float]) -> "Pair":
        """The pair of one row of finite class scores. Raises ValueError for fewer than two."""
        if len(scores) < 2:
            raise ValueError(f"{len(scores)} scores name no two classes")
        high = max(scores)
        first = scores.index(high)
        others = scores.copy()
        others[first] = -math.inf
        second = others.index(max(others))
        low = scores[second]
        probability = _are_probabilities(scores)
        margin = _log(max(high, _TINY)) - _log(max(low, _TINY)) if probability else high - low
        return cls(first, second, high, low, margin, probability)

    def flip_probability(self, strength: float) -> float:
        """`flip_probability` of it."""
        return 0.5 * _exp(-self.margin / strength) if strength > 0 else 0.0

    def marked(self, row: NDArray[np.floating], key: bytes, query_hash: bytes, strength: float) -> tuple[int, bool]:
        """Mark its `row` (classes,), in place, at a strength above 0; returns the label, and whether it flipped.

        As `mark_scores` does.
        """
        two = _TWO.pack(min(self.first, self.second), max(self.first, self.second))
        (drawn,) = _DRAWN.unpack(blake2b(query_hash + two, digest_size=8, key=key).digest())
        uniform = ((drawn >> 11) + 0.5) / _STEPS
        odds = self.margin + strength * _laplace(uniform if self.first < self.second else 1 - uniform)
        if self.probability:
            total = self.high + self.low
            row[self.first], row[self.second] = total * (1 / (1 + _exp(-odds))), total / (1 + _exp(odds))
        else:
            middle = (self.high + self.low) / 2
            row[self.first], row[self.second] = middle + odds / 2, middle - odds / 2
        flipped = odds < 0
        label = self.second if flipped else self.first
        values = row.tolist()
        if values.index(max(values)) != label:
            _decide(row[None], np.array([label]))
        return label, flipped


def draw(key: bytes, hashes: Sequence[bytes], pairs: Pairs) -> Scores:
    """The secret number of each row (rows,): uniform between 0 and 1, the same for the same hash and the same two."""
    low, high = np.minimum(pairs.first, pairs.second), np.maximum(pairs.first, pairs.second)
    data = np.stack([low, high], axis=1).astype("<u4")
    found = [
        blake2b(name + two.tobytes(), digest_size=8, key=key).digest() for name, two in zip(hashes, data, strict=True)
    ]
    return np.asarray(((np.frombuffer(b"".join(found), "<u8") >> np.uint64(11)) + 0.5) / _STEPS)


def flip_probability(margins: Scores, strengths: Scores | float) -> Scores:
    """The chance (rows,) that a label turns, of all secrets; 0 where nothing is marked or the scores are no numbers."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = 0.5 * np.exp(-margins / strengths)
    return np.where(np.isfinite(margins) & (np.asarray(strengths) > 0), found, 0.0)


def strength_for(margins: Scores, share: float) -> float:
    """The strength at which a `share` of labels turns where margins are like `margins` (n,), in nats."""
    if not 0 < share < 0.5 or not len(margins):
        raise ValueError(f"a share of {share} of {len(margins)} answers cannot turn")
    low, high = 0.0, STRENGTH_MAX
    if flip_probability(margins, high).mean() <= share:
        return high
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (low, middle) if flip_probability(margins, middle).mean() > share else (middle, high)
    return low


@dataclass(frozen=True, eq=False)
class Marked:
    """Marked answers: the shifted `scores` (rows, classes), the `labels` that follow (rows,), and which `flipped`."""

    scores: NDArray[np.floating]
    labels: NDArray[np.int64]
    flipped: NDArray[np.bool_]


def mark_scores(
    scores: NDArray[np.floating],
    key: bytes,
    hashes: Sequence[bytes],
    *,
    strengths: Scores,
    probabilities: NDArray[np.bool_],
) -> Marked:
    """Mark class scores (rows, classes) for one client (`client_key`); `strengths` (rows,) in nats, 0 changes nothing.

    Of probabilities the two highest keep their sum, of logits their mean: no third class rises above the label, and no
    other score changes. Pure: the same answer to the same client is marked alike for ever.
    """
    exact = scores.astype(np.float64)
    pairs = Pairs.of(exact, probabilities)
    touched = np.flatnonzero((strengths > 0) & np.isfinite(pairs.margins))
    uniforms = draw(key, hashes, pairs)
    shifts = strengths * laplace(np.where(pairs.upward, uniforms, 1 - uniforms))
    first, second = pairs.first[touched], pairs.second[touched]
    high, low = _shifted(exact, pairs, shifts, probabilities)
    marked = scores.copy()
    marked[touched, first], marked[touched, second] = high[touched], low[touched]
    flipped = np.zeros(len(scores), np.bool_)
    flipped[touched] = (pairs.margins + shifts)[touched] < 0
    labels = np.where(flipped, pairs.second, pairs.first)
    _decide(marked, labels)
    return Marked(marked, labels, flipped)


def laplace(uniforms: Scores) -> Scores:
    """Standard Laplace deviates: below -t with a chance of exp(-t) / 2."""
    tail = np.log(2 * np.minimum(uniforms, 1 - uniforms))
    return np.asarray(np.where(uniforms < 0.5, tail, -tail))


def _shifted(scores: Scores, pairs: Pairs, shifts: Scores, probabilities: NDArray[np.bool_]) -> tuple[Scores, Scores]:
    rows = np.arange(len(scores))
    high, low = scores[rows, pairs.first], scores[rows, pairs.second]
    with np.errstate(invalid="ignore", over="ignore"):
        odds = pairs.margins + shifts
        share = 1 / (1 + np.exp(-odds))
        total, middle = high + low, (high + low) / 2
        return (
            np.where(probabilities, total * share, middle + odds / 2),
            np.where(probabilities, total / (1 + np.exp(odds)), middle - odds / 2),
        )


def _decide(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> None:
    """Where rounding to the scores' own precision made a tie, the label gets the smallest step more."""
    lost = np.flatnonzero(scores.argmax(axis=1) != labels)
    if len(lost):
        scores[lost, labels[lost]] = np.nextafter(scores[lost].max(axis=1), np.inf, dtype=scores.dtype)


@lru_cache(maxsize=1 << CUTS)  # which is all there are
def _hash(sides: bytes) -> bytes:
    return blake2b(sides, digest_size=HASH_BYTES).digest()


def _are_probabilities(scores: list[float]) -> bool:
    """`are_probabilities` of one row of finite scores."""
    if min(scores) < 0:
        return False
    away = abs(sum(scores) - 1)
    if abs(away - _SUM_REACH) < _SUM_DOUBT:
        return bool(are_probabilities(np.array([scores]))[0])
    return away < _SUM_REACH


def _laplace(uniform: float) -> float:
    tail = _log(2 * min(uniform, 1 - uniform))
    return tail if uniform < 0.5 else -tail


# NumPy's own functions: those of `math` may differ in the last bit, and a mark must not


def _log(value: float) -> float:
    return float(np.log(value))


def _exp(value: float) -> float:
    if value > _EXP_MAX:
        with np.errstate(over="ignore"):
            return float(np.exp(value))
    return float(np.exp(value))
