"""How much of the input space somebody has had answered: a bitmap of locality-sensitive buckets, two kilobytes.

Of seven meters it predicted a thief's fidelity best (Spearman .86, query count .72), it needs no query to be kept, and
bitmaps of linked clients merge by OR.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.watch.rows import Rows, product

BITS = 14
BUCKETS = 1 << BITS
BITMAP_BYTES = BUCKETS // 8
WHOLE = 0xFFFF  # in place of how many bytes are filled: all are kept
_FILLED_MAX = BITMAP_BYTES // 3 - 1  # bytes that are filled, each kept with its place in two more


@dataclass(frozen=True, eq=False)
class Coverage:
    """Random hyperplanes (kept, BITS) through whitened coordinates; the bucket of a query is their sides."""

    planes: Rows

    @classmethod
    def draw(cls, kept: int, generator: "np.random.Generator") -> "Coverage":
        """Hyperplanes for `kept` coordinates; secret, because whoever knows them can stay in one bucket."""
        return cls(generator.standard_normal((kept, BITS)))

    def buckets(self, coordinates: Rows) -> list[int]:
        """The bucket of each row of whitened coordinates (rows, kept)."""
        sides = product(coordinates, self.planes) > 0
        buckets: list[int] = np.packbits(sides, axis=1, bitorder="little").view("<u2")[:, 0].tolist()
        return buckets


def empty_bitmap() -> NDArray[np.uint8]:
    """A bitmap (BITMAP_BYTES,) with nothing in it."""
    return np.zeros(BITMAP_BYTES, np.uint8)


def mark(bitmap: NDArray[np.uint8], buckets: Iterable[int]) -> list[int]:
    """Enter `buckets` into `bitmap`; returns those that were new, each once."""
    new, held = [], bitmap.data
    for bucket in buckets:
        byte, bit = bucket >> 3, 1 << (bucket & 7)
        if not held[byte] & bit:
            held[byte] |= bit
            new.append(bucket)
    return new


def count(bitmap: NDArray[np.uint8]) -> int:
    """How many buckets are in `bitmap`."""
    return int(np.bitwise_count(bitmap).sum())


def packed(bitmap: NDArray[np.uint8]) -> tuple[int, bytes]:
    """How many bytes of `bitmap` are filled, and their places and values; or `WHOLE` and all of it, where that is less.

    Most clients of a million have touched a few buckets.
    """
    places = np.flatnonzero(bitmap)
    if len(places) > _FILLED_MAX:
        return WHOLE, bitmap.tobytes()
    return len(places), places.astype("<u2").tobytes() + bitmap[places].tobytes()


def packed_bytes(filled: int) -> int:
    """How many bytes `packed` gives. Raises FormatError where it gives no such number."""
    if filled != WHOLE and filled > _FILLED_MAX:
        raise FormatError(f"a bitmap of which {filled} bytes are filled is kept whole")
    return BITMAP_BYTES if filled == WHOLE else 3 * filled


def unpacked(filled: int, data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bitmap that was `packed`. Raises FormatError on places that are not in order."""
    if filled == WHOLE:
        return data.copy()
    places = data[: 2 * filled].view("<u2").astype(np.intp)
    if filled and (places[-1] >= BITMAP_BYTES or (places[1:] <= places[:-1]).any() or not data[2 * filled :].all()):
        raise FormatError("the saved state of a client has a bitmap that the watch did not write")
    bitmap = empty_bitmap()
    bitmap[places] = data[2 * filled :]
    return bitmap
