"""Moves the weights of a place as carriers say, in blocks of rows that stay in the processor's cache.

What the carriers are is for `weights` and `fingerprints`. Pass after pass over whole tensors takes three times as long,
and twice the memory of a tensor of 16 bits.
"""

import numpy as np
from numpy.typing import NDArray

from palladion.mark.carriers import NormalStream, signs_of
from palladion.mark.places import Place, Weights, blocks


class Moved:
    """The weights (rows, columns) of a place, moved by amplitude * scale * (sign + normal number), when asked for.

    `signs` are a bit for every weight, most significant first; `normals` gives its numbers. Either may be None.
    """

    def __init__(
        self, place: Place, *, signs: NDArray[np.uint8] | None, normals: NormalStream | None, amplitude: float
    ) -> None:
        self._place = place
        self._signs, self._normals = signs, normals
        self._scale = place.scale * amplitude
        self._space = np.empty(0, np.float32)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""
        return self._place.numbers.shape

    def __getitem__(self, where: slice | tuple[NDArray[np.intp], NDArray[np.intp]]) -> Weights:
        """The weights in a slice of rows, or at some rows and columns; the latter only where there are no `normals`."""
        if isinstance(where, tuple):
            return self._at(*where)
        first, end, _ = where.indices(self.shape[0])
        moved = np.empty((end - first, self.shape[1]), self._scale.dtype)
        for block in blocks(moved.shape):
            self._read(slice(first + block.start, first + block.stop), moved[block])
        return moved

    def _read(self, rows: slice, out: Weights) -> None:
        weights = self._place.read(rows)
        self._space = self._space if self._space.size >= weights.size else np.empty(weights.size, np.float32)
        flat = self._space[: weights.size]
        start = rows.start * self.shape[1]
        if self._normals is not None:
            self._normals.seek(start)
            self._normals.fill(flat)
            if self._signs is not None:
                flat += _signs(self._signs, start, flat.size)
        elif self._signs is not None:
            flat = _signs(self._signs, start, flat.size)
        else:
            flat[:] = 0
        change = flat.reshape(weights.shape)
        if out.dtype == change.dtype:
            change *= self._scale[rows]
            np.add(change, weights, out=out)
        else:
            np.multiply(change, self._scale[rows], out=out)
            out += weights

    def _at(self, row: NDArray[np.intp], column: NDArray[np.intp]) -> Weights:
        if self._normals is not None:
            raise ValueError("normal numbers are made row by row, got single positions")
        change = np.zeros(len(row), np.float32)
        if self._signs is not None:
            place = row * self.shape[1] + column
            change += 2.0 * ((self._signs[place >> 3] >> (7 - (place & 7)).astype(np.uint8)) & 1) - 1
        moved: Weights = change * self._scale[row, 0] + self._place.numbers[row, column].astype(self._scale.dtype)
        return moved


def moved_by(
    place: Place, *, signs: NDArray[np.uint8] | None, normals: NormalStream | None, amplitude: float
) -> Weights:
    """All of `Moved`."""
    return Moved(place, signs=signs, normals=normals, amplitude=amplitude)[:]


def _signs(bits: NDArray[np.uint8], start: int, count: int) -> NDArray[np.float32]:
    """Those of `count` weights from weight `start` on."""
    skipped = start % 8
    return signs_of(bits[start // 8 : (start + count + 7) // 8], skipped + count)[skipped:]
