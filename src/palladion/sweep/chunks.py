"""Bytes cut where their content says so, so that the same weights give the same pieces in whatever file they lie. Pure.

Gear hashing with two masks (FastCDC: Xia et al., USENIX ATC 2016), in NumPy: the hash of a place is a sum over the 32
bytes before it, which doubling gives in five passes. The table comes from a salt, so that nobody who does not have it
knows where the cuts are.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import blake2b, shake_256

import numpy as np
from numpy.typing import NDArray

SALT_BYTES = 32
HASH_BYTES = 12  # 2^96: among 2^40 pieces of strangers none is taken for one of a million of ours
WINDOW = 32
BLOCK_BYTES = 128 * 1024  # what is computed of it stays in the second-level cache
AVERAGE_MIN, AVERAGE_MAX = 256, 16 * 1024
PIECES_WANTED = 512  # of one version: with fewer, a share of it is a coarse figure
_NORMAL = 2  # bits by which the masks before and after the average differ


@dataclass(frozen=True)
class Cutter:
    """Cuts bytes into pieces of `average` bytes, from an eighth to four times as many; `salt` says where."""

    salt: bytes
    average: int

    def __post_init__(self) -> None:
        if len(self.salt) != SALT_BYTES:
            raise ValueError(f"a salt has {SALT_BYTES} bytes, got {len(self.salt)}")
        if self.average not in {2**bits for bits in range(8, 15)}:
            raise ValueError(f"pieces of {self.average} bytes, a power of two from {AVERAGE_MIN} was expected")

    def pieces(self, parts: Iterable[bytes | memoryview]) -> Iterator[tuple[bytes, int]]:
        """Hashes and sizes of the pieces of a stream that begins and ends with a cut.

        The first and the last end at no content: where the same bytes lie in another stream, these differ.
        """
        held = b""
        for part in parts:
            data = memoryview(part)
            for begin in range(0, len(data), BLOCK_BYTES):
                held += bytes(data[begin : begin + BLOCK_BYTES])
                if len(held) >= BLOCK_BYTES:
                    cut = 0
                    for end in self._cuts(held, last=False):
                        yield self._hash(held[cut:end]), end - cut
                        cut = end
                    held = held[cut:]
        cut = 0
        for end in self._cuts(held, last=True):
            yield self._hash(held[cut:end]), end - cut
            cut = end

    def inner(self, parts: Iterable[bytes | memoryview]) -> Iterator[tuple[bytes, int]]:
        """The pieces that begin and end where the content says so: those that are found in any other stream too."""
        pieces = self.pieces(parts)
        next(pieces, None)
        known = next(pieces, None)
        for following in pieces:
            if known is not None:
                yield known
            known = following

    def _cuts(self, data: bytes, *, last: bool) -> Iterator[int]:
        """Where pieces end; what is after the last one is left for the next block, unless this is the `last`."""
        if not data:
            return
        sums = self._sums(np.frombuffer(data, np.uint8))
        bits = self.average.bit_length() - 1
        strict, loose = _places(sums, bits + _NORMAL), _places(sums, bits - _NORMAL)
        least, most, at = self.average // 8, self.average * 4, 0
        while True:
            end = _first(strict, at + least, at + self.average) or _first(loose, at + self.average, at + most)
            if end is None:
                if len(data) - at < most:
                    break
                end = at + most
            at = end
            yield at
        if last and at < len(data):
            yield len(data)

    def _sums(self, data: NDArray[np.uint8]) -> NDArray[np.uint32]:
        """The gear hash at each place, of the bytes up to it."""
        table = np.frombuffer(shake_256(b"palladion/v1/dlp-gear" + self.salt).digest(1024), "<u4")
        sums: NDArray[np.uint32] = table[data]
        width = 1
        while width < WINDOW:
            moved = sums[:-width] << np.uint32(width)
            sums[width:] += moved
            width *= 2
        return sums

    def _hash(self, piece: bytes) -> bytes:
        return blake2b(piece, digest_size=HASH_BYTES, key=self.salt, person=b"pall/dlp-piece").digest()


def average_for(size: int) -> int:
    """How large pieces are to be, so that a version of `size` bytes has enough of them."""
    wanted = max(1, size // PIECES_WANTED)
    return max(AVERAGE_MIN, min(AVERAGE_MAX, 1 << (wanted.bit_length() - 1)))


def _places(sums: NDArray[np.uint32], bits: int) -> NDArray[np.int64]:
    """The places after which the upper bits of the hash are all 0: these depend on the whole window."""
    return np.flatnonzero(sums >> np.uint32(32 - bits) == 0).astype(np.int64) + 1


def _first(places: NDArray[np.int64], low: int, high: int) -> int | None:
    """The first of `places` from `low` on, before `high`."""
    index = int(np.searchsorted(places, low))
    return int(places[index]) if index < len(places) and places[index] < high else None
