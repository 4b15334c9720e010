"""Gives rows and columns of an aligned tensor the say that their noise leaves them.

A thief who scales units and then rounds leaves units of little noise beside units of much. A test that sums residuals
with equal weights would hear the loud ones only; the best linear one weighs each by the inverse of its variance. Looks
at the suspect and the unmarked original alone, as everything in `palladion.mark.align`.
"""

import numpy as np
from numpy.typing import NDArray

from palladion.mark.align.wiring import Floats
from palladion.mark.places import place_of
from palladion.model.tensors import Tensor

NUMBERS_MIN = 16  # in a row or column whose noise is estimated; fewer say little
PRIOR = 4.0  # numbers of average noise that each is given beforehand
MARK_SQUARED = 1e-4  # in units of a row's mean square: below, the residual is the mark itself
WILD = 30.0  # times the lower quartile of residuals: one ruined weight must not silence its row and column
PRUNED = 2.0  # times the error of other weights; as in `palladion.mark.scale`
ROUNDS = 4  # rows and columns disturb each other; a tenth as much each time


def weigh_by_noise(ours: Tensor, aligned: Floats) -> Floats:
    """`aligned`, of the shape of `ours`, with its difference from ours less where it is noisy, more elsewhere.

    The factors are harmonic mean of the variances / variance, so that noise that is the same everywhere changes
    nothing. Numbers that are not finite, and pruned ones, are left as they are.
    """
    place = place_of(ours)
    if place is None:
        return aligned
    weights = place.weights.astype(np.float32, copy=False)
    scale = np.where(place.scale > 0, place.scale, 1).astype(np.float32)
    residual = (aligned.reshape(weights.shape) - weights) / scale
    known = np.isfinite(residual)
    zero = aligned.reshape(weights.shape) == 0
    if _pruned(residual, zero, known):
        known &= ~zero
    if not known.any():
        return aligned
    variance = _variance(np.where(known, residual, 0), known)
    factor = known.sum() / np.where(known, 1 / variance, 0).sum() / variance
    weighed = np.where(known, weights + scale * residual * factor, aligned.reshape(weights.shape))
    return weighed.astype(np.float32).reshape(aligned.shape)


def _pruned(residual: Floats, zero: NDArray[np.bool_], known: NDArray[np.bool_]) -> bool:
    """Whether zeros are further from ours than the other weights; those of a grid are as near."""
    others = known & ~zero
    if not zero.any() or not others.any():
        return False
    return bool(np.median(np.abs(residual[zero])) > PRUNED * np.median(np.abs(residual[others])))


def _variance(residual: Floats, known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The noise of every number (rows, columns): that of its row times that of its column."""
    sizes = np.abs(residual)
    if sizes.any():
        np.minimum(sizes, np.float32(WILD) * np.quantile(sizes[sizes > 0], 0.25, method="lower"), out=sizes)
    squares = np.square(sizes)
    mean = max(float(squares.sum()) / max(1, int(known.sum())), MARK_SQUARED)
    row, column = np.ones(len(squares)), np.full(squares.shape[1], mean)
    for _ in range(ROUNDS):
        if squares.shape[1] >= NUMBERS_MIN:
            row = (squares @ (1 / column) + PRIOR) / (known.sum(axis=1) + PRIOR)
        if len(squares) >= NUMBERS_MIN:
            column = ((1 / np.maximum(row, 1e-6)) @ squares + PRIOR * mean) / (known.sum(axis=0) + PRIOR)
    variance: NDArray[np.float64] = np.maximum(row[:, None] * column, MARK_SQUARED)
    return variance
