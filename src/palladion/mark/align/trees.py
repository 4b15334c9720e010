"""Undoes what leaves the function of tree ensembles as it is: trees, nodes and leaves written in another order.

Leaf values are found again by structure alone: their tree, the way from its root, and what they count for. Neither
ours nor the suspect's values are looked at, which carry the mark. Missing leaves become nan, foreign ones are ignored.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from palladion.mark.align.assignment import assign
from palladion.mark.align.forest import LEAF, LEVELS_MAX, Floats, Forest, Indices, first_seen, mixed, read_forest
from palladion.mark.align.realigned import Realigned
from palladion.mark.attributes import NUMBERS_MIN, is_attribute
from palladion.model.model import Model
from palladion.model.tensors import DTYPES, Tensor

TOP = 3  # levels by which trees are told that were cut back further down
DIGITS = 3  # of thresholds that were rounded
# How far thresholds may have moved: of what those of a feature spread by, and of their own size. Beyond, it is another
# tree, or a leaf that rows reach otherwise.
TOLERANCE, TOLERANCE_OWN = 0.1, 0.01
PAIRS_MAX = 4_000_000  # of trees that are alike but for their thresholds: a second. More are paired in order

Hashes = NDArray[np.uint64]


def realign_trees(original: Model, suspect: Model) -> Realigned:
    """`suspect` with the leaf values of its trees in our order; unchanged where they are, or no tree is like ours.

    Thresholds may be rounded, subtrees cut off, trees left out, added, or spread over more ensembles. Trees that are
    alike in everything but leaf values are taken in the order that they are in. Some seconds for a million leaves.
    """
    ours, theirs = read_forest(original), read_forest(suspect)
    if ours is None or theirs is None or ours.same_as(theirs):
        return Realigned(suspect, ())
    trees = _pair_trees(ours, theirs)
    source = _pair_values(ours, theirs, _pair_leaves(ours, theirs, trees))
    known = ours.leaf >= 0
    found = int((source >= 0).sum())
    in_place = _in_place(original, suspect, ours)
    if found < NUMBERS_MIN or (in_place and 2 * found < np.count_nonzero(known)):
        return Realigned(suspect, ())
    paired = trees[trees >= 0]
    added = int((theirs.leaf >= 0).sum()) - found
    missing = int(known.sum()) - found
    found_as = (
        "trees in another order" if (np.diff(paired) < 0).any() else "",
        "leaves in another order" if (np.diff(source[source >= 0]) < 0).any() else "",
        f"{missing} leaf values missing" if missing else "",
        f"{added} leaf values added" if added > 0 else "",
        "leaf values in other tensors" if ours.counts != theirs.counts and not missing and not added else "",
    )
    needed = tuple(item for item in found_as if item)
    if not needed:
        return Realigned(suspect, ())
    tensors = {name: tensor for name, tensor in suspect.tensors.items() if name not in theirs.names}
    tensors |= _gathered(original, suspect, (ours, theirs), source)
    return Realigned(replace(suspect, tensors=MappingProxyType(tensors)), needed)


def _in_place(original: Model, suspect: Model, ours: Forest) -> bool:
    """Whether the suspect has a tensor of our size under each of our names, so that it can be compared as it is."""
    return all(
        name in suspect.tensors and suspect.tensors[name].element_count == original.tensors[name].element_count
        for name in ours.names
    )


def _gathered(original: Model, suspect: Model, forests: tuple[Forest, Forest], source: Indices) -> dict[str, Tensor]:
    """Our leaf tensors, with the suspect's values."""
    ours, theirs = forests
    values = np.concatenate([suspect.tensors[name].data.reshape(-1) for name in theirs.names])
    if values.dtype == np.float16:
        values = values.astype(np.float32)
    ordered = np.where(source >= 0, values[np.maximum(source, 0)], values.dtype.type(np.nan))
    found, start = {}, 0
    for name, count in zip(ours.names, ours.counts, strict=True):
        if is_attribute(name):
            part = np.ascontiguousarray(ordered[start : start + count].reshape(original.tensors[name].shape))
            found[name] = Tensor(name, DTYPES[part.dtype.name], part.shape, part)
        start += count
    return found


@dataclass(frozen=True, eq=False)
class _Signatures:
    """What each tree is told by (trees,), from the finest to the coarsest; `tops` are its upper thresholds."""

    exact: Hashes
    rounded: Hashes
    shape: Hashes
    top_rounded: Hashes
    top_shape: Hashes
    tops: Floats


def _pair_trees(ours: Forest, theirs: Forest) -> Indices:
    """The suspect's tree for each of ours (trees,), -1 for none."""
    spread = _Spread.of(ours)
    one, other = _signatures(ours, spread), _signatures(theirs, spread)
    pairs = np.full(len(ours.roots), -1)
    free = np.ones(len(theirs.roots), bool)
    room = PAIRS_MAX
    rounds: tuple[tuple[Callable[[_Signatures], Hashes], bool], ...] = (
        (lambda told: told.exact, False),
        (lambda told: told.rounded, False),
        (lambda told: told.shape, True),
        (lambda told: told.top_rounded, True),
        (lambda told: told.top_shape, True),
    )
    for signature, nearest in rounds:
        for mine, others in _groups(signature(one), pairs < 0, signature(other), free):
            work = len(mine) * len(others)
            if nearest and 1 < work <= room:
                room -= work
                column = assign(-_distances(one.tops[mine], other.tops[others]))
                chosen = mine[column >= 0], others[column[column >= 0]]
            else:
                count = min(len(mine), len(others))
                chosen = mine[:count], others[:count]
            pairs[chosen[0]] = chosen[1]
            free[chosen[1]] = False
    return pairs


def _groups(
    ours: Hashes, open_ours: NDArray[np.bool_], theirs: Hashes, open_theirs: NDArray[np.bool_]
) -> Iterator[tuple[Indices, Indices]]:
    """Trees of both that are still open and have the same signature, each in the order that they are in."""
    mine, others = _sorted(ours, open_ours), _sorted(theirs, open_theirs)
    my_hashes, other_hashes = ours[mine], theirs[others]
    common = np.intersect1d(my_hashes, other_hashes)
    ends = [np.searchsorted(item, common, side) for item in (my_hashes, other_hashes) for side in ("left", "right")]
    for first, last, other_first, other_last in zip(*(item.tolist() for item in ends), strict=True):
        yield mine[first:last], others[other_first:other_last]


def _sorted(hashes: Hashes, which: NDArray[np.bool_]) -> Indices:
    there = np.flatnonzero(which)
    return there[np.argsort(hashes[there], kind="stable")]


def _signatures(forest: Forest, spread: "_Spread") -> _Signatures:
    count = len(forest.roots)
    sums = np.zeros((5, count), np.uint64)
    ways = _ways(TOP)
    tops = np.zeros((count, len(ways)))
    tree_of = np.zeros(len(forest.kind), np.int64)
    thresholds = _as_bits(forest.threshold), _as_bits(_rounded(forest.threshold))
    for depth, (nodes, trees, paths) in enumerate(forest.levels()):
        tree_of[nodes] = trees
        test = (forest.feature[nodes] * 4 + forest.kind[nodes]).astype(np.uint64)
        shape = mixed(paths, test)
        tokens = [mixed(shape, thresholds[0][nodes]), mixed(shape, thresholds[1][nodes]), shape]
        for row, token in enumerate(tokens):
            np.add.at(sums[row], trees, token)
        if depth < TOP:
            np.add.at(sums[3], trees, tokens[1])
            np.add.at(sums[4], trees, tokens[2])
            with np.errstate(over="ignore"):
                upper = forest.threshold[nodes] / spread.units(forest.feature[nodes])
            tops[trees, np.searchsorted(ways, paths)] = upper
    targets = _targets(forest, tree_of)
    exact, rounded, whole, top_rounded, top_shape = (mixed(row, targets) for row in sums)
    return _Signatures(exact, rounded, whole, top_rounded, top_shape, tops)


def _ways(levels: int) -> Hashes:
    """The hashes of all ways to nodes of the first levels of a tree, sorted."""
    found = [np.zeros(1, np.uint64)]
    for _ in range(levels - 1):
        found.append(np.concatenate([mixed(found[-1], np.uint64(side)) for side in (1, 2)]))
    return np.sort(np.concatenate(found))


def _targets(forest: Forest, tree_of: Indices) -> Hashes:
    """What each tree counts for, where that is one thing: trees of boosting are alike but for their class."""
    count = len(forest.roots)
    known = forest.leaf >= 0
    trees, targets = tree_of[forest.leaf[known]], forest.target[known]
    least, most = np.full(count, 2**31), np.full(count, -1)
    np.minimum.at(least, trees, targets)
    np.maximum.at(most, trees, targets)
    return np.where(least == most, least + 1, 0).astype(np.uint64)


def _as_bits(thresholds: Floats) -> Hashes:
    with np.errstate(over="ignore"):
        return (thresholds + 0.0).astype(np.float32).view(np.uint32).astype(np.uint64)  # 0.0: minus zero is zero


def _rounded(thresholds: Floats) -> Floats:
    """To significant decimal digits, the same of a number as of what it was rounded to."""
    size = np.abs(thresholds)
    there = np.isfinite(size) & (size > 0)
    exponent = np.floor(np.log10(size, where=there, out=np.zeros_like(size))) - (DIGITS - 1)
    step = 10.0**exponent
    return np.where(there, np.rint(np.divide(thresholds, step, where=there, out=thresholds.copy())) * step, thresholds)


@dataclass(frozen=True, eq=False)
class _Spread:
    """How far the thresholds of each of our `features` (features,), which are sorted, spread (`sizes`)."""

    features: Indices
    sizes: Floats

    @classmethod
    def of(cls, forest: Forest) -> "_Spread":
        inner = (forest.kind != LEAF) & np.isfinite(forest.threshold)
        features, place = np.unique(forest.feature[inner], return_inverse=True)
        count = np.maximum(np.bincount(place), 1)
        with np.errstate(over="ignore", invalid="ignore"):
            mean = np.bincount(place, forest.threshold[inner]) / count
            squares = np.bincount(place, np.square(forest.threshold[inner] - mean[place])) / count
        return cls(features, np.sqrt(np.where(np.isfinite(squares) & (squares > 0), squares, 1.0)))

    def units(self, features: Indices) -> Floats:
        """The spread of each of `features`, whatever numbers these are; 1 where none is known."""
        if not len(self.features):
            return np.ones(len(features))
        at = np.minimum(np.searchsorted(self.features, features), len(self.features) - 1)
        return np.where(self.features[at] == features, self.sizes[at], 1.0)


def _distances(ours: Floats, theirs: Floats) -> NDArray[np.float32]:
    """How far upper thresholds are apart (ours, theirs); one that is nowhere near is no worse than one that is not."""
    total = np.zeros((len(ours), len(theirs)), np.float32)
    with np.errstate(invalid="ignore"):
        for one, other in zip(ours.T, theirs.T, strict=True):
            total += np.nan_to_num(np.minimum(np.abs(one[:, None] - other[None]), 1.0), nan=1.0).astype(np.float32)
    return total


def _pair_leaves(ours: Forest, theirs: Forest, pairs: Indices) -> Indices:
    """Our leaf for each of the suspect's nodes (nodes,), -1 for none: both trees are walked down together."""
    units = _Spread.of(ours).units(ours.feature)
    tolerance = np.maximum(TOLERANCE * units, TOLERANCE_OWN * np.abs(ours.threshold))
    leaves, seen = np.full(len(theirs.kind), -1), np.zeros(len(ours.kind), bool)
    known = np.flatnonzero(pairs >= 0)
    mine, others = ours.roots[known], theirs.roots[pairs[known]]
    for _ in range(LEVELS_MAX):
        if not len(mine):
            break
        same = (ours.kind[mine] == theirs.kind[others]) & (ours.feature[mine] == theirs.feature[others])
        one, other = ours.threshold[mine], theirs.threshold[others]
        with np.errstate(invalid="ignore"):
            same &= (one == other) | (np.abs(one - other) <= tolerance[mine])
        mine, others = mine[same], others[same]
        ends = ours.kind[mine] == LEAF
        leaves[others[ends]] = mine[ends]
        sides = [(ours.children[mine[~ends], side], theirs.children[others[~ends], side]) for side in (0, 1)]
        mine, others = (np.concatenate(parts) for parts in zip(*sides, strict=True))
        new = first_seen(mine, seen)
        mine, others = mine[new], others[new]
    return leaves


def _pair_values(ours: Forest, theirs: Forest, leaves: Indices) -> Indices:
    """The suspect's value for each of ours (values,), -1 for none: of the same leaf, and for the same target."""
    source = np.full(len(ours.leaf), -1)
    known = np.flatnonzero(ours.leaf >= 0)
    their_leaf = np.where(theirs.leaf >= 0, leaves[theirs.leaf], -1)
    others = np.flatnonzero(their_leaf >= 0)
    if not len(known) or not len(others):
        return source
    keys = ours.leaf[known] << 31 | ours.target[known]
    other_keys = their_leaf[others] << 31 | theirs.target[others]
    order, other_order = np.argsort(keys, kind="stable"), np.argsort(other_keys, kind="stable")
    keys, other_keys = keys[order], other_keys[other_order]
    # a leaf may have several values for one target: the first belongs to the first
    rank = np.arange(len(other_keys)) - np.searchsorted(other_keys, other_keys)
    at = np.searchsorted(keys, other_keys) + rank
    there = at < np.searchsorted(keys, other_keys, "right")
    source[known[order[at[there]]]] = others[other_order[there]]
    return source
