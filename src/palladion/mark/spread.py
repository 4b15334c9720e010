"""Spreads the chips of a payload over the weights of a tensor, and gathers them again; what a chip says is `codes`'.

Weight i of a tensor carries chip `order[i % PERIOD]`, in an order of the tensor's own. The period is prime, so that
every chip is in all rows and in all columns: whoever ruins some of them takes a little of every chip.
"""

import numpy as np
from numpy.typing import NDArray

from palladion.mark.carriers import derive, sign_bits, signs_of
from palladion.mark.codes import CHIPS, encode

PERIOD = 691  # the next prime; chips beyond those of the code are always 1
BLOCK_NUMBERS = 12 * 8 * PERIOD  # whole periods and whole bytes of signs; their products stay in the cache

Floats = NDArray[np.float32]
Chips = NDArray[np.float64]


def chips_of(payload: bytes | None) -> Chips:
    """The chips (PERIOD,) of a payload: -1 or 1, and all of them 1 for none."""
    chips = np.ones(PERIOD)
    if payload is not None:
        chips[:CHIPS] = encode(payload)
    return chips


def carrier_bits(key: bytes, chips: Chips, count: int) -> NDArray[np.uint8]:
    """The signs of `count` weights of the tensor whose key this is, a bit each, most significant first; 1 is up."""
    bits = sign_bits(key, count)
    if (chips > 0).all():
        return bits
    turned = np.packbits(np.tile(chips[_order(key)] < 0, 8))  # (PERIOD,) bytes, eight periods of bits
    whole = len(bits) // PERIOD * PERIOD
    return np.concatenate(
        [(bits[:whole].reshape(-1, PERIOD) ^ turned).reshape(-1), bits[whole:] ^ turned[: len(bits) - whole]]
    )


def gather(key: bytes, residual: Floats) -> Chips:
    """For each chip (PERIOD,), the product of `residual` with the signs that its weights have where the chip is 1."""
    gathering = Gathering(key, residual.size)
    flat = residual.reshape(-1)
    for start in range(0, flat.size, BLOCK_NUMBERS):
        gathering.add(flat[start : start + BLOCK_NUMBERS])
    return gathering.chips


class Gathering:
    """`gather` of a residual that comes in pieces, in the order of its weights."""

    def __init__(self, key: bytes, count: int) -> None:
        self._bits = sign_bits(key, count)
        self._order = _order(key)
        self._sums = np.zeros(PERIOD)
        self._start = 0

    def add(self, piece: Floats) -> None:
        """Count the next weights in; they are small enough to stay in the processor's cache."""
        start, count = self._start, piece.size
        self._start += count
        skipped = start % 8
        products = signs_of(self._bits[start // 8 : (start + count + 7) // 8], skipped + count)[skipped:]
        products *= piece.reshape(-1)
        # up to a whole period, whole ones, and the rest
        first = start % PERIOD
        head = min(count, -first % PERIOD)
        whole = (count - head) // PERIOD * PERIOD
        self._sums[first : first + head] += products[:head]
        self._sums += products[head : head + whole].reshape(-1, PERIOD).sum(axis=0)
        self._sums[: count - head - whole] += products[head + whole :]

    @property
    def chips(self) -> Chips:
        """The products with each chip (PERIOD,)."""
        gathered = np.empty(PERIOD)
        gathered[self._order] = self._sums
        return gathered


def _order(key: bytes) -> NDArray[np.intp]:
    """The chips (PERIOD,) in the order in which a tensor's weights carry them."""
    draws = sign_bits(derive(key, "order"), 64 * PERIOD).view("<u8")
    return np.argsort(draws, kind="stable")
