"""What is done to the numbers of one tensor to be rid of a mark: each knows neither key nor original.

Arrays in, arrays out, whatever their rank; rows are the first dimension. What is drawn comes from the caller's
generator.
"""

from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

NF4_GROUP = 64
# The values of a 4-bit normal float: quantiles of the normal distribution (Dettmers et al. 2023, appendix E).
_BELOW = (-1.0, -0.6961928, -0.52507305, -0.39491749, -0.28444138, -0.18477343, -0.09105004, 0.0)
_ABOVE = (0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0)
NF4 = np.array([*_BELOW, *_ABOVE], np.float32)


def bf16(weights: Array) -> Array:
    """There and back through bfloat16."""
    return np.asarray(weights.astype(ml_dtypes.bfloat16).astype(np.float32))


def rounded(weights: Array, bits: int, group: int | None) -> Array:
    """Symmetric rounding to nearest, a scale for each group of numbers (a row where the group does not divide it).

    None is one scale for all.
    """
    rows = weights.reshape(1 if group is None else len(weights), -1)
    grouped = rows if group is None or rows.shape[1] % group else rows.reshape(-1, group)
    step = np.abs(grouped).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
    back = np.round(np.divide(grouped, step, where=step > 0, out=np.zeros_like(grouped))) * step
    return np.asarray(back).reshape(weights.shape)


def nf4(weights: Array) -> Array:
    """The nearest of 16 quantiles of the normal distribution, in groups of 64."""
    rows = weights.reshape(len(weights), -1)
    grouped = rows.reshape(-1, NF4_GROUP) if rows.shape[1] % NF4_GROUP == 0 else rows
    step = np.maximum(np.abs(grouped).max(axis=1, keepdims=True), 1e-12)
    middle = (NF4[:-1] + NF4[1:]) / 2
    return np.asarray(NF4[np.searchsorted(middle, grouped / step)] * step).reshape(weights.shape)


def digits(weights: Array, count: int) -> Array:
    """Each number with so many significant decimal digits."""
    with np.errstate(divide="ignore"):
        step = 10.0 ** (np.floor(np.log10(np.abs(weights))) - (count - 1))
    whole = np.round(np.divide(weights, step, where=weights != 0, out=np.zeros(weights.shape)))
    return np.asarray(whole * np.where(weights, step, 0))


def pruned(weights: Array, share: float) -> Array:
    """The smallest numbers become zero."""
    return np.where(np.abs(weights) < np.quantile(np.abs(weights), share), np.float32(0), weights)


def clipped(weights: Array, deviations: float) -> Array:
    """No number is further from zero than so many root mean squares of its row."""
    limit = deviations * _row_size(weights)
    return np.asarray(np.clip(weights, -limit, limit))


def noisy(weights: Array, size: float, generator: np.random.Generator) -> Array:
    """Gaussian noise, in units of each row's root mean square."""
    return np.asarray(weights + size * _row_size(weights) * generator.standard_normal(weights.shape))


def signed(weights: Array, size: float, generator: np.random.Generator) -> Array:
    """Every number moved up or down, in units of each row's root mean square: what a mark of signs does."""
    return np.asarray(weights + size * _row_size(weights) * generator.choice([-1.0, 1.0], weights.shape))


def low_rank(weights: Array, size: float, rank: int, generator: np.random.Generator) -> Array:
    """A change of low rank of `size` of the tensor's norm: what merging a LoRA adapter leaves."""
    flat = weights.reshape(len(weights), -1)
    added = generator.standard_normal((len(flat), rank)) @ generator.standard_normal((rank, flat.shape[1]))
    return np.asarray(weights + size * np.linalg.norm(weights) / np.linalg.norm(added) * added.reshape(weights.shape))


def of_rank(weights: Array, share: float) -> Array:
    """The best approximation of so much of the rank, which is at least 1."""
    flat = weights.reshape(len(weights), -1)
    left, sizes, right = np.linalg.svd(flat, full_matrices=False)
    kept = max(1, int(share * len(sizes)))
    return np.asarray((left[:, :kept] * sizes[:kept]) @ right[:kept]).reshape(weights.shape)


def _row_size(weights: Array) -> Array:
    """The root mean square of each row, to be broadcast."""
    flat = weights.reshape(len(weights), -1)
    return np.asarray(np.sqrt(np.square(flat).mean(axis=1)).reshape(-1, *[1] * (weights.ndim - 1)))
