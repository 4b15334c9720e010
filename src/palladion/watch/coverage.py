"""How much of the input space somebody has had answered: a bitmap of locality-sensitive buckets, two kilobytes.

Of seven meters it predicted a thief's fidelity best (Spearman .86, query count .72), it needs no query to be kept, and
bitmaps of linked clients merge by OR.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.watch.rows import Rows, product

BITS = 14
BUCKETS = 1 << BITS
BITMAP_BYTES = BUCKETS // 8


@dataclass(frozen=True, eq=False)
class Coverage:
    """Random hyperplanes (kept, BITS) through whitened coordinates; the bucket of a query is their sides."""

    planes: Rows

    @classmethod
    def draw(cls, kept: int, generator: np.random.Generator) -> "Coverage":
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
