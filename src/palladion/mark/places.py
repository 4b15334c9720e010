"""Where marks go: the tensors that can carry one, how far each weight may move, and how it is stored again.

A weight moves by a hundredth or so of the root mean square of its row, so that quiet rows are changed quietly. What
quantised tensors stand for is `readable`'s.
"""

import re
from collections.abc import Iterator, Mapping, Set
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
# What is done to a block of rows stays in the processor's cache; smaller ones cost more in calls than they save.
BLOCK_NUMBERS = 65_536


class Rows(Protocol):
    """Numbers (rows, columns): an array, or what is computed a few rows at a time, when they are asked for."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        ...

    def __getitem__(self, where: Any) -> NDArray[Any]:
        """Those of a slice of rows, or at some rows and columns: two arrays."""
        ...


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

    def encode(self, weights: Rows, key: bytes = b"") -> NDArray[Any]:
        """The tensor's `data` for `weights` (rows, columns)."""
        if self.carrier.itemsize >= 4:
            return weights[:].reshape(self.shape).astype(self.carrier, copy=False)
        # in the wide type they would take twice the memory of what is stored
        stored = np.empty(weights.shape, self.carrier)
        for block in blocks(weights.shape):
            stored[block] = weights[block]
        return stored.reshape(self.shape)


@dataclass(frozen=True, eq=False)
class Place:
    """A tensor that carries marks: its numbers (rows, columns) as it holds them, and how loud each row is (rows, 1).

    That is the root mean square of the row, or where numbers can only be stored far apart, a part of it, such that a
    mark costs no more for it. `grain` is how far apart that is, in the mean and in units of `scale`; 0 means near.

    Its weights are float64 for a tensor of that type, float32 for all others. A row is the last dimension; where that
    is short, all but the first, which is what makes one output of a convolution; and else everything.

    Equal numbers that a model stores twice (tied weights) carry the same mark, that of the first tensor, whose name is
    `tied_to` in the others: they stay equal.
    """

    name: str
    shape: tuple[int, ...]
    numbers: NDArray[Any]
    scale: Weights
    coding: Coding
    tied_to: str | None = None
    grain: float = 0.0

    @property
    def carrier_name(self) -> str:
        """By which name the key of its carrier, and that of its rounding, are derived."""
        return self.name if self.tied_to is None else self.tied_to

    @property
    def weights(self) -> Weights:
        """All weights (rows, columns): a view of the numbers, or where these have another type, a copy."""
        return self.read(slice(None))

    def read(self, rows: slice) -> Weights:
        """The weights in some rows, as `weights` has them."""
        return _real(self.numbers[rows])

    def stored(self, weights: Rows, key: bytes) -> NDArray[Any]:
        """The tensor's `data` for marked `weights` (rows, columns), rounded by a key that follows from `key`."""
        if isinstance(self.coding, FloatCoding):
            return self.coding.encode(weights)
        return self.coding.encode(weights[:], derive(key, "rounding", self.carrier_name))

    @property
    def size(self) -> int:
        """Weights that can be moved: those of rows that are not all zero."""
        return int(np.count_nonzero(self.scale)) * int(self.numbers.shape[1])


def blocks(shape: tuple[int, ...]) -> Iterator[slice]:
    """The rows of a matrix (rows, columns) in blocks that stay in the processor's cache."""
    step = max(1, BLOCK_NUMBERS // shape[1])
    return (slice(start, min(start + step, shape[0])) for start in range(0, shape[0], step))


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
    numbers = tensor.data
    # of wider types the scale tells, which is computed anyway; not "larger than": nan fails every comparison
    if tensor.dtype.name == "float16" and not max(numbers.max(), -numbers.min()) <= TYPES["float16"]:
        return None
    # masks, positions, sizes and indices are whole numbers: a hundredth more is another mask
    if _are_whole(numbers):
        return None
    return _place(tensor.name, tensor.shape, numbers, FloatCoding(tensor.dtype.carrier, tensor.shape))


class Survey:
    """Which tensors of a model carry marks. It reads a tensor's numbers when it is asked for it, and hardly others.

    The same for the same model wherever and however it is stored: who marks and who looks for marks ask it alike.
    """

    def __init__(self, model: Model) -> None:
        self._located = locate(model)
        self._names = model.tensors.keys()
        self._experts = any(EXPERTS.search(name) for name in model.tensors)
        self._quantised: Mapping[str, Quantised] = quantised_in(model)
        self._beside = {name for found in self._quantised.values() for name in found.beside}
        self._tied = _Tied(model.tensors, self._located)

    def place_of(self, tensor: Tensor) -> Place | None:
        """The place that a tensor of the model offers, or None."""
        if tensor.name not in self._located or tensor.name in self._beside or is_dual(tensor.name, self._names):
            return None
        if self._experts and EXPERT_GATES.search(tensor.name):
            return None
        # held, because each access of a stored tensor's may cost a reading
        data = tensor.data if tensor.name in self._tied.names else None
        quantised = self._quantised.get(tensor.name)
        place = place_of(tensor) if quantised is None else _quantised_place(tensor, quantised)
        if place is None or data is None:
            return place
        first = self._tied.first(tensor.name, data)
        return place if first is None else replace(place, tied_to=first)


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
    numbers = _real(tensor.data).reshape(-1)
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


def _place(name: str, shape: tuple[int, ...], numbers: NDArray[Any], coding: Coding) -> Place | None:
    lines = numbers.reshape(-1, _row_length(shape))
    scale = np.empty((len(lines), 1), np.float64 if numbers.dtype == np.float64 else np.float32)
    # what need not be converted first takes no memory at once, and less time
    for block in blocks(lines.shape) if lines.dtype.itemsize < 4 else [slice(None)]:
        weights = _real(lines[block])
        scale[block, 0] = np.sqrt(np.einsum("ij,ij->i", weights, weights) / weights.shape[1])
    # a square that is no float32 makes the scale infinite
    return Place(name, shape, lines, scale, coding) if scale.any() and scale.max() <= SCALE_MAX else None


def _real(numbers: NDArray[Any]) -> Weights:
    return np.asarray(numbers, np.float64 if numbers.dtype == np.float64 else np.float32)


def _are_whole(numbers: NDArray[Any]) -> bool:
    lines = numbers.reshape(-1, numbers.shape[-1])
    few = _real(lines[: -(-FEW // lines.shape[1]), :FEW])
    if not np.array_equal(few, np.rint(few)):
        return False
    return all(np.array_equal(found := _real(lines[block]), np.rint(found)) for block in blocks(lines.shape))


def _is_delicate(name: str, shape: tuple[int, ...]) -> bool:
    return ROUTERS.search(name) is not None or (prod(shape) == max(shape) and VECTORS.search(name) is not None)


class _Tied:
    """The first tensor with the same numbers, by the names of the others.

    They are compared when they are asked for, which is when their numbers are in memory: to read a stored tensor for
    this alone is as much work as to mark it. All numbers are only of those whose samples are equal, and then tensors
    before it are read once more.
    """

    def __init__(self, tensors: Mapping[str, Tensor], located: Mapping[str, Any]) -> None:
        self._tensors = tensors
        self._samples: dict[str, bytes] = {}
        self._digests: dict[str, bytes] = {}
        alike: dict[tuple[str, tuple[int, ...]], list[str]] = {}
        for name, tensor in tensors.items():
            if name in located and len(tensor.shape) >= 2 and tensor.element_count >= ELEMENTS_MIN:
                alike.setdefault((tensor.dtype.name, tensor.shape), []).append(name)
        self._alike = {name: names for names in alike.values() if 1 < len(names) <= TIED_MAX for name in names}

    @property
    def names(self) -> Set[str]:
        """The tensors that may be tied."""
        return self._alike.keys()

    def first(self, name: str, data: NDArray[Any]) -> str | None:
        """The name of the first tensor with the numbers of this one of `names`, if that is another."""
        sample = self._samples[name] = _sample(data)
        before = self._alike[name]
        for other in before[: before.index(name)]:
            if other not in self._samples:
                self._samples[other] = _sample(self._tensors[other].data)
            if self._samples[other] == sample and self._digest(other) == self._digest(name, data):
                return other
        return None

    def _digest(self, name: str, data: NDArray[Any] | None = None) -> bytes:
        if name not in self._digests:
            numbers = np.ascontiguousarray(self._tensors[name].data if data is None else data)
            self._digests[name] = blake3(numbers.view(np.uint8).data).digest()
        return self._digests[name]


def _sample(data: NDArray[Any]) -> bytes:
    """What tells most tensors apart: the numbers of the first row and the last, which may be padding alike, or some."""
    ends = (data[(end,) * (data.ndim - 1)][:FEW].tobytes() for end in (0, -1))
    return blake3(b"".join(ends)).digest()


def _row_length(shape: tuple[int, ...]) -> int:
    size = prod(shape)
    return next(length for length in (shape[-1], size // shape[0], size) if length >= ROW_NUMBERS_MIN)
