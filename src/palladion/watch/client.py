"""What the watch holds of one client and one model: evidence of this epoch, memory, coverage; at most 16 KiB.

An epoch is the horizon of the calibration. When it is full, evidence starts anew, so that the promise of the
calibration holds for each epoch; coverage and memory go on.
"""

import struct
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.watch import coverage
from palladion.watch.features import DIRECTIONS_MAX, FEATURES
from palladion.watch.instruments import Instruments
from palladion.watch.memory import DIGESTS, RING, Memory
from palladion.watch.rows import Rows

QUERIES_MIN = 5  # one odd row of an honest client must not decide alone
STATE_BYTES_MAX = 16 * 1024
_HEAD = struct.Struct("<4s6Q3d3H")
_MAGIC = b"PWC1"


def nothing() -> Rows:
    """The sum (features,) of no scores."""
    return np.zeros(len(FEATURES))


@dataclass(frozen=True, eq=False)
class Reading:
    """What a batch brought: the scores (distinct, features) of queries that counted, and buckets touched first.

    `largest` is the largest statistic that one of the queries left.
    """

    scores: Rows
    new_buckets: list[int]
    largest: float


@dataclass(eq=False)
class ClientState:
    """Sums (features,) of scores over the `count` distinct queries of this epoch, and what goes on beyond it.

    `statistic` is the latest and `supremum` the largest of this epoch. `suspected` counts the distinct queries that
    left the statistic above the threshold, in all epochs. What starts with `pooled` is this client's part in the same
    figures of its group (`campaigns`), whose epochs are its own. `alarmed_at` is in seconds since 1970, 0 for never.
    """

    sums: Rows = field(default_factory=nothing)
    count: int = 0
    supremum: float = float("-inf")
    statistic: float = float("-inf")
    epoch: int = 0
    queries: int = 0
    suspected: int = 0
    alarmed_at: float = 0.0
    pooled_sums: Rows = field(default_factory=nothing)
    pooled_count: int = 0
    pooled_suspected: int = 0
    memory: Memory = field(default_factory=Memory)
    bitmap: NDArray[np.uint8] = field(default_factory=coverage.empty_bitmap)

    def read(
        self, instruments: Instruments, inputs: Rows, scores: Rows, *, horizon: int, threshold: float = np.inf
    ) -> Reading:
        """Take in a batch: `inputs` (queries, inputs), the model's class scores (queries, classes), in order."""
        measured = self.memory.measure(instruments.features, inputs, scores)
        values = instruments.scores.score(measured.features)
        self.queries += len(inputs)
        largest = float("-inf") if len(values) else self.statistic
        start = 0
        while start < len(values):
            if self.count >= horizon:
                self._next_epoch()
            part = values[start : start + horizon - self.count]
            largest = max(largest, self._advance(instruments, part, threshold))
            start += len(part)
        new = coverage.mark(self.bitmap, instruments.coverage.buckets(measured.coordinates))
        return Reading(values, new, largest)

    def forgive(self) -> None:
        """Start a new epoch now; used when somebody's standing is raised again."""
        self._next_epoch()
        self.suspected = 0

    def _advance(self, instruments: Instruments, values: Rows, threshold: float) -> float:
        sums = self.sums + np.cumsum(values, axis=0)
        counts = np.arange(self.count + 1, self.count + len(values) + 1)
        statistics = instruments.effects.statistic(sums, counts)
        statistics[counts < QUERIES_MIN] = -np.inf
        self.sums, self.count = sums[-1], int(counts[-1])
        largest, self.statistic = float(statistics.max()), float(statistics[-1])
        self.supremum = max(self.supremum, largest)
        self.suspected += int((statistics > threshold).sum())
        return largest

    def _next_epoch(self) -> None:
        self.sums, self.count = nothing(), 0
        self.supremum = self.statistic = float("-inf")
        self.epoch += 1

    def to_bytes(self) -> bytes:
        """For the registry: everything above, at most `STATE_BYTES_MAX`."""
        digests, ring = self.memory.digests, self.memory.ring
        head = _HEAD.pack(
            _MAGIC,
            *(self.count, self.epoch, self.queries, self.suspected, self.pooled_count, self.pooled_suspected),
            *(self.supremum, self.statistic, self.alarmed_at),
            *(len(digests), *ring.shape),
        )
        arrays = (self.sums, self.pooled_sums, self.bitmap, digests, ring)
        return head + b"".join(array.tobytes() for array in arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> "ClientState":
        """The state of `to_bytes`. Raises FormatError on anything else."""
        if not _HEAD.size <= len(data) <= STATE_BYTES_MAX or data[: len(_MAGIC)] != _MAGIC:
            raise FormatError("the saved state of a client is not one that the watch wrote")
        _, count, epoch, queries, suspected, pooled, pooled_suspected, *floats, digests, ring, kept = _HEAD.unpack_from(
            data
        )
        supremum, statistic, alarmed_at = floats
        shapes = [(len(FEATURES),), (len(FEATURES),), (coverage.BITMAP_BYTES,), (digests,), (ring, kept)]
        kinds = (np.float64, np.float64, np.uint8, np.uint64, np.float32)
        sizes = [int(np.prod(shape)) * np.dtype(kind).itemsize for shape, kind in zip(shapes, kinds, strict=True)]
        if digests > DIGESTS or ring > RING or kept > DIRECTIONS_MAX or len(data) != _HEAD.size + sum(sizes):
            raise FormatError("the saved state of a client has sizes that do not fit together")
        arrays: list[Any] = []
        start = _HEAD.size
        for shape, kind, size in zip(shapes, kinds, sizes, strict=True):
            arrays.append(np.frombuffer(data[start : start + size], kind).reshape(shape).copy())
            start += size
        sums, pooled_sums, bitmap, known, coordinates = arrays
        if not all(np.isfinite(array).all() for array in (sums, pooled_sums, coordinates)) or np.isnan(floats).any():
            raise FormatError("the saved state of a client holds a figure that is not a number")
        return cls(
            *(sums, count, supremum, statistic, epoch, queries, suspected, alarmed_at),
            *(pooled_sums, pooled, pooled_suspected),
            memory=Memory(known, coordinates),
            bitmap=bitmap,
        )
