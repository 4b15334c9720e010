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
from itertools import accumulate

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
# by size of n-grams, how many places before the end of a text there begins none
_CUT = np.array([(row, back) for row, size in enumerate(SIZES) for back in range(1, size)]).T[:, :, None]
_CUTS = [0, *accumulate(size - 1 for size in SIZES)]
FOUR, FOUR_BITS = 4, 16  # letters by which words are looked for, and bits of their hash
_FOUR_ROW, _FOUR_SHIFT = SIZES.index(FOUR), np.uint32(32 - FOUR_BITS)
_NO_FOURS = np.empty(0, np.uint16)
AT_ONCE = 32  # texts of some hundred bytes, of which everything fits into the cache of a core


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

    def vectors(self, folded: Sequence[bytes]) -> Rows:
        """The unit vector of each of some `folded` texts (texts, CELLS); zeros for one without n-grams."""
        parts = [self.hashed(folded[start : start + AT_ONCE])[0] for start in range(0, len(folded), AT_ONCE)]
        return np.concatenate(parts) if parts else np.empty((0, CELLS))

    def hashed(self, folded: Sequence[bytes]) -> tuple[Rows, NDArray[np.uint16]]:
        """The vectors of some texts, at most `AT_ONCE`, and the hash of the four letters from each place.

        Places are those of all texts behind one another: (places,), so that the last hashes of a text, of which letters
        are the next one's, are of nothing in particular. No text's vector depends on the others, to the last bit.
        """
        letters = self._letters.take(np.frombuffer(b"".join(folded), np.uint8))
        grams = np.empty((min(len(SIZES), max(0, len(letters) - SIZES[0] + 1)), len(letters)), np.uint32)
        # each n-gram's hash is that of the one before it without its last letter, times a step, and that letter
        hashes = letters
        for size in range(2, min(SIZES[-1], len(letters)) + 1):
            hashes = hashes[:-1] * _STEP
            hashes += letters[size - 1 :]
            if size in SIZES:
                np.multiply(hashes, _MIX, out=grams[size - SIZES[0], : len(hashes)])
        fours = (grams[_FOUR_ROW, : 1 - FOUR] >> _FOUR_SHIFT).astype(np.uint16) if len(grams) > _FOUR_ROW else _NO_FOURS
        grams >>= _SHIFT
        # cells of each text are counted apart, and beyond them all what is no n-gram of one text
        cells = 2 * CELLS * len(folded)
        if len(folded) > 1:
            ends = np.array(list(accumulate(map(len, folded))))
            grams += np.arange(0, cells, 2 * CELLS).astype(np.uint32).repeat(np.diff(ends, prepend=0))
            rows, back = _CUT if len(grams) == len(SIZES) else (column[: _CUTS[len(grams)]] for column in _CUT)
            # -1 is the last place of all, where none begins either
            grams[rows, np.maximum(ends - back, -1)] = cells
        else:
            for row, size in zip(grams, SIZES, strict=False):
                row[1 - size :] = cells
        counts = np.bincount(grams.ravel(), minlength=cells + 1)[:-1].reshape(-1, 2 * CELLS)
        signed = counts[:, :CELLS] - counts[:, CELLS:]
        signed += _GRAMS_MAX
        vectors: Rows = _ROOTS.take(signed, mode="clip")
        vectors *= np.array([[1 / max(1.0, math.sqrt(square))] for square in np.vecdot(vectors, vectors).tolist()])
        return vectors, fours

    def four(self, letters: bytes) -> int:
        """The hash that `hashed` gives four letters. Raises ValueError on more or fewer."""
        if len(letters) != FOUR:
            raise ValueError(f"{letters!r} has {len(letters)} letters, expected {FOUR}")
        return int(self.hashed([letters])[1][0])

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
