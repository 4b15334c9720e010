"""Computing a program on ciphertexts: what the server does. Sees no secret key, no query and no answer.

Interleaved, for few rows and a short wait (`layout`); by columns, for thousands, is in `columns`. Weights are encoded
once, and kept.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from palladion.errors import FormatError
from palladion.private.homomorphic.layout import diagonals
from palladion.private.homomorphic.parameters import Ring
from palladion.private.homomorphic.program import Program


@dataclass(frozen=True, eq=False)
class EvaluationKeys:
    """Of one client: for rotations, and for squares where the program has any. No secrets."""

    rotation: Any
    relinearisation: Any | None


@dataclass(frozen=True, eq=False)
class _Encoded:
    """A layer as plaintexts: by giant and baby step, and its bias."""

    terms: dict[int, list[tuple[int, Any]]]
    bias: Any
    scale: float  # of its result


class Evaluator:
    """Evaluates one program. Costs some 0.3 MiB of memory for each diagonal of its weights."""

    def __init__(self, program: Program) -> None:
        """Raises MissingExtraError."""
        self.program = program
        self.ring = Ring(program.bundle.parameters)
        self.input_scale = 2.0**program.bundle.parameters.scale_bits
        self._layers = [self._encode(index) for index in range(len(program.layers))]

    def interleaved(self, ciphertext: Any, keys: EvaluationKeys) -> Any:
        """The encrypted answers to the rows of one ciphertext."""
        value = ciphertext
        for index, layer in enumerate(self._layers):
            if index:
                value = self._square(value, keys)
            value = self._affine(value, index, layer, keys)
        return value

    # interleaved

    def _affine(self, value: Any, index: int, layer: _Encoded, keys: EvaluationKeys) -> Any:
        evaluator, plan = self.ring.evaluator, self.program.bundle.layout.layers[index]
        rows = self.program.bundle.layout.rows
        turned = [value]
        for _ in range(plan.babies - 1):
            turned.append(evaluator.rotate_vector(turned[-1], rows, keys.rotation))
        # giant steps by Horner's rule: every one is the same rotation
        total: Any = None
        for giant in reversed(range(plan.giants)):
            if total is not None:
                total = evaluator.rotate_vector(total, plan.babies * rows, keys.rotation)
            inner = self._inner(turned, layer.terms.get(giant, ()))
            if inner is not None:
                self.drop(inner, index, layer.scale)
                total = inner if total is None else evaluator.add(total, inner)
        if total is None:
            raise FormatError("a layer of the program has no weights but zero")
        for step in plan.folds:
            total = evaluator.add(total, evaluator.rotate_vector(total, step * rows, keys.rotation))
        evaluator.add_plain_inplace(total, layer.bias)
        return total

    def _inner(self, turned: Sequence[Any], terms: Sequence[tuple[int, Any]]) -> Any | None:
        evaluator = self.ring.evaluator
        inner: Any | None = None
        for baby, plain in terms:
            product = evaluator.multiply_plain(turned[baby], plain)
            if inner is None:
                inner = product
            else:
                evaluator.add_inplace(inner, product)
        return inner

    def drop(self, value: Any, index: int, scale: float) -> None:
        """Drop a prime after a layer's products, but for the last one, which has no need of it."""
        if index < len(self._layers) - 1:
            self.ring.evaluator.rescale_to_next_inplace(value)
        value.scale(scale)

    def _square(self, value: Any, keys: EvaluationKeys) -> Any:
        squared = self.ring.evaluator.square(value)
        self.ring.evaluator.relinearize_inplace(squared, keys.relinearisation)
        self.ring.evaluator.rescale_to_next_inplace(squared)
        return squared

    # scales

    def scales(self, index: int, scale: float) -> tuple[float, float]:
        """The scale of a layer's weights and of its result, for values of `scale`: results have exact powers of two."""
        if index == len(self.program.layers) - 1:
            target = self.program.bundle.answer_scale
            return target / scale, target
        target = self.input_scale
        return target * self.ring.primes[2 * index] / scale, target

    def _encode(self, index: int) -> _Encoded:
        ring, program = self.ring, self.program
        layer, last = program.layers[index], index == len(program.layers) - 1
        scale = self.input_scale
        if index:
            scale = scale * scale / ring.primes[2 * index - 1]
        weight_scale, target = self.scales(index, scale)
        terms: dict[int, list[tuple[int, Any]]] = {}
        for giant, baby, slots in diagonals(program.bundle.layout, index, layer.weights):
            plain = ring.encoder.encode(slots, weight_scale)
            if plain.is_zero():
                continue  # weights so small say nothing, and SEAL refuses a product that is no ciphertext
            ring.evaluator.mod_switch_to_inplace(plain, ring.levels[2 * index])
            terms.setdefault(giant, []).append((baby, plain))
        padded = np.zeros(program.bundle.layout.layers[index].period_out)
        padded[: layer.bias.size] = layer.bias
        bias = ring.encoder.encode(program.bundle.layout.spread(padded), target)
        ring.evaluator.mod_switch_to_inplace(bias, ring.levels[2 * index + (0 if last else 1)])
        return _Encoded(terms, bias, target)
