"""What is remembered of a client's recent requests to a language model: enough to say how the next one compares.

Bounded whatever comes: digests of the last requests, and of the last distinct ones coordinates, templates, parameters
and times. Requests are measured one after the other, so that how they are cut into calls makes no difference.
"""

import math
import struct
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import blake2b
from typing import ClassVar, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.watch.rows import Rows
from palladion.watch.text.features import (
    COHESION,
    KEPT,
    REGULARITY,
    REPEATS,
    Looks,
    TextFeatures,
)
from palladion.watch.text.ngrams import AT_ONCE, LOOKED_BYTES
from palladion.watch.text.query import Parameters, Query
from palladion.watch.text.template import SIGNATURE, Signatures, likeness

DIGESTS = 256  # an exact repeat within so many requests teaches nothing new and is not counted again
RING = 64  # earlier requests that a new one is compared with
COMMON_MIN = 0.02  # added to what texts have in common: below that the estimate is mostly noise
COHESION_MIN = 8  # of fewer texts nobody can say whether they have anything in common
GAP_S_MIN, GAP_S_MAX = 1e-3, 30 * 86_400.0  # between two requests; beyond, they have nothing to do with each other
_NEAR = 1e-6  # added to squared distances
_Number = TypeVar("_Number", bound=np.generic)
_RING, _ONES = np.arange(RING), np.ones((1, RING), np.float32)
_HEAD = struct.Struct("<4sQQHHdd")
_MAGIC = b"PTM1"
MEMORY_BYTES_MAX = _HEAD.size + 8 * DIGESTS + RING * (4 * KEPT + 2 * SIGNATURE + 2)


@dataclass(frozen=True, eq=False)
class Measured:
    """The distinct queries of a batch: `features` (distinct, features) and `coordinates` (distinct, kept).

    `sizes` says how many of them each request of the batch had.
    """

    features: Rows
    coordinates: Rows
    sizes: list[int]


class Fresh(NamedTuple):
    """A query that is no exact repeat, and what its client's memory said of it: digest of parameters, and times."""

    memory: "TextMemory"
    query: Query
    setting: int
    pace: float
    regularity: float


class TextMemory:
    """A client's last requests, in rings: the oldest is overwritten."""

    __slots__ = (
        "_asked",
        "_digests",
        "_gap",
        "_last",
        "_lengths",
        "_unknown",
        "distinct",
        "halves",
        "ring",
        "settings",
        "signatures",
    )

    mark: ClassVar[bytes] = b"PWT1"  # what a client's state begins with that holds such a memory

    def __init__(self, kept: int) -> None:
        """Nothing is remembered yet; texts have `kept` coordinates."""
        self._asked = self.distinct = 0
        self._digests = np.zeros(DIGESTS, np.uint64)
        # of the last distinct requests: coordinates, signatures of templates, and digests of parameters
        self.ring = np.zeros((RING, kept), np.float32)
        self.signatures = np.zeros((RING, SIGNATURE), np.uint16)
        self.settings = np.zeros(RING, np.uint16)
        # squares of the coordinates, summed up: half of them, and in units of texts. Not saved: they follow from these
        self.halves = np.full(RING, np.inf, np.float32)
        self._lengths = np.zeros(RING)
        self._unknown = False  # whether the lengths have to be found first
        self._last = self._gap = math.nan  # when the last request came, and how long after the one before it

    @property
    def kept(self) -> int:
        """How many coordinates a text has."""
        return self.ring.shape[1]

    @property
    def seen(self) -> int:
        """How many requests are in the rings."""
        return min(self.distinct, RING)

    def enter(
        self,
        coordinates: NDArray[np.float32],
        half: np.float32,
        length: np.float64,
        signature: Signatures,
        setting: int,
    ) -> None:
        """Enter a request into the rings: `coordinates` (kept,), half of their square, the text's own, and the rest."""
        place = self.distinct % RING
        self.ring[place], self.halves[place], self._lengths[place] = coordinates, half, length
        self.signatures[place], self.settings[place] = signature, setting
        self.distinct += 1

    def measure(self, features: TextFeatures, queries: Sequence[Query]) -> Measured:
        """Measure the queries of a request that are no exact repeats, and remember them."""
        return measure(features, [(self, queries)])

    def fresh(self, queries: Sequence[Query]) -> list[Fresh]:
        """Those of some queries that are no exact repeats, in order; their digests and times are remembered."""
        found = []
        for query in queries:
            settled, setting = _settled(query.parameters)
            repeat = self._repeats(settled, query.text)
            pace, regularity = self._times(query.at)
            if not repeat:
                found.append(Fresh(self, query, setting, pace, regularity))
        return found

    def lengths(self, deviations: Rows) -> Rows:
        """The squares of the last texts (RING,), in units of texts."""
        if self._unknown:
            plain = self.ring * deviations
            self._lengths[:] = np.vecdot(plain, plain)
            self._unknown = False
        return self._lengths

    def _repeats(self, settled: bytes, text: str) -> bool:
        """Whether this text was asked before with these parameters, within the last `DIGESTS`; it is remembered."""
        if len(text) > LOOKED_BYTES:
            return False  # of longer texts not all is looked at: what was not seen is not taken for known
        data = blake2b(settled + text.encode(errors="surrogatepass"), digest_size=8).digest()
        digest = np.uint64(int.from_bytes(data, "little"))
        repeat = np.count_nonzero(self._digests[: min(self._asked, DIGESTS)] == digest) > 0
        self._digests[self._asked % DIGESTS] = digest
        self._asked += 1
        return bool(repeat)

    def _times(self, at: float) -> tuple[float, float]:
        """The logarithm of the time since the last request, and how unlike the one before that it was."""
        last, before = self._last, self._gap
        if not math.isfinite(at):
            return math.nan, math.nan
        self._last = at
        if math.isnan(last):
            return math.nan, math.nan
        gap = min(max(at - last, GAP_S_MIN), GAP_S_MAX)
        self._gap = gap
        return math.log(gap), math.nan if math.isnan(before) else abs(math.log(gap / before))

    @property
    def held_bytes(self) -> int:
        """How many bytes its arrays hold: as many for everybody."""
        held = (getattr(self, name) for name in self.__slots__)
        return sum(array.nbytes for array in held if isinstance(array, np.ndarray))

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many bytes `to_bytes` gives, and nothing else: the rest is in them."""
        digests, seen = min(self._asked, DIGESTS), self.seen
        return _HEAD.size + 8 * digests + seen * (4 * self.kept + 2 * SIGNATURE + 2), 0, 0

    @staticmethod
    def saved_bytes(shape: tuple[int, int, int]) -> int:
        """How many bytes `to_bytes` gives of a memory of that `shape`. Raises FormatError where there is none such."""
        size, *others = shape
        if size > MEMORY_BYTES_MAX or any(others):
            raise FormatError("the saved state of a client has sizes that do not fit together")
        return size

    @classmethod
    def of_saved(cls, data: bytes, shape: tuple[int, int, int]) -> "TextMemory":
        """The memory that `to_bytes` gave. Raises FormatError on anything else."""
        return cls.from_bytes(data)

    def to_bytes(self) -> bytes:
        """For the registry: everything above, at most `MEMORY_BYTES_MAX`."""
        digests, seen = min(self._asked, DIGESTS), self.seen
        head = _HEAD.pack(_MAGIC, self._asked, self.distinct, seen, self.kept, self._last, self._gap)
        arrays = (
            self._digests[:digests],
            self.ring[:seen],
            self.signatures[:seen],
            self.settings[:seen],
        )
        return head + b"".join(array.tobytes() for array in arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> "TextMemory":
        """The memory of `to_bytes`. Raises FormatError on anything else."""
        if not _HEAD.size <= len(data) <= MEMORY_BYTES_MAX or data[: len(_MAGIC)] != _MAGIC:
            raise FormatError("the saved memory of a client is not one that the watch wrote")
        _, asked, distinct, seen, kept, last, gap = _HEAD.unpack_from(data)
        digests = min(asked, DIGESTS)
        size = _HEAD.size + 8 * digests + seen * (4 * kept + 2 * SIGNATURE + 2)
        if seen != min(distinct, RING) or not 0 < kept <= KEPT or len(data) != size:
            raise FormatError("the saved memory of a client has sizes that do not fit together")
        memory = cls(kept)
        memory._asked, memory.distinct, memory._last, memory._gap = asked, distinct, last, gap
        start = _HEAD.size
        for array, count in (
            (memory._digests, digests),
            (memory.ring, seen),
            (memory.signatures, seen),
            (memory.settings, seen),
        ):
            end = start + array[:count].nbytes
            array[:count] = np.frombuffer(data[start:end], array.dtype).reshape(array[:count].shape)
            start = end
        if not np.isfinite(memory.ring).all() or math.isinf(last) or not (math.isnan(gap) or gap > 0):
            raise FormatError("the saved memory of a client holds a figure that is not a number")
        memory._unknown = True
        memory.halves[:seen] = np.vecdot(memory.ring[:seen], memory.ring[:seen]) * 0.5
        return memory


def measure(features: TextFeatures, requests: Sequence[tuple[TextMemory, Sequence[Query]]]) -> Measured:
    """Measure the queries of requests that are no exact repeats, in order, each with the memory of who asked.

    What is found and remembered is, to the last bit, what it would be one query after the other: how each looks does
    not depend on others, and of queries of one client the second is compared with its ring after the first is in it.
    """
    fresh = [memory.fresh(queries) for memory, queries in requests]
    asked = [item for own in fresh for item in own]
    looks = features.look([item.query for item in asked])
    rounds: list[list[int]] = []  # queries by how many of the same client come before them
    before: defaultdict[TextMemory, int] = defaultdict(int)
    for place, item in enumerate(asked):
        if before[item.memory] == len(rounds):
            rounds.append([])
        rounds[before[item.memory]].append(place)
        before[item.memory] += 1
    for places in rounds:
        for start in range(0, len(places), AT_ONCE):
            _compare(features.deviations, asked, looks, places[start : start + AT_ONCE])
    return Measured(looks.found, looks.coordinates.astype(np.float64), [len(own) for own in fresh])


def _compare(deviations: Rows, asked: Sequence[Fresh], looks: Looks, places: Sequence[int]) -> None:
    """Compare queries of different clients, those at `places`, with their clients' rings, and enter them into these."""
    items = [asked[place] for place in places]
    memories = [item.memory for item in items]
    # mostly they follow each other, and then nothing has to be copied
    chosen = slice(places[0], places[-1] + 1) if places[-1] - places[0] + 1 == len(places) else places
    coordinates, signatures = looks.coordinates[chosen], looks.signatures[chosen]
    seen = [memory.seen for memory in memories]
    rings = _stacked([memory.ring for memory in memories])  # (n, RING, kept)
    # 1. the nearest: half of the squared distances to all of a ring at once, but for what they have in common
    squares = np.vecdot(coordinates, coordinates)
    halves = _stacked([memory.halves for memory in memories]) - np.matmul(rings, coordinates[:, :, None])[:, :, 0]
    nearest = np.minimum.reduce(halves, axis=1) * 2 + squares
    # 2. templates and parameters
    alike = likeness(_stacked([memory.signatures for memory in memories]), seen, signatures)
    same = _stacked([memory.settings for memory in memories]) == [[item.setting] for item in items]
    if min(seen) < RING:
        same &= np.array(seen)[:, None] > _RING
    steady = np.add.reduce(same, axis=1)
    looks.found[chosen, REPEATS : REGULARITY + 1] = [
        [0.5 * math.log(max(near, 0.0) + _NEAR), share, 1 - often / count, item.pace, item.regularity]
        if count
        else [math.nan, math.nan, math.nan, item.pace, item.regularity]
        for near, share, often, count, item in zip(nearest.tolist(), alike, steady.tolist(), seen, items, strict=True)
    ]
    # 3. into the rings, and into the copies of them here: of one ring there is none
    plain = coordinates * deviations
    own = np.vecdot(plain, plain)
    lengths = _stacked([memory.lengths(deviations) for memory in memories])
    if len(memories) > 1:
        at = range(len(memories)), [memory.distinct % RING for memory in memories]
        rings[at], lengths[at] = coordinates, own
    squares *= 0.5
    for number, memory in enumerate(memories):
        memory.enter(coordinates[number], squares[number], own[number], signatures[number], items[number].setting)
    # 4. what they have in common now, in units of texts again: directions that are rarely used weigh less
    together = np.matmul(_ONES, rings)[:, 0] * deviations
    common, whole = np.vecdot(together, together), np.add.reduce(lengths, axis=1)
    looks.found[chosen, COHESION] = list(map(_cohesion, common.tolist(), whole.tolist(), seen))


def _stacked(arrays: Sequence[NDArray[_Number]]) -> NDArray[_Number]:
    """The arrays in one, with an axis more. Of one array it is a view."""
    return arrays[0][None] if len(arrays) == 1 else np.stack(arrays)


def _cohesion(together: float, lengths: float, before: int) -> float:
    """The logarithm of what the texts of a ring have in common; of 12 tasks a third of what 4 have.

    That is the mean product of two different texts over that of a text with itself: 1 for copies, and about 0 for
    texts that have no more in common than those of different clients, because the estimate has no bias. Given are the
    squared length of the sum of all texts, the sum of their squared lengths, and how many there were before the last.
    """
    seen = min(before + 1, RING)
    if seen < COHESION_MIN:
        return math.nan
    common = (together / (lengths + _NEAR) - 1) / (seen - 1)
    return math.log(max(common, 0.0) + COMMON_MIN)


@lru_cache(maxsize=256)  # clients keep their parameters, and no client's seeds push out more than these
def _settled(parameters: Parameters) -> tuple[bytes, int]:
    """What a program sets once, as bytes, and a digest of it that a ring has room for."""
    settled = repr(parameters.settled).encode()
    return settled, int.from_bytes(blake2b(settled, digest_size=2).digest(), "little")
