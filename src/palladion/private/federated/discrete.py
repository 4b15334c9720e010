"""Exact discrete Gaussians, many at once: P(x) in proportion to exp(-x²/2σ²) over the whole numbers.

Canonne, Kamath and Steinke (NeurIPS 2020), algorithms 1 to 3, by rejection, which needs coins of the chance exp(-x) for
fractions x. A coin is thrown with 53 bits against exp(-x) in doubles; where these are so near that an error of the
doubles could decide, more bits are drawn and exp(-x) is computed to as many digits, until nothing is in doubt. So no
rounding gets into the distribution, and there are no gaps to be told by (Mironov, CCS 2012).
"""

import decimal
import hashlib
import secrets
from collections.abc import Callable
from fractions import Fraction
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from palladion.private.dp.randomness import Randomness

Words: TypeAlias = Callable[[int], NDArray[np.uint64]]  # so many random words of 64 bits

BITS = 53
DOUBT = 64.0  # in 2^-53: exp(-x) in doubles is off by less than ten of these, for all x from 0 on
DEVIATION_MAX = 2.0**40  # so that squares of fractions and words stay whole
BLOCK = 1 << 17  # candidates at once: what fits the cache


def words_of(randomness: Randomness) -> Words:
    """AES-256 in counter mode, under a key of the operating system's, or of a seed where `randomness` has one."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    if randomness.kind == "cryptographic":
        key = secrets.token_bytes(32)
    else:
        key = hashlib.sha256(randomness.gaussian((8,)).tobytes()).digest()
    stream = Cipher(algorithms.AES256(key), modes.CTR(bytes(16))).encryptor()
    return lambda count: np.frombuffer(stream.update(bytes(8 * count)), dtype="<u8")


def discrete_gaussian(deviation: float, count: int, words: Words) -> NDArray[np.int64]:
    """Independent numbers (count,) of a deviation in whole steps. Raises ValueError for one that cannot be."""
    if not 0 < deviation <= DEVIATION_MAX:
        raise ValueError(f"a deviation of {deviation} was got, above 0 and up to {DEVIATION_MAX:g} was expected")
    found = np.empty(count, np.int64)
    filled = 0
    while filled < count:
        some = _accepted(deviation, min(BLOCK, 64 + (count - filled) * 5 // 2), words)
        taken = some[: count - filled]
        found[filled : filled + len(taken)] = taken
        filled += len(taken)
    return found


def _accepted(deviation: float, candidates: int, words: Words) -> NDArray[np.int64]:
    """Algorithm 3: discrete Laplace numbers, of which each is kept with a chance of its own."""
    scale = int(deviation) + 1
    drawn = _laplace(scale, candidates, words)
    exact = Fraction(deviation)
    centre = exact**2 / scale
    exponents = (np.abs(drawn) - float(centre)) ** 2 / (2 * deviation**2)
    kept = _coins(exponents, lambda at: (abs(int(drawn[at])) - centre) ** 2 / (2 * exact**2), words(len(drawn)), words)
    return drawn[kept]


def _laplace(scale: int, candidates: int, words: Words) -> NDArray[np.int64]:
    """Algorithm 2: P(x) in proportion to exp(-|x|/scale)."""
    drawn = words(candidates)
    # what is beyond the last whole multiple would make small remainders likelier
    low = (drawn[drawn <= np.uint64(2**64 // scale * scale - 1)] % np.uint64(scale)).astype(np.int64)
    thrown = words(len(low))
    kept = _coins(low / scale, lambda at: Fraction(int(low[at]), scale), thrown, words)
    sizes, negative = low[kept], (thrown[kept] & np.uint64(1)).astype(bool)  # a coin looks at the upper bits
    going = np.arange(len(sizes))
    while len(going):
        going = going[_coins(np.ones(len(going)), lambda _at: Fraction(1), words(len(going)), words)]
        sizes[going] += scale
    once = ~(negative & (sizes == 0))  # nought has one sign
    return np.asarray(np.where(negative, -sizes, sizes)[once])


def _coins(
    exponents: NDArray[np.float64], exact: Callable[[int], Fraction], thrown: NDArray[np.uint64], words: Words
) -> NDArray[np.bool_]:
    """Which come up, each with the chance exp(-exponent); `exact` gives an exponent by its place."""
    numbers = thrown >> np.uint64(64 - BITS)
    chances = np.exp(-exponents) * 2.0**BITS
    distance = numbers.astype(np.float64) - chances
    heads = np.asarray(distance < 0)
    for at in np.flatnonzero(np.abs(distance) < DOUBT):
        heads[at] = _settled(int(numbers[at]), exact(int(at)), words)
    return heads


def _settled(number: int, exponent: Fraction, words: Words) -> bool:
    """Whether a uniform number that begins with these bits is below exp(-exponent)."""
    bits = BITS
    while True:
        bits, number = bits + 64, number << 64 | int(words(1)[0])
        with decimal.localcontext() as context:
            context.prec, context.Emin = bits // 3 + 20, decimal.MIN_EMIN
            chance = (-decimal.Decimal(exponent.numerator) / exponent.denominator).exp()
            edge = chance * 2**bits
            # the quotient and the power are off in their last digits: by far less than a whole step of these bits
            if number + 2 < edge:
                return True
            if number - 1 > edge:
                return False
