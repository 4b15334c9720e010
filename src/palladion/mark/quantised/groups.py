"""Which tensors of a file without a graph are quantised weights: by their type, what is beside them, or their looks.

Scales beside 8-bit tensors are those of compressed-tensors, DeepSeek and bitsandbytes' int8. GPTQ and AWQ are
`quantised_words`', bitsandbytes' 4-bit weights `quantised_nibbles`'.
"""

from collections.abc import Mapping
from functools import partial
from math import prod

import numpy as np

from palladion.mark.quantised.codings import FLOAT8_TYPES, Floats, Floats8, Integers, Quantised, quantised_of
from palladion.mark.quantised.nibbles import nibbles_of
from palladion.mark.quantised.words import SCALE_TYPES, words_of
from palladion.model.tensors import Tensor

INTEGERS_MIN = 4096  # fewer bytes without a scale beside them may be anything
DISTINCT_MIN = 32
SAMPLE = 1 << 20  # numbers by which their looks are judged
WINDOW = 9  # codes over which a histogram is smoothed
ROUGH_MAX = 0.15  # of the numbers that stand elsewhere in the smoothed histogram; two nibbles in a byte give 0.3 to 0.6
BLOCK = 128  # of rows and of columns that share a scale, in DeepSeek's files and others
WITHIN_MIN, WITHIN_MAX = 0.62, 0.95  # within a deviation of the mean: 0.58 of what is uniform, 0.68 of what is normal

Tensors = Mapping[str, Tensor]

_SCALES = ("_scale", "_scale_inv", ".scale")


def quantised_among(tensors: Tensors) -> dict[str, Quantised]:
    """What the quantised tensors of a model stand for, by name."""
    found: dict[str, Quantised] = {}
    for name, tensor in tensors.items():
        made = _quantised(name, tensor, tensors)
        if made is not None:
            found[name] = made
    return found


def _quantised(name: str, tensor: Tensor, tensors: Tensors) -> Quantised | None:
    kind = tensor.dtype.name
    if name.endswith(".qweight") and kind == "int32":
        return words_of(tensor, tensors)
    if kind in {"int8", "uint8"}:
        return nibbles_of(tensor, tensors) if f"{name}.quant_map" in tensors else _integers(tensor, tensors)
    if kind in FLOAT8_TYPES:
        scale = _scale(tensor, tensors)
        return (
            Floats8(tensor) if scale is None else Floats8(tensor, partial(_spread, scale, tensor.shape), (scale.name,))
        )
    return quantised_of(tensor)


def _scale(tensor: Tensor, tensors: Tensors) -> Tensor | None:
    """The tensor of scales beside one of 8-bit numbers."""
    names = [tensor.name + ending for ending in _SCALES] + [tensor.name.removesuffix("weight") + "SCB"]
    found = (tensors[name] for name in names if name in tensors)
    return next(
        (item for item in found if item.dtype.name in SCALE_TYPES and _repeats(item.shape, tensor.shape)),
        None,
    )


def _integers(tensor: Tensor, tensors: Tensors) -> Integers | None:
    if len(tensor.shape) < 2 or not tensor.element_count:
        return None
    scale = _scale(tensor, tensors)
    one = np.ones((1,) * len(tensor.shape), np.float32)
    zero = one * np.float32(128 if tensor.dtype.name == "uint8" else 0)
    if scale is not None:
        return Integers(tensor, partial(_spread, scale, tensor.shape), lambda: zero, (scale.name,))
    return Integers(tensor, lambda: one, lambda: zero) if looks_like_weights(tensor) else None


def looks_like_weights(tensor: Tensor) -> bool:
    """Whether 8-bit integers are distributed as quantised weights are: many values, around one, on a smooth curve.

    Masks, indices, images, compressed bytes and pairs of 4-bit codes are not.
    """
    if tensor.element_count < INTEGERS_MIN:
        return False
    numbers = tensor.data.reshape(-1)[:: max(1, tensor.element_count // SAMPLE)].astype(np.int16)
    counts = np.bincount(numbers - numbers.min(), minlength=WINDOW).astype(np.float64)
    if np.count_nonzero(counts) < DISTINCT_MIN:
        return False
    inner = counts[1:-1]  # what was cut off lies at the ends
    rough = np.abs(inner - np.convolve(inner, np.full(WINDOW, 1 / WINDOW), "same")).sum() / inner.sum()
    deviation = numbers.std()
    within = float((np.abs(numbers - numbers.mean()) <= deviation).mean())
    expected = 4 * (np.count_nonzero(inner) / inner.sum()) ** 0.5  # what chance alone leaves
    return bool(rough < ROUGH_MAX + expected / 4 and WITHIN_MIN < within < WITHIN_MAX)


def _block(size: int, count: int) -> int | None:
    """How many of `size` numbers share one of `count` scales."""
    if count == -(-size // BLOCK):
        return BLOCK  # the last one may be short
    return size // count if count and not size % count else None


def _repeats(scales: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    if prod(scales) == 1 or (len(scales) == 1 and scales == shape[:1]):
        return True
    return len(scales) == len(shape) and all(_block(*pair) for pair in zip(shape, scales, strict=True))


def _spread(tensor: Tensor, shape: tuple[int, ...]) -> Floats:
    """Scales in a shape that fits that of the weights."""
    values = tensor.data.astype(np.float32)
    if values.size == 1:
        return values.reshape((1,) * len(shape))
    if values.ndim == 1:
        return values.reshape(-1, *(1 for _ in shape[1:]))
    for axis, (size, count) in enumerate(zip(shape, values.shape, strict=True)):
        if 1 < count < size:
            values = np.repeat(values, _block(size, count) or 1, axis=axis).take(range(size), axis=axis)
    return values
