"""Moves the weights of a place as carriers say, in blocks of rows that stay in the processor's cache.

What the carriers are is for `weights` and `fingerprints`. Pass after pass over whole tensors takes three times as long.
"""

import numpy as np
from numpy.typing import NDArray

from palladion.mark.carriers import NormalStream, signs_of
from palladion.mark.places import Place, Weights

BLOCK_NUMBERS = 65_536  # smaller ones cost more in calls than they save


def moved_by(
    place: Place, *, signs: NDArray[np.uint8] | None, normals: NormalStream | None, amplitude: float
) -> Weights:
    """The weights (rows, columns) of a place, moved by amplitude * scale * (sign + normal number).

    `signs` are a bit for every weight, most significant first; `normals` gives its next numbers. Either may be None.
    """
    rows, columns = place.weights.shape
    step = max(1, BLOCK_NUMBERS // columns)
    if columns % 8:
        step = -(-step // 8) * 8  # so that a block begins with a whole byte of signs
    scale = place.scale * amplitude
    moved = np.empty_like(place.weights)
    space = np.empty(min(rows, step) * columns, np.float32)
    for first in range(0, rows, step):
        there = slice(first, min(rows, first + step))
        block = moved[there]
        change = space[: block.size]
        change[:] = 0
        if normals is not None:
            normals.fill(change)
        if signs is not None:
            start = first * columns
            change += signs_of(signs[start // 8 : (start + block.size + 7) // 8], block.size)
        np.multiply(change.reshape(block.shape), scale[there], out=block)
        block += place.weights[there]
    return moved
