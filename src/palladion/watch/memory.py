"""What is remembered of a client's recent queries: enough to know an exact repeat and to measure how near a new one is.

Bounded whatever comes: digests of the last queries, and whitened coordinates of the last distinct ones. How queries
are cut into requests makes no difference.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import zip_longest
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.watch.features import DIRECTIONS_MAX, REPEATS, Features
from palladion.watch.rows import Rows, constant, preceding

DIGESTS = 256  # an exact repeat within so many queries teaches nothing new and is not counted again
RING = 64  # iterative probing comes back to a query within a few dozen others
_DIGEST_BYTES = 8
_COORDINATE_BYTES = 4
_SQUARE_BYTES = 8
# of coordinates that nobody asked: they are no distance from anything
_NONE = np.full(RING * DIRECTIONS_MAX, np.nan, np.float32).tobytes()
_NONE_SQUARED = np.full(RING, np.nan).tobytes()
_ZERO, _HALF, _MINUS_TWO = constant(0), constant(0.5), constant(-2)
_NEAR = constant(1e-6)  # added to squared distances
_AT_ONCE = 16  # clients whose rings are compared with together: 16 KiB each, and a core's cache holds some hundreds


@dataclass(frozen=True, eq=False)
class Measured:
    """The distinct queries of a batch: `features` (distinct, features) and `coordinates` (distinct, kept).

    `sizes` says how many of them each request of the batch had, and `fresh` which of its queries they were.
    """

    features: Rows
    coordinates: Rows
    sizes: list[int]
    fresh: list[list[bool]]


class Memory:
    """Digests (up to DIGESTS,) of the last queries and coordinates (up to RING, kept) of the last distinct ones.

    Held as bytes, oldest first, as they are saved: a query is found in them, and added to them, faster than in arrays.
    """

    __slots__ = ("_coordinates", "_digests", "_kept", "_squares")
    mark: ClassVar[bytes] = b"PWC2"  # what a client's state begins with that holds such a memory

    def __init__(self, digests: NDArray[np.uint64] | None = None, ring: NDArray[np.float32] | None = None) -> None:
        self._digests = b"" if digests is None else digests.tobytes()
        self._coordinates = b"" if ring is None else ring.tobytes()
        self._kept = 0 if ring is None else ring.shape[1]
        self._squares = b""  # of the coordinates, summed up (RING,): not saved, but kept, because that takes time

    @classmethod
    def of_bytes(cls, digests: bytes, ring: bytes, kept: int) -> Self:
        """The memory whose `digests` and `ring`, with so many coordinates a query, are these."""
        memory = cls()
        memory._digests, memory._coordinates, memory._kept = digests, ring, kept
        return memory

    @classmethod
    def of_saved(cls, data: bytes, shape: tuple[int, int, int]) -> Self:
        """The memory that `to_bytes` gave, of that `shape`. Raises FormatError."""
        ring_at = shape[0] * _DIGEST_BYTES
        if not np.isfinite(np.frombuffer(data, np.float32, offset=ring_at)).all():
            raise FormatError("the saved state of a client holds a figure that is not a number")
        return cls.of_bytes(data[:ring_at], data[ring_at:], shape[2])

    @staticmethod
    def saved_bytes(shape: tuple[int, int, int]) -> int:
        """How many bytes `to_bytes` gives of a memory of that `shape`. Raises FormatError where there is none such."""
        digests, ring, kept = shape
        if digests > DIGESTS or ring > RING or kept > DIRECTIONS_MAX:
            raise FormatError("the saved state of a client has sizes that do not fit together")
        return digests * _DIGEST_BYTES + ring * kept * _COORDINATE_BYTES

    @property
    def shape(self) -> tuple[int, int, int]:
        """How many digests and queries are remembered, and coordinates of each."""
        return len(self._digests) // _DIGEST_BYTES, *self.ring.shape

    def to_bytes(self) -> bytes:
        """What is saved of it, beside its `shape`."""
        return self._digests + self._coordinates

    @property
    def digests(self) -> NDArray[np.uint64]:
        """Not to be written to."""
        return np.frombuffer(self._digests, np.uint64)

    @property
    def ring(self) -> NDArray[np.float32]:
        """Not to be written to."""
        count = len(self._coordinates) // (_COORDINATE_BYTES * self._kept) if self._kept else 0
        return np.frombuffer(self._coordinates, np.float32).reshape(count, self._kept)

    @property
    def held_bytes(self) -> int:
        """How many bytes it holds."""
        return len(self._digests) + len(self._coordinates) + len(self._squares)

    def measure(self, features: Features, inputs: Rows, scores: Rows) -> Measured:
        """Measure the queries of a request that are no exact repeats, and remember them."""
        return measure(features, [(self, inputs, scores)])

    def merge(self, other: "Memory") -> "Memory":
        """What both remember, one place and another: the newest of each in turn, as many as one memory holds.

        Which of two is the newer nobody knows; it does not depend on which of the memories is asked. Raises ValueError
        where they remember queries of other sizes.
        """
        if self._kept and other._kept and self._kept != other._kept:
            raise ValueError(f"one memory holds {self._kept} coordinates a query, and the other {other._kept}")
        kept = self._kept or other._kept
        digests = _in_turn(self._digests, other._digests, _DIGEST_BYTES, DIGESTS)
        size = kept * _COORDINATE_BYTES
        ring = _in_turn(self._coordinates, other._coordinates, size, RING) if kept else b""
        return type(self).of_bytes(digests, ring, kept)

    def fresh(self, inputs: Rows) -> NDArray[np.bool_]:
        """Which queries (queries,) were not asked before, within the last `DIGESTS`."""
        return np.array(self._fresh(inputs), np.bool_)

    def nearness(self, coordinates: Rows) -> Rows:
        """Log distance of each query to the nearest of the `RING` before it; NaN where there is none."""
        return nearness([self] * len(coordinates), coordinates)

    def _fresh(self, inputs: Rows) -> list[bool]:
        if len(inputs) == 1:
            # as most requests have; the same as below
            digest = blake2b(inputs.tobytes(), digest_size=_DIGEST_BYTES).digest()
            before = self._digests[-DIGESTS * _DIGEST_BYTES :]
            self._digests = (before + digest)[-DIGESTS * _DIGEST_BYTES :]
            return [not _holds(before, digest, 0, len(before))]
        data, size = inputs.tobytes(), inputs.itemsize * inputs.shape[1]
        rows = [data[row * size : (row + 1) * size] for row in range(len(inputs))]
        digests = [blake2b(row, digest_size=_DIGEST_BYTES).digest() for row in rows]
        every, end = b"".join([self._digests, *digests]), len(self._digests)
        fresh = []
        for digest in digests:
            fresh.append(not _holds(every, digest, max(0, end - DIGESTS * _DIGEST_BYTES), end))
            end += _DIGEST_BYTES
        self._digests = every[-DIGESTS * _DIGEST_BYTES :]
        return fresh

    def _before(self, kept: int) -> tuple[bytes, bytes]:
        """Coordinates of the last `RING` queries and the sums of their squares, where fewer were asked NaN before."""
        if not self._squares:
            self._squares = (
                _NONE_SQUARED[len(self.ring) * _SQUARE_BYTES :] + _squares(self.ring.astype(np.float64)).tobytes()
            )
        return _NONE[: RING * kept * _COORDINATE_BYTES - len(self._coordinates)] + self._coordinates, self._squares

    def _remember(self, coordinates: bytes, squares: bytes, kept: int) -> None:
        self._kept = kept
        excess = len(self._coordinates) + len(coordinates) - RING * kept * _COORDINATE_BYTES
        self._coordinates = b"".join((memoryview(self._coordinates)[max(0, excess) :], coordinates))
        self._squares = (self._squares + squares)[-RING * _SQUARE_BYTES :]


def measure(features: Features, requests: Sequence[tuple[Memory, Rows, Rows]]) -> Measured:
    """`Memory.measure` of several requests, in order, at once: the memory of who asked, inputs, and scores.

    A hundred clients with few queries take as long as ten with many otherwise.
    """
    asked, sizes, every_fresh = [], [], []
    digests = [memory._digests for memory, _, _ in requests]
    try:
        for memory, inputs, scores in requests:
            fresh = memory._fresh(inputs)
            every_fresh.append(fresh)
            sizes.append(sum(fresh))
            every = sizes[-1] == len(fresh)
            asked.append(features.comparable(inputs if every else inputs[fresh], scores if every else scores[fresh]))
        found, coordinates = features.measure(*(_together(columns) for columns in zip(*asked, strict=True)))
    except BaseException:
        # what was not measured was not asked: tried again, it must not pass for a repeat
        for (memory, _, _), before in zip(requests, digests, strict=True):
            memory._digests = before
        raise
    askers = [memory for (memory, _, _), size in zip(requests, sizes, strict=True) for _ in range(size)]
    found[:, REPEATS] = nearness(askers, coordinates)
    return Measured(found, coordinates, sizes, every_fresh)


def nearness(memories: Sequence[Memory], coordinates: Rows) -> Rows:
    """`Memory.nearness` of the queries of several clients: for each row of `coordinates` the memory of who asked it."""
    found = np.empty(len(coordinates))
    if len(set(map(id, memories))) == len(memories):
        for start in range(0, len(memories), _AT_ONCE):
            part = slice(start, start + _AT_ONCE)
            found[part] = _nearness_of_one(memories[part], coordinates[part])
        return found
    # some asked several queries: clients with as many of them are compared with together
    rows_of: defaultdict[int, list[int]] = defaultdict(list)
    for row, memory in enumerate(memories):
        rows_of[id(memory)].append(row)
    by_count: defaultdict[int, list[list[int]]] = defaultdict(list)
    for rows in rows_of.values():
        by_count[len(rows)].append(rows)
    for alike in by_count.values():
        for start in range(0, len(alike), _AT_ONCE):
            places = np.array(alike[start : start + _AT_ONCE])
            found[places] = _nearness([memories[row] for row in places[:, 0]], coordinates[places])
    return found


def _nearness(memories: Sequence[Memory], coordinates: Rows) -> Rows:
    """The nearness (clients, queries) of as many queries of each client (clients, queries, kept)."""
    kept = coordinates.shape[2]
    squared = _squares(coordinates)
    before, before_squared = _before(memories, kept)
    history = np.concatenate([before, coordinates], axis=1)
    squares = np.concatenate([before_squared, squared], axis=1)
    for memory, own, own_squared in zip(memories, coordinates, squared, strict=True):
        memory._remember(own[-RING:].astype(np.float32).tobytes(), own_squared[-RING:].tobytes(), kept)
    # (clients, queries, RING); by a matrix product for each query, since all differences would take ten times as long
    products = np.matmul(coordinates[:, :, None, :], preceding(history, RING, axis=1).transpose(0, 1, 3, 2))[:, :, 0, :]
    return _log_distance(products, squared, preceding(squares, RING, axis=1))


def _nearness_of_one(memories: Sequence[Memory], coordinates: Rows) -> Rows:
    """The same for one query of each client (clients, kept), in half of the steps."""
    kept = coordinates.shape[1]
    squared = _squares(coordinates)
    before, before_squared = _before(memories, kept)
    own, own_squared = coordinates.astype(np.float32).tobytes(), squared.tobytes()
    for place, memory in enumerate(memories):
        start, square = place * kept * _COORDINATE_BYTES, place * _SQUARE_BYTES
        memory._remember(
            own[start : start + kept * _COORDINATE_BYTES], own_squared[square : square + _SQUARE_BYTES], kept
        )
    products = np.matmul(coordinates[:, None, :], before.transpose(0, 2, 1))[:, 0, :]
    return _log_distance(products, squared, before_squared)


def _before(memories: Sequence[Memory], kept: int) -> tuple[Rows, Rows]:
    """The coordinates (clients, RING, kept) that clients are remembered by, and the sums of their squares."""
    remembered = [memory._before(kept) for memory in memories]
    coordinates = np.frombuffer(b"".join([own for own, _ in remembered]), np.float32).astype(np.float64)
    squared = np.frombuffer(b"".join([own for _, own in remembered]), np.float64)
    return coordinates.reshape(len(memories), RING, kept), squared.reshape(len(memories), RING)


def _log_distance(products: Rows, squared: Rows, before_squared: Rows) -> Rows:
    """Of queries (…,) to the nearest of those before (…, RING); `products` are theirs, overwritten here."""
    products *= _MINUS_TWO
    products += squared[..., None]
    products += before_squared
    nearest = np.fmin.reduce(products, axis=-1)
    np.maximum(nearest, _ZERO, out=nearest)
    nearest += _NEAR
    np.log(nearest, out=nearest)
    nearest *= _HALF
    return np.asarray(nearest)


def _in_turn(first: bytes, second: bytes, size: int, most: int) -> bytes:
    """The last of two lists of items of that size, of each in turn from the newest, each once; the newest last."""
    each = [[data[at : at + size] for at in range(0, len(data), size)][::-1] for data in (first, second)]
    pairs = zip_longest(*each)
    newest = dict.fromkeys(item for pair in pairs for item in sorted(filter(None, pair)))
    return b"".join(list(newest)[:most][::-1])


def _squares(coordinates: Rows) -> Rows:
    """Squared lengths of coordinates (…, kept)."""
    return np.asarray(np.add.reduce(np.square(coordinates), axis=-1))


def _together(rows: Sequence[Rows]) -> Rows:
    return np.ascontiguousarray(rows[0]) if len(rows) == 1 else np.concatenate(rows)


def _holds(digests: bytes, digest: bytes, start: int, end: int) -> bool:
    """Whether `digest` is one of those from `start` to `end`; bytes of two neighbours can look like it by chance."""
    place = digests.find(digest, start, end)
    while place >= 0 and place % _DIGEST_BYTES:
        place = digests.find(digest, place + 1, end)
    return place >= 0
