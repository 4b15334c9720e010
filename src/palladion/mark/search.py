"""Who of thousands of recipients: correlations of a suspect's residuals with every fingerprint, at a bearable price.

Everybody is screened on a part of the weights, chosen by the owner's key, on which no fingerprint depends, with the
bins of his carrier (`NormalRanks`) in place of its numbers. Who could no longer be named is left out, and again after
half as many weights more; the rest is tested on all weights with the carrier itself. What a screen does cannot make a
p-value wrong: the price (Bonferroni) is paid for all recipients, and only the last statistic counts.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from palladion.mark.carriers import NORMALS_BLOCK, NormalRanks, NormalStream, derive
from palladion.mark.match import Match
from palladion.mark.weights import AMPLITUDE

HELD_MAX = 1 << 25  # numbers of the residuals that are kept in memory: 128 MiB
UNSCREENED_MAX = 1 << 31  # numbers of carriers that are made without a screen: some three seconds
FIRST = 1 << 20  # numbers on which everybody is screened
GROWTH = 1.5  # how many times as many numbers the next screen has
STAGE_NUMBERS = 1 << 34  # numbers of carriers that each further screen may make: some ten seconds
MISSED = 3.5  # deviations: one screen loses a recipient who would be named just so once in 4,000 cases
CONFIRMED_MAX = 32  # recipients that are tested on all weights where these are more than are held in memory

_MIDDLE = 127.5  # of the bins
_SPREAD = math.sqrt((256**2 - 1) / 12)  # standard deviation of the bins
_LIKENESS = math.sqrt(3 / math.pi)  # correlation of a normal number with its rank


@dataclass(frozen=True, eq=False)
class _Piece:
    """Residuals of a place from number `start` on, over their variance."""

    place: str
    start: int
    numbers: NDArray[np.float32]


@dataclass(eq=False)
class Residuals:
    """The residuals of a suspect's tensors, each in units of its own noise; of a large model a part is kept.

    `expected` is how many numbers there will be about; `squares` is the sum over all, also over those not kept. `seed`
    says what is kept, and what is looked at first: a secret that no fingerprint depends on, so that nobody can ruin
    just that.
    """

    seed: bytes
    expected: int
    squares: float = 0.0
    complete: bool = True
    _pieces: list[_Piece] = field(default_factory=list)

    def add(self, found: Match) -> None:
        """Count a tensor in."""
        variance = variance_of(found)
        self.squares += found.squares / variance**2
        share = min(1.0, HELD_MAX / max(1, self.expected))
        chance = self._random(found.place.carrier_name)
        flat = found.residual.reshape(-1)
        for start in range(0, flat.size, NORMALS_BLOCK):
            if share < 1 and chance.random() >= share:
                self.complete = False
            else:
                numbers = flat[start : start + NORMALS_BLOCK] / np.float32(variance)
                self._pieces.append(_Piece(found.place.carrier_name, start, numbers))

    def candidates(self, keys: Sequence[bytes], statistic: float) -> list[int]:
        """Which of `keys` may reach `statistic` on all weights; all of them where that is no trouble to test."""
        alive = np.arange(len(keys))
        held = sum(len(piece.numbers) for piece in self._pieces)
        if len(keys) * held <= UNSCREENED_MAX and self.complete:
            return [int(index) for index in alive]
        products, squares = np.zeros(len(keys)), 0.0
        for stage in self._stages():
            numbers = sum(len(piece.numbers) for piece in stage)
            if squares:
                alive = _best(alive, products, STAGE_NUMBERS // numbers)
            for piece in stage:
                products[alive] += _screened(piece, [keys[int(index)] for index in alive])
                squares += float(np.vdot(piece.numbers, piece.numbers))
            if squares <= 0:
                continue
            seen = _LIKENESS * math.sqrt(squares / self.squares)
            least = seen * statistic - MISSED * math.sqrt(max(0.0, 1 - seen**2))
            alive = alive[products[alive] / math.sqrt(squares) >= least]
        return sorted(int(index) for index in (alive if self.complete else _best(alive, products, CONFIRMED_MAX)))

    def products(self, keys: Sequence[bytes]) -> NDArray[np.float64]:
        """The products of all residuals with the carriers of `keys` (keys,). Only where the residuals are complete."""
        found = np.zeros(len(keys))
        for at, key in enumerate(keys):
            place, stream = "", None
            for piece in self._pieces:  # those of a place follow each other
                if stream is None or piece.place != place:
                    place, stream = piece.place, carrier_stream(key, piece.place)
                found[at] += _product(stream, piece.numbers)
        return found

    def _stages(self) -> Iterator[list[_Piece]]:
        stage: list[_Piece] = []
        seen = numbers = 0
        for index in self._random("order").permutation(len(self._pieces)):
            stage.append(self._pieces[index])
            numbers += len(stage[-1].numbers)
            if numbers >= max(FIRST, (GROWTH - 1) * seen):
                yield stage
                seen, numbers, stage = seen + numbers, 0, []
        if stage:
            yield stage

    def _random(self, context: str) -> "np.random.Generator":
        return np.random.default_rng(np.frombuffer(derive(self.seed, "search", context), np.uint32))


def variance_of(found: Match) -> float:
    """The noise in a tensor's residuals, but no less than the mark itself has.

    A tensor that is the unmarked one must not count for everything.
    """
    return max(found.variance, AMPLITUDE**2)


def products_of(found: Match, keys: Sequence[bytes]) -> NDArray[np.float64]:
    """The products of one tensor's residuals, over their variance, with the carriers of `keys` (keys,)."""
    flat = found.residual.reshape(-1)
    sums = [_product(carrier_stream(key, found.place.carrier_name), flat) for key in keys]
    return np.array(sums) / variance_of(found)


def carrier_stream(key: bytes, place: str) -> NormalStream:
    """The carrier of one recipient in one place, by the key of his copy."""
    return NormalStream(derive(key, "tensor", place))


def _product(stream: NormalStream, numbers: NDArray[np.float32]) -> float:
    carrier = np.empty(min(len(numbers), NORMALS_BLOCK), np.float32)
    total = 0.0
    for start in range(0, len(numbers), NORMALS_BLOCK):
        block = numbers[start : start + NORMALS_BLOCK]
        stream.fill(carrier[: len(block)])
        total += float(np.dot(carrier[: len(block)], block))
    return total


def _screened(piece: _Piece, keys: Sequence[bytes]) -> NDArray[np.float64]:
    """The products of a piece with the bins of every key's carrier (keys,), in units of their deviation."""
    ranks, count = NormalRanks(), len(piece.numbers)
    middle = _MIDDLE * float(piece.numbers.sum(dtype=np.float64))
    carrier = np.empty(count, np.float32)
    products = np.empty(len(keys))
    for at, key in enumerate(keys):
        carrier[:] = ranks.read(derive(key, "tensor", piece.place), piece.start, count)
        products[at] = np.dot(carrier, piece.numbers)
    return (products - middle) / _SPREAD


def _best(alive: NDArray[np.intp], products: NDArray[np.float64], count: int) -> NDArray[np.intp]:
    if len(alive) <= count:
        return alive
    return np.sort(alive[np.argsort(-products[alive], kind="stable")[:count]])
