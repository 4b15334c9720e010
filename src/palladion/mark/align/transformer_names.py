"""A stolen transformer whose tensors were all renamed: which is which, by what they do to the residual stream.

What a matrix reads, W'W, does not depend on the order of heads or neurons, and hardly on the basis of a head; nor does
what it writes, WW'. The stream itself is brought in order by the embedding, which is known by its shape.
"""

from collections.abc import Sequence
from dataclasses import replace
from types import MappingProxyType

import numpy as np

from palladion.mark.align.assignment import assign
from palladion.mark.align.transformer_layouts import Layout, Part
from palladion.mark.align.transformer_parts import Floats, Parts, is_readable, numbers
from palladion.mark.align.transformer_residual import Basis, basis_of_embeddings
from palladion.model.model import Model
from palladion.model.tensors import Tensor

UNITS = 128  # of the residual stream, by which matrices are told apart: 16,384 numbers for each
ALIKE_MIN = 0.3  # strangers are less alike
TENSORS_MAX = 4096  # of theirs that are looked at; a thief chooses how many there are


def renamed(ours: Parts, suspect: Model) -> Model | None:
    """`suspect` with our names for its tensors that are ours; None where no embedding of it is ours.

    Biases of heads and neurons keep the names that they have.
    """
    theirs = [tensor for tensor in suspect.tensors.values() if is_readable(tensor) and tensor.element_count]
    found = _embedding(ours, theirs[:TENSORS_MAX])
    if found is None:
        return None
    token, basis = found
    names = {token.name: ours.layout.embeddings[0]}
    others = [tensor for tensor in theirs[:TENSORS_MAX] if tensor is not token]
    names |= _matrices(ours, [tensor for tensor in others if len(tensor.shape) == 2], basis)
    names |= _vectors(ours, [tensor for tensor in others if tensor.shape == (basis.width,)], basis)
    kept = {name: tensor for name, tensor in suspect.tensors.items() if name not in names}
    # one of theirs may have a name of ours and be another
    return replace(
        suspect, tensors=MappingProxyType(kept | {name: suspect.tensors[other] for other, name in names.items()})
    )


def _embedding(ours: Parts, theirs: list[Tensor]) -> tuple[Tensor, Basis] | None:
    table = ours.model.tensors[ours.layout.embeddings[0]] if ours.layout.embeddings else None
    for tensor in theirs:
        if table is not None and tensor.shape == table.shape and len(table.shape) == 2:
            basis = basis_of_embeddings(numbers(table), numbers(tensor), rotations=ours.layout.renorms)
            if basis is not None:
                return tensor, basis
    return None


def _matrices(ours: Parts, theirs: list[Tensor], basis: Basis) -> dict[str, str]:
    """Names of ours, by theirs, of matrices that read the stream, or write to it, or are tables of it."""
    likeness, names = [], []
    for parts, reads in ((_readers(ours.layout), True), (_tables(ours.layout), True), (_writers(ours.layout), False)):
        turned = any(part.turned for part in parts)
        wanted = [_print(numbers(ours.model.tensors[part.tensor]), None, reads=reads, turned=turned) for part in parts]
        given = [_print(numbers(tensor), basis, reads=reads, turned=turned) for tensor in theirs]
        likeness.append(_table(wanted, given))
        names += [part.tensor for part in parts]
    return _chosen(np.concatenate(likeness), names, theirs) if theirs and names else {}


def _vectors(ours: Parts, theirs: list[Tensor], basis: Basis) -> dict[str, str]:
    """The same, of gains and biases of norms: they have the order of the stream, unless it was rotated."""
    names = [name for name in ours.layout.vectors if ours.vector(name) is not None]
    wanted = [_centred(numbers(ours.model.tensors[name])) for name in names]
    given = [_centred(basis.rows(numbers(tensor))) for tensor in theirs]
    return _chosen(_table(wanted, given), names, theirs) if theirs and names else {}


def _chosen(likeness: Floats, names: list[str], theirs: list[Tensor]) -> dict[str, str]:
    return {
        theirs[column].name: names[row]
        for row, column in enumerate(assign(likeness))
        if column >= 0 and likeness[row, column] > ALIKE_MIN
    }


def _readers(layout: Layout) -> list[Part]:
    inner = []
    for layer in layout.layers:
        if layer.attention is not None:
            inner += [layer.attention.query, layer.attention.key, layer.attention.value]
        inner += layer.hidden.ups if layer.hidden is not None else ()
    return list({part.tensor: part for part in inner}.values())


def _tables(layout: Layout) -> list[Part]:
    return [*(Part(name) for name in layout.embeddings[1:]), *layout.readers]


def _writers(layout: Layout) -> list[Part]:
    return [layer.attention.output for layer in layout.layers if layer.attention is not None] + [
        layer.hidden.down for layer in layout.layers if layer.hidden is not None
    ]


def _print(matrix: Floats, basis: Basis | None, *, reads: bool, turned: bool) -> Floats | None:
    """What a matrix does to the first units of the stream (units²,), at length one; None if it is no such matrix."""
    rows = matrix if reads != turned else matrix.T  # (…, stream)
    if basis is not None:
        if rows.shape[1] != basis.width:
            return None
        rows = basis.columns(rows)
    some = rows[:, :UNITS]
    return _unit((some.T @ some).reshape(-1))


def _centred(vector: Floats) -> Floats:
    return _unit(vector - vector.mean())


def _unit(vector: Floats) -> Floats:
    length = np.float32(np.linalg.norm(vector))
    return vector / length if length else vector


def _table(wanted: Sequence[Floats | None], given: Sequence[Floats | None]) -> Floats:
    table = np.zeros((len(wanted), len(given)), np.float32)
    for row, mine in enumerate(wanted):
        for column, other in enumerate(given):
            if mine is not None and other is not None:
                table[row, column] = mine @ other
    return table
