"""The wiring of a network in an ONNX graph: what each operator does to the units of a value.

Source: the operator lists of ONNX and of ONNX Runtime's com.microsoft domain.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from palladion.mark.align.wiring import FIXED, Block, Side
from palladion.model.graph import Graph, Node, TensorRef
from palladion.model.tensors import Tensor

NODES_MAX = 20_000  # DenseNet-121 has some 900
BLOCKS_MAX = 20_000  # and 656 blocks, because it joins many values
PARTS_MAX = 256  # of a value that is joined from others; DenseNet has some 60

# Operators that do to every unit the same, or the same but for its own numbers; the first input counts.
_PASSING = frozenset(
    re.findall(
        r"\w+",
        """Relu LeakyRelu PRelu Elu Selu Celu Gelu Sigmoid HardSigmoid HardSwish Swish Mish Tanh Softplus Softsign Erf
        Exp Log Abs Neg Sqrt Clip ThresholdedRelu Softmax LogSoftmax Identity Dropout Cast BatchNormalization
        InstanceNormalization LayerNormalization LRN MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool
        ReduceMean ReduceMax Flatten Reshape Squeeze Unsqueeze Pad Resize Upsample QuantizeLinear DequantizeLinear
        DynamicQuantizeLinear Scaler Normalizer QLinearGlobalAveragePool QLinearLeakyRelu QLinearSigmoid""",
    )
)
# Operators that take units of two values together; where the second is stands here.
_PAIRING = {"Add": 1, "Sub": 1, "Mul": 1, "Div": 1, "Max": 1, "Min": 1, "Sum": 1, "QLinearAdd": 3, "QLinearMul": 3}
# Operators with weights: where these are, and which of their axes is of outputs and which of inputs.
_WEIGHTED = {
    "Conv": (1, 0, 1),
    "ConvInteger": (1, 0, 1),
    "QLinearConv": (3, 0, 1),
    "ConvTranspose": (1, 1, 0),
    "Gemm": (1, 1, 0),
    "QGemm": (3, 1, 0),
    "MatMul": (1, 1, 0),
    "MatMulInteger": (1, 1, 0),
    "QLinearMatMul": (3, 1, 0),
    "DynamicQuantizeMatMul": (1, 1, 0),
    "MatMulIntegerToFloat": (1, 1, 0),
}
# What weights may go through before they are used.
_CARRYING = frozenset({"Identity", "Cast", "DequantizeLinear"})


@dataclass(frozen=True)
class _Part:
    """Some of a value's units: of a space, each with `repeat` numbers."""

    space: int
    units: int
    repeat: int = 1


_Axis = tuple[_Part, ...]


def wire_graph(graph: Graph, tensors: Mapping[str, Tensor]) -> tuple[Block, ...] | None:
    """The blocks of a network in the order in which they are computed; None if there are none, or too many of them."""
    if len(graph.main.nodes) > NODES_MAX:
        return None
    tracer = _Tracer(graph, tensors)
    for node in graph.main.nodes:
        tracer.step(node)
        if tracer.block_count > BLOCKS_MAX:
            return None
    return tracer.blocks() or None


class _Tracer:
    """Goes through the nodes and notes the units of every value."""

    def __init__(self, graph: Graph, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self._held = {name: ref.tensor for name, ref in graph.main.constants.items() if isinstance(ref, TensorRef)}
        self._turned: set[str] = set()  # constants that are used transposed
        # a value without an axis here is one whose units nobody follows
        self._axes: dict[str, _Axis] = {}
        self._fixed = {value.name for value in graph.inputs} - self._held.keys()
        self._outputs = [value.name for value in graph.outputs]
        self._blocks: list[Block] = []
        self._parents = [FIXED]

    @property
    def block_count(self) -> int:
        """How many blocks were found so far."""
        return len(self._blocks)

    def blocks(self) -> tuple[Block, ...]:
        """What was found, with spaces that are one under one number."""
        for name in self._outputs:
            for part in self._axes.get(name, ()):
                self._unite(part.space, FIXED)
        return tuple(
            replace(
                block,
                out=replace(block.out, space=self._root(block.out.space)),
                into=replace(block.into, space=self._root(block.into.space)),
            )
            for block in self._blocks
        )

    def step(self, node: Node) -> None:
        """Note what a node does to units."""
        if not node.outputs or not node.inputs:
            self._constant(node)
            return
        first, output = node.inputs[0], node.outputs[0]
        if first in self._held and node.op_type in _CARRYING | {"Transpose"}:
            self._carry(node, first, output)
        elif node.op_type in _WEIGHTED:
            self._weighted(node, output)
        elif node.op_type in _PAIRING and len(node.inputs) > _PAIRING[node.op_type]:
            self._pair(first, node.inputs[_PAIRING[node.op_type]], output)
        elif node.op_type == "Concat":
            self._join(node, output)
        elif first in self._fixed and (node.op_type in _PASSING or node.op_type == "Transpose"):
            self._fixed.add(output)
        elif node.op_type in _PASSING and first in self._axes:
            self._axes[output] = self._axes[first]

    def _constant(self, node: Node) -> None:
        for attribute in node.attributes:
            if node.op_type == "Constant" and isinstance(attribute.value, TensorRef) and node.outputs:
                self._held[node.outputs[0]] = attribute.value.tensor

    def _carry(self, node: Node, name: str, output: str) -> None:
        self._held[output] = self._held[name]
        if (name in self._turned) != (node.op_type == "Transpose"):
            self._turned.add(output)

    def _weighted(self, node: Node, output: str) -> None:
        place, out_axis, in_axis = _WEIGHTED[node.op_type]
        name = node.inputs[place] if len(node.inputs) > place else ""
        tensor = self._tensors.get(self._held.get(name, ""))
        if tensor is None or tensor.dtype.packed or not 2 <= len(tensor.shape) <= 5 or not tensor.element_count:
            return
        if ("Gemm" in node.op_type and _integer(node, "transB")) != (name in self._turned):
            out_axis, in_axis = in_axis, out_axis
        groups = _integer(node, "group", 1) if "Conv" in node.op_type else 1
        if groups < 1 or tensor.shape[0] % groups or (groups > 1 and (out_axis, in_axis) != (0, 1)):
            return
        into = self._into(node.inputs[0], tensor.shape[in_axis] * groups)
        if groups > 1 and tensor.shape[1] == 1:
            self._axes[output] = self._depthwise(tensor, into, tensor.shape[0] // groups)
            return
        out = self._space(tensor.shape[out_axis])
        start = 0
        for part in into:
            side = Side(in_axis, part.space, start, part.units, part.repeat)
            block = Block(tensor.name, Side(out_axis, out.space, 0, out.units), side, groups)
            if block.fits(tensor.shape):
                self._blocks.append(block)
            start += part.units * part.repeat
        self._axes[output] = (out,)

    def _depthwise(self, tensor: Tensor, into: _Axis, times: int) -> _Axis:
        axis = tuple(replace(part, repeat=part.repeat * times) for part in into)
        start = 0
        for part in axis:
            block = Block(tensor.name, Side(0, part.space, start, part.units, part.repeat), Side(1, FIXED, 0, 1))
            if block.fits(tensor.shape):
                self._blocks.append(block)
            start += part.units * part.repeat
        return axis

    def _into(self, name: str, size: int) -> _Axis:
        """The units that weights read, `size` numbers: after Flatten each unit has several."""
        if name in self._fixed:
            return (_Part(FIXED, size),)
        axis = self._axes.get(name, ())
        times, left = divmod(size, sum(part.units * part.repeat for part in axis)) if axis else (0, 0)
        if not times or left:
            return (self._space(size),)
        return tuple(replace(part, repeat=part.repeat * times) for part in axis)

    def _pair(self, first: str, second: str, output: str) -> None:
        axes = [self._axes[name] for name in (first, second) if name in self._axes]
        if not axes:
            if {first, second} & self._fixed:
                self._fixed.add(output)
            return
        widest = max(axes, key=lambda axis: sum(part.units * part.repeat for part in axis))
        self._axes[output] = widest
        if len(axes) == 2 and [(part.units, part.repeat) for part in axes[0]] == [
            (part.units, part.repeat) for part in axes[1]
        ]:
            for one, other in zip(*axes, strict=True):
                self._unite(one.space, other.space)

    def _join(self, node: Node, output: str) -> None:
        axes = [self._axes.get(name, ()) for name in node.inputs]
        parts = tuple(part for axis in axes for part in axis)
        if all(axes) and len(parts) <= PARTS_MAX and _integer(node, "axis") in {1, -1}:
            self._axes[output] = parts

    def _space(self, units: int) -> _Part:
        self._parents.append(len(self._parents))
        return _Part(len(self._parents) - 1, units)

    def _root(self, space: int) -> int:
        while self._parents[space] != space:
            self._parents[space] = space = self._parents[self._parents[space]]
        return space

    def _unite(self, one: int, other: int) -> None:
        one, other = self._root(one), self._root(other)
        self._parents[max(one, other)] = min(one, other)


def _integer(node: Node, name: str, default: int = 0) -> int:
    value = next((attribute.value for attribute in node.attributes if attribute.name == name), default)
    return int(value) if isinstance(value, (int, np.integer)) else default
