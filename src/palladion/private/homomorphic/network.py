"""Reading a network out of an ONNX graph: affine layers, and a function of one number between each two.

What is affine is folded together (scalers, batch norms, reshapes); what works on each number alone becomes one function
of it, however many nodes that takes. Operations after the last layer are left to whoever decrypts. Everything else is
refused, with the reason why it cannot be computed under encryption.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np

from palladion.errors import FormatError
from palladion.model.graph import Graph, Node, StringTensor, TensorRef
from palladion.model.model import Model
from palladion.private.homomorphic.operators import (
    BINARY,
    FINAL,
    PASSED,
    REASONS,
    Array,
    Function,
    always,
    attribute,
    number,
    refused,
    unary,
)
from palladion.private.homomorphic.program import LABEL_CHARACTERS_MAX, WIDTH_MAX, Layer


@dataclass(frozen=True, eq=False)
class Activation:
    """A function of one number, and the operators that it is made of."""

    function: Function
    name: str


@dataclass(frozen=True, eq=False)
class Network:
    """Layers with an activation between each two, labels if the graph has any, and what is left to the client."""

    layers: tuple[Layer, ...]
    activations: tuple[Activation, ...]
    labels: tuple[str, ...]
    dropped: tuple[str, ...]

    @property
    def widths(self) -> tuple[int, ...]:
        """Features, and the outputs of each layer."""
        return (self.layers[0].weights.shape[1], *(layer.bias.size for layer in self.layers))

    def run(self, rows: Array) -> Array:
        """Its outputs (rows, outputs), without what is dropped."""
        return self.traced(rows)[-1]

    def traced(self, rows: Array) -> list[Array]:
        """What each layer gives, before its activation."""
        found, values = [], rows
        for index, layer in enumerate(self.layers):
            found.append(values @ layer.weights.T + layer.bias)
            if index < len(self.activations):
                values = self.activations[index].function(found[-1])
        return found


@dataclass(frozen=True, eq=False)
class _Vector:
    """The affine value `weights` × (what stage `stage` gives) + `bias`; `function` of each number where there is one.

    `root` is the affine value that the function is of, or of which a value without a function is a multiple.
    """

    stage: int
    weights: Array
    bias: Array
    root: "_Vector | None" = None
    factor: float = 1.0  # of the root, where there is no function
    function: Function | None = None
    name: str = ""


@dataclass(frozen=True, eq=False)
class _Tail:
    """What follows the last layer."""

    root: _Vector
    operators: tuple[str, ...]


def read_network(model: Model) -> Network:
    """The network of a model. Raises FormatError, with the reason, where it cannot be computed under encryption."""
    if model.graph is None:
        raise FormatError("the model has no graph: only ONNX files say what is computed")
    return _Reader(model, model.graph).read()


class _Reader:
    def __init__(self, model: Model, graph: Graph) -> None:
        self._tensors, self._graph = model.tensors, graph
        self._layers: list[Layer] = []
        self._activations: list[Activation] = []
        self._values: dict[str, _Vector | _Tail] = {}
        self._labels: tuple[str, ...] = ()

    def read(self) -> Network:
        """The network. Raises FormatError."""
        main = self._graph.main
        fed = [value for value in main.inputs if value.name not in main.constants]
        if len(fed) != 1:
            raise FormatError(f"the model has {len(fed)} inputs, expected one table of numbers")
        shape = fed[0].type.shape if fed[0].type is not None else None
        width = shape[-1] if shape is not None and len(shape) == 2 else None
        if not isinstance(width, int) or not 1 <= width <= WIDTH_MAX:
            raise FormatError(
                f"the model's input has the shape {shape}, expected rows of a fixed number of numbers, "
                f"at most {WIDTH_MAX}"
            )
        self._values[fed[0].name] = _Vector(0, np.eye(width), np.zeros(width))
        if self._graph.functions:
            raise FormatError("the model defines operators of its own, which are not looked into here")
        for node in main.nodes:
            self._take(node)
        return self._network([output.name for output in main.outputs])

    def _network(self, outputs: Sequence[str]) -> Network:
        ends = [self._values[name] for name in outputs if name in self._values]
        if not ends:
            raise FormatError("no output of the model depends on its input")
        roots = {id(_root(end)): _root(end) for end in ends}
        root = next(iter(roots.values()))
        if len(roots) > 1:
            raise FormatError("the model's outputs come out of several layers: give it one")
        if root.stage != len(self._layers) or (root.stage == 0 and _is_identity(root)):
            raise FormatError("the model's outputs are not those of its last layer")
        dropped = [name for end in ends for name in _operators(end)]
        return Network(
            (*self._layers, Layer(root.weights, root.bias)),
            tuple(self._activations),
            self._labels if len(self._labels) in {root.bias.size, 2 if root.bias.size == 1 else 0} else (),
            tuple(dict.fromkeys(name for name in dropped if name not in {"Cast", "Identity", "Reshape"}))[:16],
        )

    def _take(self, node: Node) -> None:
        known = [self._values[name] for name in node.inputs if name in self._values]
        if not known:
            return  # of constants alone: found when it is asked for, or not needed
        if node.op_type == "ArrayFeatureExtractor" and node.inputs:
            self._note_labels(node)
        tail = next((value for value in known if isinstance(value, _Tail)), None)
        vectors = [value for value in known if isinstance(value, _Vector)]
        if tail is not None:
            if node.op_type not in FINAL or any(_root(value) is not tail.root for value in known):
                raise refused(next((name for name in tail.operators if name in REASONS), node.op_type))
            self._put(node, _Tail(tail.root, (*tail.operators, node.op_type)))
            return
        if node.op_type == "LinearClassifier":
            self._classifier(node, vectors[0])
            return
        found = self._affine(node, vectors) or self._elementwise(node, vectors)
        if found is not None:
            self._put(node, found)
        elif node.op_type in FINAL:
            self._put(node, _Tail(_root(vectors[0]), (*_operators(vectors[0]), node.op_type)))
        else:
            raise refused(node.op_type)

    def _put(self, node: Node, value: "_Vector | _Tail") -> None:
        for name in node.outputs:
            if name:
                self._values[name] = value

    # affine operations

    def _affine(self, node: Node, vectors: Sequence[_Vector]) -> "_Vector | None":
        kind = node.op_type
        if kind in PASSED:
            return vectors[0]
        if kind in {"MatMul", "Gemm"} and len(vectors) == 1 and node.inputs[0] in self._values:
            return self._matrix(node, vectors[0])
        if kind == "LinearRegressor":
            if attribute(node, "post_transform", b"NONE") != b"NONE":
                raise refused("a LinearRegressor with a transformation")
            return self._linear(node, vectors[0])
        if kind == "Scaler":
            offset, scale = (self._numbers(node, name) for name in ("offset", "scale"))
            return self._scaled(vectors[0], scale, -offset * scale)
        if kind == "BatchNormalization":
            scale, shift, mean, variance = (self._constant(name) for name in node.inputs[1:5])
            epsilon = number(node, "epsilon", 1e-5)
            factor = scale / np.sqrt(variance + epsilon)
            return self._scaled(vectors[0], factor, shift - mean * factor)
        if kind in {"Add", "Sub", "Mul", "Div"} and len(vectors) == 1 and len(node.inputs) == 2:
            return self._arithmetic(node, vectors[0])
        return None

    def _matrix(self, node: Node, vector: _Vector) -> _Vector:
        matrix = self._constant(node.inputs[1])
        if matrix.ndim != 2:
            raise FormatError(f"a {node.op_type} with a matrix of shape {matrix.shape}, expected two dimensions")
        bias = np.zeros(1)
        if node.op_type == "Gemm":
            if attribute(node, "transA", 0):
                raise FormatError("a Gemm that transposes its rows")
            matrix = matrix.T if attribute(node, "transB", 0) else matrix
            matrix = matrix * number(node, "alpha", 1.0)
            if len(node.inputs) > 2 and node.inputs[2]:
                bias = self._constant(node.inputs[2]).ravel() * number(node, "beta", 1.0)
        return self._composed(vector, matrix.T, np.broadcast_to(bias, matrix.shape[1:]).copy())

    def _linear(self, node: Node, vector: _Vector) -> _Vector:
        flat, bias = self._numbers(node, "coefficients"), self._numbers(node, "intercepts")
        width = vector.bias.size
        if flat.size % width or not flat.size:
            raise FormatError(f"a {node.op_type} with {flat.size} coefficients for {width} features")
        weights = flat.reshape(-1, width)
        return self._composed(vector, weights, bias if bias.size else np.zeros(weights.shape[0]))

    def _classifier(self, node: Node, vector: _Vector) -> None:
        transform = cast(bytes, attribute(node, "post_transform", b"NONE")).decode()
        operators = {"NONE": "Identity", "SOFTMAX": "Softmax", "SOFTMAX_ZERO": "Softmax", "LOGISTIC": "Sigmoid"}
        if transform not in operators:
            raise refused(f"a LinearClassifier with {transform}")
        found = self._linear(node, vector)
        self._labels = self._classes(node)
        for name, operator in zip(node.outputs, ("ArgMax", operators[transform]), strict=False):
            self._values[name] = _Tail(found, (operator,))

    def _arithmetic(self, node: Node, vector: _Vector) -> "_Vector | None":
        first = node.inputs[0] in self._values
        constant = self._constant(node.inputs[1] if first else node.inputs[0]).ravel()
        if constant.size == 1 and vector.function is not None:
            return None  # of one number: `_elementwise`
        width = vector.bias.size
        if constant.size not in {1, width}:
            raise FormatError(f"{node.op_type} with {constant.size} numbers for {width} units")
        constant = np.broadcast_to(constant, (width,))
        one, zero = np.ones(width), np.zeros(width)
        if node.op_type == "Add":
            return self._scaled(vector, one, constant)
        if node.op_type == "Sub":
            return self._scaled(vector, one, -constant) if first else self._scaled(vector, -one, constant)
        if node.op_type == "Mul":
            return self._scaled(vector, constant, zero, keep=np.ptp(constant) == 0)
        if not first:
            raise refused("Div")
        return self._scaled(vector, 1 / constant, zero, keep=np.ptp(constant) == 0)

    def _scaled(self, vector: _Vector, factor: Array, addend: Array, *, keep: bool = False) -> _Vector:
        """Each number times a factor, plus an addend. `keep` notes what it is a multiple of, for functions of it."""
        base = self._materialised(vector)
        weights, bias = base.weights * factor[:, None], base.bias * factor + addend
        if not keep:
            return _Vector(base.stage, weights, bias)
        return _Vector(base.stage, weights, bias, base.root or base, base.factor * float(factor[0]))

    def _composed(self, vector: _Vector, weights: Array, bias: Array) -> _Vector:
        base = self._materialised(vector)
        if weights.shape[1] != base.bias.size:
            raise FormatError(f"a layer of {weights.shape[1]} inputs after one of {base.bias.size} outputs")
        if weights.shape[0] > WIDTH_MAX:
            raise FormatError(f"a layer of {weights.shape[0]} units, at most {WIDTH_MAX} fit")
        return _Vector(base.stage, weights @ base.weights, weights @ base.bias + bias)

    def _materialised(self, vector: _Vector) -> _Vector:
        """The value as an affine one: a function of it ends a layer, and begins the next."""
        if vector.function is None:
            return vector
        root = vector.root or vector
        if root.stage != len(self._layers):
            raise FormatError("a layer takes what an earlier one gave (a shortcut), which is not supported here")
        self._layers.append(Layer(root.weights, root.bias))
        self._activations.append(Activation(vector.function, vector.name))
        width = root.bias.size
        made = _Vector(len(self._layers), np.eye(width), np.zeros(width))
        for name, value in self._values.items():
            if value is vector:
                self._values[name] = made
        return made

    # functions of one number

    def _elementwise(self, node: Node, vectors: Sequence[_Vector]) -> "_Vector | None":
        kind = node.op_type
        root = vectors[0].root or vectors[0]
        if any((vector.root or vector) is not root for vector in vectors):
            if kind in BINARY:
                raise FormatError(
                    f"{kind} of two different values (a shortcut, or a gate), which is not supported here"
                )
            return None
        of = [self._of_root(vector, root) for vector in vectors]
        function = self._binary(node, of) if kind in BINARY and len(node.inputs) == 2 else unary(node, of[0])
        if function is None:
            return None
        name = "·".join([*filter(None, [vectors[0].name]), kind])[:64]
        return _Vector(root.stage, root.weights, root.bias, root, 1.0, function, name)

    @staticmethod
    def _of_root(vector: _Vector, root: _Vector) -> Function:
        if vector.function is not None:
            return vector.function
        factor = 1.0 if vector is root else vector.factor
        return lambda x: factor * x

    def _binary(self, node: Node, of: Sequence[Function]) -> Function | None:
        sides: list[Function] = []
        left = iter(of)
        for name in node.inputs:
            if name in self._values:
                sides.append(next(left))
                continue
            constant = self._constant(name).ravel()
            if constant.size != 1:
                return None
            sides.append(always(float(constant[0])))
        first, second = sides
        combine = BINARY[node.op_type]
        return lambda x: combine(first(x), second(x))

    # constants and attributes

    def _constant(self, name: str) -> Array:
        found = self._graph.main.constants.get(name)
        if found is None:
            node = next((node for node in self._graph.main.nodes if name in node.outputs), None)
            if node is not None and node.op_type == "Constant":
                found = cast(Any, next((item.value for item in node.attributes), None))
                if isinstance(found, np.float32 | int):
                    return np.array([float(found)])
            elif node is not None and node.op_type in {"Identity", "Cast"}:
                return self._constant(node.inputs[0])
        if not isinstance(found, TensorRef):
            raise FormatError(f"{name!r} is computed from more than the input, expected numbers that stand in the file")
        return self._array(found)

    def _array(self, reference: TensorRef) -> Array:
        tensor = self._tensors[reference.tensor]
        array = np.asarray(tensor.data, np.float64)
        if not np.all(np.isfinite(array)):
            raise FormatError(f"{reference.tensor} holds what is no number")
        return array

    def _numbers(self, node: Node, name: str) -> Array:
        found = attribute(node, name, None)
        return self._array(found).ravel() if isinstance(found, TensorRef) else np.zeros(0)

    def _classes(self, node: Node) -> tuple[str, ...]:
        for name in ("classlabels_ints", "classlabels_strings"):
            found = attribute(node, name, None)
            if isinstance(found, TensorRef):
                return tuple(str(int(number)) for number in self._array(found))
            if isinstance(found, StringTensor):
                return tuple(item.decode(errors="replace")[:LABEL_CHARACTERS_MAX] for item in found.strings)
        return ()

    def _note_labels(self, node: Node) -> None:
        """Labels as skl2onnx writes them for networks: picked out of a constant by the place of the largest output."""
        found = self._graph.main.constants.get(node.inputs[0])
        if isinstance(found, TensorRef):
            self._labels = tuple(f"{number:g}" for number in self._array(found).ravel()[:WIDTH_MAX])
        elif isinstance(found, StringTensor):
            self._labels = tuple(item.decode(errors="replace")[:LABEL_CHARACTERS_MAX] for item in found.strings)


def _root(value: "_Vector | _Tail") -> _Vector:
    if isinstance(value, _Tail):
        return value.root
    return value.root if value.root is not None and value.function is not None else value


def _operators(value: "_Vector | _Tail") -> tuple[str, ...]:
    if isinstance(value, _Tail):
        return value.operators
    return (value.name,) if value.function is not None else ()


def _is_identity(vector: _Vector) -> bool:
    width = vector.bias.size
    return vector.weights.shape == (width, width) and bool(np.array_equal(vector.weights, np.eye(width)))
