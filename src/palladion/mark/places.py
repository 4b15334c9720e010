"""Where marks go: the tensors that can carry one, how far each weight may move, and how it is stored again.

A weight moves by a hundredth or so of the root mean square of its row, so that quiet rows are changed quietly. What
quantised tensors stand for is `readable`'s.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any, Protocol, TypeAlias

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from palladion.mark.attributes import attribute_coding, attribute_scale, is_attribute, is_dual
from palladion.mark.carriers import derive
from palladion.mark.quantised.codings import Quantised
from palladion.mark.quantised.readable import quantised_in
from palladion.model.model import Model
from palladion.model.rewrite import locate
from palladion.model.tensors import Tensor

Weights: TypeAlias = NDArray[np.floating[Any]]

# Types that carry marks, and the largest weight in them: marked it must not overflow, and its square be a float32.
TYPES = {"float16": 6e4, "bfloat16": 1e18, "float32": 1e18, "float64": 1e18}
ELEMENTS_MIN = 256  # smaller tensors (biases, norms) carry next to nothing, and a change of them is felt most
ROW_NUMBERS_MIN = 8  # fewer say little of how loud a row is; the kernel of a depthwise convolution has nine
# Small differences of what a mixture of experts is routed by send tokens elsewhere; norms and biases that were made
# matrices are vectors still. `….gate.weight` is a router where there are experts, and a gated layer elsewhere.
ROUTERS = re.compile(r"(^|[._/])(router|ffn_gate_inp|shared_expert_gate)([._/]|$)")
EXPERT_GATES = re.compile(r"(^|[._/])gate\.weight$")
EXPERTS = re.compile(r"experts?[._/]|_exps\.")
VECTORS = re.compile(r"norm|bias|(^|[._/])(ln|bn)_?\d*[._/]", re.IGNORECASE)
# What marking may move the numbers of a tensor by, of their root mean square. Where they can be stored only far apart,
# most of what a mark costs is rounding, so that a weaker one is put in: 4-bit weights carry a tenth of the amplitude.
# 1.4 % leaves the cosine of MiniLM's embeddings at .999, as the full amplitude does where rounding costs nothing.
MOVED_MAX = 0.014
_AMPLITUDE = 0.01  # `weights.AMPLITUDE`, which this module cannot import
TIED_MAX = 8  # tensors of one type and shape that are compared with each other; more are layers, which are not tied
SCALE_MAX = 1e18  # of a row: no trained network comes near
FEW = 4096  # numbers that tell most tensors from whole numbers, and from each other


class Coding(Protocol):
    """How the numbers of a place are stored in its tensor."""

    def encode(self, weights: Weights, key: bytes) -> NDArray[Any]:
        """The tensor's `data` for `weights` (rows, columns); where rounding is left to chance, `key` is the chance."""
        ...


@dataclass(frozen=True)
class FloatCoding:
    """Floating-point numbers, which are rounded to the nearest."""

    carrier: np.dtype[Any]
    shape: tuple[int, ...]

    def encode(self, weights: Weights, key: bytes) -> NDArray[Any]:
        """The tensor's `data` for `weights` (rows, columns)."""
        return weights.reshape(self.shape).astype(self.carrier, copy=False)


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor that carries marks: its numbers (rows, columns), and how loud each row is (rows, 1).

    That is the root mean square of the row, or where numbers can only be stored far apart, a part of it, such that a
    mark costs no more for it. `grain` is how far apart that is, in the mean and in units of `scale`; 0 means near.

    They are float64 for a tensor of that type, float32 for all others. A row is the last dimension; where that is
    short, all but the first, which is what makes one output of a convolution; and else everything.

    Equal numbers that a model stores twice (tied weights) carry the same mark, that of the first tensor, whose name is
    `tied_to` in the others: they stay equal.
    """

    name: str
    shape: tuple[int, ...]
    weights: Weights
    scale: Weights
    coding: Coding
    tied_to: str | None = None
    grain: float = 0.0

    @property
    def carrier_name(self) -> str:
        """By which name the key of its carrier, and that of its rounding, are derived."""
        return self.name if self.tied_to is None else self.tied_to

    def stored(self, weights: Weights, key: bytes) -> NDArray[Any]:
        """The tensor's `data` for marked `weights` (rows, columns), rounded by a key that follows from `key`."""
        return self.coding.encode(weights, derive(key, "rounding", self.carrier_name))

    @property
    def size(self) -> int:
        """Weights that can be moved: those of rows that are not all zero."""
        return int(np.count_nonzero(self.scale)) * int(self.weights.shape[1])


def place_of(tensor: Tensor) -> Place | None:
    """The place that a tensor of real numbers offers by itself, or None: too small, or one that must not be touched.

    In a model, `Survey` knows more: quantised weights, routers, and tied ones.
    """
    if is_attribute(tensor.name):
        return _attribute_place(tensor)
    if (
        tensor.dtype.name not in TYPES
        or tensor.element_count < ELEMENTS_MIN
        or len(tensor.shape) < 2
        or _is_delicate(tensor.name, tensor.shape)
    ):
        return None
    numbers: Weights = np.asarray(tensor.data, np.float64 if tensor.dtype.name == "float64" else np.float32)
    # of wider types the scale tells, which is computed anyway; not "larger than": nan fails every comparison
    if tensor.dtype.name == "float16" and not max(numbers.max(), -numbers.min()) <= TYPES["float16"]:
        return None
    # masks, positions, sizes and indices are whole numbers: a hundredth more is another mask
    few = numbers.reshape(-1)[:FEW]
    if np.array_equal(few, np.rint(few)) and np.array_equal(numbers, np.rint(numbers)):
        return None
    return _place(tensor.name, tensor.shape, numbers, FloatCoding(tensor.dtype.carrier, tensor.shape))


class Survey:
    """Which tensors of a model carry marks. Of their numbers it reads those that may be tied, or may not be weights.

    The same for the same model wherever and however it is stored: who marks and who looks for marks ask it alike.
    """

    def __init__(self, model: Model) -> None:
        self._located = locate(model)
        self._names = model.tensors.keys()
        self._experts = any(EXPERTS.search(name) for name in model.tensors)
        self._quantised: Mapping[str, Quantised] = quantised_in(model)
        self._beside = {name for found in self._quantised.values() for name in found.beside}
        self._tied = _tied(model.tensors, self._located)

    def place_of(self, tensor: Tensor) -> Place | None:
        """The place that a tensor of the model offers, or None."""
        if tensor.name not in self._located or tensor.name in self._beside or is_dual(tensor.name, self._names):
            return None
        if self._experts and EXPERT_GATES.search(tensor.name):
            return None
        quantised = self._quantised.get(tensor.name)
        place = place_of(tensor) if quantised is None else _quantised_place(tensor, quantised)
        first = self._tied.get(tensor.name)
        return place if place is None or first is None else replace(place, tied_to=first)


def places(model: Model) -> Iterator[Place]:
    """Every place of a model, in the order of its tensors; the numbers of one at a time are in memory.

    Of tied ones the first alone: the same carrier tested twice on the same numbers would count for twice what it is.
    """
    survey = Survey(model)
    for tensor in model.tensors.values():
        place = survey.place_of(tensor)
        if place is not None and place.tied_to is None:
            yield place


def _attribute_place(tensor: Tensor) -> Place | None:
    if tensor.dtype.name not in TYPES or not tensor.element_count:
        return None
    held: Weights = np.asarray(tensor.data, np.float64 if tensor.dtype.name == "float64" else np.float32)
    numbers = held.reshape(-1)
    if not max(numbers.max(), -numbers.min()) <= TYPES[tensor.dtype.name]:
        return None
    scale = attribute_scale(tensor.name, numbers)
    if scale is None:
        return None
    coding = attribute_coding(tensor.name, numbers, tensor.dtype.carrier, tensor.shape)
    return Place(tensor.name, tensor.shape, numbers.reshape(-1, 1), scale, coding)


def _quantised_place(tensor: Tensor, quantised: Quantised) -> Place | None:
    shape = quantised.shape
    if prod(shape) < ELEMENTS_MIN or len(shape) < 2 or _is_delicate(tensor.name, shape):
        return None
    numbers = quantised.read()
    if not np.abs(numbers).max() <= TYPES["float32"]:
        return None
    place = _place(tensor.name, shape, numbers, quantised)
    return None if place is None else _quieter(place, quantised.gap())


def _quieter(place: Place, gap: float) -> Place:
    """The place with the mark that its grid allows: rounded by chance, a move m costs m × gap in squares."""
    if not 0 < gap < np.inf:
        return place
    loudness = float(place.scale.mean())
    allowed = MOVED_MAX**2 * float(np.square(place.scale).mean())
    part = min(1.0, allowed / (_AMPLITUDE * loudness * gap))
    return replace(place, scale=place.scale * np.float32(part), grain=gap / (loudness * part))


def _place(name: str, shape: tuple[int, ...], numbers: Weights, coding: Coding) -> Place | None:
    weights = numbers.reshape(-1, _row_length(shape))
    # in one pass: a square of every weight would take a copy of the tensor
    scale = np.sqrt(np.einsum("ij,ij->i", weights, weights) / weights.shape[1])[:, None]
    # a square that is no float32 makes the scale infinite
    return Place(name, shape, weights, scale, coding) if scale.any() and scale.max() <= SCALE_MAX else None


def _is_delicate(name: str, shape: tuple[int, ...]) -> bool:
    return ROUTERS.search(name) is not None or (prod(shape) == max(shape) and VECTORS.search(name) is not None)


def _tied(tensors: Mapping[str, Tensor], located: Mapping[str, Any]) -> dict[str, str]:
    """The first tensor with the same numbers, by the names of the others."""
    alike: dict[tuple[str, tuple[int, ...]], list[str]] = {}
    for name, tensor in tensors.items():
        if name in located and len(tensor.shape) >= 2 and tensor.element_count >= ELEMENTS_MIN:
            alike.setdefault((tensor.dtype.name, tensor.shape), []).append(name)
    tied: dict[str, str] = {}
    for names in alike.values():
        if not 1 < len(names) <= TIED_MAX:
            continue
        starts = {name: _start(tensors[name]) for name in names}
        firsts: dict[bytes, str] = {}
        for name, start in starts.items():
            if list(starts.values()).count(start) == 1:
                continue  # the first numbers tell most of them apart, and hashing all is as much work as marking
            first = firsts.setdefault(
                blake3(np.ascontiguousarray(tensors[name].data).view(np.uint8).data).digest(), name
            )
            if first != name:
                tied[name] = first
    return tied


def _start(tensor: Tensor) -> bytes:
    start: NDArray[Any] = tensor.data[(0,) * (tensor.data.ndim - 1)][:FEW]
    return start.tobytes()


def _row_length(shape: tuple[int, ...]) -> int:
    size = prod(shape)
    return next(length for length in (shape[-1], size // shape[0], size) if length >= ROW_NUMBERS_MIN)
