"""A model to mark, and what a thief may make of it; everything is seeded."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from palladion.mark.fingerprints import stamp_place
from palladion.mark.places import Place, Weights, places
from palladion.mark.weights import OwnershipKey, mark_place
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.model.safetensors import serialise
from palladion.model.tensors import DTYPES, Tensor

Array = NDArray[Any]
Numbers = NDArray[np.float32]

KEY = bytes(range(32))
OTHER_KEY = bytes(range(1, 33))
PAYLOAD = bytes(range(100, 116))
OWNERSHIP, OTHER_OWNERSHIP = OwnershipKey(KEY, PAYLOAD), OwnershipKey(OTHER_KEY, PAYLOAD)
_NAMES = {dtype.carrier: name for name, dtype in DTYPES.items() if not dtype.packed}


def tensor(name: str, numbers: Array) -> Tensor:
    """A tensor that holds `numbers` in their own type."""
    return Tensor(name, DTYPES[_NAMES[numbers.dtype]], numbers.shape, numbers)


def saved(tensors: Mapping[str, Array], packed: Iterable[Tensor] = ()) -> Model:
    """A safetensors model with these tensors."""
    made = [tensor(name, np.ascontiguousarray(numbers).reshape(numbers.shape)) for name, numbers in tensors.items()]
    return read_memory({"model.safetensors": serialise([*made, *packed], {})})


def numbers_of(model: Model) -> dict[str, Array]:
    """The tensors of a model as arrays, by name."""
    return {name: item.data for name, item in model.tensors.items()}


def matrix(rows: int = 96, columns: int = 64, *, seed: int = 1) -> Numbers:
    """Weights as training leaves them: nearly normal, some rows louder than others."""
    generator = np.random.default_rng(seed)
    loudness = np.exp(0.3 * generator.standard_normal((rows, 1)))
    return (0.05 * loudness * generator.standard_normal((rows, columns))).astype(np.float32)


def network(seed: int = 1) -> Model:
    """Three matrices, a convolution, a bias and a norm: 27,392 weights that can carry a mark."""
    return saved(
        {
            "first": matrix(96, 64, seed=seed),
            "second": matrix(64, 128, seed=seed + 1),
            "third": matrix(64, 132, seed=seed + 2),
            "convolution": matrix(32, 144, seed=seed + 3).reshape(32, 16, 3, 3),
            "bias": np.linspace(-1, 1, 512, dtype=np.float32),
            "norm": np.full(512, 1.5, np.float32),
        }
    )


def one_matrix(rows: int = 96, columns: int = 64, *, seed: int = 1) -> Model:
    """A model that is one matrix, `w`."""
    return saved({"w": matrix(rows, columns, seed=seed)})


def with_weights(model: Model, change: Callable[[Place], Weights]) -> dict[str, Array]:
    """The tensors of a model with other weights in its places, in the types that they have."""
    changed = {
        place.name: change(place).reshape(place.shape).astype(model.tensors[place.name].data.dtype)
        for place in places(model)
    }
    return numbers_of(model) | changed


def marked(model: Model, key: OwnershipKey = OWNERSHIP) -> dict[str, Array]:
    """The tensors of the marked model."""
    return with_weights(model, lambda place: mark_place(place, key))


def stamped(model: Model, fingerprint: bytes, key: OwnershipKey = OWNERSHIP) -> dict[str, Array]:
    """The tensors of a recipient's copy."""
    return with_weights(model, lambda place: stamp_place(place, key, fingerprint))


def as_type(dtype: str) -> Callable[[Array], Array]:
    """Storing the weights in another type of floating-point number."""
    return lambda weights: weights.astype(getattr(ml_dtypes, dtype, dtype))


def rounded(bits: int, group: int | None = None) -> Callable[[Array], Array]:
    """Quantisation and back: one scale for the tensor, or one for every `group` weights of a row."""

    def change(weights: Array) -> Array:
        grouped = weights.reshape(-1, group or weights.size)
        step = np.abs(grouped).max(axis=1, keepdims=True) / (2 ** (bits - 1) - 1)
        back: Array = (np.round(grouped / step) * step).reshape(weights.shape).astype(np.float32)
        return back

    return change


def quantised(dtype: str, *, zero_point: int = 0, axis: int | None = None) -> Callable[[Array], Array]:
    """Quantisation to 8-bit integers, which are what is stored; with a scale for each index of `axis`, if given."""

    def change(weights: Array) -> Array:
        others = None if axis is None else tuple(index for index in range(weights.ndim) if index != axis)
        step = np.abs(weights).max(axis=others, keepdims=others is not None) / 127
        return np.asarray(np.round(weights / step) + zero_point, dtype)

    return change


def pruned(share: float) -> Callable[[Array], Array]:
    """The smallest weights set to zero."""
    return lambda weights: np.where(np.abs(weights) < np.quantile(np.abs(weights), share), np.float32(0), weights)


def noisy(size: float, seed: int = 7) -> Callable[[Array], Array]:
    """Noise of `size` times the weights' own deviation."""

    def change(weights: Array) -> Array:
        noise = np.random.default_rng(seed).standard_normal(weights.shape)
        return np.asarray(weights + size * weights.std() * noise, np.float32)

    return change


def rescaled(axis: int, seed: int = 8) -> Callable[[Array], Array]:
    """Each row or column multiplied by a number of its own, as activations between two layers allow."""

    def change(weights: Array) -> Array:
        shape = [1] * weights.ndim
        shape[axis] = weights.shape[axis]
        return np.asarray(weights * np.exp(np.random.default_rng(seed).uniform(-1, 1, shape)), np.float32)

    return change


def tuned(weights: Array, seed: int = 9) -> Array:
    """Fine-tuning: a change of low rank, a tenth as large as the weights."""
    generator = np.random.default_rng(seed)
    flat = weights.reshape(weights.shape[0], -1)
    change = generator.standard_normal((flat.shape[0], 2)) @ generator.standard_normal((2, flat.shape[1]))
    return np.asarray(weights + 0.1 * weights.std() / change.std() * change.reshape(weights.shape), np.float32)


def each(tensors: Mapping[str, Array], change: Callable[[Array], Array]) -> dict[str, Array]:
    """`change` of every tensor with more than one dimension."""
    return {name: change(numbers) if numbers.ndim > 1 else numbers for name, numbers in tensors.items()}
