"""Which template a text was made from: MinHash of the word shingles at its beginning and end.

Programs fill templates: instructions stand before or after what changes. Two texts of one template agree in a share of
the numbers of their signatures that estimates the share of shingles they have in common (Broder, "On the Resemblance
and Containment of Documents", 1997).
"""

from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Signature = NDArray[np.uint16]

SIGNATURE = 16  # numbers: a share is known to a tenth or so, which tells a template from none
WORDS = 16  # looked at from either end
_REACH = WORDS * 10  # bytes looked at for these words: an English word and its space take 6
SHINGLE = 3  # words
_STEP = np.uint64(0x9E3779B97F4A7C15)
# odd factors, one for each number of a signature; as good as secret ones, because templates cost nothing to change
_FACTORS = (
    np.arange(1, SIGNATURE + 1, dtype=np.uint64) * np.uint64(0xD1B54A32D192ED03) * np.uint64(0x2545F4914F6CDD1D)
) | np.uint64(1)
_FACTORS = _FACTORS[:, None]
_SHIFT = np.uint64(48)


def signature(folded: bytes) -> Signature:
    """The signature (SIGNATURE,) of a text that is `ngrams.folded`."""
    words = folded[:_REACH].split()[:WORDS]
    if len(folded) > _REACH:
        words += folded[-_REACH:].split()[-WORDS:]
    if len(words) < SHINGLE:
        words = [b" ".join(words)] * SHINGLE
    hashes = np.array([crc32(word) for word in words], np.uint64)
    shingles = hashes[: 1 - SHINGLE].copy()
    for offset in range(1, SHINGLE):
        shingles *= _STEP
        shingles += hashes[offset : len(words) - SHINGLE + 1 + offset]
    least = np.minimum.reduce(_FACTORS * shingles, axis=1)
    least >>= _SHIFT
    found: Signature = least.astype(np.uint16)
    return found


def likeness(signatures: NDArray[np.uint16], other: Signature) -> float:
    """The largest share of numbers that `other` has in common with one of `signatures` (n, SIGNATURE); n > 0."""
    return int(np.add.reduce(signatures == other, axis=1).max()) / SIGNATURE
