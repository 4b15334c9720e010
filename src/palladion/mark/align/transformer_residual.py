"""The residual stream of a stolen transformer in the order, or the basis, of ours, as the embeddings tell it.

LayerNorm in the stream leaves a thief permutations; where only norms read the stream and gains can be folded into what
comes after them, he may rotate it (orthogonal Procrustes: Schönemann, Psychometrika 31(1), 1966).
"""

from dataclasses import dataclass
from hashlib import sha256, shake_256
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from palladion.mark.align.assignment import assign
from palladion.mark.align.transformer_parts import Floats

ORDER_ENOUGH = 0.9  # mean correlation of units in the best order, above which no rotation is looked for
NUMBERS_MAX = 40_000_000  # of an embedding that are looked at: a few seconds, whatever the vocabulary
LIKE_MIN = 0.3  # correlation of units that are ours; strangers' stay below 0.1 by a thousand tokens
ROUNDS = 4  # of comparing units by what they do with all others
MOVED = 0.1  # by how much a unit must be more like another one's, to say that it was moved


@dataclass(frozen=True, eq=False)
class Basis:
    """How their residual stream of `width` becomes ours: as it is, by an order (ours,), or a matrix (ours, theirs)."""

    kind: Literal["same", "permuted", "rotated"]
    width: int
    order: NDArray[np.intp] | None = None
    turn: Floats | None = None

    def columns(self, matrix: Floats) -> Floats:
        """What reads their stream (outputs, theirs), reading ours (outputs, ours)."""
        if self.turn is not None:
            return matrix @ self.turn.T
        return matrix if self.order is None else matrix[:, self.order]

    def rows(self, matrix: Floats) -> Floats:
        """What writes to their stream (theirs, …), writing to ours (ours, …)."""
        if self.turn is not None:
            return self.turn @ matrix
        return matrix if self.order is None else matrix[self.order]


def basis_of_embeddings(ours: Floats, theirs: Floats, *, rotations: bool) -> Basis | None:
    """The basis in which `theirs` (rows, theirs) is most like `ours` (rows, ours); None where it is not like it."""
    count = min(len(ours), len(theirs))
    rows = _rows(ours, count)
    ours, theirs = _unit_rows(ours[rows]), _unit_rows(theirs[rows])
    basis, likeness = _permutation(ours, theirs, signs=rotations)
    if rotations and likeness < ORDER_ENOUGH and count > ours.shape[1]:
        turn, turned = _rotation(ours, theirs)
        # with few rows a rotation makes anything alike
        if turned > max(likeness + MOVED, LIKE_MIN + (ours.shape[1] / len(ours)) ** 0.5):
            return Basis("rotated", theirs.shape[1], turn=turn)
    return basis if likeness >= _like_min(len(ours)) else None


def _permutation(ours: Floats, theirs: Floats, *, signs: bool = False) -> tuple[Basis | None, float]:
    """The best order of their columns, some negated where `signs` may have changed, and how alike columns are then."""
    if theirs.shape[1] < ours.shape[1]:
        return None, 0.0
    likeness: Floats = _unit_columns(ours).T @ _unit_columns(theirs)
    sizes = np.abs(likeness) if signs else likeness
    units, order = np.arange(len(likeness)), assign(sizes)
    square = likeness.shape[0] == likeness.shape[1]
    moved = not square or bool((sizes[units, order] - sizes.diagonal() > MOVED).any())
    if not moved:
        order = units
    found = likeness[units, order]
    if signs and (found < -LIKE_MIN).any():
        turn = np.zeros(likeness.shape, np.float32)
        turn[units, order] = np.where(found < 0, -1, 1)
        return Basis("rotated", theirs.shape[1], turn=turn), float(np.abs(found).mean())
    basis = Basis("permuted", theirs.shape[1], order) if moved else Basis("same", theirs.shape[1])
    return basis, float(found.mean())


def _rotation(ours: Floats, theirs: Floats) -> tuple[Floats, float]:
    left, strength, right = np.linalg.svd(ours.T @ theirs, full_matrices=False)
    lengths = float(np.linalg.norm(ours)) * float(np.linalg.norm(theirs))
    turn: Floats = left @ right
    return turn, float(strength.sum()) / lengths if lengths else 0.0


def _rows(ours: Floats, count: int) -> NDArray[np.intp] | slice:
    """Rows to look at: drawn from the original, so that nobody can ruin just those."""
    wanted = max(1, NUMBERS_MAX // ours.shape[1])
    if count <= wanted:
        return slice(count)
    digest = sha256(np.ascontiguousarray(ours).tobytes()).digest()
    drawn = np.frombuffer(shake_256(digest).digest(8 * wanted), "<u8") % np.uint64(count)
    return np.unique(drawn).astype(np.intp)


def _unit_rows(matrix: Floats) -> Floats:
    # rows may have scales of their own, and no single one may count for more than another
    lengths: Floats = np.linalg.norm(matrix, axis=1, keepdims=True)
    lengths[lengths == 0] = 1
    return matrix / lengths


def _unit_columns(matrix: Floats) -> Floats:
    centred: Floats = matrix - matrix.mean(axis=0)
    lengths: Floats = np.linalg.norm(centred, axis=0)
    lengths[lengths == 0] = 1
    centred /= lengths
    return centred


def basis_of_products(products: list[tuple[Floats, Floats]], vectors: list[tuple[Floats, Floats]]) -> Basis | None:
    """The order in which products (residual, residual) and vectors (residual,) of theirs are most like ours, or None.

    Each pair is ours and theirs. A first guess by what does not depend on the order of the other units; then each unit
    is compared by what it does with all others, in the order found so far.
    """
    width = len(products[0][0]) if products else 0
    if not products or any(len(item) != width for pair in products + vectors for item in pair):
        return None
    basis, likeness = _permutation(
        np.stack([*_profiles([mine for mine, _ in products]), *(_ranked(mine) for mine, _ in vectors)]),
        np.stack([*_profiles([other for _, other in products]), *(_ranked(other) for _, other in vectors)]),
    )
    wanted = _unit_rows(np.concatenate([item for mine, _ in products for item in (mine, mine.T)]))
    for _ in range(ROUNDS):
        if basis is not None:
            turned = [basis.rows(item) for _, other in products for item in (other, other.T)]
            basis, likeness = _permutation(wanted, _unit_rows(np.concatenate(turned)))
    return basis if likeness >= _like_min(len(wanted)) else None


def _like_min(rows: int) -> float:
    """How alike units must be on average in the best order: with few rows, strangers are as well."""
    return float(LIKE_MIN + 3 / max(1, rows) ** 0.5)


def _profiles(products: list[Floats]) -> list[Floats]:
    return [
        _ranked(profile)
        for product in products
        for profile in (product.diagonal(), np.linalg.norm(product, axis=0), np.linalg.norm(product, axis=1))
    ]


def _ranked(profile: Floats) -> Floats:
    # ranks: outliers are the rule in residual streams
    ranks = np.argsort(np.argsort(profile, kind="stable"), kind="stable")
    return (ranks / len(ranks) - 0.5).astype(np.float32)
