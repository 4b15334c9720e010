"""What is remembered of a client's recent requests to a language model: enough to say how the next one compares.

Bounded whatever comes: digests of the last requests, and of the last distinct ones coordinates, templates, parameters
and times. Requests are measured one after the other, so that how they are cut into calls makes no difference.
"""

import math
import struct
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import ClassVar

import numpy as np

from palladion.errors import FormatError
from palladion.watch.rows import Rows
from palladion.watch.text.features import (
    COHESION,
    KEPT,
    PACE,
    REGULARITY,
    REPEATS,
    SWEEP,
    TEMPLATE,
    TEXT_FEATURES,
    Look,
    TextFeatures,
)
from palladion.watch.text.ngrams import LOOKED_BYTES
from palladion.watch.text.query import Parameters, Query
from palladion.watch.text.template import SIGNATURE, likeness

DIGESTS = 256  # an exact repeat within so many requests teaches nothing new and is not counted again
RING = 64  # earlier requests that a new one is compared with
COMMON_MIN = 0.02  # added to what texts have in common: below that the estimate is mostly noise
COHESION_MIN = 8  # of fewer texts nobody can say whether they have anything in common
GAP_S_MIN, GAP_S_MAX = 1e-3, 30 * 86_400.0  # between two requests; beyond, they have nothing to do with each other
_NEAR = 1e-6  # added to squared distances
_HEAD = struct.Struct("<4sQQHHdd")
_MAGIC = b"PTM1"
MEMORY_BYTES_MAX = _HEAD.size + 8 * DIGESTS + RING * (4 * KEPT + 2 * SIGNATURE + 2)


class TextMemory:
    """A client's last requests, in rings: the oldest is overwritten."""

    __slots__ = (
        "_asked",
        "_coordinates",
        "_digests",
        "_distinct",
        "_gap",
        "_halves",
        "_last",
        "_lengths",
        "_settings",
        "_signatures",
        "_unknown",
    )

    mark: ClassVar[bytes] = b"PWT1"  # what a client's state begins with that holds such a memory

    def __init__(self, kept: int) -> None:
        """Nothing is remembered yet; texts have `kept` coordinates."""
        self._asked = self._distinct = 0
        self._digests = np.zeros(DIGESTS, np.uint64)
        self._coordinates = np.zeros((RING, kept), np.float32)
        # squares of the coordinates, summed up: half of them, and in units of texts. Not saved: they follow from these
        self._halves = np.zeros(RING, np.float32)
        self._lengths = np.zeros(RING)
        self._unknown = False  # whether the lengths have to be found first
        self._signatures = np.zeros((RING, SIGNATURE), np.uint16)
        self._settings = np.zeros(RING, np.uint16)
        self._last = self._gap = math.nan  # when the last request came, and how long after the one before it

    @property
    def kept(self) -> int:
        """How many coordinates a text has."""
        return self._coordinates.shape[1]

    def measure(self, features: TextFeatures, queries: Sequence[Query]) -> tuple[Rows, Rows]:
        """Features (distinct, features) and coordinates (distinct, kept) of those that are no exact repeats."""
        looks = [look for look in (self._take(features, query) for query in queries) if look is not None]
        if not looks:
            return np.empty((0, len(TEXT_FEATURES))), np.empty((0, self.kept))
        return (
            np.stack([look.found for look in looks]),
            np.stack([look.coordinates for look in looks]).astype(np.float64),
        )

    def _take(self, features: TextFeatures, query: Query) -> Look | None:
        settled, setting = _settled(query.parameters)
        repeat = self._repeats(settled, query.text)
        pace, regularity = self._times(query.at)
        if repeat:
            return None
        look = features.look(query)
        found, seen, place = look.found, min(self._distinct, RING), self._distinct % RING
        if self._unknown:
            self._learn_lengths(features.deviations)
        found[PACE], found[REGULARITY] = pace, regularity
        square = float(look.coordinates.dot(look.coordinates))
        if seen:
            # half of the squared distances to all of the ring at once, but for what they have in common
            distances = self._halves[:seen] - self._coordinates[:seen].dot(look.coordinates)
            nearest = 2 * float(np.minimum.reduce(distances)) + square
            found[REPEATS] = 0.5 * math.log(max(nearest, 0.0) + _NEAR)
            found[TEMPLATE] = likeness(self._signatures[:seen], look.signature)
            found[SWEEP] = 1 - int(np.count_nonzero(self._settings[:seen] == setting)) / seen
        self._coordinates[place], self._halves[place] = look.coordinates, square / 2
        plain = look.coordinates * features.deviations
        self._lengths[place] = plain.dot(plain)
        self._signatures[place], self._settings[place] = look.signature, setting
        self._distinct += 1
        found[COHESION] = self._cohesion(features.deviations)
        return look

    def _learn_lengths(self, deviations: Rows) -> None:
        for place in range(min(self._distinct, RING)):
            plain = self._coordinates[place] * deviations
            self._lengths[place] = plain.dot(plain)
        self._unknown = False

    def _cohesion(self, deviations: Rows) -> float:
        """The logarithm of what the texts of the ring have in common; of 12 tasks a third of what 4 have.

        That is the mean product of two different texts over that of a text with itself: 1 for copies, and about 0 for
        texts that have no more in common than those of different clients, because the estimate has no bias.
        """
        seen = min(self._distinct, RING)
        if seen < COHESION_MIN:
            return math.nan
        # in units of texts again, where directions that are rarely used weigh less
        together = np.add.reduce(self._coordinates[:seen], axis=0) * deviations
        lengths = float(np.add.reduce(self._lengths[:seen]))
        common = (float(together.dot(together)) / (lengths + _NEAR) - 1) / (seen - 1)
        return math.log(max(common, 0.0) + COMMON_MIN)

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
        digests, seen = min(self._asked, DIGESTS), min(self._distinct, RING)
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
        digests, seen = min(self._asked, DIGESTS), min(self._distinct, RING)
        head = _HEAD.pack(_MAGIC, self._asked, self._distinct, seen, self.kept, self._last, self._gap)
        arrays = (
            self._digests[:digests],
            self._coordinates[:seen],
            self._signatures[:seen],
            self._settings[:seen],
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
        memory._asked, memory._distinct, memory._last, memory._gap = asked, distinct, last, gap
        start = _HEAD.size
        for array, count in (
            (memory._digests, digests),
            (memory._coordinates, seen),
            (memory._signatures, seen),
            (memory._settings, seen),
        ):
            end = start + array[:count].nbytes
            array[:count] = np.frombuffer(data[start:end], array.dtype).reshape(array[:count].shape)
            start = end
        if not np.isfinite(memory._coordinates).all() or math.isinf(last) or not (math.isnan(gap) or gap > 0):
            raise FormatError("the saved memory of a client holds a figure that is not a number")
        memory._unknown = True
        memory._halves[:seen] = [float(row.dot(row)) / 2 for row in memory._coordinates[:seen]]
        return memory


@lru_cache(maxsize=256)  # clients keep their parameters, and no client's seeds push out more than these
def _settled(parameters: Parameters) -> tuple[bytes, np.uint16]:
    """What a program sets once, as bytes, and a digest of it that a ring has room for."""
    settled = repr(parameters.settled).encode()
    return settled, np.uint16(int.from_bytes(blake2b(settled, digest_size=2).digest(), "little"))
