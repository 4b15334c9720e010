"""Which integer tensors of an ONNX graph are quantised weights, and with what scale and zero point.

Sources: the operator lists of ONNX (DequantizeLinear, QLinearMatMul, …) and of ONNX Runtime's com.microsoft domain.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np

from palladion.mark.quantised.codings import INTEGER_TYPES, Floats, Integers, Quantised
from palladion.mark.quantised.nbits import NBits, nbits_of
from palladion.model.blocks import decode
from palladion.model.graph import Node, Subgraph, TensorRef
from palladion.model.model import Model
from palladion.model.tensors import Tensor

# What of a quantised tensor is picked or turned round before it is multiplied: the numbers are its own.
_PASSING = frozenset({"Gather", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Identity", "Slice"})
DEPTH_MAX = 32  # of branches and loop bodies within each other


@dataclass(frozen=True)
class _Inputs:
    """Where an operator takes weights, their scale and their zero point, and which axis scales are along by default."""

    weights: int
    scale: int | None
    zero: int | None
    axis: int


_OPERATORS: Mapping[str, _Inputs] = {
    "DequantizeLinear": _Inputs(0, 1, 2, 1),
    "MatMulInteger": _Inputs(1, None, 3, -1),
    "ConvInteger": _Inputs(1, None, 3, 0),
    "QLinearMatMul": _Inputs(3, 4, 5, -1),
    "QLinearConv": _Inputs(3, 4, 5, 0),
    "QGemm": _Inputs(3, 4, 5, -1),
    "DynamicQuantizeMatMul": _Inputs(1, 2, 3, -1),
    "MatMulIntegerToFloat": _Inputs(1, 3, 5, -1),
    "QAttention": _Inputs(1, 4, 7, -1),
}


def onnx_integers(model: Model) -> dict[str, Quantised]:
    """The integer tensors that are weights, by name; empty for a model without a graph."""
    found: dict[str, Quantised] = {}
    if model.graph is None:
        return found
    for scope in _scopes(model.graph.main, {}, DEPTH_MAX):
        for node in scope.nodes:
            made = scope.quantised(node, model.tensors)
            if made is not None:
                found.setdefault(made.tensor.name, made)
    return found


@dataclass(frozen=True)
class _Scope:
    """The nodes of one graph, and which tensors its names stand for, those around it included."""

    nodes: tuple[Node, ...]
    constants: Mapping[str, str]
    makers: Mapping[str, Node]

    def quantised(self, node: Node, tensors: Mapping[str, Tensor]) -> Integers | NBits | None:
        """What a node multiplies with, if it is one that takes quantised weights."""
        if node.op_type == "MatMulNBits":
            weights, scales, zeros = (tensors.get(self.constants.get(_input(node, at), "")) for at in (1, 2, 3))
            # the fourth may say the group of each input
            fits = weights is not None and not _input(node, 4) and (zeros is not None or not _input(node, 3))
            return nbits_of(weights, scales, zeros, _stated(node)) if fits and weights is not None else None
        tensor = self.weights_of(node, tensors)
        return None if tensor is None else self.integers(node, tensor, tensors)

    def weights_of(self, node: Node, tensors: Mapping[str, Tensor]) -> Tensor | None:
        """The tensor that a node multiplies with, if it is one of integers."""
        inputs = _OPERATORS.get(node.op_type)
        if inputs is None:
            return None
        name = _input(node, inputs.weights)
        for _ in range(DEPTH_MAX):
            maker = self.makers.get(name)
            if name in self.constants or maker is None or maker.op_type not in _PASSING:
                break
            name = _input(maker, 0)
        tensor = tensors.get(self.constants.get(name, ""))
        return tensor if tensor is not None and tensor.dtype.name in INTEGER_TYPES and tensor.element_count else None

    def integers(self, node: Node, tensor: Tensor, tensors: Mapping[str, Tensor]) -> Integers:
        """What the tensor stands for; without a constant scale, its own numbers around their zero point."""
        inputs = _OPERATORS[node.op_type]
        axis, block = _axis(node, inputs.axis)
        parts, beside = [], []
        for index, missing in ((inputs.scale, 1.0), (inputs.zero, 0.0)):
            name = "" if index is None else self.constants.get(_input(node, index), "")
            beside += [name] if name in tensors else []
            parts.append(partial(_fitting, tensors.get(name), tensor.shape, axis, block, missing))
        return Integers(tensor, parts[0], parts[1], tuple(beside))


def _scopes(graph: Subgraph, around: Mapping[str, str], depth: int) -> Iterator[_Scope]:
    own = {name: held.tensor for name, held in graph.constants.items() if isinstance(held, TensorRef)}
    constants = {**around, **own}
    for node in graph.nodes:
        if node.op_type == "Constant" and len(node.outputs) == 1:
            held = next((item.value for item in node.attributes if isinstance(item.value, TensorRef)), None)
            if held is not None:
                constants[node.outputs[0]] = held.tensor
    makers = {name: node for node in graph.nodes for name in node.outputs if name}
    yield _Scope(graph.nodes, constants, makers)
    for node in graph.nodes if depth else ():
        for attribute in node.attributes:
            held_graphs = attribute.value if isinstance(attribute.value, tuple) else (attribute.value,)
            for inner in held_graphs:
                if isinstance(inner, Subgraph):
                    yield from _scopes(inner, constants, depth - 1)


def _input(node: Node, index: int) -> str:
    return node.inputs[index] if index < len(node.inputs) else ""


def _stated(node: Node) -> dict[str, int]:
    """The whole numbers among a node's attributes."""
    return {item.name: item.value for item in node.attributes if isinstance(item.value, int)}


def _axis(node: Node, default: int) -> tuple[int, int]:
    """Along which axis of the weights scales lie, and how many numbers share one there (0: not stated)."""
    stated = _stated(node)
    if node.op_type == "QGemm" and stated.get("transB"):
        return 0, 0
    return stated.get("axis", default), stated.get("block_size", 0)


def _fitting(tensor: Tensor | None, shape: tuple[int, ...], axis: int, block: int, missing: float) -> Floats:
    """A scale or zero point in a shape that fits that of the weights; `missing` where it does not."""
    nothing = np.full((1,) * len(shape), missing, np.float32)
    if tensor is None or not -len(shape) <= axis < len(shape):
        return nothing
    narrow = tensor.dtype.packed
    values = decode(tensor.dtype.name, tensor.data, tensor.shape) if narrow else tensor.data.astype(np.float32)
    if values.size == 1:
        return values.reshape((1,) * len(shape))
    if values.ndim == 1 and len(values) == shape[axis]:
        return values.reshape([-1 if index == axis % len(shape) else 1 for index in range(len(shape))])
    if block > 0 and values.ndim == len(shape) and values.shape[axis] * block >= shape[axis]:
        fitted: Floats = np.repeat(values, block, axis=axis).take(range(shape[axis]), axis=axis)
        return fitted if fitted.shape == shape else nothing
    return nothing
