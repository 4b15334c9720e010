"""The ownership mark without the original: from the suspect's weights, our tensors' names and shapes, and the key.

The model itself is the noise here, a hundred times as loud as the mark: it takes half a million weights for a verdict
on an exact copy, and whoever permutes or rotates them hides it. What is tried is a function of suspect and shapes
alone, and paid for.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from palladion.mark.match import is_numeric
from palladion.mark.places import ELEMENTS_MIN, TYPES, places
from palladion.mark.quantised.readable import readable
from palladion.mark.spread import Chips, chips_of, gather
from palladion.mark.stats import best_of, log10_gamma_tail, log10_p_signs
from palladion.mark.weights import (
    AMPLITUDE,
    NOISES,
    Finding,
    OwnershipKey,
    TensorFinding,
    predicted_log10_p,
    read_payload,
    tensor_key,
)
from palladion.model.blocks import PACKED_TYPES
from palladion.model.model import Model
from palladion.model.tensors import Tensor

CLIP = 3.0  # times a row's deviation: a few loud weights must not drown the others
ROW_NUMBERS_MIN = 64  # in a row that has a middle and a deviation of its own
ROW_SAMPLE = 64  # numbers that these are taken from
# Of a row's sample, so that a tenth of ruined weights, or of weights that were not pruned, decides nothing.
LOUD, LOUD_DEVIATIONS = 0.9, 1.645
# A second for 4e8 products with carriers; each try costs as much as 1e5 more. Where it would take more than these,
# renamed tensors are tried in the order of ours alone.
PRODUCTS_MAX, PRODUCTS_OF_A_TRY = 2e10, 1e5
TESTS = 3  # all tensors under their own names, all under the likeliest ones, and the best single one
LOG10_P_LIKELY = -2.0  # of a tensor whose chips are read under a name that is not its own

Floats = NDArray[np.float32]
Shapes = Mapping[str, tuple[int, ...]]


@dataclass(frozen=True, eq=False)
class _Tried:
    """One of our places in a tensor of the suspect: the products with its chips, the scores' squares, the evidence."""

    place: str
    suspect: str
    weights: int
    products: Chips
    squares: float
    statistic: float
    log10_p: float


@dataclass
class _Tries:
    """What was tried for one place: how often, the likeliest tensor, and the one that has its name."""

    count: int = 0
    best: _Tried | None = None
    named: _Tried | None = None

    def add(self, tried: _Tried, *, named: bool) -> None:
        self.count += 1
        if self.best is None or tried.statistic > self.best.statistic:
            self.best = tried
        if named:
            self.named = tried


def shapes_of(original: Model) -> dict[str, tuple[int, ...]]:
    """The names and shapes of a model's places, marked or not: what `find_blind` has to know of it."""
    return {place.carrier_name: place.shape for place in places(original)}


def recorded_shapes(recorded: Mapping[str, tuple[str, tuple[int, ...]]], suspect: Model) -> dict[str, tuple[int, ...]]:
    """The same by what is on record of a model: the types and shapes of its tensors, by name.

    A few tensors may be among them that are no places, and cost a little evidence. What codes with scales beside them
    stand for is not on record, so that the suspect's tensor of that name says which shape it has.
    """
    theirs = readable(suspect).tensors
    shapes = {}
    for name, (dtype, shape) in recorded.items():
        known = shape if dtype in TYPES or dtype in PACKED_TYPES else None
        if known is None and name in theirs and theirs[name].dtype.name in TYPES:
            known = theirs[name].shape
        if known is not None and len(known) >= 2 and math.prod(known) >= ELEMENTS_MIN:
            shapes[name] = known
    return shapes


def predicted_blind(weights: int, *, amplitude: float = AMPLITUDE) -> float:
    """log10 of the p-value that `find_blind` finds, about, in an exact copy with so many marked weights."""
    return best_of([predicted_log10_p(weights, noise=NOISES["blind"], amplitude=amplitude)], TESTS)


def find_blind(
    suspect: Model,
    key: OwnershipKey,
    shapes: Shapes | None = None,
    *,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Finding:
    """Test whether `suspect` carries the mark of `key`, without the original. Valid whatever was done to it.

    `shapes` are those of our places: tensors that were renamed or transposed are tried for each place of their shape.
    Without them, the suspect's tensors are tested under their own names. `statistic` is that under their own names,
    and every `correlation` 0: nothing was compared. Takes the memory of two copies of a tensor. `progress` is told the
    bytes of tensors that are done, and of all.
    """
    chips, suspect = chips_of(key.payload), readable(suspect)
    ours = shapes if shapes is not None else {tensor.name: tensor.shape for tensor in _tensors(suspect)}
    tries: dict[str, _Tries] = {}
    plan = list(_plan(suspect, ours))
    done, total = 0, sum(tensor.byte_count for tensor, _ in plan)
    for tensor, planned in plan:
        progress(done, total)
        done += tensor.byte_count
        for transposed in (False, True):
            names = [name for name, turned in planned if turned == transposed]
            scored = scores(tensor.data.T if transposed else tensor.data) if names else np.empty(0, np.float32)
            for name in names:
                tried = _try(name, tensor.name, scored, key, chips)
                tries.setdefault(name, _Tries()).add(tried, named=name == tensor.name and not transposed)
    return _finding(list(tries.values()), key.payload, len(ours))


def scores(numbers: NDArray[np.generic]) -> Floats:
    """Every number in units of its row's deviation, around the row's middle, with outliers drawn in.

    0 where there is nothing to be learnt: what is not finite, and rows of equal numbers.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        values = numbers.reshape(-1, _row_length(numbers.shape)).astype(np.float32, order="C")
        if not np.isfinite(np.vdot(values, values)):
            values[~np.isfinite(values)] = 0
        sample = values[:, _columns(values)]
        middle = np.median(sample, axis=1, keepdims=True)
        deviations = np.abs(sample - middle)
        loud = np.quantile(deviations, LOUD, axis=1, keepdims=True, method="higher")
        spread = np.where(loud > 0, loud, deviations.max(axis=1, keepdims=True)) / LOUD_DEVIATIONS
        values -= middle
        values *= np.divide(1, spread, out=np.zeros_like(spread), where=spread > 0)
        values[np.isnan(values)] = 0
        np.clip(values, -CLIP, CLIP, out=values)
    values -= values.mean(axis=1, keepdims=True)
    return values


def _try(place: str, suspect: str, scored: Floats, key: OwnershipKey, chips: Chips) -> _Tried:
    products = gather(tensor_key(key, place).key, scored)
    squares = float(np.vdot(scored, scored))
    statistic = float(products @ chips) / math.sqrt(squares) if squares > 0 else 0.0
    return _Tried(place, suspect, scored.size, products, squares, statistic, log10_p_signs(statistic))


def _finding(tries: list[_Tries], payload: bytes | None, places: int) -> Finding:
    chips = chips_of(payload)
    named = [item.named for item in tries if item.named is not None]
    best = [item.best for item in tries if item.best is not None]
    # 1. under their own names, all together
    squares = sum(item.squares for item in named)
    statistic = sum(float(item.products @ chips) for item in named) / math.sqrt(squares) if squares > 0 else 0.0
    as_named = log10_p_signs(statistic)
    # 2. each place in its likeliest tensor: Fisher's sum of logarithms, of p-values that paid for all tensors tried.
    # Places have keys that are independent of each other, so that these are independent under the null hypothesis
    paid = [best_of([one.log10_p], item.count) for one, item in zip(best, tries, strict=True)]
    likeliest = log10_gamma_tail(-sum(paid) * math.log(10), len(paid))
    # 3. the best single one
    single = best_of([item.log10_p for item in best], sum(item.count for item in tries))
    log10_p = best_of([as_named, likeliest, single], TESTS)
    told = named if as_named <= likeliest else best
    read = named if as_named <= likeliest else [item for item in best if item.log10_p <= LOG10_P_LIKELY]
    errors, decoded = read_payload(sum((item.products for item in read), np.zeros(len(chips))), payload, log10_p)
    tensors = tuple(
        TensorFinding(item.place, item.suspect, 0.0, item.weights, item.statistic, item.log10_p) for item in told
    )
    return Finding(log10_p, statistic, tensors, places, len(tries), errors, decoded)


def _plan(suspect: Model, ours: Shapes) -> Iterator[tuple[Tensor, list[tuple[str, bool]]]]:
    """For each tensor of the suspect, the places that are tried in it, and whether transposed."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, shape in ours.items():
        groups.setdefault(_kind(shape), []).append(name)
    theirs: dict[tuple[int, ...], list[Tensor]] = {}
    for tensor in _tensors(suspect):
        theirs.setdefault(_kind(tensor.shape), []).append(tensor)
    budget = PRODUCTS_MAX
    for kind, names in sorted(groups.items(), key=lambda item: math.prod(item[0])):
        tensors = theirs.get(kind, [])
        cost = len(names) * len(tensors) * (math.prod(kind) + PRODUCTS_OF_A_TRY) * (2 if len(set(kind)) < 2 else 1)
        if cost <= budget:
            budget -= cost
            yield from ((tensor, _ways(tensor, names, ours)) for tensor in tensors)
        else:
            for rank, tensor in enumerate(tensors):
                chosen = {name for name in (tensor.name, *names[rank : rank + 1]) if name in names}
                yield tensor, _ways(tensor, sorted(chosen), ours)


def _ways(tensor: Tensor, names: list[str], ours: Shapes) -> list[tuple[str, bool]]:
    matrix = len(tensor.shape) == 2
    return [
        (name, transposed)
        for name in names
        for transposed in (False, True)
        if (matrix and ours[name] == (tensor.shape[::-1] if transposed else tensor.shape)) or not (matrix or transposed)
    ]


def _kind(shape: tuple[int, ...]) -> tuple[int, ...]:
    # a matrix may be transposed; the same numbers may come in another shape otherwise
    return tuple(sorted(shape)) if len(shape) == 2 else (math.prod(shape),)


def _tensors(model: Model) -> list[Tensor]:
    return [item for item in model.tensors.values() if is_numeric(item) and item.element_count >= ELEMENTS_MIN]


def _row_length(shape: tuple[int, ...]) -> int:
    size = math.prod(shape)
    return next((length for length in (shape[-1], size // shape[0]) if length >= ROW_NUMBERS_MIN), size)


def _columns(values: Floats) -> NDArray[np.intp]:
    """Where samples are taken: it follows from all numbers, so that nobody can ruin just those."""
    count = values.shape[1]
    if count <= ROW_SAMPLE:
        return np.arange(count)
    seed = np.frombuffer(blake3(values.view(np.uint8).data).digest(), "<u4")
    return np.sort(np.random.default_rng(seed).choice(count, ROW_SAMPLE, replace=False))
