"""The wiring of a network without a graph, from names and shapes: chains of layers, and blocks with shortcuts.

The names are those that PyTorch's torchvision and the small residual networks of CIFAR-10 give their layers.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from palladion.mark.align.wiring import FIXED, Block, Side
from palladion.model.tensors import Tensor

LAYERS_MAX = 2000
_NUMBERS = re.compile(r"(\d+)")
# `layer1.0.downsample.0.weight`, `block1.layer.0.convShortcut.weight`: the part in front names the block
_SHORTCUT = re.compile(r"(.*\d)\.(?:downsample|shortcut|convShortcut|skip|identity|proj|projection)[._a-z\d]*\.weight")
_INSIDE = re.compile(r"(.*\d)\.[^.]+(?:\.\d+)?\.weight")


def wire_names(tensors: Mapping[str, Tensor]) -> tuple[Block, ...] | None:
    """The blocks of a network in the order of names; None where no order makes each layer read what another gives."""
    weights = [
        tensor
        for tensor in tensors.values()
        if 2 <= len(tensor.shape) <= 5 and tensor.element_count and not tensor.dtype.packed
    ]
    if not 2 <= len(weights) <= LAYERS_MAX:
        return None
    # biases that are stored as a single row
    matrices = [tensor for tensor in weights if len(tensor.shape) > 2 or min(tensor.shape) > 1]
    for chosen in (weights, matrices):
        by_name = sorted(chosen, key=_natural)
        heads_last = sorted(by_name, key=lambda tensor: len(tensor.shape) == 2)
        stem_first = sorted(heads_last, key=lambda tensor: (len(tensor.shape) == 2, tensor.name.count(".")))
        for order in (by_name, heads_last, stem_first, chosen):
            for turned in (False, True):
                blocks = _chain(order, turned=turned) if len(order) > 1 else None
                if blocks is not None:
                    return blocks
    return None


def _natural(tensor: Tensor) -> list[tuple[int, str]]:
    """`layer.10` comes after `layer.9`, and `conv1` after nothing at all: what a block starts with stands in front."""
    parts = _NUMBERS.split(tensor.name)
    return [(int(part[:18]), "") if index % 2 else (-1, part) for index, part in enumerate(parts)]


def _chain(order: Sequence[Tensor], *, turned: bool) -> tuple[Block, ...] | None:
    """Every layer reads what the one before gives; a shortcut reads what its block reads, and gives what it gives."""
    blocks: list[Block] = []
    before = Side(0, FIXED, 0, _inputs(order[0], turned=turned))
    entered: dict[str, Side] = {}  # what a block reads
    for tensor in order:
        name = tensor.name
        shortcut = _SHORTCUT.fullmatch(name)
        if shortcut is None:
            inside = _INSIDE.fullmatch(name)
            if inside is not None:
                entered.setdefault(inside[1], before)
            made = _layer(tensor, before, space=len(blocks) + 1, turned=turned)
        else:
            made = _layer(tensor, entered.get(shortcut[1], before), space=before.space, turned=turned)
            if made is not None and made.out.units != before.units:
                return None
        if made is None:
            return None
        blocks.append(made)
        before = made.out
    last = before.space
    return tuple(
        replace(block, out=replace(block.out, space=FIXED)) if block.out.space == last else block for block in blocks
    )


def _layer(tensor: Tensor, before: Side, *, space: int, turned: bool) -> Block | None:
    out_axis, in_axis = (1, 0) if turned and len(tensor.shape) == 2 else (0, 1)
    outputs, inputs = tensor.shape[out_axis], tensor.shape[in_axis]
    if len(tensor.shape) > 2 and inputs == 1 and before.units > 1 and outputs == before.units:
        return Block(tensor.name, Side(0, before.space, 0, outputs), Side(1, FIXED, 0, 1))
    flattened = len(tensor.shape) == 2  # what was a convolution gives several numbers a channel
    times, left = divmod(inputs, before.units)
    if left or not times or (times > 1 and not flattened):
        return None
    block = Block(tensor.name, Side(out_axis, space, 0, outputs), Side(in_axis, before.space, 0, before.units, times))
    return block if block.fits(tensor.shape) else None


def _inputs(tensor: Tensor, *, turned: bool) -> int:
    return tensor.shape[0 if turned and len(tensor.shape) == 2 else 1]
