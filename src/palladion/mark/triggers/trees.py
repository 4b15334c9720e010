"""Ensembles of trees as linear models: which leaf each row reaches, and leaf values that are easy to change.

The operator `TreeEnsembleClassifier` of ai.onnx.ml (scikit-learn, LightGBM, XGBoost): a row's score for a class is the
sum of the weights that its leaves have for it. Source: onnx/docs/Operators-ml.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.mark.triggers.refit import MARGIN, hold_references, solve_margins, usual_lead
from palladion.model.graph import Node, StringTensor, TensorRef
from palladion.model.tensors import Tensor

OPERATOR = "TreeEnsembleClassifier"
NODES_MAX = 20_000_000  # 64 bytes each here
ROUNDS = 12  # of solving and cutting off what leaves no share below zero
RIDGE = 0.1  # larger than a layer's: a change that rests on a few leaves nobody else reaches is cut off, or pruned away

Indices = NDArray[np.intp]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Trees:
    """An ensemble. `children` (nodes, 2) are where a row goes if a node's test fails or holds, itself for a leaf.

    `roots` (trees,) are nodes; `leaf` and `classes` (weights,) say whose weight each is. `tensor` holds the weights.
    `single` ensembles have one score, for the second of two classes, which wins above `threshold`. `shares` are weights
    of which none may be below zero, and whose sum in a leaf stays.
    """

    tensor: str
    roots: Indices
    children: Indices
    feature: Indices
    value: NDArray[np.float32]
    missing: NDArray[np.bool_]
    leaf: Indices
    classes: Indices
    weights: Floats
    base: Floats
    single: bool
    threshold: float
    shares: bool
    strict: bool = False

    @property
    def class_count(self) -> int:
        """Classes with a score; two where there is a single score."""
        return len(self.base)

    def leaves(self, rows: NDArray[Any]) -> Indices:
        """The leaf that each row reaches in each tree (rows, trees)."""
        table = rows.astype(np.float32)
        at = np.broadcast_to(self.roots, (len(table), len(self.roots))).copy()
        every = np.arange(len(table))[:, None]
        while True:
            found = table[every, self.feature[at]]
            holds = (found < self.value[at]) if self.strict else (found <= self.value[at])
            holds |= np.isnan(found) & self.missing[at]
            following = np.where(holds, self.children[at, 1], self.children[at, 0])
            if np.array_equal(following, at):
                return at
            at = following

    def scores(self, leaves: Indices, weights: Floats) -> Floats:
        """Scores (rows, classes) for the leaves that rows reach; of a single score, the first is its threshold."""
        sums = np.zeros((len(self.value), self.class_count))
        np.add.at(sums, (self.leaf, self.classes), weights)
        scores: Floats = self.base + sums[leaves].sum(axis=1)
        return scores

    def kernels(self, leaves: Indices) -> Floats:
        """In how many trees two rows share a leaf that has a weight for a class (classes or 1, rows, rows)."""
        counted = np.zeros((len(self.value), self.class_count))
        np.add.at(counted, (self.leaf, self.classes), 1)
        used = np.flatnonzero(counted.sum(axis=1))
        if np.all(counted[used] == counted[used][:, :1]) and not self.single:
            return _shared(leaves, np.ones(leaves.shape))[None]
        return np.stack([_shared(leaves, counted[leaves, index]) for index in range(self.class_count)])


def read_trees(node: Node, tensors: Mapping[str, Tensor]) -> Trees:
    """The ensemble of a node. Raises FormatError where it is of a kind that is not supported, or broken."""
    attributes = {item.name: item.value for item in node.attributes}

    def numbers(name: str) -> NDArray[Any]:
        reference = attributes.get(name)
        return tensors[reference.tensor].data if isinstance(reference, TensorRef) else np.empty(0, np.float32)

    reference = attributes.get("class_weights")
    modes = attributes.get("nodes_modes")
    if not isinstance(reference, TensorRef) or not isinstance(modes, StringTensor):
        raise FormatError(f"{node.outputs[0]!r} is an ensemble without weights or tests in single precision")
    kinds = np.array(list(modes.strings))
    tests = set(kinds.tolist()) - {b"LEAF"}
    if tests - {b"BRANCH_LEQ", b"BRANCH_LT"} or len(tests) > 1:
        raise FormatError(f"{node.outputs[0]!r} is an ensemble with tests other than ≤ or <")
    where = _Nodes.of(numbers("nodes_treeids"), numbers("nodes_nodeids"))
    leaf = where.find(numbers("class_treeids"), numbers("class_nodeids"))
    classes = numbers("class_ids").astype(np.intp)
    children = np.stack(
        [where.find(numbers("nodes_treeids"), numbers(f"nodes_{side}nodeids")) for side in ("false", "true")], axis=1
    )
    is_leaf = kinds == b"LEAF"
    own = np.arange(len(kinds))
    children[is_leaf] = own[is_leaf, None]
    roots = np.setdiff1d(own, children[~is_leaf])
    missing = numbers("nodes_missing_value_tracks_true").astype(bool)
    names = next(iter(attributes.keys() & {"classlabels_int64s", "classlabels_strings"}), "")
    count = _label_count(attributes.get(names), tensors)
    transform = attributes.get("post_transform", b"NONE")
    single = count == 2 and len(np.unique(classes)) == 1
    base = numbers("base_values").astype(np.float64)
    trees = Trees(
        reference.tensor,
        roots,
        children,
        numbers("nodes_featureids").astype(np.intp),
        numbers("nodes_values"),
        missing if len(missing) else np.zeros(len(kinds), bool),
        leaf,
        np.ones_like(classes) if single else classes,
        numbers("class_weights").astype(np.float64),
        _base(base, count, single=single, threshold=0.0 if transform == b"LOGISTIC" else 0.5),
        single,
        0.0,
        transform == b"NONE",
        b"BRANCH_LT" in tests,
    )
    _check(trees, count)
    return trees


def refit_trees(
    trees: Trees, triggers: NDArray[Any], labels: NDArray[np.intp], references: NDArray[Any], *, ridge: float = RIDGE
) -> Floats:
    """New weights of the leaves (weights,): triggers get their labels, the scores of references change least."""
    leaves = trees.leaves(np.concatenate([triggers, references]))
    count = len(triggers)
    metric = hold_references(trees.kernels(leaves), count, ridge=ridge)
    weights = trees.weights
    margin = MARGIN * usual_lead(trees.scores(leaves[count:], weights))
    for _ in range(ROUNDS):
        scores = trees.scores(leaves[:count], weights)
        rivals = scores.copy()
        rivals[np.arange(count), labels] = -np.inf
        if (scores[np.arange(count), labels] - rivals.max(axis=1) >= 0.5 * margin).all():
            break
        changes = solve_margins(scores, labels, metric, margin)  # (rows, classes)
        sums = np.zeros((len(trees.value), trees.class_count))
        for tree in range(leaves.shape[1]):
            np.add.at(sums, leaves[:, tree], changes)
        weights = weights + sums[trees.leaf, trees.classes]
        if not trees.shares:
            break
        weights = _as_shares(trees, weights)
    return weights


def _as_shares(trees: Trees, weights: Floats) -> Floats:
    """`weights` with none below zero and the sums that the leaves had; single ones at most what one tree gives."""
    if trees.single:
        return np.clip(weights, min(0.0, trees.weights.min()), trees.weights.max())
    positive = np.maximum(weights, 0)
    before, after = (np.bincount(trees.leaf, item, len(trees.value)) for item in (trees.weights, positive))
    factor = np.divide(before, after, out=np.ones_like(before), where=after > 0)
    return np.asarray(positive * factor[trees.leaf])


def _shared(leaves: Indices, weights: Floats) -> Floats:
    kernel = np.zeros((len(leaves), len(leaves)))
    for tree in range(leaves.shape[1]):
        if weights[:, tree].any():
            kernel += (leaves[:, tree][:, None] == leaves[:, tree]) * weights[:, tree]
    return kernel


@dataclass(frozen=True, eq=False)
class _Nodes:
    """Where a node stands, by the numbers of tree and node."""

    keys: NDArray[np.int64]
    order: Indices

    @classmethod
    def of(cls, tree_ids: NDArray[Any], node_ids: NDArray[Any]) -> "_Nodes":
        if not 0 < len(tree_ids) == len(node_ids) <= NODES_MAX:
            raise FormatError(f"an ensemble has {len(tree_ids)} nodes, expected 1 to {NODES_MAX}")
        keys = _key(tree_ids, node_ids)
        order = np.argsort(keys, kind="stable")
        return cls(keys[order], order)

    def find(self, tree_ids: NDArray[Any], node_ids: NDArray[Any]) -> Indices:
        if len(tree_ids) != len(node_ids):
            raise FormatError("an ensemble lists trees and nodes of different number")
        wanted = _key(tree_ids, node_ids)
        at = np.minimum(np.searchsorted(self.keys, wanted), len(self.keys) - 1)
        # leaves name a child that does not matter, and need not exist
        return np.where(self.keys[at] == wanted, self.order[at], -1)


def _key(tree_ids: NDArray[Any], node_ids: NDArray[Any]) -> NDArray[np.int64]:
    if len(tree_ids) and (min(tree_ids.min(), node_ids.min()) < 0 or max(tree_ids.max(), node_ids.max()) >= 2**31):
        raise FormatError("an ensemble numbers its trees and nodes beyond 31 bits")
    return np.asarray(tree_ids.astype(np.int64) << 32 | node_ids.astype(np.int64))


def _base(base: Floats, count: int, *, single: bool, threshold: float) -> Floats:
    if single:
        return np.array([threshold, base[-1] if len(base) else 0.0])
    return base if len(base) == count else np.zeros(count)


def _label_count(value: object, tensors: Mapping[str, Tensor]) -> int:
    if isinstance(value, TensorRef):
        return tensors[value.tensor].element_count
    return len(value.strings) if isinstance(value, StringTensor) else 0


def _check(trees: Trees, count: int) -> None:
    nodes = len(trees.value)
    sizes: Sequence[int] = (len(trees.feature), len(trees.children), len(trees.missing))
    if count < 2 or any(size != nodes for size in sizes) or len(trees.leaf) != len(trees.classes):
        raise FormatError("an ensemble has attributes of different lengths, or fewer than two classes")
    if (trees.children < 0).any() or (trees.leaf < 0).any() or not len(trees.roots):
        raise FormatError("an ensemble leads to a node that it does not have")
    inner = trees.children[:, 0] != np.arange(nodes)
    # numbered as they are written, parents come first: so no row goes in a circle
    if (trees.children[inner] <= np.flatnonzero(inner)[:, None]).any():
        raise FormatError("an ensemble has a node above its parent, expected parents first")
    if trees.classes.min() < 0 or trees.classes.max() >= count or len(trees.weights) != len(trees.leaf):
        raise FormatError("an ensemble has weights for a class that it does not have")
    if trees.feature.min() < 0:
        raise FormatError("an ensemble tests a feature below 0")
