"""Sums over residues: the same as with Python's own integers."""

import numpy as np
import pytest

from palladion.private.homomorphic.residues import read_residues, weighted_sums, with_residues

PRIMES = (1152921504606830593, 1073479681)  # of 60 and of 30 bits


@pytest.mark.parametrize("bits", [1, 12, 33, 61])
@pytest.mark.parametrize("inputs", [1, 7, 300])
def test_sums_are_exact(bits: int, inputs: int) -> None:
    rng = np.random.default_rng(bits + inputs)
    numbers = rng.integers(-(2**bits) + 1, 2**bits, (2, inputs), dtype=np.int64)
    residues = np.stack([rng.integers(0, prime, (inputs, 2, 4), dtype=np.uint64) for prime in PRIMES], axis=2)
    residues[0, 0, 0, 0], residues[0, 0, 1, 0] = PRIMES[0] - 1, PRIMES[1] - 1
    found = weighted_sums(numbers, residues, PRIMES)
    for output in range(2):
        for place, prime in enumerate(PRIMES):
            for polynomial in range(2):
                for coefficient in range(4):
                    values = residues[:, polynomial, place, coefficient]
                    wanted = sum(int(n) * int(v) for n, v in zip(numbers[output], values, strict=True)) % prime
                    assert int(found[output, polynomial, place, coefficient]) == wanted


def test_residues_are_the_last_bytes_of_a_ciphertext() -> None:
    values = np.arange(12, dtype=np.uint64).reshape(2, 2, 3)
    data = with_residues(b"head" + bytes(96), values)
    assert data.startswith(b"head")
    assert np.array_equal(read_residues(data, 2, 2, 3), values)
