"""How rows and layers lie in slots: interleaved, so that one rotation moves one feature on for all rows at once. Pure.

Feature i of row b stands in slot i × rows + b. A layer of `outputs` × `inputs` is a sum of diagonals of its weights,
each times the vector rotated (Halevi and Shoup, CRYPTO 2014); a layer with fewer outputs than inputs needs as many
diagonals as outputs, and then adds the vector to itself, rotated (Juvekar et al., GAZELLE, USENIX Security 2018).
Rotations are shared by baby and giant steps, one after the other, so that two keys serve all of them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import log2

import numpy as np
from numpy.typing import NDArray


def power_of_two(number: int) -> int:
    """The smallest power of two that is not below `number`."""
    return 1 << max(0, number - 1).bit_length()


@dataclass(frozen=True)
class LayerPlan:
    """How one layer is computed: periods of its input and output, and how many baby and giant steps there are."""

    period_in: int
    period_out: int
    babies: int
    giants: int
    copies: int = 1  # of its input, each rotated on by as many diagonals as there are

    @property
    def diagonals(self) -> int:
        """Of its weights."""
        return self.babies * self.giants

    @property
    def folds(self) -> tuple[int, ...]:
        """Rotations, in features, by which the vector is added to itself in the end."""
        count = int(log2(max(1, self.copies * self.period_in // self.period_out)))
        return tuple(self.period_out << step for step in range(count))

    @property
    def rotations(self) -> set[int]:
        """All that it needs, in features."""
        steps = {1} if self.babies > 1 else set()
        return steps | ({self.babies} if self.giants > 1 else set()) | set(self.folds)


@dataclass(frozen=True)
class Layout:
    """Where everything of a program lies: `width` features for each of `rows` rows in one ciphertext.

    With several copies of a row, the first layer needs so many times fewer diagonals: fewer rows, a shorter wait.
    """

    width: int
    rows: int
    layers: tuple[LayerPlan, ...]

    @property
    def rotations(self) -> tuple[int, ...]:
        """Steps in slots, for each of which the client makes a key."""
        return tuple(sorted({step * self.rows for layer in self.layers for step in layer.rotations}))

    def spread(self, vector: NDArray[np.float64]) -> NDArray[np.float64]:
        """A vector (period,) in all slots (width × rows,): for every row, over and over."""
        return np.repeat(np.tile(vector, self.width // vector.size), self.rows)

    def pack(self, rows: NDArray[np.float64]) -> NDArray[np.float64]:
        """Rows (≤ rows, features) as the slots of one ciphertext."""
        first = self.layers[0]
        table = np.zeros((first.period_in, self.rows))
        table[: rows.shape[1], : rows.shape[0]] = rows.T
        return table[_columns(self, 0)].ravel()

    def unpack(self, slots: NDArray[np.float64], count: int, outputs: int) -> NDArray[np.float64]:
        """The answers (count, outputs) to the first `count` rows."""
        return slots.reshape(self.width, self.rows)[:outputs, :count].T.copy()


def plan(shapes: Sequence[tuple[int, int]], slots: int, *, copies: int = 1) -> Layout | None:
    """The layout of layers of these shapes (outputs, inputs); None where they, or the copies, do not fit."""
    periods = [power_of_two(shapes[0][1]), *(power_of_two(outputs) for outputs, _ in shapes)]
    width = max(periods) * copies
    # copies stand where the first layer would be repeated anyway, and share its diagonals among them
    if width > slots or (copies > 1 and (periods[0] < max(periods) or periods[1] < copies)):
        return None
    layers = []
    for index in range(len(shapes)):
        before, after = periods[index : index + 2]
        share = copies if index == 0 else 1
        count = min(before, after) // share
        babies = _babies(count, last=index == len(shapes) - 1)
        layers.append(LayerPlan(before, after, babies, count // babies, share))
    return Layout(width, slots // width, tuple(layers))


def plan_for(shapes: Sequence[tuple[int, int]], slots: int, *, rows: int) -> Layout | None:
    """The layout with as many copies as leave place for `rows` rows in one ciphertext."""
    found, copies = plan(shapes, slots), 2
    while found is not None:
        next_one = plan(shapes, slots, copies=copies)
        if next_one is None or next_one.rows < rows:
            break
        found, copies = next_one, 2 * copies
    return found


def _babies(diagonals: int, *, last: bool) -> int:
    """Baby steps of so many diagonals: they are taken a level higher than giant steps, but in the last layer."""
    # a rotation at level 3 takes 1.7 times one at level 2, and each giant step a rescale besides, half a rotation
    dear, cheap = (1.0, 1.0) if last else (1.7, 1.5)
    options = [1 << power for power in range(diagonals.bit_length())]
    return min(options, key=lambda babies: dear * babies + cheap * (diagonals // babies))


def _columns(layout: Layout, index: int) -> NDArray[np.int64]:
    """Which input of a layer stands at each place of the width: copy k begins k × diagonals further on."""
    layer, place = layout.layers[index], np.arange(layout.width)
    if layer.copies == 1:
        return place % layer.period_in
    return (place + place // layer.period_in * layer.diagonals) % layer.period_in


def diagonals(
    layout: Layout, index: int, weights: NDArray[np.float64]
) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    """Giant step, baby step and slots of each diagonal of weights (outputs, inputs), but for those of zeros."""
    layer = layout.layers[index]
    padded = np.zeros((layer.period_out, layer.period_in))
    padded[: weights.shape[0], : weights.shape[1]] = weights
    place, column = np.arange(layout.width), _columns(layout, index)
    for giant in range(layer.giants):
        for baby in range(layer.babies):
            step = giant * layer.babies + baby
            here = place - giant * layer.babies  # the sum is rotated by the giant step afterwards
            values = padded[here % layer.period_out, column[(here + step) % layout.width]]
            if values.any():
                yield giant, baby, np.repeat(values, layout.rows)
