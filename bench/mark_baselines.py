"""Other people's marks for weights, re-implemented from their papers for the same table: what do they survive?

Each puts a secret of its own in, and reads bits from a suspect; the p-value is that of the bits (exact binomial).
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.mark_subjects import Weights

Array = NDArray[Any]

UCHIDA_BITS = 256
EMMARK_BITS = 100  # for each matrix, as its authors' example does


@dataclass(frozen=True)
class Baseline:
    """A scheme put into weights: the marked weights, and the bits that a suspect gives back, true where right."""

    name: str
    source: str
    marked: Weights
    read: Callable[[Weights], NDArray[np.bool_]]


def uchida(weights: Weights, seed: int) -> Baseline:
    """256 bits in random projections of one layer's mean filter.

    The paper trains them in; here the smallest change that sets every bit with a margin of one is added.
    """
    name = max(
        (name for name, item in weights.items() if _is_inner(name, item)), key=lambda name: weights[name].shape[1]
    )
    generator = np.random.default_rng(seed)
    length = weights[name].reshape(len(weights[name]), -1).shape[1]
    bits = generator.choice([-1.0, 1.0], UCHIDA_BITS)
    projection = generator.standard_normal((UCHIDA_BITS, length))
    mean = _mean_filter(weights[name])
    wanted = bits * np.maximum(1.0, np.abs(projection @ mean)) - projection @ mean
    change = np.linalg.lstsq(projection, wanted, rcond=None)[0]
    shape = (1, *weights[name].shape[1:])
    marked = weights | {name: (weights[name] + change.reshape(shape)).astype(np.float32)}

    def read(suspect: Weights) -> NDArray[np.bool_]:
        return np.asarray(np.sign(projection @ _mean_filter(suspect[name])) == bits)

    return Baseline("Uchida", "Uchida et al., ICMR 2017", marked, read)


def emmark(weights: Weights, seed: int) -> Baseline:
    """One step up or down at 100 secret places of each matrix in int8, chosen where weights are large.

    The paper's score takes activations in as well; without them the places are those of the largest quarter.
    """
    generator = np.random.default_rng(seed)
    marked, places = dict(weights), {}
    for name, item in weights.items():
        if item.ndim < 2 or item.size < 4 * EMMARK_BITS:
            continue
        step = np.abs(item).max() / 127
        whole = np.round(item / step)
        large = np.flatnonzero((np.abs(whole) >= np.quantile(np.abs(whole), 0.75)) & (np.abs(whole) < 127))
        chosen = generator.choice(large, EMMARK_BITS, replace=False)
        bits = generator.choice([-1.0, 1.0], EMMARK_BITS)
        changed = whole.copy()
        changed.reshape(-1)[chosen] += bits
        marked[name] = (changed * step).astype(np.float32)
        places[name] = chosen, bits, (whole * step).reshape(-1)[chosen]

    def read(suspect: Weights) -> NDArray[np.bool_]:
        found = [np.sign(suspect[name].reshape(-1)[at] - before) == bits for name, (at, bits, before) in places.items()]
        return np.concatenate(found)

    return Baseline("EmMark", "Zhang and Koushanfar, DAC 2024", marked, read)


def invariants(weights: Weights, layers: list[tuple[str, str, str]], seed: int) -> Baseline:
    """Bits in the order of hidden neurons: each pair of neighbours is swapped or not, which changes no output.

    `layers` names the matrix before the neurons (rows), its bias, and the matrix after them (columns).
    """
    generator = np.random.default_rng(seed)
    marked, bits = dict(weights), {}
    for before, bias, after in layers:
        pairs = len(weights[before]) // 2
        bits[before] = generator.integers(2, size=pairs).astype(bool)
        order = np.arange(2 * pairs).reshape(-1, 2)
        order[bits[before]] = order[bits[before]][:, ::-1]
        for name, axis in ((before, 0), (bias, 0), (after, 1)):
            marked[name] = np.ascontiguousarray(np.take(weights[name], order.reshape(-1), axis=axis))

    def read(suspect: Weights) -> NDArray[np.bool_]:
        return np.concatenate([_swapped(weights[name], suspect[name]) == wanted for name, wanted in bits.items()])

    return Baseline("functional invariants", "Fernandez et al., ICASSP 2024", marked, read)


def _swapped(ours: Array, theirs: Array) -> NDArray[np.bool_]:
    first, second = ours[::2], ours[1::2]
    straight = (first * theirs[::2]).sum(axis=1) + (second * theirs[1::2]).sum(axis=1)
    crossed = (first * theirs[1::2]).sum(axis=1) + (second * theirs[::2]).sum(axis=1)
    return np.asarray(crossed > straight)


def _mean_filter(item: Array) -> Array:
    return np.asarray(item.reshape(len(item), -1).mean(axis=0))


def _is_inner(name: str, item: Array) -> bool:
    return item.ndim > 1 and "embed" not in name and "wte" not in name and item[0].size >= UCHIDA_BITS
