"""Sums of ciphertexts times numbers, for a whole layer at once: matrix products over residues, in NumPy. Exact.

A ciphertext times a number is each of its residues times that number, whatever the polynomial: SEAL does it one product
at a time, and a layer of 32 × 64 has 2,048. Cut into limbs so short that no sum passes 2^53, all of them are a few
products of matrices of doubles, which is what processors are fastest at (bench/homomorphic.py measures it).
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIMB_BITS = 30  # of residues: those of the smaller primes are one limb
EXACT_BITS = 53  # of a double
CHUNK = 2048  # residues of each input at once: what is computed of them stays in the cache
SHIFT_MAX = 20  # bits at once: the quotient of a shifted residue is exact to one unit


def weighted_sums(
    numbers: NDArray[np.int64], residues: NDArray[np.uint64], primes: Sequence[int]
) -> NDArray[np.uint64]:
    """Sums (outputs, polynomials, primes, coefficients) of residues (inputs, …) times integers (outputs, inputs).

    Integers have at most 62 bits. All residues are below their primes.
    """
    outputs, inputs = numbers.shape
    found = np.empty((outputs, *residues.shape[1:]), np.uint64)
    step = EXACT_BITS - LIMB_BITS - max(1, (inputs - 1).bit_length()) - 1
    shift = min(step, SHIFT_MAX)
    limbs = _limbs(numbers, shift)
    for place, prime in enumerate(primes):
        values = residues[:, :, place, :].reshape(inputs, -1)
        sums = np.empty((outputs, values.shape[1]), np.uint64)
        for start in range(0, values.shape[1], CHUNK):
            sums[:, start : start + CHUNK] = _sums(limbs, values[:, start : start + CHUNK], prime, shift)
        found[:, :, place, :] = sums.reshape(outputs, residues.shape[1], residues.shape[3])
    return found


def _sums(
    limbs: Sequence[NDArray[np.float64]], values: NDArray[np.uint64], prime: int, shift: int
) -> NDArray[np.uint64]:
    """Sums (outputs, columns) of the residues (inputs, columns) of one prime times integers in limbs."""
    pieces = [values & np.uint64((1 << LIMB_BITS) - 1)]
    if prime >> LIMB_BITS:
        pieces.append(values >> np.uint64(LIMB_BITS))
    total: NDArray[np.uint64] | None = None
    for piece in reversed(pieces):
        doubles = piece.astype(np.float64)
        sums: NDArray[np.uint64] | None = None
        for limb in reversed(limbs):
            part = _reduced(limb @ doubles, prime)
            sums = part if sums is None else _added(_shifted(sums, shift, prime), part, prime)
        if sums is None:
            raise ValueError("integers without limbs")
        if total is not None:
            half = LIMB_BITS // 2
            sums = _added(_shifted(_shifted(total, half, prime), LIMB_BITS - half, prime), sums, prime)
        total = sums
    if total is None:
        raise ValueError("residues without limbs")
    return total


def _limbs(numbers: NDArray[np.int64], bits: int) -> list[NDArray[np.float64]]:
    """Signed digits of integers in base 2^bits, least significant first, as doubles."""
    found, rest = [], numbers.copy()
    half = 1 << (bits - 1)
    while True:
        digit = ((rest + half) & ((1 << bits) - 1)) - half
        found.append(digit.astype(np.float64))
        rest = (rest - digit) >> bits
        if not rest.any():
            return found


def _reduced(values: NDArray[np.float64], prime: int) -> NDArray[np.uint64]:
    """Integers below 2^53 in size, reduced. Several times faster than dividing integers."""
    if prime >> EXACT_BITS:
        left = values.astype(np.int64)
        left += (left < 0) * np.int64(prime)
        return left.astype(np.uint64)
    # the quotient may be off by one; the products are exact all the same
    rest: NDArray[np.float64] = values - np.floor(values * (1 / prime)) * prime
    rest += (rest < 0) * float(prime)
    rest -= (rest >= prime) * float(prime)
    return rest.astype(np.uint64)


def _shifted(values: NDArray[np.uint64], bits: int, prime: int) -> NDArray[np.uint64]:
    """Residues times 2^bits, reduced: the quotient by doubles is right to one unit, which is then mended."""
    quotient = np.floor(values.astype(np.float64) * (2.0**bits / prime)).astype(np.uint64)
    with np.errstate(over="ignore"):
        left = ((values << np.uint64(bits)) - quotient * np.uint64(prime)).astype(np.int64)  # modulo 2^64: exact
    left += (left < 0) * np.int64(prime)
    left -= (left >= prime) * np.int64(prime)
    return left.astype(np.uint64)


def _added(one: NDArray[np.uint64], other: NDArray[np.uint64], prime: int) -> NDArray[np.uint64]:
    total = one + other  # below 2^61
    reduced: NDArray[np.uint64] = total - (total >= prime) * np.uint64(prime)
    return reduced


def read_residues(data: bytes, polynomials: int, primes: int, degree: int) -> NDArray[np.uint64]:
    """The residues (polynomials, primes, degree) at the end of a ciphertext's bytes."""
    count = polynomials * primes * degree
    return np.frombuffer(data, "<u8", count, len(data) - 8 * count).reshape(polynomials, primes, degree)


def with_residues(data: bytes, residues: NDArray[Any]) -> bytes:
    """A ciphertext's bytes with other residues at the end."""
    tail = residues.astype("<u8").tobytes()
    return data[: len(data) - len(tail)] + tail
