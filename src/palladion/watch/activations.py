"""What the layers of a model show of a query, where the policy turns that on: five numbers of each layer.

`digest` makes few numbers of a layer's values, right after the model ran; nothing else of them is kept. `Activations`
is fitted to those of honest rows, and says how far a query is from these. Source: docs/watch.md, "Activations", which
names the patents that are held around looking at activations: whoever turns this on should know them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from hashlib import shake_256
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.watch.rows import Rows, constant

LAYERS_MAX = 8  # five scores each: more of them cost power, and time with every query
VALUES_MAX = 65_536  # of one layer for one row: 64 maps of 32x32, in 256 KiB
SAMPLED = 4096  # of a layer's values are looked at, the same ones each time: larger layers cost no more
SKETCH = 64  # sums of values with random signs that stand for a layer (a sparse random projection)
DIRECTIONS_MAX = 16  # principal directions of a sketch; the ones after them told nothing new on digits
VARIANCE_KEPT = 0.95
SHOWN = 3 + SKETCH  # numbers that a layer shows of a row: level, contrast, share of the quiet, and its sketch
VALUE_MAX = 1e12  # as of inputs: nothing a client sends may turn a score into infinity

# What each layer adds to the features, in order, and what a high or low value means to a person who asks why.
LAYER_FEATURES: Mapping[str, str] = MappingProxyType(
    {
        "level": "a layer of the model responds more or less on average than to honest rows",
        "contrast": "the values of a layer vary more or less among themselves than on honest rows",
        "quiet": "more or fewer values of a layer are switched off, or at their largest, than on honest rows",
        "energy": "a layer responds far out along directions in which it varies on honest rows",
        "residual": "a layer responds in directions in which it does not vary on honest rows",
    }
)
_QUIET, _LOUD = constant(0.01), constant(0.99)  # of the largest value of a row
_TINY, _NEAR, _ZERO = constant(1e-9), constant(1e-6), constant(0)
_LOWEST, _HIGHEST = constant(-VALUE_MAX), constant(VALUE_MAX)


def digest(layers: Sequence[NDArray[Any]], rows: int) -> Rows:
    """What some layers show (rows, layers * SHOWN); each is given by its values (rows, …), of any numbers.

    Raises FormatError for values that are not those of so many rows, or too many. Each row has the same figures,
    whatever rows stand beside it.
    """
    shown = np.empty((rows, len(layers), SHOWN))
    for place, values in enumerate(layers):
        if values.ndim < 2 or len(values) != rows or values.dtype.kind not in "fiu":
            raise FormatError(f"a layer gives {values.dtype} of the shape {values.shape} for {rows} rows")
        size = math.prod(values.shape[1:])
        if not 1 <= size <= VALUES_MAX:
            raise FormatError(f"a layer gives {size} values for a row, 1 to {VALUES_MAX} are looked at")
        drawn, picked = _drawn(size), values.reshape(rows, size)
        if size > len(drawn.places):
            picked = picked.take(drawn.places, axis=1)
        _look(_clean(picked.astype(np.float64)), drawn, shown[:, place])
    return shown.reshape(rows, -1)


def _clean(values: Rows) -> Rows:
    """Values in place, without what no statistic survives: not-a-number becomes 0, and huge ones are clipped."""
    np.minimum(np.maximum(values, _LOWEST, out=values), _HIGHEST, out=values)
    if math.isnan(np.add.reduce(values, axis=None)):
        values[np.isnan(values)] = 0.0
    return values


def _look(picked: Rows, drawn: "_Drawn", shown: Rows) -> None:
    """Write what values (rows, picked) show into `shown` (rows, SHOWN)."""
    count = picked.shape[1]
    sketch = shown[:, 3:]
    if count <= SKETCH:
        sketch[:, :count], sketch[:, count:] = picked, _ZERO
    else:
        np.add.reduceat(picked.take(drawn.order, axis=1) * drawn.signs, drawn.starts, axis=1, out=sketch)
    shown[:, 0] = mean = np.add.reduce(picked, axis=1) / count
    squares = np.add.reduce(np.square(picked - mean[:, None]), axis=1)
    shown[:, 1] = np.log(np.sqrt(squares / count) + _NEAR)
    sizes = np.abs(picked, out=picked)
    largest = np.maximum.reduce(sizes, axis=1)[:, None]
    ends = sizes <= largest * _QUIET
    ends |= sizes >= largest * _LOUD
    shown[:, 2] = np.add.reduce(ends, axis=1) / count


class _Drawn(NamedTuple):
    """Which values of a layer are picked; their order and signs in the sketch, and where each of its sums begins."""

    places: NDArray[np.int64]
    order: NDArray[np.int64]
    signs: Rows
    starts: NDArray[np.int64]


@lru_cache(maxsize=256)  # sizes come from models; each takes 100 KiB at most
def _drawn(size: int) -> _Drawn:
    """Always the same for layers of one size: public, because nobody knows a layer's values but who has the model."""
    words = np.frombuffer(shake_256(f"palladion: activations {size}".encode()).digest(8 * size), "<u8")
    places = np.sort(np.argsort(words, kind="stable")[:SAMPLED])
    order = np.argsort(words[places], kind="stable")
    signs = np.where(words[places][order] & np.uint64(1), 1.0, -1.0)
    return _Drawn(places, order, signs, np.arange(SKETCH) * len(places) // SKETCH)


def layer_words(layers: int) -> Mapping[str, str]:
    """The features of so many layers by name, in order, and what each means; layers are counted from the input on."""
    return MappingProxyType(
        {
            f"layer-{layer}-{name}": f"{meaning} (layer {layer})"
            for layer in range(1, 1 + layers)
            for name, meaning in LAYER_FEATURES.items()
        }
    )


@dataclass(frozen=True, eq=False)
class Activations:
    """How some layers respond to honest rows: of each sketch its middle, and the directions in which it varies.

    `names` are those of the layers' values in the graph. Arrays: `centre`, `scale` (layers, SKETCH), `directions`
    (layers, SKETCH, kept), `deviations` (layers, kept). A layer that varies in fewer directions has columns of zeros,
    with a deviation of 1.
    """

    names: tuple[str, ...]
    centre: Rows
    scale: Rows
    directions: Rows
    deviations: Rows

    @classmethod
    def fit(cls, names: Sequence[str], shown: Rows) -> "Activations":
        """Fit to what the layers show (rows, layers * SHOWN) of honest rows. Raises ValueError where it is not theirs.

        At least one layer, and at most `LAYERS_MAX`.
        """
        if not 1 <= len(names) <= LAYERS_MAX or shown.shape[1] != len(names) * SHOWN or not len(shown):
            raise ValueError(f"{len(names)} layers, and what is shown has the shape {shown.shape}")
        sketches = shown.reshape(len(shown), len(names), SHOWN)[:, :, 3:]
        centre, deviation = sketches.mean(axis=0), sketches.std(axis=0)
        # a unit that honest rows never switch on must not make every other response infinite
        floor = np.maximum(np.median(deviation, axis=1, keepdims=True) * 1e-2, _TINY)
        scale = np.maximum(deviation, floor)
        standard = (sketches - centre) / scale
        directions = np.zeros((len(names), SKETCH, DIRECTIONS_MAX))
        deviations = np.ones((len(names), DIRECTIONS_MAX))
        for layer in range(len(names)):
            found = standard[:, layer]
            variances, vectors = np.linalg.eigh(found.T @ found / len(found))
            variances, vectors = variances[::-1], vectors[:, ::-1]
            share = np.cumsum(variances) / max(float(variances.sum()), float(_TINY))
            kept = min(int(np.searchsorted(share, VARIANCE_KEPT)) + 1, DIRECTIONS_MAX)
            directions[layer, :, :kept] = vectors[:, :kept]
            deviations[layer, :kept] = np.sqrt(np.maximum(variances[:kept], _TINY))
        return cls(tuple(names), centre, scale, directions, deviations)

    @property
    def width(self) -> int:
        """How many numbers the layers show of a row."""
        return len(self.names) * SHOWN

    @cached_property
    def words(self) -> Mapping[str, str]:
        """The features by name, in order, and what each means."""
        return layer_words(len(self.names))

    def measure(self, shown: Rows) -> Rows:
        """The features (rows, layers * 5) of what the layers show (rows, layers * SHOWN); NaN where that is NaN."""
        parts = shown.reshape(len(shown), len(self.names), SHOWN)
        found = np.empty((len(shown), len(self.names), len(LAYER_FEATURES)))
        found[:, :, :3] = parts[:, :, :3]
        standard = (parts[:, :, 3:] - self.centre) / self.scale
        # a product for each row and layer, so that no row is rounded by its neighbours
        inside = np.matmul(standard[:, :, None, :], self.directions)[:, :, 0, :]
        beyond = np.add.reduce(np.square(standard), axis=2) - np.add.reduce(np.square(inside), axis=2)
        found[:, :, 4] = np.log(np.maximum(beyond / SKETCH, _ZERO) + _NEAR)
        found[:, :, 3] = np.log(np.add.reduce(np.square(inside / self.deviations), axis=2) / self._kept + _NEAR)
        return found.reshape(len(shown), -1)

    @cached_property
    def _kept(self) -> Rows:
        """In how many directions each layer (layers,) varies."""
        return np.asarray((self.directions != 0).any(axis=1).sum(axis=1), np.float64)
