"""What the watch holds of one client and one model: evidence of this epoch, memory, coverage; at most 16 KiB.

An epoch is the horizon of the calibration. When it is full, evidence starts anew, so that the promise of the
calibration holds for each epoch; coverage and memory go on.
"""

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple, Protocol, cast

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.watch import coverage, suspicion
from palladion.watch.features import FEATURES, SCORES
from palladion.watch.instruments import Instruments
from palladion.watch.manner import HABITS_BYTES, Habits
from palladion.watch.memory import Memory
from palladion.watch.own_tests import TESTS
from palladion.watch.recent import Lately, Recent, Run, run_of_parts
from palladion.watch.rows import Rows
from palladion.watch.text.features import TEXT_FEATURES
from palladion.watch.text.memory import TextMemory

QUERIES_MIN = suspicion.QUERIES_MIN
PAST_EPOCHS = 4  # finished epochs that a client's past holds at most; before one more, what it holds is halved
STATE_BYTES_MAX = 16 * 1024
_HEAD = struct.Struct("<4s6Q3d4H")
_FIRST = struct.Struct("<4s6Q3d3H")  # whose bitmap is always whole, and which has no score of `ATYPICAL`
_FIRST_MARK = b"PWC1"
_LAYERED = struct.Struct("<4s6Q3d5H")  # which says last how many scores it has: those of layers are among them
_LAYERED_MARK = b"PWC3"
_RECENT = struct.Struct("<4s6Q3d6H")  # of a state with `recent`: the same, and which test spoke
_RECENT_MARK = b"PWC4"
_HABITS_MARK = b"PWC5"  # the same, and after `recent` come `habits`
_PAST = struct.Struct("<Qd")  # after the memory, and before its sums, of a client that has a past
_MARK_BYTES, _NUMBER_BYTES = 4, 8


def nothing(scores: int = len(SCORES)) -> Rows:
    """The sum (scores,) of no scores, of queries in numbers."""
    return np.zeros(scores)


class Recall(Protocol):
    """What is remembered of a client's queries: `memory.Memory` of numbers, `text.memory.TextMemory` of texts."""

    mark: ClassVar[bytes]

    @property
    def shape(self) -> tuple[int, int, int]:
        """What has to be known to read `to_bytes`."""
        ...

    @property
    def held_bytes(self) -> int:
        """How many bytes it holds."""
        ...

    def to_bytes(self) -> bytes:
        """What is saved of it."""
        ...


class _Form(NamedTuple):
    """How a state is saved: its head, how many scores it sums up, and what its memory is."""

    head: struct.Struct
    scores: int
    memory: type[Memory] | type[TextMemory]


_FORMS = {
    Memory.mark: _Form(_HEAD, len(SCORES), Memory),
    _FIRST_MARK: _Form(_FIRST, len(FEATURES), Memory),
    _LAYERED_MARK: _Form(_LAYERED, 0, Memory),
    _RECENT_MARK: _Form(_RECENT, 0, Memory),
    _HABITS_MARK: _Form(_RECENT, 0, Memory),
    # and last whether a request is atypical
    TextMemory.mark: _Form(_HEAD, len(TEXT_FEATURES) + 1, TextMemory),
}


@dataclass(frozen=True, eq=False)
class Reading:
    """What a batch brought: the scores (distinct, features) of queries that counted, and buckets touched first.

    `largest` is the largest statistic that one of the queries left.
    """

    scores: Rows
    new_buckets: list[int]
    largest: float


class Scored(NamedTuple):
    """The distinct queries of one request: `scores` (distinct, scores), and the bucket of each (`coverage`).

    Where manners are weighed (`manner`), also the class `named` to each.
    """

    scores: Rows
    buckets: list[int]
    named: Sequence[int] = ()


@dataclass(frozen=True, eq=False, slots=True)
class Past:
    """The sums (scores,) of a client's finished epochs, and over how many queries."""

    sums: Rows
    count: int

    @classmethod
    def after(cls, past: "Past | None", sums: Rows, count: int, *, horizon: int) -> "Past":
        """What the past is after one more epoch. It fades by halves: who changes slowly is not held to it for ever."""
        if past is None:
            return cls(sums, count)
        if past.count >= PAST_EPOCHS * horizon:
            past = cls(past.sums / 2, past.count // 2)
        return cls(past.sums + sums, past.count + count)


class Stretch(NamedTuple):
    """Distinct queries that follow each other in one epoch: the sums (n * features,) and the counts after each.

    `begins` says that the epoch begins with them; `past` is what the client did before it, where that is kept, and
    `lately` what it did lately. `manners` are sums (n * manners,), where these are weighed.
    """

    sums: Rows
    first: int
    last: int
    begins: bool
    past: Past | None = None
    lately: Lately | None = None
    manners: Rows | None = None


@dataclass(eq=False, slots=True)
class ClientState:
    """Sums (features,) of scores over the `count` distinct queries of this epoch, and what goes on beyond it.

    `statistic` is the latest and `supremum` the largest of this epoch. `suspected` counts the distinct queries that
    left the statistic above the threshold, in all epochs. What starts with `pooled` is this client's part in the same
    figures of its group (`campaigns`), whose epochs are its own. `alarmed_at` is in seconds since 1970, 0 for never.
    `past` is what it did in finished epochs, and `past_supremum` the largest statistic beside that (`own_past`).
    `recent` is kept where it is weighed by several tests; `spoke` is the one that gave the `supremum` (`own_tests`).
    `habits` are kept where one of them is of its manner.
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
    memory: Recall = field(default_factory=Memory)
    bitmap: NDArray[np.uint8] = field(default_factory=coverage.empty_bitmap)
    past: Past | None = None
    past_supremum: float = float("-inf")
    recent: Recent | None = None
    spoke: int = 0
    habits: Habits | None = None

    @classmethod
    def of(cls, instruments: Instruments) -> "ClientState":
        """The state of a client that never asked, as these instruments weigh it."""
        size = len(instruments.words)
        recent = None if instruments.own is None else Recent(size)
        habits = None if instruments.manner is None else Habits()
        return cls(nothing(size), pooled_sums=nothing(size), recent=recent, habits=habits)

    def read(
        self, instruments: Instruments, inputs: Rows, scores: Rows, *, horizon: int, threshold: float = np.inf
    ) -> Reading:
        """Take in a batch: `inputs` (queries, inputs), the model's class scores (queries, classes), in order.

        Of when it came nothing is known: of its manner it says nothing.
        """
        measured = cast("Memory", self.memory).measure(instruments.features, inputs, scores)
        values = instruments.score_features(measured.features)
        stretches = self.advance(values, len(inputs), horizon=horizon)
        largest = self.weigh(stretches, statistics(instruments, stretches), threshold=threshold)
        new = coverage.mark(self.bitmap, instruments.coverage.buckets(measured.coordinates))
        return Reading(values, new, largest)

    def advance(
        self, values: Rows, queries: int, *, horizon: int, remember: bool = False, manners: Rows | None = None
    ) -> list[Stretch]:
        """Add the scores (distinct, features) of `queries` queries to the sums; what they leave has to be weighed yet.

        So that what many clients asked can be weighed at once. With `remember`, finished epochs become the past.
        `manners` (distinct, manners) are theirs, where these are weighed; without, they say nothing.
        """
        self.queries += queries
        if len(values) == 1 and self.count < horizon:
            self.sums, self.count = self.sums + values[0], self.count + 1
            found = None if self.recent is None else self.recent.add(values[0], self.sums, self.count)
            return [Stretch(self.sums, self.count, self.count, False, self.past, found, self._behave(manners, 0, 1))]
        stretches: list[Stretch] = []
        start = 0
        while start < len(values):
            begins = self.count >= horizon
            if begins:
                if remember:
                    self.past = Past.after(self.past, self.sums, self.count, horizon=horizon)
                self._begin_epoch()
            part = values[start : start + horizon - self.count]
            sums = self.sums + np.add.accumulate(part, axis=0)
            found = None if self.recent is None else self.recent.follow(part, sums, self.count + 1)
            behaved = self._behave(manners, start, len(part))
            last = self.count + len(part)
            stretches.append(Stretch(sums.ravel(), self.count + 1, last, begins, self.past, found, behaved))
            # a copy, because a view would keep the whole batch in memory
            self.sums, self.count = sums[-1].copy(), last
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

    def weigh_past(self, stretches: Sequence[Stretch], weighed: Sequence[float]) -> float:
        """Take in what `own_past` makes of what `advance` returned; the largest of it, -inf if there is nothing."""
        start = 0
        for stretch in stretches:
            part = weighed[start : start + stretch.last - stretch.first + 1]
            self.past_supremum = max(part) if stretch.begins else max(self.past_supremum, *part)
            start += len(part)
        return max(weighed, default=-math.inf)

    def forgive(self) -> None:
        """Start a new epoch now; used when somebody's standing is raised again. What was so unlike it is no past."""
        self.past, self.past_supremum = None, float("-inf")
        self._begin_epoch()
        self.supremum = self.statistic = float("-inf")
        self.suspected = self.spoke = 0

    def _begin_epoch(self) -> None:
        self.sums, self.count, self.epoch = np.zeros_like(self.sums), 0, self.epoch + 1
        self.recent = None if self.recent is None else Recent(len(self.sums))
        if self.habits is not None:
            self.habits.begin()

    def _behave(self, manners: Rows | None, start: int, queries: int) -> Rows | None:
        """Add the manners of so many queries; the sums (queries * manners,) after each, where they are kept."""
        if self.habits is None:
            return None
        return self.habits.add(np.zeros((queries, 1)) if manners is None else manners[start : start + queries])

    def begin_part(self, *, forgiven: bool) -> None:
        """Begin anew in the group: what it does to all its members when an epoch begins, or one is forgiven."""
        self.pooled_sums, self.pooled_count = np.zeros_like(self.sums), 0
        if forgiven:
            self.pooled_suspected = 0

    @property
    def held_bytes(self) -> int:
        """What its memory of queries takes up; everything else has one size."""
        return self.memory.held_bytes

    def to_bytes(self) -> bytes:
        """For the registry: everything above, at most `STATE_BYTES_MAX`."""
        filled, bitmap = coverage.packed(self.bitmap)
        mark, recent = self.memory.mark, b""
        extra: tuple[int, ...] = ()
        if self.recent is not None:
            mark, extra, recent = _RECENT_MARK, (len(self.sums), self.spoke), self.recent.to_bytes(self.count)
            if self.habits is not None:
                mark, recent = _HABITS_MARK, recent + self.habits.to_bytes()
        elif mark == Memory.mark and len(self.sums) != len(SCORES):
            mark, extra = _LAYERED_MARK, (len(self.sums),)
        head = _FORMS[mark].head.pack(
            mark,
            *(self.count, self.epoch, self.queries, self.suspected, self.pooled_count, self.pooled_suspected),
            *(self.supremum, self.statistic, self.alarmed_at),
            *(*self.memory.shape, filled, *extra),
        )
        whole = (head, self.sums.tobytes(), self.pooled_sums.tobytes(), bitmap, self.memory.to_bytes(), recent)
        if self.past is None:
            return b"".join(whole)
        return b"".join((*whole, _PAST.pack(self.past.count, self.past_supremum), self.past.sums.tobytes()))

    @classmethod
    def from_bytes(cls, data: bytes) -> "ClientState":
        """The state of `to_bytes`. Raises FormatError on anything else."""
        form = _FORMS.get(data[:_MARK_BYTES])
        if form is None or not form.head.size <= len(data) <= STATE_BYTES_MAX:
            raise FormatError("the saved state of a client is not one that the watch wrote")
        head, scores, memory = form
        first = head is _FIRST
        _, count, epoch, queries, suspected, pooled, pooled_suspected, *rest = head.unpack_from(data)
        supremum, statistic, alarmed_at, *shape = rest[:6]
        floats, filled = (supremum, statistic, alarmed_at), coverage.WHOLE if first else rest[6]
        if not scores:
            scores = rest[7]
            if scores < len(SCORES) + (head is _LAYERED):
                raise FormatError("the saved state of a client has sizes that do not fit together")
        # a client of a million comes back in the middle of a request: plain arithmetic, and few small arrays
        bitmap_at = head.size + 2 * scores * _NUMBER_BYTES
        memory_at = bitmap_at + coverage.packed_bytes(filled)
        recent_at = memory_at + memory.saved_bytes((shape[0], shape[1], shape[2]))
        habits_at = recent_at + (Recent.saved_bytes(count, scores) if head is _RECENT else 0)
        past_at = habits_at + (HABITS_BYTES if data.startswith(_HABITS_MARK) else 0)
        if len(data) - past_at not in {0, _PAST.size + scores * _NUMBER_BYTES} or (first and len(data) > past_at):
            raise FormatError("the saved state of a client has sizes that do not fit together")
        past, past_supremum = _past_of(data, past_at, scores)
        both = np.frombuffer(data, np.float64, 2 * scores, head.size).copy()
        if not np.isfinite(both).all() or any(map(math.isnan, floats)):
            raise FormatError("the saved state of a client holds a figure that is not a number")
        sums, pooled_sums = both[:scores], both[scores:]
        if first:
            sums, pooled_sums = (np.append(own, np.zeros(len(SCORES) - scores)) for own in (sums, pooled_sums))
        packed = np.frombuffer(data, np.uint8, memory_at - bitmap_at, bitmap_at)
        return cls(
            *(sums, count, supremum, statistic, epoch, queries, suspected, alarmed_at),
            *(pooled_sums, pooled, pooled_suspected),
            memory=memory.of_saved(data[memory_at:recent_at], (shape[0], shape[1], shape[2])),
            bitmap=coverage.unpacked(filled, packed),
            past=past,
            past_supremum=past_supremum,
            recent=Recent.of_bytes(data[recent_at:habits_at], count, scores) if head is _RECENT else None,
            habits=Habits.of_bytes(data[habits_at:past_at]) if past_at > habits_at else None,
            spoke=_spoke(rest[8], TESTS + (past_at > habits_at)) if head is _RECENT else 0,
        )


def _spoke(test: int, tests: int) -> int:
    if test >= tests:
        raise FormatError("the saved state of a client names a test that there is not")
    return test


def _past_of(data: bytes, at: int, scores: int) -> tuple[Past | None, float]:
    if len(data) == at:
        return None, -math.inf
    count, supremum = _PAST.unpack_from(data, at)
    sums = np.frombuffer(data, np.float64, scores, at + _PAST.size).copy()
    if not count or math.isnan(supremum) or not np.isfinite(sums).all():
        raise FormatError("the saved state of a client holds a past that is none")
    return Past(sums, count), supremum


class Weighs(Protocol):
    """What makes one number of the sums of scores: the larger, the more unusual."""

    def statistic(self, sums: Rows, counts: NDArray[np.int64]) -> Rows:
        """The statistic (n,) of summed scores (n, scores) over `counts` (n,) queries, 1 or more each."""
        ...


class WeighsRuns(Weighs, Protocol):
    """What makes one number of all that is kept of a client on its own."""

    def weigh(self, run: Run) -> Rows:
        """The statistic (n,) of clients after each of several queries."""
        ...


def statistics(weighs: Weighs, stretches: Sequence[Stretch]) -> list[float]:
    """The statistic that each query of some stretches left, of whichever clients; -inf before `QUERIES_MIN`.

    Where `stretches` say what was done lately, `weighs` is a `WeighsRuns`.
    """
    if not stretches:
        return []
    counts = [count for stretch in stretches for count in range(stretch.first, stretch.last + 1)]
    sums, recent = [stretch.sums for stretch in stretches], [stretch.lately for stretch in stretches]
    whole = [part for part in recent if part is not None]
    if whole:
        manners = [stretch.manners for stretch in stretches if stretch.manners is not None]
        found = cast("WeighsRuns", weighs).weigh(run_of_parts(sums, whole, counts, manners)).tolist()
    else:
        every = sums[0] if len(sums) == 1 else np.concatenate(sums)
        found = weighs.statistic(every.reshape(len(counts), -1), np.array(counts)).tolist()
    return [value if count >= QUERIES_MIN else -math.inf for value, count in zip(found, counts, strict=True)]
