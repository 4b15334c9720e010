"""What was done to a stolen transformer: its residual basis, and for each layer the order of heads and neurons.

Nothing is changed here; `transformer_recipes` does that, tensor by tensor.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from palladion.mark.align.assignment import assign
from palladion.mark.align.transformer_heads import HeadPlan, Heads, head_size, plan_heads
from palladion.mark.align.transformer_layouts import Attention, Hidden, Layer, Part
from palladion.mark.align.transformer_neurons import NeuronPlan, Neurons, plan_neurons
from palladion.mark.align.transformer_parts import Floats, Parts, numbers
from palladion.mark.align.transformer_residual import Basis, basis_of_embeddings, basis_of_products
from palladion.model.model import Model

LAYERS_FOR_SIZE = 2  # by which the size of heads is found; it is the same in all
LAYERS_FOR_BASIS = 8  # by which the order of the residual stream is found without embeddings
EMBEDDING_ROWS_MIN = 64  # fewer tell nothing of a basis: those of token types
PROFILES_ALIKE = 0.5  # correlation of layers that are ours, where some are missing
CONFIG_BYTES_MAX = 1_000_000
_HEADS = ("num_attention_heads", "n_head", "n_heads")


@dataclass(frozen=True, eq=False)
class LayerPlan:
    """A layer of theirs that is ours; the plans are None where there is nothing to compare."""

    ours: Layer
    theirs: Layer
    size: int
    heads: HeadPlan | None
    neurons: NeuronPlan | None


@dataclass(frozen=True, eq=False)
class ReaderPlan:
    """What reads the residual stream in the end: `outputs` is their order, None where that is given (a vocabulary)."""

    ours: Part
    theirs: Part
    outputs: NeuronPlan | None


@dataclass(frozen=True, eq=False)
class Plan:
    """All that was done, as far as it was found."""

    basis: Basis
    layers: tuple[LayerPlan, ...]
    readers: tuple[ReaderPlan, ...]


def plan_transformer(ours: Parts, theirs: Parts, heads: int | None) -> Plan | None:
    """What was done to `theirs`; None where no basis is found in which it is like ours."""
    basis = _basis(ours, theirs)
    if basis is None:
        return None
    pairs = _layer_pairs(ours, theirs, basis)
    size = _head_size(ours, theirs, basis, pairs, heads)
    layers = tuple(_plan_layer(ours, theirs, basis, pair, size) for pair in pairs)
    readers = tuple(
        ReaderPlan(mine, other, None if ours.layout.renorms else _plan_outputs(ours, theirs, basis, mine, other))
        for mine, other in zip(ours.layout.readers, theirs.layout.readers, strict=False)
        if ours.has(mine) and theirs.has(other) and theirs.inputs(other) == basis.width
    )
    return Plan(basis, layers, readers)


def embedding_pairs(ours: Parts, theirs: Parts) -> Iterator[tuple[str, str]]:
    """Names of embeddings of the same kind in both, those of tokens first."""

    def kind(name: str, index: int) -> str:
        # other formats have other names; tokens come first in all of them
        return "tokens" if index == 0 and ("position" not in name and "wpe" not in name) else name.split(".")[-2]

    known = {kind(name, index): name for index, name in enumerate(theirs.layout.embeddings)}
    for index, name in enumerate(ours.layout.embeddings):
        other = known.get(kind(name, index))
        if other is not None and ours.has(Part(name)) and theirs.has(Part(other)):
            yield name, other


def vector_pairs(ours: Parts, theirs: Parts) -> Iterator[tuple[str, str]]:
    """Names of vectors (residual,) of the same kind in both: by their order, or by name where one has more of them."""
    mine, others = ours.layout.vectors, theirs.layout.vectors
    if len(mine) == len(others):
        yield from zip(mine, others, strict=True)
    else:
        yield from ((name, name) for name in mine if name in others)


def heads_of(parts: Parts, attention: Attention, basis: Basis | None = None) -> Heads | None:
    """The matrices of an attention with gains folded in, in `basis`; None where they cannot be read or do not fit."""
    if not parts.has(attention.query, attention.key, attention.value, attention.output):
        return None
    three = [parts.matrix(part, attention.norm) for part in (attention.query, attention.key, attention.value)]
    output = parts.matrix(attention.output)
    if len({matrix.shape[1] for matrix in three} | {len(output)}) > 1:
        return None
    if basis is not None:
        if len(output) != basis.width:
            return None
        three, output = [basis.columns(matrix) for matrix in three], basis.rows(output)
    return Heads(three[0], three[1], three[2], np.ascontiguousarray(output.T))


def neurons_of(parts: Parts, hidden: Hidden, basis: Basis | None = None) -> Neurons | None:
    """The matrices of hidden neurons with gains folded in, in `basis`; None where they cannot be read or do not fit."""
    if not parts.has(*hidden.ups, hidden.down):
        return None
    reads, writes = [parts.matrix(part, hidden.norm) for part in hidden.ups], parts.matrix(hidden.down)
    if len({matrix.shape for matrix in (*reads, writes.T)}) > 1:
        return None
    if basis is not None:
        if len(writes) != basis.width:
            return None
        reads, writes = [basis.columns(matrix) for matrix in reads], basis.rows(writes)
    return Neurons(tuple(reads), np.ascontiguousarray(writes.T))


def _basis(ours: Parts, theirs: Parts) -> Basis | None:
    for name, other in embedding_pairs(ours, theirs):
        tables = numbers(ours.model.tensors[name]), numbers(theirs.model.tensors[other])
        if min(map(len, tables)) >= EMBEDDING_ROWS_MIN:
            basis = basis_of_embeddings(*tables, rotations=ours.layout.renorms)
            if basis is not None:
                return basis
    return _basis_of_layers(ours, theirs)


def _basis_of_layers(ours: Parts, theirs: Parts) -> Basis | None:
    """The order of the residual stream by what layers do from it to it, and by norms: for lack of embeddings."""
    if len(ours.layout.layers) != len(theirs.layout.layers):
        return None
    pairs = [
        (mine, other)
        for first, second in list(zip(ours.layout.layers, theirs.layout.layers, strict=True))[:LAYERS_FOR_BASIS]
        for mine, other in zip(_products(ours, first), _products(theirs, second), strict=True)
        if mine is not None and other is not None
    ]
    vectors = [
        (mine, other)
        for first, second in vector_pairs(ours, theirs)
        if (mine := ours.vector(first)) is not None and (other := theirs.vector(second)) is not None
    ]
    return basis_of_products(pairs, vectors)


def _products(parts: Parts, layer: Layer) -> list[Floats | None]:
    """What a layer does from the residual stream to it, whatever its heads and neurons are: none depends on these.

    Queries with keys, values with outputs (where there are no groups of heads), and what neurons read last and write.
    """
    attention = None if layer.attention is None else heads_of(parts, layer.attention)
    neurons = None if layer.hidden is None else neurons_of(parts, layer.hidden)
    products: list[Floats | None] = [None, None, None]
    if attention is not None and attention.query.shape == attention.key.shape:
        products[0] = attention.query.T @ attention.key
    if attention is not None and attention.output.shape == attention.value.shape:
        products[1] = attention.output.T @ attention.value
    if neurons is not None and neurons.writes is not None:
        products[2] = neurons.writes.T @ neurons.reads[-1]
    return products


def _layer_pairs(ours: Parts, theirs: Parts, basis: Basis) -> list[tuple[Layer, Layer]]:
    mine, other = ours.layout.layers, theirs.layout.layers
    if len(mine) == len(other):
        return list(zip(mine, other, strict=True))
    # some layers were stolen, or others put between them: neurons tell which is which
    profiles = [
        [_profile(parts, layer, turn) for layer in layers]
        for parts, layers, turn in ((ours, mine, None), (theirs, other, basis))
    ]
    width = max((len(item) for item in profiles[0]), default=0)
    tables = [np.array([item if len(item) == width else np.zeros(width) for item in side]) for side in profiles]
    likeness = tables[0] @ tables[1].T
    return [
        (mine[row], other[column])
        for row, column in enumerate(assign(likeness))
        if likeness[row, column] > 0.5 and column >= 0
    ]


def _profile(parts: Parts, layer: Layer, basis: Basis | None) -> Floats:
    neurons = None if layer.hidden is None else neurons_of(parts, layer.hidden, basis)
    if neurons is None or neurons.writes is None:
        return np.zeros(0, np.float32)
    profile: Floats = np.einsum("ij,ij->j", neurons.writes, neurons.reads[-1])
    profile = profile - profile.mean()
    return profile / (np.linalg.norm(profile) or 1)


def _head_size(
    ours: Parts, theirs: Parts, basis: Basis, pairs: list[tuple[Layer, Layer]], heads: int | None
) -> int | None:
    known = [(a.attention, b.attention) for a, b in pairs if a.attention is not None and b.attention is not None]
    if not known or not ours.has(known[0][0].output):
        return None
    heads = heads or _configured(ours.model)
    if heads is not None:
        queries = ours.inputs(known[0][0].output)
        if queries % heads:
            raise ValueError(f"{heads} heads do not divide {queries} queries")
        return queries // heads
    read = [(heads_of(ours, mine), heads_of(theirs, other, basis)) for mine, other in known[:LAYERS_FOR_SIZE]]
    return head_size(
        [(a, b) for a, b in read if a is not None and b is not None and a.query.shape[1] == b.query.shape[1]]
    )


def _configured(model: Model) -> int | None:
    for file in model.files:
        if file.name.rpartition("/")[2] == "config.json" and file.byte_count <= CONFIG_BYTES_MAX:
            try:
                config = json.loads(bytes(file.data))
            except ValueError:
                return None
            found = [config[key] for key in _HEADS if type(config.get(key)) is int] if isinstance(config, dict) else []
            return found[0] if found and found[0] > 0 else None
    return None


def _plan_layer(ours: Parts, theirs: Parts, basis: Basis, pair: tuple[Layer, Layer], size: int | None) -> LayerPlan:
    mine, other = pair
    heads = neurons = None
    if size is not None and mine.attention is not None and other.attention is not None:
        first, second = heads_of(ours, mine.attention), heads_of(theirs, other.attention, basis)
        if first is not None and second is not None:
            heads = plan_heads(first, second, size, rotary=ours.layout.rotary)
    if mine.hidden is not None and other.hidden is not None and len(mine.hidden.ups) == len(other.hidden.ups):
        reading, also = neurons_of(ours, mine.hidden), neurons_of(theirs, other.hidden, basis)
        if reading is not None and also is not None:
            neurons = plan_neurons(reading, also, signs=len(mine.hidden.ups) > 1)
    return LayerPlan(mine, other, size or 0, heads, neurons)


def _plan_outputs(ours: Parts, theirs: Parts, basis: Basis, mine: Part, other: Part) -> NeuronPlan | None:
    first, second = ours.matrix(mine), basis.columns(theirs.matrix(other))
    # a pooler ends in tanh, which a sign passes through
    return plan_neurons(Neurons((first,), None), Neurons((second,), None), signs=True)
