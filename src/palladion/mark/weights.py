"""The ownership mark: every weight moved a little up or down, as a secret key says, and found again by correlation.

Post-hoc: no training, no data. The key of a model follows from the owner's root and the digest of the unmarked
original, so that nobody can make up an "original" for which a model of others carries his mark (docs/marks.md).
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.mark.carriers import derive, signs
from palladion.mark.match import Match, matches, sizes
from palladion.mark.places import Place, Weights
from palladion.mark.stats import best_of, log10_p_signs
from palladion.model.model import Model

AMPLITUDE = 0.01  # of a row's root mean square: cosine of MiniLM's embeddings stays .9996, retrieval unchanged
SCHEME = "weights-1"
TESTS = 2  # all tensors together, and the best single one: a thief may have taken only a part


@dataclass(frozen=True)
class TensorFinding:
    """One tensor: the suspect's name for it, how alike they are, and the evidence in it alone (not corrected)."""

    tensor: str
    suspect: str
    correlation: float
    weights: int
    statistic: float
    log10_p: float


@dataclass(frozen=True)
class Finding:
    """What a test says: log10 of the p-value, corrected for all that was looked at, and how it comes about.

    `statistic` is that of all matched tensors together. Nothing matched: log10 p is 0, and `tensors` is empty.
    `comparable` of our `places` have a tensor of their size in the suspect, alike or not.
    """

    log10_p: float
    statistic: float
    tensors: tuple[TensorFinding, ...]
    places: int
    comparable: int


@dataclass
class Evidence:
    """The correlation of residuals with a key's carriers over tensors, each in units of its own noise.

    In their own units, one layer that was trained on would drown what the others say.
    """

    product: float = 0.0
    squares: float = 0.0

    def add(self, found: Match, carrier: NDArray[np.float32]) -> float:
        """Count a tensor in; the normalised correlation in it alone, 0 where there is nothing."""
        product = float(np.vdot(found.residual, carrier))
        # no less noise than the mark itself: a tensor that is the unmarked one must not count for everything
        variance = max(found.variance, AMPLITUDE**2)
        self.product += product / variance
        self.squares += found.squares / variance**2
        return product / math.sqrt(found.squares) if found.squares > 0 else 0.0

    @property
    def statistic(self) -> float:
        """The normalised correlation over all of them; 0 where there is nothing."""
        return self.product / math.sqrt(self.squares) if self.squares > 0 else 0.0


def ownership_key(root: bytes, original: str) -> bytes:
    """The key of one model's mark; `root` is the owner root's "mark", `original` the digest of the unmarked model."""
    return derive(root, "ownership", original)


def mark_place(place: Place, key: bytes, *, amplitude: float = AMPLITUDE) -> Weights:
    """The marked weights (rows, columns) of a place."""
    return moved(place, place.weights, _carrier(place, key), amplitude)


def moved(place: Place, weights: Weights, carrier: NDArray[np.float32], amplitude: float) -> Weights:
    """`weights` of a place, moved as `carrier` says, which is used up."""
    change: Weights = carrier.astype(weights.dtype, copy=False)
    change *= amplitude * place.scale
    change += weights
    return change


def find_ownership(original: Model, suspect: Model, key: bytes) -> Finding:
    """Test whether `suspect` carries the mark of `key`. Valid whatever was done to it, aligned or not."""
    comparable_sizes = sizes(suspect)
    together, tensors = Evidence(), []
    count = comparable = 0
    for place, found in matches(original, suspect):
        count += 1
        comparable += place.weights.size in comparable_sizes
        if found is not None:
            alone = together.add(found, _carrier(place, key))
            log10_p = log10_p_signs(alone)
            tensors.append(TensorFinding(place.name, found.suspect, found.correlation, place.size, alone, log10_p))
        del found  # as large as a tensor, while the next one is matched
    best = best_of([item.log10_p for item in tensors])
    log10_p = best_of([log10_p_signs(together.statistic), best], TESTS)
    return Finding(log10_p, together.statistic, tuple(tensors), count, comparable)


def predicted_log10_p(weights: int, *, noise: float, amplitude: float = AMPLITUDE) -> float:
    """What a test would find in a copy of so many marked weights, disturbed by `noise` in units of a row's RMS."""
    return log10_p_signs(math.sqrt(weights) * amplitude / math.hypot(amplitude, noise)) if weights else 0.0


def _carrier(place: Place, key: bytes) -> NDArray[np.float32]:
    return signs(derive(key, "tensor", place.name), place.weights.size).reshape(place.weights.shape)
