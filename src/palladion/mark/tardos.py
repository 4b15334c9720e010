"""Fingerprints of whole steps, for weights of few bits: symbols of a Tardos code, at places that only the owner knows.

Small moves of every weight, as `fingerprints` makes them, are outvoted where copies are mixed and rounded to the same
grid again, and drown where weights of few bits are rounded to another one. A symbol is a whole step or none, and
colluders can only choose among the symbols that they hold. Tardos, "Optimal probabilistic fingerprint codes", J. ACM
55(2), 2008, with the symmetric score of Škorić, Katzenbeisser and Celik (Designs, Codes and Cryptography 46(2), 2008).
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from palladion.mark.carriers import derive, sign_bits
from palladion.mark.match import Match
from palladion.mark.places import Place, Weights

GRAIN_MIN = 0.5  # steps in units of a place's scale: those of five bits and fewer; finer ones carry small moves better
SHARE = 1 / 3  # of the codes that the ownership mark moves: as many more as the small moves of a fingerprint cost
SYMBOLS_MAX = 4096  # of a place: a hundred of them name 29 colluders, and more is change and work for nothing
TESTED_MAX = 1 << 18  # symbols that are tested, in larger models those of the clearest places: half a minute for 10,000
BIAS_MIN = 1 / 800  # and at most 1 less that: rarer symbols get a say that costs the tail (eight colluders or so)

_LEVELS = 1 << 16  # biases are multiples of 1 / _LEVELS, so that a symbol drawn from 16 bits has exactly its bias
_SLOPES = np.geomspace(1e-2, 300, 120)  # of Chernoff's bound, over the score's deviation; any slope gives a bound
_BLOCK = 1 << 10  # symbols whose part in the bound is computed at a time
_BATCH = 1 << 16  # symbols of words in memory at a time: they stay in the processor's cache
_SPREAD_MIN = 1e-3  # of what is read at a place: in an exact copy of one recipient nothing else would be left

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Symbols:
    """Where in a place the symbols are (flat positions), how far a one moves the weight there, and how likely it is.

    `outwards` says how large the weight is, in the direction of its step. All of it is the owner's secret, and the same
    in all copies: a colluder who knew the biases would hide better.
    """

    name: str
    positions: NDArray[np.intp]
    steps: Floats
    biases: Floats
    outwards: Floats

    def word(self, key: bytes) -> NDArray[np.bool_]:
        """The symbols of the recipient with this fingerprint key (symbols,)."""
        return _drawn(word_key(key), self.name, len(self.positions)) < self.biases * _LEVELS

    def put(self, weights: Weights, key: bytes) -> None:
        """Move the weights (rows, columns) of the place, in place, by the recipient's symbols."""
        weights.reshape(-1)[self.positions] += (self.steps * self.word(key)).astype(weights.dtype)


def symbols_of(place: Place, key: bytes, *, amplitude: float) -> Symbols | None:
    """The symbols of a place by the owner's `key`, or None where its steps are too fine for them.

    There are fewer where the ownership mark is weaker. Costs a pass over the place's numbers.
    """
    if place.grain < GRAIN_MIN:
        return None
    count = min(SYMBOLS_MAX, int(SHARE * place.size * amplitude / place.grain))
    if count == 0:
        return None
    secret, weights = derive(key, "symbols", place.carrier_name), place.weights
    drawn = _integers(derive(secret, "positions"), 2 * SYMBOLS_MAX, "<u8") % np.uint64(weights.size)
    # in the order of drawing, the first of each
    positions = drawn[np.sort(np.unique(drawn, return_index=True)[1])[:count]].astype(np.intp)
    rows, there = positions // weights.shape[1], weights.reshape(-1)[positions]
    steps = 2.0 * np.unpackbits(sign_bits(derive(secret, "steps"), SYMBOLS_MAX))[: len(positions)] - 1
    # inwards where a step outwards might leave the grid
    loudness = np.sqrt(np.vecdot(weights, weights) / weights.shape[1])[rows]
    steps = np.where(np.abs(there) > loudness, -np.sign(there), steps)
    share = _integers(derive(secret, "biases"), SYMBOLS_MAX, "<u4")[: len(positions)] / 2**32
    least = math.asin(math.sqrt(BIAS_MIN))
    levels = np.rint(_LEVELS * np.sin(least + share * (math.pi / 2 - 2 * least)) ** 2)
    return Symbols(
        place.carrier_name,
        positions,
        steps * place.grain * place.scale[rows, 0],
        levels / _LEVELS,
        there * steps / float(np.abs(there).max() or 1),
    )


@dataclass(eq=False)
class Reading:
    """The symbols that a suspect shows, place by place; a function of suspect, original and biases, never of a word."""

    key: bytes
    amplitude: float
    _places: list[tuple[Symbols, Floats]] = field(default_factory=list)

    def add(self, found: Match) -> None:
        """Read the symbols of a matched place."""
        symbols = symbols_of(found.place, self.key, amplitude=self.amplitude)
        if symbols is None:
            return
        there = found.residual.reshape(-1)[symbols.positions]
        known = there != 0
        if np.count_nonzero(known) < 2:
            return
        moved = there * np.sign(symbols.steps)
        # how far a one moves a weight here, after whatever was done: the biases tell, as many as there are ones; and
        # noise makes the fit of scales draw all weights inwards, as many steps do
        (slope, drawn), *_ = np.linalg.lstsq(np.stack([symbols.biases, symbols.outwards], axis=1)[known], moved[known])
        observed = np.where(known, moved - slope * symbols.biases - drawn * symbols.outwards, 0)
        spread = float(np.square(observed).sum()) / np.count_nonzero(known)
        if slope > 0 and spread > 0:
            self._places.append((symbols, observed * slope / max(spread, (_SPREAD_MIN * slope) ** 2)))

    @property
    def empty(self) -> bool:
        """Whether there is nothing to test."""
        return not self._places

    def log10_ps(self, keys: Sequence[bytes]) -> Floats:
        """log10 of the p-value of the recipients with these fingerprint keys (keys,), not corrected for their number.

        Chernoff's bound on the scores of the innocent, given biases and what was observed.
        """
        places = self._clearest()
        observed = np.concatenate([item for _, item in places])
        biases = np.concatenate([symbols.biases for symbols, _ in places])
        tail = _Tail.of(biases, observed)
        secrets = [word_key(key) for key in keys]
        scores = np.full(len(keys), float(tail.zero.sum()))
        start = 0
        for symbols, item in places:
            there = slice(start, start + len(item))
            start = there.stop
            gains, levels = (tail.one - tail.zero)[there], (biases[there] * _LEVELS).astype(np.uint16)
            for batch in _batches(len(keys), len(item)):
                drawn = np.stack([_drawn(secret, symbols.name, len(item)) for secret in secrets[batch]])
                scores[batch] += (drawn < levels).astype(np.float64) @ gains
        return tail.log10_p(scores)

    def _clearest(self) -> list[tuple[Symbols, Floats]]:
        """The places that say most, as many as are tested: chosen without a look at any word."""
        ranked = sorted(self._places, key=lambda item: -float(np.square(item[1]).mean()))
        chosen: list[tuple[Symbols, Floats]] = []
        count = 0
        for symbols, observed in ranked:
            count += len(observed)
            if chosen and count > TESTED_MAX:
                break
            chosen.append((symbols, observed))
        return chosen


def _batches(count: int, length: int) -> Iterator[slice]:
    step = max(1, _BATCH // length)
    return (slice(first, first + step) for first in range(0, count, step))


def word_key(key: bytes) -> bytes:
    """What a recipient's symbols are drawn by, in all places; `key` is that of his fingerprint."""
    return derive(key, "symbols")


def _drawn(secret: bytes, place: str, count: int) -> NDArray[np.uint16]:
    # a nonce for each place spares a key for each, of which there would be a million for ten thousand recipients
    return _integers(secret, count, "<u2", sha256(place.encode()).digest()[:8])


def _integers(key: bytes, count: int, dtype: str, nonce: bytes = bytes(8)) -> NDArray[np.unsignedinteger]:
    stream = Cipher(AES256(key), CTR(nonce + bytes(8))).encryptor().update(bytes(count * np.dtype(dtype).itemsize))
    return np.frombuffer(stream, dtype)


@dataclass(frozen=True, eq=False)
class _Tail:
    """The distribution of an innocent's score, given biases and observation: a sum of independent two-valued terms."""

    one: Floats  # (symbols,) what a 1 adds
    zero: Floats
    slopes: Floats
    cumulants: Floats  # of the score, at the slopes

    @classmethod
    def of(cls, biases: Floats, observed: Floats) -> "_Tail":
        one = observed * np.sqrt((1 - biases) / biases)
        zero = -observed * np.sqrt(biases / (1 - biases))
        slopes = _SLOPES / float(np.linalg.norm(observed))
        ones, zeros = np.log(biases), np.log1p(-biases)
        cumulants = np.zeros(len(slopes))
        for first in range(0, len(biases), _BLOCK):
            there, tilts = slice(first, first + _BLOCK), slopes[:, None]
            cumulants += np.logaddexp(ones[there] + tilts * one[there], zeros[there] + tilts * zero[there]).sum(axis=1)
        return cls(one, zero, slopes, cumulants)

    def log10_p(self, scores: Floats) -> Floats:
        """log10 of an upper bound of the probability of a score at least as large, for each (scores,)."""
        bounds = np.array([(self.cumulants - self.slopes * score).min() for score in scores])
        return np.asarray(np.minimum(0.0, bounds / math.log(10)))
