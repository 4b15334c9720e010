"""Which cells of queries are kept: those of the smallest keyed numbers, and how far that was thinned. Values, no files.

A cell is all queries whose noise is one (`body.cell_of`). Each cell has a number that nobody knows without the key, and
at a level all cells below that level's threshold are kept. Where they become too many the level rises, and never falls
again (Flajolet, "On adaptive sampling", Computing 43(4), 1990, with eight steps to a halving). So a cell that was
refused or given up never returns with a later query, which a client may have chosen by what the first was answered.

Levels are few and fixed beforehand, because clients decide how much they ask, and so when thinning ends: at each level
the sample is one that nobody chose, and whoever tests at the level that came about pays for all of them
(`level_log10_price`). The k smallest of all, with a threshold anywhere, would have no such price.
"""

import math
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from hashlib import blake2b

PRIORITY_BITS = 64
LEVEL_STEPS = 8  # to a halving: after a step between 8 of 9 and 15 of 16 of the cells are left
LEVEL_MAX = LEVEL_STEPS * (PRIORITY_BITS + 1)  # there the threshold is 0


class Sample:
    """The cells that are kept of one client and version, at most `capacity`: 8 bytes each, in order."""

    def __init__(self, capacity: int, level: int, priorities: Iterable[int] = ()) -> None:
        """`priorities` at a level of at least `level`: higher where those would be too many."""
        self._capacity = capacity
        self._level = level
        self._bound = bound = threshold(level)
        self._kept = array("Q", sorted({priority for priority in priorities if priority < bound}))
        self._thin()

    @property
    def level(self) -> int:
        """The level now, which never falls."""
        return self._level

    def __len__(self) -> int:
        return len(self._kept)

    def wants(self, priority: int) -> bool:
        """Whether a query of this cell is to be kept: the cell is drawn, and has none yet."""
        if priority >= self._bound:
            return False
        place = bisect_left(self._kept, priority)
        return place == len(self._kept) or self._kept[place] != priority

    def add(self, priority: int) -> None:
        """Keep a cell that is wanted. It must be written down also where this very one raises the level above it."""
        self._kept.insert(bisect_left(self._kept, priority), priority)
        self._thin()

    def _thin(self) -> None:
        while len(self._kept) > self._capacity:
            self._level += 1
            self._bound = threshold(self._level)
            del self._kept[bisect_left(self._kept, self._bound) :]


def priority_of(key: bytes, cell: bytes) -> int:
    """The number of a cell, below 2**`PRIORITY_BITS`; `key` is a secret of the file. Two cells with one are as one."""
    return int.from_bytes(blake2b(cell, digest_size=PRIORITY_BITS // 8, key=key).digest(), "little")


def threshold(level: int) -> int:
    """What the numbers of cells that are kept at a level lie below: all of them at 0, half of them eight levels on."""
    halvings, steps = divmod(level, LEVEL_STEPS)
    return ((2 * LEVEL_STEPS - steps) << PRIORITY_BITS) // (2 * LEVEL_STEPS) >> halvings


def level_log10_price(level: int) -> float:
    """What a test at `level` adds to the log10 of its p-value: the weights 1 / (l + 1)(l + 2) of all levels sum to 1.

    The weighted sum of the e-values at all levels is an e-value, whichever level a client brought about.
    """
    return math.log10((level + 1) * (level + 2))
