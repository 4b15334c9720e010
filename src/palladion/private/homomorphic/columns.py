"""Computing a program by columns: a ciphertext for each feature, and a row in each slot. No rotations, and no keys.

Costs least for each row, where there are thousands. For programs of at most one hidden layer: squares are left as three
polynomials, which a second square does not take. The first layer is a product of matrices over residues (`residues`)
where SEAL writes ciphertexts without compression; else, and for later layers, SEAL multiplies one by one.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.private.homomorphic.evaluate import Evaluator
from palladion.private.homomorphic.residues import read_residues, weighted_sums, with_residues

HEAD_BYTES = 113  # of a ciphertext before its residues, as SEAL 4.4 writes it


def evaluate_columns(evaluator: Evaluator, ciphertexts: Sequence[Any]) -> list[Any]:
    """The encrypted outputs (outputs,) for one ciphertext of each feature. Raises FormatError."""
    if not evaluator.program.bundle.by_columns:
        raise FormatError("a program of several hidden layers is not computed by columns")
    ring = evaluator.ring
    values, scale = list(ciphertexts), evaluator.input_scale
    for index, layer in enumerate(evaluator.program.layers):
        if index:
            # products of three polynomials are left as they are: whoever decrypts them needs no key for that
            values = [ring.evaluator.square(value) for value in values]
            for value in values:
                ring.evaluator.rescale_to_next_inplace(value)
            scale = scale * scale / ring.primes[2 * index - 1]
        weight_scale, target = evaluator.scales(index, scale)
        sums = _at_once(evaluator, values, layer.weights * weight_scale) if index == 0 else None
        if sums is None:
            sums = _one_by_one(evaluator, values, index, layer.weights, weight_scale)
        for total, addend in zip(sums, layer.bias, strict=True):
            evaluator.drop(total, index, target)
            plain = ring.encoder.encode(float(addend), target)
            ring.evaluator.mod_switch_to_inplace(plain, total.parms_id())
            ring.evaluator.add_plain_inplace(total, plain)
        values, scale = sums, target
    return values


def _at_once(evaluator: Evaluator, values: Sequence[Any], weights: NDArray[np.float64]) -> list[Any] | None:
    """Sums of fresh ciphertexts with integers for weights; None where their bytes are not those of residues."""
    parameters, ring = evaluator.ring.parameters, evaluator.ring
    data = [bytes(value.to_string()) for value in values]
    if any(len(item) != HEAD_BYTES + parameters.ciphertext_bytes for item in data) or np.abs(weights).max() >= 2**62:
        return None
    numbers = np.rint(weights).astype(np.int64)
    if not numbers.any(axis=1).all():
        raise FormatError("a unit of the program has no weights but zero")
    primes = len(ring.data_primes)
    residues = np.stack([read_residues(item, 2, primes, parameters.degree) for item in data])
    sums = weighted_sums(numbers, residues, ring.data_primes)
    return [ring.context.from_cipher_str(with_residues(data[0], item)) for item in sums]


def _one_by_one(
    evaluator: Evaluator, values: Sequence[Any], index: int, weights: NDArray[np.float64], weight_scale: float
) -> list[Any]:
    ring = evaluator.ring
    found = []
    for row in weights:
        total: Any = None
        for weight, value in zip(row, values, strict=True):
            if abs(weight) * weight_scale < 1:
                continue  # encodes to zero, and SEAL refuses a product that hides nothing
            plain = ring.encoder.encode(float(weight), weight_scale)
            ring.evaluator.mod_switch_to_inplace(plain, ring.levels[2 * index])
            product = ring.evaluator.multiply_plain(value, plain)
            if total is None:
                total = product
            else:
                ring.evaluator.add_inplace(total, product)
        if total is None:
            raise FormatError("a unit of the program has no weights but zero")
        found.append(total)
    return found
