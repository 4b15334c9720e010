"""Units of a network in another order, scale or basis: what it computes stays, and no number stays where it was.

Of transformers that are named as Hugging Face names them, the residual stream, heads and neurons (`reparametrise`); of
other networks, the units between layers, along the wiring that alignment finds. Biases of the latter are left: a thief
moves them along, and no mark is in them.
"""

import json
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.mark.align.wiring import FIXED, Block
from palladion.mark.align.wiring_graph import wire_graph
from palladion.mark.align.wiring_names import wire_names
from palladion.mark.places import TYPES
from palladion.model.model import Model
from palladion.model.tensors import DTYPES, Tensor
from palladion.redteam.removal import numbers
from palladion.redteam.removal.attacks import GROUP, Rewiring
from palladion.redteam.removal.reparametrise import reparametrise, split_neurons

Array = NDArray[Any]

NUMBERS_MAX = 2**28  # of a model that is rewired: its weights are in memory twice
CONFIG_BYTES_MAX = 1024 * 1024
STRETCH = 1.0  # scales lie between exp(-STRETCH) and exp(STRETCH)
SPLIT, CLIQUES = 0.25, 0.1  # of the neurons there were
# Operators through which a positive scale passes; where there are others, units keep theirs.
_HOMOGENEOUS = frozenset(
    {"Conv", "Gemm", "MatMul", "Add", "Sum", "Relu", "LeakyRelu", "PRelu", "MaxPool", "AveragePool", "Identity"}
    | {"GlobalAveragePool", "GlobalMaxPool", "Flatten", "Reshape", "Transpose", "Pad", "Dropout", "ReduceMean", "Cast"}
    | {"Softmax", "ArgMax", "ArrayFeatureExtractor", "ZipMap", "Squeeze", "Unsqueeze", "ReduceMax"}
)


def rewired(model: Model, how: Rewiring, seed: int) -> Model | None:
    """`model`, rewired; None where it is no network that is understood, too large, or cannot be changed in that way."""
    if model.parameter_count > NUMBERS_MAX:
        return None
    weights = {
        name: np.array(tensor.data, np.float32)
        for name, tensor in model.tensors.items()
        if tensor.dtype.name in TYPES and tensor.element_count
    }
    changed = _transformer(model, weights, how, seed) if model.graph is None else None
    if changed is None:
        changed = _network(model, weights, how, seed)
    if changed is None:
        return None
    if how.endswith("int4"):
        changed = {name: numbers.rounded(item, 4, GROUP) if item.ndim > 1 else item for name, item in changed.items()}
    tensors = {name: Tensor(name, DTYPES["float32"], item.shape, np.ascontiguousarray(item, np.float32))
               for name, item in changed.items()}  # fmt: skip
    others = {name: tensor for name, tensor in model.tensors.items() if name not in weights}
    return replace(model, tensors=MappingProxyType({**others, **tensors}))


def _transformer(model: Model, weights: Mapping[str, Array], how: Rewiring, seed: int) -> dict[str, Array] | None:
    heads, kv_heads = _heads(model)
    try:
        if how == "order" or heads is None:
            changed = reparametrise(weights, seed, heads=1, head_order=False, maps=False)
        else:
            changed = reparametrise(weights, seed, heads=heads, kv_heads=kv_heads)
        if how == "dead":
            return split_neurons(changed, seed, split=0.0, dead=SPLIT)
        if how.startswith("split"):
            return split_neurons(changed, seed, split=SPLIT, dead=SPLIT, cliques=CLIQUES)
    except ValueError:
        # no transformer whose names or parts are known
        return None
    return changed


def _network(model: Model, weights: Mapping[str, Array], how: Rewiring, seed: int) -> dict[str, Array] | None:
    blocks = wire_graph(model.graph, model.tensors) if model.graph is not None else None
    blocks = blocks or wire_names(model.tensors)
    scaled = how != "order" and _is_homogeneous(model)
    if blocks is None or how in {"dead", "split", "split, int4"} or (how == "basis" and not scaled):
        return None
    spaces = _spaces([block for block in blocks if block.tensor in weights])
    if not spaces:
        return None
    generator = np.random.default_rng(seed)
    orders = {space: generator.permutation(units) for space, units in spaces.items()}
    sizes = {
        space: np.exp(generator.uniform(-STRETCH, STRETCH, units)) if scaled else np.ones(units)
        for space, units in spaces.items()
    }
    changed = {name: item.copy() for name, item in weights.items()}
    for block in blocks:
        if block.tensor not in changed:
            continue
        part = block.read(changed[block.tensor]).copy()
        if block.out.space in spaces:
            part = (part * sizes[block.out.space][:, None, None])[orders[block.out.space]]
        if block.into.space in spaces:
            part = (part / sizes[block.into.space][None, :, None])[:, orders[block.into.space]]
        block.write(part.astype(np.float32), changed[block.tensor])
    return changed


def _spaces(blocks: list[Block]) -> dict[int, int]:
    """Units of each space that can be reordered: of one size everywhere, and never within groups of a convolution."""
    found: dict[int, int] = {}
    refused = {FIXED}
    for block in blocks:
        for side in (block.out, block.into):
            if block.groups > 1 or found.setdefault(side.space, side.units) != side.units:
                refused.add(side.space)
    return {space: units for space, units in found.items() if space not in refused and units > 1}


def _is_homogeneous(model: Model) -> bool:
    """Whether every operator lets a positive scale through; without a graph nobody knows."""
    return model.graph is not None and {name for _, name in model.graph.operators} <= _HOMOGENEOUS


def _heads(model: Model) -> tuple[int | None, int | None]:
    """Heads of attention, and those of keys and values, as the folder's configuration has them."""
    for file in model.files:
        if file.name.rpartition("/")[2] == "config.json" and file.byte_count <= CONFIG_BYTES_MAX:
            try:
                config = json.loads(b"".join(file.pieces()))
            except (ValueError, RecursionError):
                return None, None
            if not isinstance(config, dict):
                return None, None
            found = [config.get(name) for name in ("num_attention_heads", "n_head", "n_heads")]
            heads = next((item for item in found if type(item) is int and item > 0), None)
            kv_heads = config.get("num_key_value_heads")
            return heads, kv_heads if type(kv_heads) is int and kv_heads > 0 else None
    return None, None
