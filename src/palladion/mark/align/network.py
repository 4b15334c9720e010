"""Undoes what leaves the function of an MLP or a convolutional network as it is: units in another order, scaled, split.

Says which tensors of the suspect are paired with ours, by the wiring of both or by name; units are `alignment`'s. Looks
at the suspect and the unmarked original alone, as everything in `palladion.mark.align`.
"""

from collections.abc import Iterator, Mapping
from types import MappingProxyType

from palladion.mark.align.alignment import Alignment, Pair
from palladion.mark.align.realigned import Realigned
from palladion.mark.align.transformer_parts import is_readable
from palladion.mark.align.wiring import FIXED, Block
from palladion.mark.align.wiring_graph import wire_graph
from palladion.mark.align.wiring_names import wire_names
from palladion.model.model import Model
from palladion.model.tensors import Tensor

GOOD_LIKENESS = 0.5  # of units on average: a pairing of tensors that explains so much needs no rival


def realign_network(original: Model, suspect: Model) -> Realigned | None:
    """`suspect` in our order and scale; None where the wiring is not understood, or no tensor of it is found.

    Tensors that were put in order are float32; weights of units that the suspect lacks are nan there. What no part of
    ours was found in is passed on.
    """
    wiring = _wiring(original)
    if wiring is None:
        return None
    best: Alignment | None = None
    for pairs in _pairings(wiring, original, suspect):
        alignment = Alignment(original, suspect, pairs)
        alignment.solve()
        if best is None or alignment.likeness > best.likeness:
            best = alignment
        if best.likeness >= GOOD_LIKENESS:
            break
    if best is None:
        return None
    needed = best.needed()
    if not needed:
        return Realigned(suspect, ())
    tensors: Mapping[str, Tensor] = MappingProxyType({**suspect.tensors, **best.tensors()})
    return Realigned(Model("safetensors", (), tensors, None, {}), needed)


def _wiring(model: Model) -> tuple[Block, ...] | None:
    blocks = wire_graph(model.graph, model.tensors) if model.graph is not None else None
    return blocks or wire_names(model.tensors)


def _pairings(wiring: tuple[Block, ...], original: Model, suspect: Model) -> Iterator[list[Pair]]:
    """Ways to pair our blocks with the suspect's: in the order of its own wiring, and by name."""
    ours = [block for block in wiring if is_readable(original.tensors[block.tensor])]
    theirs = [block for block in _wiring(suspect) or () if is_readable(suspect.tensors[block.tensor])]
    in_order = [
        Pair(one, other) for one, other in zip(ours, theirs, strict=False) if _alike(one, other, original, suspect)
    ]
    if len(in_order) == len(ours) == len(theirs):
        yield in_order
    by_name = []
    for block in ours:
        tensor = suspect.tensors.get(block.tensor)
        fitted = None if tensor is None or not is_readable(tensor) else block.fitted(tensor.shape)
        if fitted is not None and tensor is not None and fitted.fits(tensor.shape):
            by_name.append(Pair(block, fitted))
    if by_name and by_name != in_order:
        yield by_name


def _alike(one: Block, other: Block, original: Model, suspect: Model) -> bool:
    """Whether both have as many numbers for each pair of units, and the same inputs and outputs."""
    numbers_each = [
        model.tensors[block.tensor].element_count
        * block.groups
        // max(1, model.tensors[block.tensor].shape[block.out.axis])
        // max(1, model.tensors[block.tensor].shape[block.into.axis] * block.groups)
        * block.out.repeat
        * block.into.repeat
        for block, model in ((one, original), (other, suspect))
    ]
    return numbers_each[0] == numbers_each[1] and all(
        ours.units == theirs.units
        for ours, theirs in ((one.out, other.out), (one.into, other.into))
        if ours.space == FIXED
    )
