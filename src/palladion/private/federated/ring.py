"""Updates as whole numbers modulo 2^32: clipped, noised on the grid, added without wrapping. Arrays in, arrays out.

Rows are cut to the grid towards 0, which makes no norm larger, so that the sensitivity is the clip itself. Noise is an
exact discrete Gaussian, whose deviation is hundreds of steps at least (`terms.GRID_MIN`): then sums of such are one
too, but for less than e^-600000 (the distributed discrete Gaussian: Kairouz, Liu, Steinke, ICML 2021).
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, TamperError
from palladion.private.dp.randomness import Randomness
from palladion.private.federated.discrete import discrete_gaussian, words_of
from palladion.private.federated.terms import TAIL, Terms

Ring = NDArray[np.uint32]  # (size,)
_INWARDS = 1 - 1e-12  # doubles round: a row that was scaled to the clip must not come out a hair above it


def clipped(update: NDArray[Any], terms: Terms) -> NDArray[np.int64]:
    """The sum (size,) of clipped rows on the grid, of an update (size,) or, for the unit example, (rows, size).

    Raises FormatError on numbers that are none and on other shapes: nothing of a broken training leaves a site.
    """
    rows = np.atleast_2d(np.asarray(update, np.float64))
    wanted = "(size,)" if terms.unit == "site" else "(rows, size)"
    if np.ndim(update) != (1 if terms.unit == "site" else 2) or rows.shape[1] != terms.size:
        raise FormatError(f"an update has the shape {np.shape(update)}, {wanted} was expected, of size {terms.size}")
    if len(rows) > terms.rows_max:
        raise FormatError(f"an update has {len(rows)} rows, the terms allow {terms.rows_max}")
    if not np.isfinite(rows).all():
        raise FormatError("an update holds NaN or infinity", "the training diverged: a smaller step may help")
    with np.errstate(over="ignore"):  # said below
        norms = np.linalg.norm(rows, axis=1)
    if not np.isfinite(norms).all():
        raise FormatError("an update is too large for numbers of 64 bits")
    factor = np.minimum(1.0, terms.clip * _INWARDS / np.maximum(norms, 1e-300))
    return np.asarray(np.trunc(rows * factor[:, None] / terms.quantum).astype(np.int64).sum(axis=0))


def marked(mark: NDArray[Any], terms: Terms) -> NDArray[np.int64]:
    """A site's own mark (size,) on the grid. Raises FormatError on one that is larger than the terms allow."""
    vector = np.asarray(mark, np.float64)
    if vector.shape != (terms.size,) or not np.isfinite(vector).all():
        raise FormatError(f"a mark has the shape {vector.shape} or holds NaN, ({terms.size},) was expected")
    if np.linalg.norm(vector) > terms.mark_max:
        raise FormatError(f"a mark has the norm {np.linalg.norm(vector):.4g}, the terms allow {terms.mark_max:g}")
    return np.trunc(vector / terms.quantum).astype(np.int64)


def noise(terms: Terms, randomness: Randomness) -> NDArray[np.int64]:
    """A site's share of the noise (size,), on the grid."""
    return discrete_gaussian(terms.site_deviation / terms.quantum, terms.size, words_of(randomness))


def in_ring(numbers: NDArray[np.int64], terms: Terms) -> Ring:
    """Whole numbers as ring elements; what is beyond `levels`, a far tail of noise, is cut off, so no sum wraps."""
    return (np.clip(numbers, -terms.levels, terms.levels) & 0xFFFFFFFF).astype(np.uint32)


def total_of(summed: Ring, terms: Terms, results: int) -> NDArray[np.float64]:
    """What a sum of ring elements of so many sites stands for. Raises TamperError on more than honest sites can add."""
    total = summed.view(np.int32).astype(np.float64) * terms.quantum
    largest = results * terms.contribution_max
    if terms.noise_multiplier:
        # the norm of Gaussian noise: √size of its deviations, and hardly more
        largest += math.sqrt(results) * terms.site_deviation * (math.sqrt(terms.size) + TAIL)
    norm = float(np.linalg.norm(total))
    if norm > largest + results * math.sqrt(terms.size) * terms.quantum:
        raise TamperError(
            f"the sum of {results} updates has the norm {norm:.4g}, and clipped ones reach {largest:.4g} at most",
            "at least one site did not clip; which one is hidden by the masks: leave sites out until it holds",
        )
    return np.asarray(total)
