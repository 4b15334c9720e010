"""The tensors of a stolen transformer in our order and basis, each made when it is asked for, as a plan says."""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from palladion.mark.align.transformer_heads import rearranged
from palladion.mark.align.transformer_layouts import Norm, Part
from palladion.mark.align.transformer_parts import Floats, Parts, numbers, unfolded
from palladion.mark.align.transformer_plan import LayerPlan, Plan, embedding_pairs, vector_pairs

Change = Callable[[Floats], Floats]  # of a matrix (theirs, …) to ours (ours, …)
Make = Callable[[], Floats]


def recipes(ours: Parts, theirs: Parts, plan: Plan) -> dict[str, Make]:
    """How to make those of our tensors that were found, by name: float32, in our shape; nan where theirs lacks one."""
    return _Recipes(ours, theirs, plan).all()


@dataclass(frozen=True, eq=False)
class _Piece:
    """A matrix of theirs that is ours after `change` of what is not the residual stream: the outputs of what reads it
    (through a norm, perhaps), the inputs of what writes it.
    """

    ours: Part
    theirs: Part
    change: Change
    reads: bool = True
    norm: Norm | None = None
    their_norm: Norm | None = None


@dataclass(frozen=True, eq=False)
class _Recipes:
    ours: Parts
    theirs: Parts
    plan: Plan

    def all(self) -> dict[str, Make]:
        tensors, biases = defaultdict(list), defaultdict(list)
        for piece in self._pieces():
            tensors[piece.ours.tensor].append(piece)
            if piece.ours.bias is not None and piece.theirs.bias is not None:
                biases[piece.ours.bias].append(piece)
        made: dict[str, Make] = {name: partial(self._tensor, name, pieces) for name, pieces in tensors.items()}
        made |= {name: partial(self._bias, name, pieces) for name, pieces in biases.items()}
        for name, other in embedding_pairs(self.ours, self.theirs):
            if self.theirs.model.tensors[other].shape[1] == self.plan.basis.width:
                made[name] = partial(self._embedding, name, other)
        if self.plan.basis.kind != "rotated":  # a gain that was folded into what comes after it is not found again
            for name, other in vector_pairs(self.ours, self.theirs):
                if self.theirs.model.tensors[other].shape == (self.plan.basis.width,):
                    made[name] = partial(self._vector, other)
        return made

    def _pieces(self) -> Iterator[_Piece]:
        for layer in self.plan.layers:
            yield from _attention(layer)
            yield from _hidden(layer)
        norm, their_norm = self.ours.layout.norm, self.theirs.layout.norm
        for reader in self.plan.readers:
            change = np.asarray if reader.outputs is None else partial(reader.outputs.rearranged, which=0)
            yield _Piece(reader.ours, reader.theirs, change, True, norm, their_norm)
        for mine, other in zip(self.ours.layout.maps, self.theirs.layout.maps, strict=False):
            square = (self.plan.basis.width,) * 2
            if (
                self.ours.has(mine)
                and self.theirs.model.tensors[other.tensor].shape == square
                and self.theirs.has(other)
            ):
                yield _Piece(mine, other, self.plan.basis.rows)

    def _tensor(self, name: str, pieces: list[_Piece]) -> Floats:
        shape = self.ours.model.tensors[name].shape
        made = np.full(shape, np.nan, np.float32)
        for piece in pieces:
            target = (made.T if piece.ours.turned else made)[self.ours.span(piece.ours)]
            matrix = self._matrix(piece)
            rows = min(len(target), len(matrix))  # a vocabulary may have been cut, or have grown
            target[:rows] = matrix[:rows]
        return made

    def _matrix(self, piece: _Piece) -> Floats:
        basis, theirs = self.plan.basis, self.theirs.matrix(piece.theirs, piece.their_norm)
        if piece.reads:
            return unfolded(piece.change(basis.columns(theirs)), self.ours.gain(piece.norm))
        return piece.change(np.ascontiguousarray(basis.rows(theirs).T)).T

    def _bias(self, name: str, pieces: list[_Piece]) -> Floats:
        made = np.full(self.ours.model.tensors[name].shape, np.nan, np.float32)
        for piece in pieces:
            bias = self.theirs.bias(piece.theirs, piece.their_norm)
            target = made[self.ours.span(piece.ours)]
            if bias is None or not (piece.reads or len(bias) == self.plan.basis.width):
                continue
            bias = piece.change(bias[:, None])[:, 0] if piece.reads else self.plan.basis.rows(bias)
            through = self.ours.bias(replace(piece.ours, bias=None), piece.norm)
            bias = bias if through is None else bias - through
            target[: len(bias)] = bias[: len(target)]
        return made

    def _embedding(self, name: str, other: str) -> Floats:
        made = np.full(self.ours.model.tensors[name].shape, np.nan, np.float32)
        table = self.plan.basis.columns(numbers(self.theirs.model.tensors[other])[: len(made)])
        made[: len(table)] = table
        return made

    def _vector(self, other: str) -> Floats:
        return self.plan.basis.rows(numbers(self.theirs.model.tensors[other]))


def _attention(layer: LayerPlan) -> Iterator[_Piece]:
    mine, other, plan, size = layer.ours.attention, layer.theirs.attention, layer.heads, layer.size
    if mine is None or other is None or plan is None:
        return
    query = partial(rearranged, order=plan.order, change=plan.query, size=size)
    key = partial(rearranged, order=plan.group_order, change=plan.key, size=size)
    value = partial(rearranged, order=plan.group_order, change=plan.value, size=size)
    output = partial(rearranged, order=plan.order, change=plan.output, size=size)
    yield _Piece(mine.query, other.query, query, True, mine.norm, other.norm)
    yield _Piece(mine.key, other.key, key, True, mine.norm, other.norm)
    yield _Piece(mine.value, other.value, value, True, mine.norm, other.norm)
    yield _Piece(mine.output, other.output, output, reads=False)


def _hidden(layer: LayerPlan) -> Iterator[_Piece]:
    mine, other, plan = layer.ours.hidden, layer.theirs.hidden, layer.neurons
    if mine is None or other is None or plan is None:
        return
    for which, (part, theirs) in enumerate(zip(mine.ups, other.ups, strict=True)):
        yield _Piece(part, theirs, partial(plan.rearranged, which=which), True, mine.norm, other.norm)
    yield _Piece(mine.down, other.down, partial(plan.rearranged, which=len(mine.ups)), reads=False)
