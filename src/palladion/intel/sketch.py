"""The signature of a set of queries: a MinHash, by which two harvests can be compared without showing a query. Pure.

Broder, "On the resemblance and containment of documents" (1997). Equal places of two sketches estimate the Jaccard
index with a deviation of sqrt(J(1-J)/128): 0.044 at most. Which rows are equal is up to `row_element`: numbers are
rounded, so that a harvest that is repeated elsewhere is found, and one that was moved by noise is not.

Without a salt whoever holds a query can test whether it is in the set, if the set is small; with one, only those who
know the salt can, and only sketches of one salt can be compared.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError

PLACES = 128  # 512 bytes as text; the deviation above
SALT_BYTES = 16
SIMILAR_MIN = 0.25  # a quarter of the union: sets without a common query show 0, as measured
SET_MAX = 1_000_000  # queries in one signature
NAME = "minhash-128"
_PRIME = np.uint64((1 << 61) - 1)
_PERSON = b"pall/signature"
_EMPTY = (1 << 32) - 1
_BATCH = 4096
_HASH_BYTES = 8
WAITING_MAX = 64  # queries of a running sketch that are taken in together
COMPARED_MIN = 64  # queries: of fewer, nothing is known yet
SIGNIFICANT = 3  # digits of a number: what a client's own rounding or a detour through float16 keeps


@dataclass(frozen=True)
class Sketch:
    """`places` are the smallest hashes of the set under 128 functions; `salt` labels a salt, and never is one."""

    places: tuple[int, ...]
    size: int
    salt: str = ""

    def __post_init__(self) -> None:
        """Raises FormatError on what is no sketch."""
        good = all(isinstance(place, int) and 0 <= place <= _EMPTY for place in self.places)
        if len(self.places) != PLACES or not good or not 0 < self.size <= SET_MAX or len(self.salt) > 32:
            raise FormatError(f"a signature of queries has {PLACES} numbers below 2^32 and a size of 1 to {SET_MAX}")

    def comparable(self, other: "Sketch") -> bool:
        """Whether both were made with one salt, or both without."""
        return self.salt == other.salt

    def similarity(self, other: "Sketch") -> float:
        """The estimated Jaccard index. Raises ValueError on sketches that cannot be compared."""
        if not self.comparable(other):
            raise ValueError("two sketches with different salts have nothing in common")
        return sum(a == b for a, b in zip(self.places, other.places, strict=True)) / PLACES

    def text(self) -> str:
        """The places in hexadecimal."""
        return np.array(self.places, ">u4").tobytes().hex()


def parse_sketch(text: str, size: int, salt: str = "") -> Sketch:
    """The sketch that `text` is. Raises FormatError."""
    try:
        data = bytes.fromhex(text) if len(text) == 8 * PLACES else b""
    except ValueError:
        data = b""
    return Sketch(tuple(int(place) for place in np.frombuffer(data, ">u4")), size, salt)


def sketch_of(elements: Iterable[bytes], *, salt: bytes = b"") -> Sketch:
    """The sketch of a set of elements (`row_element`, or a text's bytes); `salt` has 16 bytes, or none.

    Raises ValueError on a salt of another length, on no element, and on more than `SET_MAX` of them.
    """
    if salt and len(salt) != SALT_BYTES:
        raise ValueError(f"a salt has {SALT_BYTES} bytes, got {len(salt)}")
    hashes = {blake2b(element, digest_size=8, salt=salt, person=_PERSON).digest() for element in elements}
    if not 0 < len(hashes) <= SET_MAX:
        raise ValueError(f"a signature is of 1 to {SET_MAX} different queries, got {len(hashes)}")
    # below 2^29, so that a product with a factor below 2^32 stays within 64 bits and no carry is lost
    low = np.full(PLACES, _EMPTY, np.uint64)
    data = b"".join(sorted(hashes))
    for start in range(0, len(data), _HASH_BYTES * _BATCH):
        low = _lowest(low, data[start : start + _HASH_BYTES * _BATCH])
    return Sketch(tuple(int(place) for place in low), len(hashes), salt_label(salt) if salt else "")


class RunningSketch:
    """The sketch of what one client asks, as it asks: without a salt, in 512 bytes, and as many that wait."""

    __slots__ = ("_low", "_waiting", "count")

    def __init__(self) -> None:
        self.count = 0  # queries, repeats among them
        self._low = np.full(PLACES, _EMPTY, np.uint32)
        self._waiting = bytearray()  # hashes: taking in many at once costs a fraction for each

    def add(self, element: bytes) -> bool:
        """Take in a query; whether it is time to compare: at powers of two, from 64 queries on."""
        self._waiting += blake2b(element, digest_size=_HASH_BYTES, person=_PERSON).digest()
        self.count += 1
        if len(self._waiting) >= _HASH_BYTES * WAITING_MAX:
            self._take_in()
        return self.count >= COMPARED_MIN and self.count & (self.count - 1) == 0

    def sketch(self) -> Sketch:
        """What was asked so far. Raises FormatError before the first query."""
        self._take_in()
        return Sketch(tuple(self._low.tolist()), min(self.count, SET_MAX))

    def _take_in(self) -> None:
        if self._waiting:
            self._low = _lowest(self._low.astype(np.uint64), bytes(self._waiting)).astype(np.uint32)
            self._waiting.clear()


def salt_label(salt: bytes) -> str:
    """What names a salt without showing it."""
    return blake2b(salt, digest_size=8, person=b"pall/saltlabel").hexdigest()


def row_element(row: NDArray[np.generic]) -> bytes:
    """A query of numbers as an element: each rounded to `SIGNIFICANT` digits of its own. Raises ValueError."""
    values = np.asarray(row, np.float64).reshape(-1)
    if not np.isfinite(values).all():
        raise ValueError("a query holds a number that is not finite")
    return b" ".join(b"%.*e" % (SIGNIFICANT - 1, value + 0.0) for value in values)


def _lowest(low: NDArray[np.uint64], hashes: bytes) -> NDArray[np.uint64]:
    """The places of a set, `low`, with further hashes in it."""
    # below 2^29, so that a product with a factor below 2^32 stays within 64 bits and no carry is lost
    values = np.frombuffer(hashes, "<u8") >> np.uint64(35)
    factors, offsets = _functions()
    some = values[:, None] * factors + offsets  # (queries, places)
    lowest: NDArray[np.uint64] = np.minimum(low, (some % _PRIME & np.uint64(_EMPTY)).min(axis=0))
    return lowest


@cache
def _functions() -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    """The 128 hash functions, the same everywhere: factors below 2^32 and offsets below 2^61, from BLAKE2."""
    parts = [blake2b(place.to_bytes(2), digest_size=16, person=b"pall/minhash").digest() for place in range(PLACES)]
    numbers = np.frombuffer(b"".join(parts), "<u8").reshape(PLACES, 2)
    factors = (numbers[:, 0] & np.uint64(_EMPTY)) | np.uint64(1)
    return factors.astype(np.uint64), (numbers[:, 1] % _PRIME).astype(np.uint64)
