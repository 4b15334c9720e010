"""GPTQ's and AWQ's quantised weights: words of 32 bits in `qweight`, with `scales` and `qzeros` beside them.

Layouts: AutoGPTQ's and AutoAWQ's `pack`, which what serves these files (vLLM, transformers) reads.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.mark.quantised.codings import Floats, Real, dither, unscaled
from palladion.model.blocks import nearby
from palladion.model.tensors import Tensor

SCALE_TYPES = frozenset({"float32", "float16", "bfloat16", "float64"})
_AWQ_ORDER = (0, 2, 4, 6, 1, 3, 5, 7)  # nibble i of a word holds the column of that rank


@dataclass(frozen=True, eq=False)
class Words:
    """GPTQ's and AWQ's weights (outputs, inputs): words of 32 bits that hold codes of inputs or of outputs.

    A weight is scale × (code - zero), of the group that its input belongs to.
    """

    tensor: Tensor
    scales: Tensor  # (groups, outputs)
    zeros: Tensor  # (groups, words)
    groups: Tensor | None  # (inputs,)
    bits: int
    by_inputs: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """(outputs, inputs)."""
        words = self.tensor.shape[0] * (32 // self.bits if self.by_inputs else 1)
        return self.scales.shape[1], words

    @property
    def beside(self) -> tuple[str, ...]:
        """Scales, zero points and the groups of inputs."""
        return tuple(item.name for item in (self.scales, self.zeros, self.groups) if item is not None)

    def read(self) -> Floats:
        """The weights, of `shape`."""
        codes = self._codes().astype(np.float32)
        steps, zeros = self._grid()
        codes -= zeros
        codes *= steps
        return np.ascontiguousarray(codes.T)

    def gap(self) -> float:
        """The mean scale."""
        return float(np.abs(self.scales.data.astype(np.float32)).mean())

    def encode(self, weights: Real, key: bytes) -> NDArray[Any]:
        """The words for other weights."""
        codes = self._codes().astype(np.uint8)
        change = unscaled((weights.reshape(self.shape) - self.read()).T, self._grid()[0])
        chance = dither(key, weights.size).reshape(codes.shape)
        return self._words(nearby(codes, change, chance, 0, 2**self.bits - 1))

    def _grid(self) -> tuple[Floats, Floats]:
        """Steps and zeros of each weight (inputs, outputs)."""
        steps = self.scales.data.astype(np.float32)
        zeros = _outputs(self.zeros.data, self.bits, in_order=self.by_inputs).astype(np.float32)
        if self.by_inputs and _is_one_less(zeros, self.bits):
            zeros += 1
        return steps[self._group()], zeros[self._group()]

    def _group(self) -> NDArray[np.intp]:
        inputs, count = self.shape[1], self.scales.shape[0]
        if self.groups is None:
            return np.arange(inputs) // -(-inputs // count)
        return self.groups.data.astype(np.intp)

    def _codes(self) -> NDArray[Any]:
        """The codes (inputs, outputs)."""
        if not self.by_inputs:
            return _outputs(self.tensor.data, self.bits, in_order=False)
        shifts = np.arange(0, 32, self.bits, dtype=np.uint32)[:, None]
        codes = (self.tensor.data.astype(np.uint32)[:, None, :] >> shifts) & np.uint32(2**self.bits - 1)
        return codes.reshape(-1, self.tensor.shape[1])

    def _words(self, codes: NDArray[Any]) -> NDArray[Any]:
        per_word = 32 // self.bits
        wide = codes.astype(np.uint32)
        if self.by_inputs:
            grouped = wide.reshape(-1, per_word, codes.shape[1]).transpose(0, 2, 1)
        else:
            grouped = wide.reshape(len(codes), -1, per_word)[:, :, _AWQ_ORDER]
        shifts = np.arange(0, 32, self.bits, dtype=np.uint32)
        joined: NDArray[Any] = np.bitwise_or.reduce(grouped << shifts, axis=2).astype(np.uint32)
        return joined.view(np.int32)


def _outputs(words: NDArray[Any], bits: int, *, in_order: bool) -> NDArray[Any]:
    """The codes (rows, outputs) of words (rows, words) that hold those of neighbouring outputs."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = (words.astype(np.uint32)[:, :, None] >> shifts) & np.uint32(2**bits - 1)
    if not in_order:
        codes = codes[:, :, np.argsort(_AWQ_ORDER)]
    return codes.reshape(len(words), -1)


def _is_one_less(zeros: Floats, bits: int) -> bool:
    # GPTQ's first version stores the zero point less one; symmetric ones in the second are all in the middle
    return not bool((zeros == 2 ** (bits - 1)).all())


def words_of(tensor: Tensor, tensors: Mapping[str, Tensor]) -> Words | None:
    """What the words in a tensor called `….qweight` stand for; None if what is beside them does not fit."""
    prefix = tensor.name.removesuffix("qweight")
    scales, zeros, groups = (tensors.get(prefix + ending) for ending in ("scales", "qzeros", "g_idx"))
    if scales is None or zeros is None or not tensor.element_count or not zeros.element_count:
        return None
    if {len(item.shape) for item in (tensor, scales, zeros)} != {2} or scales.dtype.name not in SCALE_TYPES:
        return None
    count, outputs = scales.shape
    words = zeros.shape[1]
    if zeros.dtype.name != "int32" or zeros.shape[0] != count or outputs % words or outputs // words not in {4, 8, 16}:
        return None
    bits, by_inputs = 32 * words // outputs, tensor.shape[1] == outputs
    if not by_inputs and (bits != 4 or tensor.shape[1] * 8 != outputs):
        return None
    found = Words(tensor, scales, zeros, groups if by_inputs else None, bits, by_inputs)
    return found if _are_groups(found.groups, found.shape[1], count) else None


def _are_groups(groups: Tensor | None, inputs: int, count: int) -> bool:
    if groups is None:
        return count <= inputs
    if groups.dtype.name not in {"int32", "int64"} or groups.shape != (inputs,):
        return False
    data = groups.data
    return bool(data.min() >= 0 and data.max() < count)
