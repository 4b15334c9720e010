"""An ONNX classifier as a differentiable function in torch, and its numbers back in the same file.

Knows layers that small networks are made of, and refuses every other with its name. What it computes is held against
ONNX Runtime by `harden`, so that an operator read wrongly is an error and no other model.
"""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from palladion.errors import MissingExtraError, UnsupportedFormatError
from palladion.model.graph import Attribute, Node, TensorRef
from palladion.model.model import Model
from palladion.model.rewrite import locate, rewritten

if TYPE_CHECKING:
    import torch

Operator = Callable[[ModuleType, Node, list[Any]], Any]

_STANDARD = {"", "ai.onnx"}
_FLOAT = 1  # TensorProto.FLOAT
_PASSING = {"Identity", "Cast"}
# By operator, the inputs that are trained where they are constants.
_TRAINED: Mapping[str, tuple[int, ...]] = {"Gemm": (1, 2), "MatMul": (0, 1), "Conv": (1, 2)}
_BIASED = {"MatMul", "Conv"}
HINT = "harden changes ONNX networks of dense and convolutional layers that end in one softmax, or in its logits"


class Network:
    """The scores before the softmax, as a function of the numbers of a model. `trained` are those by tensor name."""

    def __init__(self, model: Model, scores: str, *, is_logits: bool) -> None:
        """`scores` is the output with class scores. Raises UnsupportedFormatError, MissingExtraError without torch."""
        self._torch = require_torch()
        if model.graph is None:
            raise UnsupportedFormatError(f"{model.files[0].name} holds weights without a graph", HINT)
        self._model = model
        self._constants = _constants(model)
        makers = {name: node for node in model.graph.main.nodes for name in node.outputs if name}
        self._logits = _before_softmax(scores, makers, is_logits=is_logits)
        fed = [item.name for item in model.graph.inputs if item.name not in self._constants]
        if len(fed) != 1:
            raise UnsupportedFormatError(f"the model takes {len(fed)} inputs, one was expected", HINT)
        self._input = fed[0]
        self._nodes = _needed(self._logits, makers, {self._input, *self._constants})
        self._operators = [_operator(node) for node in self._nodes]
        self.trained = self._leaves(makers)

    def logits(self, rows: "torch.Tensor") -> "torch.Tensor":
        """Scores (n, classes) of `rows` (n, …) as the model takes them."""
        values: dict[str, Any] = {self._input: rows}
        for node, operator in zip(self._nodes, self._operators, strict=True):
            values[node.outputs[0]] = operator(
                self._torch, node, [self._value(name, values) if name else None for name in node.inputs]
            )
        return cast("torch.Tensor", values[self._logits])

    def restore(self) -> None:
        """Put the numbers of the file back."""
        with self._torch.no_grad():
            for name, leaf in self.trained.items():
                leaf.copy_(self._torch.from_numpy(np.array(self._model.tensors[name].data, np.float32)))

    def as_model(self) -> Model:
        """The model with the numbers that it has now."""
        numbers: dict[str, NDArray[Any]] = {
            name: leaf.detach().numpy().copy().reshape(self._model.tensors[name].shape)
            for name, leaf in self.trained.items()
        }
        return rewritten(self._model, lambda tensor: numbers.get(tensor.name))

    def _leaves(self, makers: Mapping[str, Node]) -> "dict[str, torch.Tensor]":
        located = locate(self._model)
        names = {
            self._constants[name]
            for node in self._nodes
            for place, name in enumerate(node.inputs)
            if name in self._constants and _is_trained(node, place, makers)
        }
        leaves = {}
        for name in sorted(names):
            tensor = self._model.tensors[name]
            if tensor.dtype.name != "float32" or name not in located:
                raise UnsupportedFormatError(
                    f"the weights {name!r} are {tensor.dtype.name}, float32 was expected", HINT
                )
            leaves[name] = self._torch.from_numpy(np.array(tensor.data, np.float32)).requires_grad_()
        if not leaves:
            raise UnsupportedFormatError("the model has no layer whose weights could be trained", HINT)
        return leaves

    def _value(self, name: str, values: Mapping[str, Any]) -> Any:
        if name in values:
            return values[name]
        tensor = self._constants[name]
        if tensor in self.trained:
            return self.trained[tensor]
        return self._torch.from_numpy(np.array(self._model.tensors[tensor].data))


def require_torch() -> ModuleType:
    """The module torch. Raises MissingExtraError."""
    try:
        import torch
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError("hardening a model needs torch", "pip install 'palladion[torch]'") from None
    return torch


def _constants(model: Model) -> dict[str, str]:
    """Tensors by the names of the values that they are."""
    if model.graph is None:
        return {}
    found = {name: ref.tensor for name, ref in model.graph.main.constants.items() if isinstance(ref, TensorRef)}
    for node in model.graph.main.nodes:
        if node.op_type == "Constant":
            for attribute in node.attributes:
                if isinstance(attribute.value, TensorRef):
                    found[node.outputs[0]] = attribute.value.tensor
    return found


def _before_softmax(scores: str, makers: Mapping[str, Node], *, is_logits: bool) -> str:
    """The value that the softmax behind `scores` is taken of; `scores` itself where these are logits."""
    if is_logits:
        return scores
    name = scores
    while (node := makers.get(name)) is not None and node.op_type in _PASSING:
        name = node.inputs[0]
    if node is None or node.op_type != "Softmax":
        made = "an input" if node is None else node.op_type
        raise UnsupportedFormatError(f"the probabilities come of {made}, a softmax was expected", HINT)
    return node.inputs[0]


def _needed(name: str, makers: Mapping[str, Node], given: set[str]) -> list[Node]:
    """The nodes behind a value, in the order of the file, which is one in which they can be computed."""
    found: set[str] = set()
    wanted, order = [name], {id(node): place for place, node in enumerate(makers.values())}
    needed: list[Node] = []
    while wanted:
        value = wanted.pop()
        if not value or value in found or value in given:
            continue
        found.add(value)
        if value not in makers:
            raise UnsupportedFormatError(f"the value {value[:80]!r} is no plain tensor", HINT)
        if value != makers[value].outputs[0]:
            raise UnsupportedFormatError(f"the second output of {makers[value].op_type} is used", HINT)
        needed.append(makers[value])
        wanted += makers[value].inputs
    return sorted({id(node): node for node in needed}.values(), key=lambda node: order[id(node)])


def _is_trained(node: Node, place: int, makers: Mapping[str, Node]) -> bool:
    if node.op_type == "Add":
        # a bias, and not a step of what comes before the first layer
        other = makers.get(node.inputs[1 - place])
        return other is not None and other.op_type in _BIASED
    return place in _TRAINED.get(node.op_type, ())


def _operator(node: Node) -> Operator:
    found = OPERATORS.get(node.op_type) if node.domain in _STANDARD else None
    if found is None:
        raise UnsupportedFormatError(f"the operator {node.op_type} is not one that can be trained here", HINT)
    return found


def _get(node: Node, name: str, default: Any) -> Any:
    found: Attribute | None = next((item for item in node.attributes if item.name == name), None)
    if found is None:
        return default
    if isinstance(found.value, np.ndarray | tuple):
        return [int(item) for item in cast("Any", found.value)]
    return found.value


def _gemm(torch: ModuleType, node: Node, values: list[Any]) -> Any:
    one = values[0].T if _get(node, "transA", 0) else values[0]
    other = values[1].T if _get(node, "transB", 0) else values[1]
    found = float(_get(node, "alpha", 1.0)) * torch.matmul(one, other)
    return found if len(values) < 3 or values[2] is None else found + float(_get(node, "beta", 1.0)) * values[2]


def _flatten(_torch: ModuleType, node: Node, values: list[Any]) -> Any:
    axis = int(_get(node, "axis", 1))
    if axis != 1:
        raise UnsupportedFormatError(f"a Flatten along axis {axis} mixes rows", HINT)
    return values[0].flatten(1)


def _reshape(_torch: ModuleType, _node: Node, values: list[Any]) -> Any:
    sizes = [int(size) for size in values[1].reshape(-1)]
    return values[0].reshape([values[0].shape[place] if size == 0 else size for place, size in enumerate(sizes)])


def _cast(_torch: ModuleType, node: Node, values: list[Any]) -> Any:
    if _get(node, "to", 0) != _FLOAT:
        raise UnsupportedFormatError("a Cast to other numbers than float32 has no slope", HINT)
    return values[0].float()


def _window(node: Node, sizes: int) -> tuple[list[int], list[int], list[int]]:
    """Strides, padding and dilations of a window over `sizes` axes. Raises UnsupportedFormatError on lopsided ones."""
    pads = _get(node, "pads", [0] * (2 * sizes))
    automatic = _get(node, "auto_pad", b"NOTSET")
    if automatic not in {b"NOTSET", b"VALID"} or pads[:sizes] != pads[sizes:] or _get(node, "ceil_mode", 0):
        raise UnsupportedFormatError(f"a {node.op_type} that is padded on one side more than on the other", HINT)
    return _get(node, "strides", [1] * sizes), pads[:sizes], _get(node, "dilations", [1] * sizes)


def _conv(torch: ModuleType, node: Node, values: list[Any]) -> Any:
    sizes = values[1].dim() - 2
    if sizes not in {1, 2}:
        raise UnsupportedFormatError(f"a convolution over {sizes} axes", HINT)
    strides, pads, dilations = _window(node, sizes)
    bias = values[2] if len(values) > 2 else None
    convolve = torch.nn.functional.conv1d if sizes == 1 else torch.nn.functional.conv2d
    return convolve(values[0], values[1], bias, strides, pads, dilations, int(_get(node, "group", 1)))


def _max_pool(torch: ModuleType, node: Node, values: list[Any]) -> Any:
    strides, pads, dilations = _window(node, 2)
    return torch.nn.functional.max_pool2d(values[0], _get(node, "kernel_shape", []), strides, pads, dilations)


def _average_pool(torch: ModuleType, node: Node, values: list[Any]) -> Any:
    strides, pads, _ = _window(node, 2)
    counted = bool(_get(node, "count_include_pad", 0))
    kernel = _get(node, "kernel_shape", [])
    return torch.nn.functional.avg_pool2d(values[0], kernel, strides, pads, count_include_pad=counted)


def _normalise(torch: ModuleType, node: Node, values: list[Any]) -> Any:
    rows, scale, shift, mean, variance = values
    small = float(_get(node, "epsilon", 1e-5))
    return torch.nn.functional.batch_norm(rows, mean, variance, scale, shift, training=False, eps=small)


OPERATORS: Mapping[str, Operator] = {
    "Gemm": _gemm,
    "MatMul": lambda torch, _, values: torch.matmul(values[0], values[1]),
    "Add": lambda torch, _, values: torch.add(values[0], values[1]),
    "Sub": lambda torch, _, values: torch.sub(values[0], values[1]),
    "Mul": lambda torch, _, values: torch.mul(values[0], values[1]),
    "Div": lambda torch, _, values: torch.div(values[0], values[1]),
    "Relu": lambda torch, _, values: torch.relu(values[0]),
    "LeakyRelu": lambda torch, node, values: torch.nn.functional.leaky_relu(
        values[0], float(_get(node, "alpha", 0.01))
    ),
    "Tanh": lambda torch, _, values: torch.tanh(values[0]),
    "Sigmoid": lambda torch, _, values: torch.sigmoid(values[0]),
    "Identity": lambda _torch, _, values: values[0],
    "Dropout": lambda _torch, _, values: values[0],
    "Cast": _cast,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Conv": _conv,
    "MaxPool": _max_pool,
    "AveragePool": _average_pool,
    "GlobalAveragePool": lambda _torch, _, values: values[0].mean(dim=(2, 3), keepdim=True),
    "BatchNormalization": _normalise,
}
