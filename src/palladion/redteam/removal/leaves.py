"""Leaf values of tree ensembles written again: in another order, or without the last ones.

Each goes with the lists that say whose it is, so that the function stays as it is, and what is left is an ensemble.
"""

from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.mark.attributes import LEAVES, is_attribute
from palladion.model.model import Model
from palladion.model.tensors import Tensor

# What says of each leaf value whose it is, by how its tensor is called.
_LISTS = {
    "class_weights": ("class_treeids", "class_nodeids", "class_ids"),
    "target_weights": ("target_treeids", "target_nodeids", "target_ids"),
    "leaf_weights": ("leaf_targetids",),
}


def holds_leaves(name: str) -> bool:
    """Whether a tensor of that name holds leaf values."""
    return is_attribute(name) and name.rpartition("/")[2] in LEAVES


def reordered(model: Model, share: float, seed: int) -> Model:
    """So many of the leaf values change places, with all that says whose they are."""
    chance = np.random.default_rng(seed)

    def order(count: int) -> NDArray[np.intp]:
        places = np.arange(count)
        chosen = np.sort(chance.permutation(count)[: int(share * count)])
        places[chosen] = chance.permutation(chosen)
        return places

    changed = dict(model.tensors)
    for name in filter(holds_leaves, model.tensors):
        source = order(model.tensors[name].element_count)
        _take(changed, name, source)
        _point(changed, name, np.argsort(source))
    return replace(model, tensors=MappingProxyType(changed))


def shorter(model: Model, share: float) -> Model:
    """The model without so many of its last leaf values."""
    changed = dict(model.tensors)
    for name in filter(holds_leaves, model.tensors):
        count = model.tensors[name].element_count
        _take(changed, name, np.arange(count - int(share * count)))
    return replace(model, tensors=MappingProxyType(changed))


def _take(tensors: dict[str, Tensor], name: str, source: NDArray[np.intp]) -> None:
    """Those values alone, in that order, and their lists."""
    node, _, kind = name.rpartition("/")
    for beside in (name, *(f"{node}/{item}" for item in _LISTS[kind])):
        tensor = tensors.get(beside)
        if tensor is not None and tensor.element_count > int(source.max(initial=-1)):
            _put(tensors, tensor, np.asarray(tensor.data).reshape(-1)[source])


def _point(tensors: dict[str, Tensor], name: str, place: NDArray[np.intp]) -> None:
    """Nodes that name a leaf by where it stood name its new `place` (`TreeEnsemble`)."""
    node, _, kind = name.rpartition("/")
    for side in ("true", "false") if kind == "leaf_weights" else ():
        ids, ends = (tensors[f"{node}/nodes_{side}{what}"] for what in ("nodeids", "leafs"))
        at = np.array(ids.data).reshape(-1)
        leaves = np.asarray(ends.data).reshape(-1) > 0
        at[leaves] = place[at[leaves]]
        _put(tensors, ids, at)


def _put(tensors: dict[str, Tensor], tensor: Tensor, numbers: NDArray[Any]) -> None:
    tensors[tensor.name] = Tensor(tensor.name, tensor.dtype, numbers.shape, np.ascontiguousarray(numbers))
