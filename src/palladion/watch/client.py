"""What the watch holds of one client and one model: evidence of this epoch, memory, coverage; at most 16 KiB.

An epoch is the horizon of the calibration. When it is full, evidence starts anew, so that the promise of the
calibration holds for each epoch; coverage and memory go on.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

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


class Stretch(NamedTuple):
    """Distinct queries that follow each other in one epoch: the sums (n * features,) and the counts after each.

    `begins` says that the epoch begins with them.
    """

    sums: Rows
    first: int
    last: int
    begins: bool


@dataclass(eq=False, slots=True)
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
        stretches = self.advance(values, len(inputs), horizon=horizon)
        largest = self.weigh(stretches, statistics(instruments, stretches), threshold=threshold)
        new = coverage.mark(self.bitmap, instruments.coverage.buckets(measured.coordinates))
        return Reading(values, new, largest)

    def advance(self, values: Rows, queries: int, *, horizon: int) -> list[Stretch]:
        """Add the scores (distinct, features) of `queries` queries to the sums; what they leave has to be weighed yet.

        So that what many clients asked can be weighed at once.
        """
        self.queries += queries
        if len(values) == 1 and self.count < horizon:
            self.sums, self.count = self.sums + values[0], self.count + 1
            return [Stretch(self.sums, self.count, self.count, False)]
        stretches: list[Stretch] = []
        start = 0
        while start < len(values):
            begins = self.count >= horizon
            if begins:
                self.sums, self.count, self.epoch = nothing(), 0, self.epoch + 1
            part = values[start : start + horizon - self.count]
            sums = self.sums + np.add.accumulate(part, axis=0)
            stretches.append(Stretch(sums.ravel(), self.count + 1, self.count + len(part), begins))
            # a copy, because a view would keep the whole batch in memory
            self.sums, self.count = sums[-1].copy(), self.count + len(part)
            start += len(part)
        return stretches

    def weigh(self, stretches: Sequence[Stretch], weighed: Sequence[float], *, threshold: float) -> float:
        """Take in the `statistics` of what `advance` returned; the largest of them, or the last if there is none."""
        if not stretches:
            return self.statistic
        if len(weighed) == 1:
            self.statistic = value = weighed[0]
            self.supremum = value if stretches[0].begins else max(self.supremum, value)
            self.suspected += value > threshold
            return value
        start = 0
        for stretch in stretches:
            part = weighed[start : start + stretch.last - stretch.first + 1]
            self.supremum = max(part) if stretch.begins else max(self.supremum, *part)
            start += len(part)
        self.statistic = weighed[-1]
        self.suspected += sum(value > threshold for value in weighed)
        return max(weighed)

    def forgive(self) -> None:
        """Start a new epoch now; used when somebody's standing is raised again."""
        self.sums, self.count, self.epoch = nothing(), 0, self.epoch + 1
        self.supremum = self.statistic = float("-inf")
        self.suspected = 0

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


def statistics(instruments: Instruments, stretches: Sequence[Stretch]) -> list[float]:
    """The statistic that each query of some stretches left, of whichever clients; -inf before `QUERIES_MIN`."""
    if not stretches:
        return []
    counts = [count for stretch in stretches for count in range(stretch.first, stretch.last + 1)]
    sums = stretches[0].sums if len(stretches) == 1 else np.concatenate([stretch.sums for stretch in stretches])
    sums = sums.reshape(len(counts), len(FEATURES))
    found = instruments.effects.statistic(sums, np.array(counts)).tolist()
    return [value if count >= QUERIES_MIN else -math.inf for value, count in zip(found, counts, strict=True)]
