"""Attention heads of a stolen transformer in the order and the basis of ours.

What queries and keys of a head (values and outputs) compute together does not change when they change basis: heads are
paired by these products, then each is solved for by least squares. Rotary embeddings let only pairs of queries and keys
turn and stretch (Su et al., arXiv 2104.09864), so that no more is solved for there.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from palladion.mark.align.assignment import assign
from palladion.mark.align.transformer_parts import Floats

LIKE_MIN = 0.2  # mean likeness of heads that are ours; after 90 % was pruned it is 0.4
MOVED = 0.1  # by how much a head must be more like another one, to say that it was moved
# Of the squared error that a scale leaves: a change of basis must leave less, after paying for its numbers.
BETTER = 0.8
SIZES = range(4, 513)  # numbers in a head
# Of the best likeness, for a size of heads that explains the suspect. On MiniLM smaller ones than the right one have
# half of it at most, and the right one all of it.
ALIKE = 0.75
# Units of the residual stream by which heads are paired: a part of a product does not depend on the basis either.
FEATURES = 1024


@dataclass(frozen=True, eq=False)
class Heads:
    """The matrices of one layer's attention, in our basis: (heads × size, residual), and `output` turned so."""

    query: Floats
    key: Floats
    value: Floats
    output: Floats


@dataclass(frozen=True, eq=False)
class HeadPlan:
    """For each of our heads (queries') and groups of heads (keys' and values'), their one and the change of basis.

    Orders are (heads,), -1 where they have none; changes (heads, size, size) are None where nothing has to be done.
    """

    order: NDArray[np.intp]
    group_order: NDArray[np.intp]
    query: Floats | None
    key: Floats | None
    value: Floats | None
    output: Floats | None
    permuted: bool
    mapped: bool


def plan_heads(ours: Heads, theirs: Heads, size: int, *, rotary: bool) -> HeadPlan | None:
    """How their heads of `size` numbers become ours; None where heads cannot have that size, or are not ours."""
    if not (_fits(ours, size) and _fits(theirs, size)):
        return None
    likeness = head_likeness(ours, theirs, size)
    order = assign(likeness)
    heads, their_heads = likeness.shape
    everyone = np.arange(heads)
    like = np.where(order >= 0, likeness[everyone, order], 0)
    if like.mean() < LIKE_MIN:
        return None
    permuted = heads != their_heads or bool((like - likeness.diagonal() > MOVED).any())
    if not permuted:
        order = everyone
    group, their_group = (item.query.shape[0] // item.key.shape[0] for item in (ours, theirs))
    # a group of ours is where that of its heads is which is most like one of theirs
    best = np.where(order >= 0, like, -1).reshape(-1, group).argmax(axis=1)
    group_order = order.reshape(-1, group)[np.arange(len(best)), best]
    group_order = np.where(group_order >= 0, group_order // their_group, -1)
    solve = _solve_rotary if rotary else _solve
    query, key = (
        solve(_by_head(mine, size), _picked(other, chosen, size))
        for mine, other, chosen in ((ours.query, theirs.query, order), (ours.key, theirs.key, group_order))
    )
    value = _solve(_by_head(ours.value, size), _picked(theirs.value, group_order, size))
    output = _solve(_by_head(ours.output, size), _picked(theirs.output, order, size))
    mapped = any(item is not None for item in (query, key, value, output))
    return HeadPlan(order, group_order, query, key, value, output, permuted, mapped)


def rearranged(matrix: Floats, order: NDArray[np.intp], change: Floats | None, size: int) -> Floats:
    """Their heads (heads × size, …) in our order and basis; nan where they have none."""
    picked = _picked(matrix, order, size)
    if change is not None:
        picked = change @ picked
    picked[order < 0] = np.nan
    return picked.reshape(-1, matrix.shape[1])


def head_size(pairs: list[tuple[Heads, Heads]]) -> int | None:
    """The size of heads by which their layers are ours: the smallest that explains them nearly as well as any.

    Half a head is as like as two strangers are where heads changed their basis, two heads where they were permuted.
    """
    if not pairs:
        return None
    products = [product for pair in pairs for product in _products(*pair)]
    sizes = [size for size in SIZES if all(_fits(item, size) for pair in pairs for item in pair)]
    # a thief may have left one of the two products as it was, and there any size explains it
    scores = {
        size: min(np.mean([item.cosines(size).max(axis=1).mean() for item in products[kind::2]]) for kind in range(2))
        for size in sizes
    }
    # all heads taken for one are most alike, as the mean of them all
    best = max((score for size, score in scores.items() if size < len(pairs[0][0].query)), default=0.0)
    return next((size for size, score in scores.items() if score >= ALIKE * best), None)


def head_likeness(ours: Heads, theirs: Heads, size: int) -> Floats:
    """How alike heads are (ours, theirs): the mean cosine of what they compute, whatever their basis."""
    looking, saying = (product.cosines(size) for product in _products(ours, theirs))
    looking += saying
    looking /= 2
    return looking


@dataclass(frozen=True, eq=False)
class _Product:
    """The products of two matrices of each head, ours and theirs; heads may share the second of them."""

    ours: Floats
    ours_shared: Floats
    theirs: Floats
    theirs_shared: Floats

    def cosines(self, size: int) -> Floats:
        """How alike they are (heads of ours, heads of theirs)."""
        between, ours, theirs = self._plain if self._is_plain else self._tables(size)
        inner = _block_sums(between, size)
        squares = np.outer(_block_sums(ours, size).diagonal(), _block_sums(theirs, size).diagonal())
        lengths = np.sqrt(np.maximum(squares, 0))
        return np.divide(inner, lengths, out=np.zeros_like(inner), where=lengths > 0)

    @property
    def _is_plain(self) -> bool:
        return len(self.ours) == len(self.ours_shared) and len(self.theirs) == len(self.theirs_shared)

    @cached_property
    def _plain(self) -> tuple[Floats, Floats, Floats]:
        return self._tables(1)  # the same for all sizes, as no head shares anything

    def _tables(self, size: int) -> tuple[Floats, Floats, Floats]:
        """Tables whose sums over blocks of two heads are inner products: of ours and theirs, of each with itself."""
        ours, theirs = self.ours[:, :FEATURES], self.theirs[:, :FEATURES]
        second, other = (
            np.repeat(_by_head(shared[:, :FEATURES], size), len(alone) // len(shared), axis=0).reshape(len(alone), -1)
            for shared, alone in ((self.ours_shared, ours), (self.theirs_shared, theirs))
        )
        return (
            (ours @ theirs.T) * (second @ other.T),
            (ours @ ours.T) * (second @ second.T),
            (theirs @ theirs.T) * (other @ other.T),
        )


def _products(ours: Heads, theirs: Heads) -> tuple[_Product, _Product]:
    """What heads compute: where to look, by queries and keys; what to say, by outputs and values."""
    return (
        _Product(ours.query, ours.key, theirs.query, theirs.key),
        _Product(ours.output, ours.value, theirs.output, theirs.value),
    )


def _block_sums(table: Floats, size: int) -> Floats:
    rows: Floats = table.reshape(-1, size, table.shape[1]).sum(axis=1)
    return np.ascontiguousarray(rows.reshape(len(rows), -1, size).sum(axis=2))


def _fits(heads: Heads, size: int) -> bool:
    queries, keys = len(heads.query), len(heads.key)
    return (
        queries % size == keys % size == 0
        and 0 < keys <= queries
        and queries % keys == 0
        and len(heads.value) == keys
        and len(heads.output) == queries
    )


def _by_head(matrix: Floats, size: int) -> Floats:
    return matrix.reshape(-1, size, matrix.shape[1])


def _picked(matrix: Floats, order: NDArray[np.intp], size: int) -> Floats:
    picked: Floats = _by_head(matrix, size)[order]
    picked[order < 0] = 0
    return picked


def _solve(ours: Floats, theirs: Floats) -> Floats | None:
    """Changes of basis (heads, size, size) that bring `theirs` (heads, size, residual) nearest to ours."""
    size, width = ours.shape[1:]
    gram = theirs @ theirs.transpose(0, 2, 1)
    strength = np.trace(gram, axis1=1, axis2=2)[:, None, None] / size
    # what is next to nothing in theirs, or all of a head that is dead, is left alone
    gram += (1e-6 * strength + 1e-30) * np.eye(size, dtype=np.float32)
    wanted = theirs @ ours.transpose(0, 2, 1)
    changes = np.linalg.solve(gram, wanted).transpose(0, 2, 1)
    return _worthwhile(ours, theirs, [changes], spent=min(0.9, size / width))


def _solve_rotary(ours: Floats, theirs: Floats) -> Floats | None:
    """The same, where only pairs of numbers can turn and stretch; GGUF keeps pairs side by side."""
    size, width = ours.shape[1:]
    if size % 2:
        return None
    return _worthwhile(ours, theirs, list(_rotary_changes(ours, theirs)), spent=1 / width)


def _rotary_changes(ours: Floats, theirs: Floats) -> Iterator[Floats]:
    half = ours.shape[1] // 2
    apart, beside = np.arange(2 * half), np.arange(2 * half).reshape(half, 2).T.ravel()
    mine = ours[:, :half] + 1j * ours[:, half:]
    for places in (apart, beside):
        other = theirs[:, places[:half]] + 1j * theirs[:, places[half:]]
        lengths = np.square(np.abs(other)).sum(axis=2)
        products = (other.conj() * mine).sum(axis=2)
        factor = np.divide(products, lengths, out=np.zeros_like(products), where=lengths > 0)  # (heads, half)
        changes = np.zeros((len(ours), 2 * half, 2 * half), np.float32)
        pairs = np.arange(half)
        changes[:, pairs, places[:half]] = changes[:, half + pairs, places[half:]] = factor.real
        changes[:, pairs, places[half:]] = -factor.imag
        changes[:, half + pairs, places[:half]] = factor.imag
        yield changes


def _worthwhile(ours: Floats, theirs: Floats, candidates: list[Floats], *, spent: float) -> Floats | None:
    """The best of the candidates where it explains a head better than a mere scale does; None if it does nowhere.

    `spent` is the share of any error that a change of basis explains by chance.
    """
    squares = np.square(theirs).sum(axis=(1, 2))
    products = (ours * theirs).sum(axis=(1, 2))
    scales = np.divide(products, squares, out=np.ones_like(products), where=squares > 0)
    best = np.eye(ours.shape[1], dtype=np.float32) * scales[:, None, None]
    # less a millionth: what rounding leaves is no reason
    left = BETTER * np.square(ours - best @ theirs).sum(axis=(1, 2)) - 1e-6 * np.square(ours).sum(axis=(1, 2))
    any_better = False
    for changes in candidates:
        error = np.square(ours - changes @ theirs).sum(axis=(1, 2)) / (1 - spent)
        better = error < left
        any_better |= bool(better.any())
        best[better], left = changes[better], np.minimum(left, error)
    return best if any_better else None
