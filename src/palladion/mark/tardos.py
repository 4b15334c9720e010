"""Fingerprints of whole symbols, for copies that can hold nothing finer: a Tardos code, and integers that carry it.

Where copies are mixed and rounded to the same grid again, the small moves of `fingerprints` are outvoted; a symbol of a
code word is not, because colluders can only choose among those that they hold. Tardos, "Optimal probabilistic
fingerprint codes", J. ACM 55(2), 2008, with the symmetric score of Škorić, Katzenbeisser and Celik (Designs, Codes and
Cryptography 46(2), 2008). A symbol may be a bit of a choice among trigger answers or key versions as well.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

from palladion.mark.carriers import derive
from palladion.mark.fingerprints import Accusation
from palladion.mark.stats import best_of

SCHEME = "tardos-1"
LENGTH_MAX = 1 << 24  # symbols: enough for 200 colluders, and a code word takes 32 MiB to make
CUTOFF = 100  # biases stay 1 / (CUTOFF c) away from 0 and 1: nearer ones give rare symbols a say that costs the tail
MARGIN = 3.0  # deviations by which a colluder's score may fall short of its mean and still be named

_LEVELS = 1 << 16  # biases are multiples of 1 / _LEVELS, so that a symbol drawn from 16 bits has exactly its bias
_SLOPES = np.geomspace(1e-3, 30, 200)  # of Chernoff's bound, in units of 1 / sqrt(length); any slope gives a bound
_BLOCK = 1 << 10  # symbols whose part in the bound is computed at a time
_BATCH = 1 << 22  # symbols of code words in memory at a time


@dataclass(frozen=True)
class TardosCode:
    """A code of `length` symbols against `colluders`, all of it from a secret `key` of 32 bytes."""

    key: bytes
    length: int
    colluders: int

    def __post_init__(self) -> None:
        if not 1 <= self.length <= LENGTH_MAX or not 1 <= self.colluders <= _LEVELS // CUTOFF:
            raise ValueError(f"got {self.length} symbols against {self.colluders} colluders")

    @cached_property
    def biases(self) -> NDArray[np.float64]:
        """How likely a one is for each symbol (length,): secret, because a colluder who knew them would hide better."""
        share = _integers(derive(self.key, "tardos", "biases"), self.length, "<u4") / 2**32
        least = math.asin(math.sqrt(1 / (CUTOFF * self.colluders)))
        levels = np.rint(_LEVELS * np.sin(least + share * (math.pi / 2 - 2 * least)) ** 2)
        return np.asarray(np.clip(levels, 1, _LEVELS - 1) / _LEVELS)

    def word(self, recipient: str) -> NDArray[np.uint8]:
        """The symbols of a recipient, 0 or 1 (length,)."""
        drawn = _integers(derive(self.key, "tardos", "word", recipient), self.length, "<u2")
        return np.asarray(drawn < self.biases * _LEVELS, np.uint8)


def length_for(colluders: int, *, recipients: int, log10_p: float = -9.0) -> int:
    """How many symbols it takes to name every one of so many colluders, whatever they do with their symbols.

    (pi c / 2)^2 (sqrt(2 ln(recipients / p)) + MARGIN)^2: their scores have a mean of 2 length / (pi c), and those of
    the innocent a deviation of sqrt(length).
    """
    statistic = math.sqrt(2 * math.log(10) * (math.log10(recipients) - log10_p))
    return math.ceil((math.pi * colluders / 2 * (statistic + MARGIN)) ** 2)


def accuse(
    code: TardosCode, observed: NDArray[np.floating[Any]], recipients: Sequence[str], *, issued: int | None = None
) -> list[Accusation]:
    """Test the symbols of a copy for every recipient's code word, strongest first.

    `observed` (length,) is 1 where a one was read, -1 for a zero, in between what is unsure, and 0 for nothing: a
    function of the copy, never of a code word. `issued` is how many recipients were ever given a word, where that is
    more than are tested. log10 p is Chernoff's bound on the scores of the innocent, given biases and observation, and
    pays for all of them.
    """
    tests = len(recipients) if issued is None else issued
    if observed.shape != (code.length,) or not np.isfinite(observed).all():
        raise ValueError(f"got observations of shape {observed.shape}, expected {code.length} finite numbers")
    if tests < len(recipients):
        raise ValueError(f"{tests} recipients were issued a code word, got {len(recipients)} to test")
    tail = _Tail.of(code.biases, observed.astype(np.float64))
    scores = _scores(code, recipients, tail)
    log10_ps = tail.log10_p(scores)
    found = [
        Accusation(name, best_of([float(log10_p)], tests), float(score) / tail.deviation if tail.deviation else 0.0)
        for name, score, log10_p in zip(recipients, scores, log10_ps, strict=True)
    ]
    return sorted(found, key=lambda item: item.log10_p)


def embed(codes: NDArray[np.integer[Any]], word: NDArray[np.uint8], key: bytes, *, positions: int) -> NDArray[Any]:
    """Quantised weights with a code word in them: at so many places, the same for all recipients, one step or none.

    `codes` are integers of any shape, as they are stored; they stay within their smallest and largest. Where the symbol
    is 1 a code moves by one, up or down as `key`, the owner's, says. Each symbol is repeated over its share of places.
    """
    carrier = _Places.of(codes, key, positions, len(word))
    flat = codes.reshape(-1).copy()
    flat[carrier.positions] += (carrier.steps * word[carrier.symbols]).astype(codes.dtype)
    return flat.reshape(codes.shape)


def read(
    original: NDArray[np.integer[Any]], suspect: NDArray[Any], key: bytes, *, positions: int, length: int
) -> NDArray[np.float64]:
    """The symbols (length,) in a copy of `original`, from -1 (a zero) to 1 (a one), for `accuse`.

    `suspect` has the shape of `original`, and is in its steps; fractions are fine, and what is further off than a step
    can make it counts as much as a step.
    """
    if suspect.shape != original.shape:
        raise ValueError(f"got codes of shape {suspect.shape}, expected {original.shape}")
    carrier = _Places.of(original, key, positions, length)
    moved = suspect.reshape(-1)[carrier.positions].astype(np.float64) - original.reshape(-1)[carrier.positions]
    votes = np.clip(2 * np.nan_to_num(moved) * carrier.steps - 1, -1, 1)
    sums = np.bincount(carrier.symbols, votes, minlength=length)
    return np.asarray(sums / np.maximum(1, np.bincount(carrier.symbols, minlength=length)))


@dataclass(frozen=True, eq=False)
class _Places:
    """Where in a tensor symbols are (flat positions), which one stands there, and which step a one makes there."""

    positions: NDArray[np.intp]
    symbols: NDArray[np.intp]
    steps: NDArray[np.int64]

    @classmethod
    def of(cls, codes: NDArray[np.integer[Any]], key: bytes, count: int, length: int) -> "_Places":
        if not length <= count <= codes.size // 2:
            raise ValueError(f"got {count} positions, expected {length}, the symbols, to {codes.size // 2}")
        drawn = _integers(derive(key, "tardos", "positions"), 2 * count, "<u8") % np.uint64(codes.size)
        # in the order of drawing, the first of each: half as many again as needed may be equal at worst
        order = np.sort(np.unique(drawn, return_index=True)[1])[:count]
        positions = drawn[order].astype(np.intp)
        there = codes.reshape(-1)[positions]
        steps = 2 * (_integers(derive(key, "tardos", "steps"), len(positions), "u1") & 1).astype(np.int64) - 1
        # inwards at the ends of the grid
        steps[there == codes.max()] = -1
        steps[there == codes.min()] = 1
        return cls(positions, np.arange(len(positions)) % length, steps)


@dataclass(frozen=True, eq=False)
class _Tail:
    """The distribution of an innocent's score, given biases and observation: a sum of independent two-valued terms."""

    one: NDArray[np.float64]  # (length,) what a 1 adds
    zero: NDArray[np.float64]
    slopes: NDArray[np.float64]
    cumulants: NDArray[np.float64]  # of the score, at the slopes
    deviation: float

    @classmethod
    def of(cls, biases: NDArray[np.float64], observed: NDArray[np.float64]) -> "_Tail":
        one = observed * np.sqrt((1 - biases) / biases)
        zero = -observed * np.sqrt(biases / (1 - biases))
        slopes = _SLOPES / math.sqrt(len(biases))
        ones, zeros = np.log(biases), np.log1p(-biases)
        cumulants = np.zeros(len(slopes))
        for first in range(0, len(biases), _BLOCK):
            there, tilts = slice(first, first + _BLOCK), slopes[:, None]
            cumulants += np.logaddexp(ones[there] + tilts * one[there], zeros[there] + tilts * zero[there]).sum(axis=1)
        return cls(one, zero, slopes, cumulants, float(np.linalg.norm(observed)))

    def log10_p(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """log10 of an upper bound of the probability of a score at least as large, for each (scores,)."""
        bounds = np.array([(self.cumulants - self.slopes * score).min() for score in scores])
        return np.asarray(np.minimum(0.0, bounds / math.log(10)))


def _scores(code: TardosCode, recipients: Sequence[str], tail: _Tail) -> NDArray[np.float64]:
    difference, step = tail.one - tail.zero, max(1, _BATCH // code.length)
    scores = np.empty(len(recipients))
    for first in range(0, len(recipients), step):
        words = np.stack([code.word(name) for name in recipients[first : first + step]])
        scores[first : first + step] = words @ difference + tail.zero.sum()
    return scores


def _integers(key: bytes, count: int, dtype: str) -> NDArray[Any]:
    # a key is used for one array only, so the counter may start at 0
    stream = Cipher(AES256(key), CTR(bytes(16))).encryptor().update(bytes(count * np.dtype(dtype).itemsize))
    return np.frombuffer(stream, dtype)
