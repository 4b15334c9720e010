"""Which numbers of trees and linear models may move, and how far: in ONNX files they are attributes of nodes.

Leaves, coefficients and support vectors enter a result by addition. Not thresholds: many stand on values that the data
have, and a little less sends all of these the other way. Not the dual coefficients of support vector machines, whose
results are small differences of large sums. Not scalers, nor intercepts, which are few. Every number is a row of its
own, so that a zero (no vote, a feature that is not used) can stay one. Operators: ONNX-ML, versions 1 to 5.
"""

from collections.abc import Container
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAVES = {"class_weights", "target_weights", "leaf_weights"}
COEFFICIENTS = {"coefficients"}
VECTORS = {"support_vectors"}
NUMBERS_MIN = 256  # that are not zero
# Of what a leaf moves by: a hundredth costs a linear classifier of 2,000 coefficients 0.1 points, half of it nothing.
CAUTION = 0.5
OUTLIER = 4.0  # times the median: the first tree of a boosted model may hold the mean of the target in every leaf
# Leaves that are all whole and mostly different are numbers of leaves, by which something else is looked up.
INDICES_SHARE = 0.5


@dataclass(frozen=True, eq=False)
class AttributeCoding:
    """Numbers of an attribute, which stay at or below `cap` (n,) where there is one."""

    carrier: np.dtype[Any]
    shape: tuple[int, ...]
    cap: NDArray[Any] | None

    def encode(self, weights: NDArray[Any], key: bytes) -> NDArray[Any]:
        """The tensor's `data` for `weights` (n, 1), rounded to the nearest."""
        numbers = weights.reshape(-1)
        kept = numbers if self.cap is None else np.minimum(numbers, self.cap)
        return kept.reshape(self.shape).astype(self.carrier, copy=False)


def attribute_scale(name: str, numbers: NDArray[Any]) -> NDArray[Any] | None:
    """How far the `numbers` (n,) of the tensor `name` may move, in units in which a weight's scale is its row's RMS.

    (n, 1), zero where a number must stay as it is; None for a tensor that is no such attribute, or must stay as it is.
    """
    kind = _kind(name)
    there = numbers != 0
    if kind is None or np.count_nonzero(there) < NUMBERS_MIN or _are_indices(kind, numbers):
        return None
    if kind in VECTORS or are_shares(name, numbers):
        # each by its own size: support vectors keep the units of every feature, shares their order
        size = np.abs(numbers)
    else:
        size = np.where(there, _size(numbers[there]), 0)
    return np.asarray(size if kind in LEAVES else CAUTION * size, numbers.dtype).reshape(-1, 1)


def attribute_coding(
    name: str, numbers: NDArray[Any], carrier: np.dtype[Any], shape: tuple[int, ...]
) -> AttributeCoding:
    """How marked `numbers` (n,) of the tensor `name` are stored again."""
    # a probability that is the sum of shares stays at most 1
    return AttributeCoding(carrier, shape, numbers if are_shares(name, numbers) else None)


def is_attribute(name: str) -> bool:
    """Whether a tensor of that name holds leaves, coefficients or support vectors."""
    return _kind(name) is not None


def is_dual(name: str, names: Container[str]) -> bool:
    """Whether a tensor holds dual coefficients: those of support vectors, which are among the model's `names`."""
    node, _, kind = name.rpartition("/")
    return kind in COEFFICIENTS and f"{node}/support_vectors" in names


def are_shares(name: str, numbers: NDArray[Any]) -> bool:
    """Whether they are the shares of classes in the leaves of a forest, the sum of which is a probability."""
    return _kind(name) in {"class_weights", "leaf_weights"} and numbers.min() >= 0 and numbers.max() <= 1


def _kind(name: str) -> str | None:
    kind = name.rpartition("/")[2]
    return kind if name.startswith("node:") and kind in LEAVES | COEFFICIENTS | VECTORS else None


def _size(numbers: NDArray[Any]) -> float:
    """Their root mean square, in which no number counts for more than OUTLIER medians."""
    sizes = np.abs(numbers)
    return float(np.sqrt(np.square(np.minimum(sizes, OUTLIER * np.median(sizes))).mean()))


def _are_indices(kind: str, numbers: NDArray[Any]) -> bool:
    return (
        kind in LEAVES
        and bool((numbers == np.rint(numbers)).all())
        and len(np.unique(numbers)) > INDICES_SHARE * len(numbers)
    )
