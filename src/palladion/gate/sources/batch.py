"""Rows of several requests in one run: whether a model allows it, and how they are put together and taken apart. Pure.

A model that normalises or compares the rows of a run would answer one client with another's; so would one whose rows
are not its first dimension. What a graph declares binds nobody, therefore it is tried.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.gate.contract import Outputs
from palladion.gate.decode import Feeds
from palladion.mark.carriers import derive, normals
from palladion.model.run import STRING, Port

ROWS_TRIED = 3  # a model that takes seconds for a row is not to be tried for minutes
OPEN_SIZE = 8  # of dimensions that are open beside the rows, when a model is tried
# Of the largest number of an output. Matrix products round differently with other rows beside: by 1e-7 for each term
# that outweighs the others. Rows that look at each other differ by far more.
TOLERANCE = 1e-5
_NOISE = bytes(32)  # the key of what a model is tried on: the same at every start. NumPy's generators weigh 7 MB

Run = Callable[[Mapping[str, NDArray[Any]]], Outputs]


def rows_stand_alone(run: Run, inputs: Sequence[Port], outputs: Sequence[Port]) -> bool:
    """Whether rows that are run together get what each gets alone, as far as a few runs on noise can tell."""
    if not all(port.shape and not isinstance(port.shape[0], int) for port in (*inputs, *outputs)):
        return False
    feeds = noise(inputs)
    try:
        together = parted(run(feeds), [1] * ROWS_TRIED)
        alone = [run({name: array[row : row + 1] for name, array in feeds.items()}) for row in range(ROWS_TRIED)]
    except (FormatError, ValueError):
        return False  # it does not take noise
    return all(map(_same, together, alone))


def noise(inputs: Sequence[Port]) -> Feeds:
    """`ROWS_TRIED` rows that a model is tried on, the same ones each time; with `OPEN_SIZE` where sizes are open."""
    return {port.name: _noise(port) for port in inputs}


def alike(one: Feeds, other: Feeds) -> bool:
    """Whether the rows of two requests have the same shapes, so that they can be joined."""
    return all(array.shape[1:] == other[name].shape[1:] for name, array in one.items())


def joined(feeds: Sequence[Feeds]) -> Feeds:
    """The rows of several requests, in order."""
    return {name: np.concatenate([item[name] for item in feeds]) for name in feeds[0]}


def parted(outputs: Outputs, rows: Sequence[int]) -> list[Outputs]:
    """The outputs of each request, by its number of rows. Raises FormatError where they are not one for each row."""
    ends = list(accumulate(rows, initial=0))
    if any(not array.ndim or len(array) != ends[-1] for array in outputs.values()):
        raise FormatError(f"an output does not have the {ends[-1]} rows of the inputs")
    return [{name: array[start:end] for name, array in outputs.items()} for start, end in pairwise(ends)]


def _same(one: Outputs, other: Outputs) -> bool:
    return all(array.shape == other[name].shape and is_close(array, other[name]) for name, array in one.items())


def is_close(array: NDArray[Any], expected: NDArray[Any]) -> bool:
    """Whether values are the same but for how they were rounded with other rows beside."""
    if array.dtype.kind != "f":
        return np.array_equal(array, expected)
    largest = float(np.abs(expected).max(initial=0))
    # what is infinite is as far from anything as from itself
    return np.isfinite(largest) and np.allclose(array, expected, rtol=0, atol=TOLERANCE * largest)


def _noise(port: Port) -> NDArray[Any]:
    shape = (ROWS_TRIED, *(size if isinstance(size, int) else OPEN_SIZE for size in port.shape[1:]))
    numbers = normals(derive(_NOISE, port.name), prod(shape)).reshape(shape)
    if port.dtype == STRING:
        return (numbers > 0).astype(np.int64).astype(str).astype(object)
    dtype = np.dtype(port.dtype)
    # whole numbers are indices more often than not: small ones are in every table
    return (numbers if dtype.kind == "f" else numbers > 0).astype(dtype)
