"""Which template a text was made from: MinHash of the word shingles at its beginning and end.

Programs fill templates: instructions stand before or after what changes. Two texts of one template agree in a share of
the numbers of their signatures that estimates the share of shingles they have in common (Broder, "On the Resemblance
and Containment of Documents", 1997).
"""

from collections.abc import Sequence
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

Signatures = NDArray[np.uint16]

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


def signatures(folded: Sequence[bytes]) -> Signatures:
    """The signatures (texts, SIGNATURE) of texts that are `ngrams.folded`."""
    hashes: list[int] = []
    starts: list[int] = []  # of each text's shingles, and behind these, where shingles are of two texts
    for text in folded:
        words = text[:_REACH].split()[:WORDS]
        if len(text) > _REACH:
            words += text[-_REACH:].split()[-WORDS:]
        if len(words) < SHINGLE:
            words = [b" ".join(words)] * SHINGLE
        starts.append(len(hashes))
        hashes += map(crc32, words)
        starts.append(len(hashes) - SHINGLE + 1)
    if not starts:
        return np.empty((0, SIGNATURE), np.uint16)
    words_hashed = np.array([*hashes, 0], np.uint64)  # one more, because the last shingles end at a place as well
    shingles = words_hashed[: 1 - SHINGLE].copy()
    for offset in range(1, SHINGLE):
        shingles *= _STEP
        shingles += words_hashed[offset : len(words_hashed) - SHINGLE + 1 + offset]
    least = np.minimum.reduceat(_FACTORS * shingles, starts, axis=1)[:, ::2]
    return np.ascontiguousarray((least >> _SHIFT).T.astype(np.uint16))


def likeness(rings: NDArray[np.uint16], seen: Sequence[int], others: Signatures) -> list[float]:
    """The largest share of numbers that each of `others` (n, SIGNATURE) has in common with one of its ring.

    `rings` (n, ring, SIGNATURE), of each of which the first `seen` count; of none, 0.
    """
    # eight comparisons lie in eight bytes, of which those that are not zero are counted
    alike = np.bitwise_count((rings == others[:, None, :]).view(np.uint64))
    common = alike[:, :, 0] + alike[:, :, 1]
    if min(seen) < rings.shape[1]:
        common[np.array(seen)[:, None] <= np.arange(rings.shape[1])] = 0
    return [most / SIGNATURE for most in np.maximum.reduce(common, axis=1).tolist()]
