"""Texts as vectors: how often their character n-grams occur, hashed with signs into a fixed number of cells.

Signed hashing is a sparse random projection (Weinberger et al., "Feature Hashing for Large Scale Multitask Learning",
ICML 2009): inner products stay what they were, on average. The hash is keyed, so that nobody can construct a text whose
n-grams cancel out. However long a text is, at most `LOOKED_BYTES` of it are looked at.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from palladion.watch.rows import Rows

CELLS_BITS = 10
CELLS = 1 << CELLS_BITS  # 2,048 took twice the file and a quarter more time, and separated tasks no better
SIZES = (3, 4, 5)  # characters in an n-gram: shorter ones hardly tell languages apart, longer ones hardly come twice
LOOKED_BYTES = 4096  # of a text: 98 % of prompts are shorter, and a prompt of 10 MB costs no more than one of these
_END_BYTES = 1536  # of its beginning, and of its end, where instructions stand
_MIDDLES = 2  # parts between them, at places that nobody outside knows
_MIDDLE_BYTES = (LOOKED_BYTES - 2 * _END_BYTES) // _MIDDLES
SALT_MAX = 2**53  # a whole number that a float64 holds exactly: calibrations are files of those
# letters without case, digits all alike, white space all alike: a client is not new because its counter went on
_FOLDED = bytes(
    byte + 32 if 65 <= byte <= 90 else 48 if 48 <= byte <= 57 else 32 if byte in b"\t\n\v\f\r" else byte
    for byte in range(256)
)
_GRAMS_MAX = len(SIZES) * LOOKED_BYTES
_COUNTS = np.arange(-_GRAMS_MAX, _GRAMS_MAX + 1)
# square roots: an n-gram that comes a hundred times says little more than one that comes ten times
_ROOTS = np.copysign(np.sqrt(np.abs(_COUNTS)), _COUNTS)
_STEP, _MIX = np.uint32(0x9E3779B1), np.uint32(0x85EBCA77)  # odd, with bits well spread
_SHIFT = np.uint32(32 - CELLS_BITS - 1)  # one bit more: the sign


@dataclass(frozen=True)
class NgramHash:
    """The keyed hash of n-grams. `salt` from 0 to `SALT_MAX`; secret."""

    salt: int

    def looked_at(self, text: str) -> bytes:
        """The part of a text that is looked at, in UTF-8."""
        if len(text) <= LOOKED_BYTES:
            data = text.encode(errors="surrogatepass")
            if len(data) <= LOOKED_BYTES:
                return data
        return self._parts(text)

    def vector(self, folded: bytes) -> Rows:
        """The unit vector (CELLS,) of a `folded` text; zeros for one without n-grams."""
        letters = self._letters.take(np.frombuffer(folded, np.uint8))
        if len(letters) < SIZES[0]:
            return np.zeros(CELLS)
        # each n-gram's hash is that of the one before it without its last letter, times a step, and that letter
        hashes, grams = letters, []
        for size in range(2, min(SIZES[-1], len(letters)) + 1):
            hashes = hashes[:-1] * _STEP
            hashes += letters[size - 1 :]
            if size in SIZES:
                grams.append(hashes)
        mixed = np.concatenate(grams)
        mixed *= _MIX
        mixed >>= _SHIFT
        counts = np.bincount(mixed, minlength=2 * CELLS)
        signed = counts[:CELLS]
        signed -= counts[CELLS:]
        signed += _GRAMS_MAX
        vector: Rows = _ROOTS.take(signed, mode="clip")
        vector *= 1 / max(1.0, math.sqrt(vector.dot(vector)))
        return vector

    def vectors(self, folded: Sequence[bytes]) -> Rows:
        """Those of several texts (texts, CELLS)."""
        found = np.empty((len(folded), CELLS))
        for row, data in zip(found, folded, strict=True):
            row[:] = self.vector(data)
        return found

    def _parts(self, text: str) -> bytes:
        """Beginning, end, and parts between them. No more of the text is touched than is looked at."""
        inside = len(text) - 2 * _END_BYTES
        starts = [
            _END_BYTES + (self._places[number] * (len(text) + 1) % 2**32) * max(0, inside - _MIDDLE_BYTES) // 2**32
            for number in range(_MIDDLES)
        ]
        parts = [text[:_END_BYTES], *(text[start : start + _MIDDLE_BYTES] for start in starts), text[-_END_BYTES:]]
        # a character takes up to four bytes
        limits = [_END_BYTES, *[_MIDDLE_BYTES] * _MIDDLES, _END_BYTES]
        encoded = [part.encode(errors="surrogatepass") for part in parts]
        last = len(encoded) - 1
        return b"".join(
            data[-limit:] if place == last else data[:limit]
            for place, (data, limit) in enumerate(zip(encoded, limits, strict=True))
        )

    @cached_property
    def _letters(self) -> NDArray[np.uint32]:
        """A number for each byte (256,). Of 32 bits, because arithmetic on 64 takes twice as long."""
        return np.array([_keyed(self.salt, byte) % 2**32 | 1 for byte in range(256)], np.uint32)

    @cached_property
    def _places(self) -> list[int]:
        return [_keyed(self.salt, 256 + number) | 1 for number in range(_MIDDLES)]


def folded(looked: bytes) -> bytes:
    """A text without what does not tell texts apart: case, which digits, which white space."""
    return looked.translate(_FOLDED)


def _keyed(salt: int, number: int) -> int:
    digest = blake2b(number.to_bytes(4, "little"), key=salt.to_bytes(8, "little"), digest_size=8).digest()
    return int.from_bytes(digest, "little")
