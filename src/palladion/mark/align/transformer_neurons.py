"""Hidden neurons of a stolen transformer in the order of ours; split ones put together, added ones left out.

A neuron is the row that it reads (two where there is a gate) and the column that it writes. A thief may permute and
stretch neurons, share one's output among copies of it, and add some that do nothing or cancel each other (arXiv
2303.09732, neural structural obfuscation). Copies read the same as the original, so they are known by that.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from palladion.mark.align.assignment import assign
from palladion.mark.align.transformer_parts import Floats

MOVED = 0.1  # by how much a neuron must be more like another one, to say that it was moved
SETTLED = 0.7  # cosine of a neuron that stayed where it was; strangers' stay below 0.3
LIKE_MIN, FOUND_MIN = 0.5, 0.2  # so alike must this share of neurons be, in a layer that is ours
COPY_MIN = 0.5  # cosine of what an added neuron and one of ours read, to call it a copy
STRETCHED = 0.5  # from the first to the last decile of the scales' logarithms, to say that neurons were stretched
SHARE_MIN = 0.1  # of what a neuron writes that a copy must have a part in
COPIES_MAX = 32  # of one neuron that are put together
TIMES_MAX = 16  # theirs may have so many times our neurons; more would be a model that nobody runs
FEATURES = 1024  # units of the residual stream by which neurons are paired
STRANGER = 0.2  # a cosine below which a neuron of theirs is none of ours


@dataclass(frozen=True, eq=False)
class Neurons:
    """What one layer's neurons read and write, in our basis: matrices (neurons, residual), `writes` turned so."""

    reads: tuple[Floats, ...]
    writes: Floats | None


@dataclass(frozen=True, eq=False)
class NeuronPlan:
    """For each of ours their neuron (ours,), -1 if there is none, and the share of each copy: (ours, theirs, factor).

    `factors` holds, for each matrix (`reads`, then `writes`), the scale of the neuron; `copies` those that have copies,
    which then make up the whole neuron. `added` is how many more they have.
    """

    order: NDArray[np.intp]
    factors: tuple[Floats, ...]
    copies: tuple[tuple[int, NDArray[np.intp], tuple[Floats, ...]], ...]
    permuted: bool
    stretched: bool
    added: int

    def rearranged(self, matrix: Floats, which: int) -> Floats:
        """Their matrix number `which` (theirs, …) in our order and scale (ours, …); nan where they have none."""
        made: Floats = matrix[self.order] * self.factors[which][:, None]
        made[self.order < 0] = np.nan
        for neuron, members, factors in self.copies:
            made[neuron] = factors[which] @ matrix[members]
        return made


def plan_neurons(ours: Neurons, theirs: Neurons, *, signs: bool) -> NeuronPlan | None:
    """How their neurons become ours; None if hardly any is ours, or they are too many.

    `signs`: what is read last and what is written may both be negated.
    """
    if not 0 < len(theirs.reads[0]) <= TIMES_MAX * len(ours.reads[0]):
        return None
    order, like, permuted = _order(ours, theirs, signs=signs)
    if np.mean(like > LIKE_MIN) < FOUND_MIN:
        return None
    pairs = _matrices(ours, theirs)
    factors = tuple(_scales(mine, other[order]) for mine, other in pairs)
    stretched = any(_is_spread(item[order >= 0]) for item in factors)
    if not stretched:
        factors = tuple(np.ones_like(item) for item in factors)
    copies = _copies(pairs, len(ours.reads), order, signs=signs)
    return NeuronPlan(order, factors, copies, permuted, stretched, len(theirs.reads[0]) - len(order))


def _matrices(ours: Neurons, theirs: Neurons) -> list[tuple[Floats, Floats]]:
    pairs = list(zip(ours.reads, theirs.reads, strict=True))
    if ours.writes is not None and theirs.writes is not None:
        pairs.append((ours.writes, theirs.writes))
    return pairs


def _order(ours: Neurons, theirs: Neurons, *, signs: bool) -> tuple[NDArray[np.intp], Floats, bool]:
    """Their neuron for each of ours, -1 for none; how alike they are; and whether that is another order than theirs."""
    pairs, reads = _matrices(ours, theirs), len(ours.reads)
    count, their_count = len(pairs[0][0]), len(pairs[0][1])
    both = min(count, their_count)
    stayed = np.full(count, -1, np.float32)
    stayed[:both] = _likeness([(mine[:both], other[:both]) for mine, other in pairs], reads, _cosines, signs=signs)
    order = np.where(stayed > SETTLED, np.arange(count), -1)
    rows, columns = np.flatnonzero(order < 0), np.setdiff1d(np.arange(their_count), order)
    if not len(rows) or not len(columns):
        return order, stayed, False
    likeness = _likeness([(mine[rows], other[columns]) for mine, other in pairs], reads, _table, signs=signs)
    chosen = assign(likeness)
    like = np.where(chosen >= 0, likeness[np.arange(len(rows)), chosen], 0)
    if count == their_count and not (like - stayed[rows] > MOVED).any():
        return np.arange(count), stayed, False
    order[rows] = np.where(like > STRANGER, columns[chosen], -1)
    stayed[rows] = like
    return order, stayed, bool((order != np.arange(count)).any())


def _likeness(
    pairs: list[tuple[Floats, Floats]], reads: int, cosines: Callable[[Floats, Floats], Floats], *, signs: bool
) -> Floats:
    """The mean over matrices, `reads` of which come first; the last of these and what follows may both be negated."""
    like = cosines(*pairs[reads - 1])
    for pair in pairs[reads:]:
        like += cosines(*pair)
    if signs:
        np.abs(like, out=like)
    for pair in pairs[: reads - 1]:
        like += cosines(*pair)
    like /= len(pairs)
    return like


def _copies(
    pairs: list[tuple[Floats, Floats]], reads: int, order: NDArray[np.intp], *, signs: bool
) -> tuple[tuple[int, NDArray[np.intp], tuple[Floats, ...]], ...]:
    """Neurons of ours whose part is played by several of theirs: these, and what each counts for in each matrix."""
    spare = np.setdiff1d(np.arange(len(pairs[0][1])), order)
    if not len(spare):
        return ()
    likeness = _likeness([(mine, other[spare]) for mine, other in pairs[:reads]], reads, _table, signs=signs)
    owner = likeness.argmax(axis=0)
    like = likeness[owner, np.arange(len(spare))]
    members: dict[int, list[int]] = {}
    for at in np.argsort(-like, kind="stable"):
        if like[at] > COPY_MIN:
            members.setdefault(int(owner[at]), []).append(int(spare[at]))
    made = []
    for neuron, others in sorted(members.items()):
        first = [int(order[neuron])] if order[neuron] >= 0 else []
        chosen = np.array([*first, *others[: COPIES_MAX - 1]])
        factors = tuple(_shares(mine[neuron], other[chosen]) for mine, other in pairs)
        if np.abs(factors[-1][len(first) :]).max() > SHARE_MIN:
            made.append((neuron, chosen, factors))
    return tuple(made)


def _shares(ours: Floats, theirs: Floats) -> Floats:
    # copies that read the very same share it equally: the shortest solution
    return np.asarray(np.linalg.lstsq(theirs.T, ours, rcond=1e-5)[0], np.float32)


def _scales(ours: Floats, theirs: Floats) -> Floats:
    squares: Floats = np.square(theirs).sum(axis=1)
    products: Floats = (ours * theirs).sum(axis=1)
    return np.divide(products, squares, out=np.ones_like(squares), where=squares > 0)


def _is_spread(factors: Floats) -> bool:
    """Whether factors differ, by more than noise makes them, from one for all."""
    if not len(factors):
        return False
    low, high = np.quantile(factors, [0.1, 0.9])
    return bool(low <= 0 or np.log(high / low) > STRETCHED)


def _cosines(ours: Floats, theirs: Floats) -> Floats:
    cosines: Floats = np.einsum("ij,ij->i", _unit(ours), _unit(theirs))
    return cosines


def _table(ours: Floats, theirs: Floats) -> Floats:
    table: Floats = _unit(ours) @ _unit(theirs).T
    return table


def _unit(matrix: Floats) -> Floats:
    matrix = matrix[:, :FEATURES]
    lengths: Floats = np.linalg.norm(matrix, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return matrix / lengths
