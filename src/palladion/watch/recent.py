"""What a client did lately, in two sums: who begins to steal after a thousand honest queries is lost in their mean.

The last 17 to 32 distinct queries of an epoch, and how many queries lie nearer to the client's own earlier ones than
nearly all honest ones do. Sums are kept from every 16th query on, so that the window moves in steps; all of them are
exact, and how queries are cut into requests makes no difference.
"""

import struct
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.watch.features import REPEATS
from palladion.watch.rows import Rows
from palladion.watch.scores import STEPS

# Of 16 and 32 the one that sees augmentation after honest use in 100 instead of 93 of 100 (development seed 5)
EVERY = 16
NEAR_RATE = 0.005  # of honest queries; of 2, 0.5 and 0.1 % it told boundary walks and membership probing best
NEAR_SCORE = -2.5758293035489004  # the deviate of that quantile: `repeats` at or below it counts as near
_COUNTS = struct.Struct("<3Q")
_NUMBER_BYTES = 8


class Lately(NamedTuple):
    """After each of some queries: sums (n * scores,) of the last ones, how many were near, and how many of the last."""

    sums: Rows
    near: Sequence[int]
    near_lately: Sequence[int]


class Run(NamedTuple):
    """What is weighed of clients after each of n queries: sums (2 n, scores), counts (2 n,), how many were near (2 n,).

    First those of all queries of the epoch, then of the last ones alone. And where moments are known, the sums of
    `manners` (n, manners) over the epoch.
    """

    sums: Rows
    counts: NDArray[np.int64]
    near: NDArray[np.int64]
    manners: Rows | None = None


class Recent:
    """The sums (scores,) over an epoch by its last two marks, which come every `EVERY` queries; and near queries."""

    __slots__ = ("near", "newer", "newer_near", "older", "older_near")

    def __init__(self, size: int) -> None:
        """Of an epoch that begins, of so many scores."""
        self.older: Rows = np.zeros(size)
        self.newer: Rows = self.older
        self.near = self.older_near = self.newer_near = 0

    @classmethod
    def evenly(cls, sums: Rows, near: int, count: int) -> "Recent":
        """Of `count` queries in an order that nobody knows: the last ones are taken to have been like all of them.

        A mean of all spreads less than one of the last ones, so this makes no honest client more unusual. Sums are
        whole steps (`scores.STEPS`) again.
        """
        found, marks = cls(len(sums)), [EVERY * max(count // EVERY - back, 0) for back in (0, 1)]
        found.newer, found.older = (np.rint(sums * STEPS * (mark / max(count, 1))) / STEPS for mark in marks)
        found.near, found.newer_near, found.older_near = near, *(near * mark // max(count, 1) for mark in marks)
        return found

    def add(self, scores: Rows, sums: Rows, count: int) -> Lately:
        """Follow one query with these `scores` (scores,), which left `sums` after `count` queries."""
        self.near += scores.item(REPEATS) <= NEAR_SCORE
        found = Lately(sums - self.older, (self.near,), (self.near - self.older_near,))
        if count % EVERY == 0:
            self.older, self.newer = self.newer, sums
            self.older_near, self.newer_near = self.newer_near, self.near
        return found

    def follow(self, scores: Rows, sums: Rows, first: int) -> Lately:
        """The same of several queries (n, scores) that follow each other, the first of which is the `first`."""
        counts = np.arange(first, first + len(scores))
        near = self.near + np.cumsum(scores[:, REPEATS] <= NEAR_SCORE)
        # the last two marks, and those that these queries pass
        passed, before = np.flatnonzero(counts % EVERY == 0), (first - 1) // EVERY
        marks = np.concatenate([self.older[None], self.newer[None], sums[passed]])
        near_marks = np.concatenate([[self.older_near, self.newer_near], near[passed]])
        at = (counts - 1) // EVERY - before
        found = Lately((sums - marks[at]).ravel(), near.tolist(), (near - near_marks[at]).tolist())
        last = len(passed)
        # copies, because views would keep the whole batch in memory
        self.older, self.newer = marks[last].copy(), marks[last + 1].copy()
        self.near, self.older_near, self.newer_near = int(near[-1]), int(near_marks[last]), int(near_marks[last + 1])
        return found

    def to_bytes(self, count: int) -> bytes:
        """What is saved of it after `count` queries of the epoch: marks that were not passed are nothing."""
        marks = (self.newer, self.older)[: _passed(count)]
        counts = _COUNTS.pack(self.near, self.newer_near, self.older_near)
        return b"".join((counts, *(mark.tobytes() for mark in marks)))

    @staticmethod
    def saved_bytes(count: int, size: int) -> int:
        """How many bytes `to_bytes` gives."""
        return _COUNTS.size + _passed(count) * size * _NUMBER_BYTES

    @classmethod
    def of_bytes(cls, data: bytes, count: int, size: int) -> "Recent":
        """What `to_bytes` gave. Raises FormatError on figures that nobody can have."""
        found, passed = cls(size), _passed(count)
        found.near, found.newer_near, found.older_near = _COUNTS.unpack_from(data)
        marks = np.frombuffer(data, np.float64, passed * size, _COUNTS.size).reshape(passed, size).copy()
        kept = (found.near, found.newer_near, found.older_near)
        if kept[passed + 1 :] != (0,) * (2 - passed) or not found.older_near <= found.newer_near <= found.near <= count:
            raise FormatError("the saved state of a client counts near queries that it did not ask")
        if not np.isfinite(marks).all():
            raise FormatError("the saved state of a client holds a figure that is not a number")
        if passed:
            found.newer = marks[0]
        if passed > 1:
            found.older = marks[1]
        return found


def lately(count: int) -> int:
    """How many of so many queries, 1 or more, are the last ones: all up to 32, then 17 to 32."""
    return count - EVERY * max((count - 1) // EVERY - 1, 0)


def run_of(scores: Rows, manners: Rows | None = None) -> Run:
    """What is weighed after each query of one epoch, of its scores (queries, scores) and `manners`."""
    sums, counts = np.cumsum(scores, axis=0), range(1, len(scores) + 1)
    run = run_of_parts([sums.ravel()], [Recent(scores.shape[1]).follow(scores, sums, 1)], counts)
    return run if manners is None else run._replace(manners=np.cumsum(manners, axis=0))


def run_of_parts(
    sums: Sequence[Rows], recent: Sequence[Lately], counts: Sequence[int], manners: Sequence[Rows] = ()
) -> Run:
    """The same of several parts: their sums (m * scores,) after each query, what was done lately, and all counts.

    With their sums of `manners` (m * manners,), where moments are known.
    """
    last = [part.sums for part in recent]
    near = [value for part in recent for value in part.near] + [value for part in recent for value in part.near_lately]
    together = np.concatenate([*sums, *last]).reshape(2 * len(counts), -1)
    asked = np.concatenate(manners).reshape(len(counts), -1) if manners else None
    return Run(together, np.array([*counts, *map(lately, counts)]), np.array(near), asked)


def _passed(count: int) -> int:
    return min(2, count // EVERY)
