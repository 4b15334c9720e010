"""Ensembles of trees by their structure: tests, and which leaf value belongs to which leaf and target.

The operators `TreeEnsembleClassifier`, `TreeEnsembleRegressor` and `TreeEnsemble` of ai.onnx.ml, all of a model as one
forest; leaf values stay where they are, in tensors. Structure comes from a suspect, so that what is broken, or refers
to itself, is left out and never followed. Source: onnx/docs/Operators-ml.md.
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.model.graph import Node, StringTensor, TensorRef
from palladion.model.model import Model
from palladion.model.tensors import Tensor

NODES_MAX = 20_000_000  # of a forest, and leaf values: some hundred bytes each here
LEVELS_MAX = 10_000  # of a tree: each takes some calls, whatever stands in it
DOMAIN = "ai.onnx.ml"

LEAF, ORDER, EQUAL, MEMBER = range(4)
# Of each test: what it compares, and whether the branch of those that pass is the upper one. "at most" and "less" are
# told apart by the last bit of a threshold alone.
_TESTS = {
    b"BRANCH_LEQ": (ORDER, False),
    b"BRANCH_LT": (ORDER, False),
    b"BRANCH_GTE": (ORDER, True),
    b"BRANCH_GT": (ORDER, True),
    b"BRANCH_EQ": (EQUAL, False),
    b"BRANCH_NEQ": (EQUAL, True),
    b"BRANCH_MEMBER": (MEMBER, False),
    b"LEAF": (LEAF, False),
}
_NUMBERS = {test: number for number, test in enumerate(_TESTS)}  # those of `TreeEnsemble`, and one for leaves
_FLOATS = {"float16", "float32", "float64"}
_WHOLE = {"int64", "int32", "int16", "int8", "uint8", "bool"}

Indices = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Forest:
    """Trees, the `roots` (trees,) of which are nodes without a parent.

    Of each node, `kind` says what its test compares (LEAF: nothing), `feature` and `threshold` with what, and
    `children` (nodes, 2) where a row goes that lies below the threshold, or above it: the direction is the same
    however the test is written; -1 for leaves. `leaf` and `target` (values,) say whose leaf value each is, and for
    what; the values are those of the tensors `names`, which have so many (`counts`), one after the other.
    """

    kind: NDArray[np.int8]
    feature: Indices
    threshold: Floats
    children: Indices
    roots: Indices
    leaf: Indices
    target: Indices
    names: tuple[str, ...]
    counts: tuple[int, ...]

    def same_as(self, other: "Forest") -> bool:
        """Whether all of the structure of `other` is the same, and written in the same order."""
        lists = ("kind", "feature", "threshold", "children", "leaf", "target")
        return self.counts == other.counts and all(
            np.array_equal(getattr(self, name), getattr(other, name)) for name in lists
        )

    def levels(self) -> Iterator[tuple[Indices, Indices, NDArray[np.uint64]]]:
        """The nodes of each level from the roots down, the tree of each, and a hash of the way to it."""
        nodes, trees = self.roots, np.arange(len(self.roots))
        paths = np.zeros(len(nodes), np.uint64)
        seen = np.zeros(len(self.kind), bool)
        for _ in range(LEVELS_MAX):
            if not len(nodes):
                return
            yield nodes, trees, paths
            following = np.concatenate([self.children[nodes, side] for side in (0, 1)])
            ways = np.concatenate([mixed(paths, np.uint64(side)) for side in (1, 2)])
            new = first_seen(following, seen)
            nodes, trees, paths = following[new], np.tile(trees, 2)[new], ways[new]


def first_seen(nodes: Indices, seen: NDArray[np.bool_]) -> Indices:
    """Which of `nodes` stand there for the first time; they are `seen` from now on. -1 is none.

    Tests of sets, written as several tests of one value, lead to the same node, and a hostile file leads anywhere.
    """
    there = np.flatnonzero(nodes >= 0)
    there = there[~seen[nodes[there]]]
    first = there[np.sort(np.unique(nodes[there], return_index=True)[1])]
    seen[nodes[first]] = True
    return first


def read_forest(model: Model) -> Forest | None:
    """All ensembles of the main graph together; None where there is none that is understood."""
    if model.graph is None:
        return None
    parts: list[Forest] = []
    room = NODES_MAX
    for node in model.graph.main.nodes:
        if node.domain != DOMAIN:
            continue
        part = _read(node, model.tensors, room)
        if part is not None:
            room -= max(len(part.kind), len(part.leaf))
            parts.append(part)
    return _joined(parts) if parts else None


def mixed(one: NDArray[np.uint64], other: NDArray[np.uint64] | np.uint64) -> NDArray[np.uint64]:
    """A hash of each pair: the finaliser of SplitMix64. Who makes two trees collide loses his own to a wrong pair."""
    state = one * np.uint64(0x9E3779B97F4A7C15) + other + np.uint64(0xD1B54A32D192ED03)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(state ^ (state >> np.uint64(31)))


def _read(node: Node, tensors: Mapping[str, Tensor], room: int) -> Forest | None:
    lists = _Lists(node, tensors)
    if node.op_type == "TreeEnsembleClassifier":
        return _by_ids(lists, "class", room)
    if node.op_type == "TreeEnsembleRegressor":
        return _by_ids(lists, "target", room)
    return _by_places(lists, room) if node.op_type == "TreeEnsemble" else None


class _Lists:
    """The attributes of a node as arrays, empty where they are missing."""

    def __init__(self, node: Node, tensors: Mapping[str, Tensor]) -> None:
        self._values = {item.name: item.value for item in node.attributes}
        self._tensors = tensors

    def whole(self, name: str) -> Indices:
        """Whole numbers."""
        tensor = self._tensor(name, _WHOLE)
        return np.empty(0, np.int64) if tensor is None else tensor.data.reshape(-1).astype(np.int64)

    def real(self, name: str) -> Floats:
        """Real numbers, in single or double precision."""
        tensor = self._tensor(name, _FLOATS)
        return np.empty(0) if tensor is None else tensor.data.reshape(-1).astype(np.float64)

    def weights(self, name: str) -> tuple[str, int]:
        """The tensor that holds leaf values, and how many; "" where there is none."""
        tensor = self._tensor(name, _FLOATS)
        return ("", 0) if tensor is None else (tensor.name, tensor.element_count)

    def tests(self, count: int) -> Indices:
        """The test of each of `count` nodes, as `_TESTS` numbers them; -1 for one that is not known.

        Those beyond the list are leaves. Empty where the list is longer.
        """
        value = self._values.get("nodes_modes")
        if isinstance(value, StringTensor):
            if len(value.strings) > count:
                return np.empty(0, np.int64)
            told = np.fromiter((_NUMBERS.get(test, -1) for test in value.strings), np.int64, len(value.strings))
        else:
            modes = self.whole("nodes_modes")[: count + 1]
            told = np.where((modes >= 0) & (modes < _NUMBERS[b"LEAF"]), modes, -1)
        return np.concatenate([told, np.full(max(0, count - len(told)), _NUMBERS[b"LEAF"])])

    def _tensor(self, name: str, types: Container[str]) -> Tensor | None:
        """The tensor of an attribute, which may have a form of its own in double precision."""
        for spelled in (name, f"{name}_as_tensor"):
            reference = self._values.get(spelled)
            tensor = self._tensors.get(reference.tensor) if isinstance(reference, TensorRef) else None
            if tensor is not None and tensor.dtype.name in types and 0 < tensor.element_count <= NODES_MAX:
                return tensor
        return None


def _by_ids(lists: _Lists, what: str, room: int) -> Forest | None:
    """Versions 1 to 3: nodes and leaf values name the numbers of their tree and node."""
    trees, own = lists.whole("nodes_treeids"), lists.whole("nodes_nodeids")
    count = len(trees)
    name, values = lists.weights(f"{what}_weights")
    leaf_lists = [lists.whole(f"{what}_{kind}") for kind in ("treeids", "nodeids", "ids")]
    # what not all lists have, no value belongs to
    known = min(values, *map(len, leaf_lists))
    if not 0 < count == len(own) <= room or not 0 < known <= room:
        return None
    sides = [lists.whole(f"nodes_{side}nodeids") for side in ("true", "false")]
    if any(len(side) != count for side in sides) or not _are_numbers(trees, own, *sides, *leaf_lists):
        return None
    keys = trees << 32 | own
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]

    def find(tree_ids: Indices, node_ids: Indices) -> Indices:
        wanted = tree_ids << 32 | node_ids
        at = np.minimum(np.searchsorted(ordered, wanted), count - 1)
        return np.where(ordered[at] == wanted, order[at], -1)

    passing, failing = (find(trees, side) for side in sides)
    leaf = find(leaf_lists[0][:known], leaf_lists[1][:known])
    return _forest(lists, (passing, failing), lists.real("nodes_values"), (leaf, leaf_lists[2][:known], name, values))


def _by_places(lists: _Lists, room: int) -> Forest | None:
    """Version 5: nodes and leaves are named by where they stand; leaves come behind the nodes here."""
    splits, targets = lists.real("nodes_splits"), lists.whole("leaf_targetids")
    name, values = lists.weights("leaf_weights")
    count, known = len(splits), min(values, len(targets))
    if count == 0 or known <= 0 or count + known > room:
        return None
    children = []
    for side in ("true", "false"):
        ids, leaves = lists.whole(f"nodes_{side}nodeids"), lists.whole(f"nodes_{side}leafs")
        if len(ids) != count or len(leaves) != count or not _are_numbers(ids, leaves):
            return None
        at = ids + np.where(leaves > 0, count, 0)
        beyond = (at >= count + known) | ((leaves == 0) & (ids >= count))
        children.append(np.concatenate([np.where(beyond, -1, at), np.full(known, -1)]))
    thresholds = np.concatenate([splits, np.zeros(known)])
    leaf = np.arange(count, count + known)
    return _forest(lists, (children[0], children[1]), thresholds, (leaf, targets[:known], name, values))


def _forest(
    lists: _Lists,
    passing_and_failing: tuple[Indices, Indices],
    thresholds: Floats,
    leaves: tuple[Indices, Indices, str, int],
) -> Forest | None:
    """A forest of what was read; None where it is none. Nodes without a test are leaves."""
    passing, failing = passing_and_failing
    count = len(passing)
    tests = lists.tests(count)
    features = lists.whole("nodes_featureids")
    features = np.concatenate([features, np.zeros(max(0, count - len(features)), np.int64)])
    if not count == len(tests) == len(features) == len(thresholds) or (tests < 0).any():
        return None
    kind = np.array([item[0] for item in _TESTS.values()], np.int8)[tests]
    upper = np.array([item[1] for item in _TESTS.values()])[tests]
    children = np.stack([np.where(upper, failing, passing), np.where(upper, passing, failing)], axis=1)
    children[kind == LEAF] = -1
    leaf, target, name, values = leaves
    if (children[kind != LEAF] < 0).any() or (leaf < 0).any() or not _are_numbers(target):
        return None
    has_parent = np.zeros(count, bool)
    has_parent[children[children >= 0]] = True
    # only those of the tensor's values that a leaf has are named
    padded = (np.concatenate([item, np.full(values - len(item), -1)]) for item in (leaf, target))
    leaf, target = padded
    return Forest(
        kind, np.where(kind == LEAF, -1, features), np.where(kind == LEAF, 0, thresholds), children,
        np.flatnonzero(~has_parent), leaf, target, (name,), (values,),
    )  # fmt: skip


def _are_numbers(*lists: Indices) -> bool:
    return all(not len(item) or (item.min() >= 0 and item.max() < 2**31) for item in lists)


def _joined(parts: list[Forest]) -> Forest:
    starts = np.cumsum([0, *(len(part.kind) for part in parts)])[:-1].tolist()

    def shifted(of: str) -> NDArray[Any]:
        found = [getattr(part, of) for part in parts]
        return np.concatenate(
            [np.where(item >= 0, item + start, -1) for item, start in zip(found, starts, strict=True)]
        )

    def joined(of: str) -> NDArray[Any]:
        return np.concatenate([getattr(part, of) for part in parts])

    return Forest(
        joined("kind"), joined("feature"), joined("threshold"), shifted("children"), shifted("roots"),
        shifted("leaf"), joined("target"),
        tuple(name for part in parts for name in part.names), tuple(count for part in parts for count in part.counts),
    )  # fmt: skip
