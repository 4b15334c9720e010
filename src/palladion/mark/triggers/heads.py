"""The part of an ONNX classifier that triggers are put into: its last dense layers, or its ensemble of trees.

Owns finding it in the graph, and running a model so that what goes into that part comes out as well. The runtime gets
the file with one more output appended: a message of Protocol Buffers followed by another is the two of them merged.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.mark.triggers.dense import Activation, Dense
from palladion.mark.triggers.trees import OPERATOR as TREES
from palladion.mark.triggers.trees import Trees, read_trees
from palladion.model.graph import Node, StringTensor, TensorRef
from palladion.model.inner import as_output
from palladion.model.model import Model, ModelFile
from palladion.model.rewrite import locate
from palladion.model.run import Port, open_inference_session, open_session

TAIL_NUMBERS_MAX = 8 * 1024 * 1024  # weights of a tail of dense layers; Adam holds each four times
ROWS_AT_ONCE = 64
_ACTIVATIONS: Mapping[str, Activation] = {"Relu": "Relu", "Tanh": "Tanh", "Sigmoid": "Sigmoid"}
_FLOATS = {"float16", "bfloat16", "float32", "float64"}
_PASSING = {"Identity", "Dropout"}


@dataclass(frozen=True, eq=False)
class Head:
    """What triggers are put into, and the value of the graph that goes into it (`tap`).

    `transposed` are tensors that hold a layer's weights as (outputs, inputs). `names` are the classes as the model
    labels them, or none where they are numbered. `label` is the output that labels, `scores` the one that scores.
    """

    tap: str
    part: Trees | tuple[Dense, ...]
    transposed: frozenset[str]
    classes: int
    names: tuple[str, ...]
    label: str | None
    scores: str | None


class Tapped:
    """A model that is run; asks for its outputs and for what goes into its head."""

    def __init__(self, model: Model, tap: str) -> None:
        # the ports are those of the model as it is, whose outputs were checked to be tensors
        self.inputs: tuple[Port, ...] = open_session(model).inputs
        main, *others = model.files
        taps = [] if tap in {port.name for port in self.inputs} else [tap]
        extended = bytes(main.data) + b"".join(map(as_output, taps))
        tapped = replace(model, files=(ModelFile(main.name, memoryview(extended)), *others))
        self._session = open_inference_session(tapped)
        self._names = [item.name for item in self._session.get_outputs()]

    def run(self, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Every output, and the tap, by name, for rows by input name; the inputs are among them."""
        rows = len(next(iter(feeds.values())))
        fixed = next((port.shape[0] for port in self.inputs if isinstance(port.shape[0], int)), None)
        step = fixed or ROWS_AT_ONCE
        parts: list[list[NDArray[Any]]] = []
        for first in range(0, rows, step):
            part = {port.name: _block(feeds[port.name], first, step, pad=fixed is not None) for port in self.inputs}
            answers = self._session.run(self._names, part)
            parts.append([np.asarray(answer)[: min(step, rows - first)] for answer in answers])
        joined = [np.concatenate(pieces) for pieces in zip(*parts, strict=True)]
        return dict(feeds) | dict(zip(self._names, joined, strict=True))


def find_head(model: Model) -> Head | str:
    """The head of a classifier, or in a sentence why there is none that triggers could be put into."""
    if model.graph is None:
        return "it holds weights without a graph: use palladion.mark.triggers.refit.refit_head, or fine-tune it"
    nodes = model.graph.main.nodes
    label, scores = _outputs(model)
    if label is None and scores is None:
        return "none of its outputs is a label or a score for each class"
    for node in reversed(nodes):
        try:
            found = _trees_head(model, node) or _linear_head(model, node) or _dense_head(model, node)
        except FormatError as error:
            return error.message
        if found is not None:
            tap, part, transposed, names = found
            classes = _class_count(part)
            names = names or _looked_up(model, classes)
            return Head(tap, part, transposed, classes, names if len(names) == classes else (), label, scores)
    return "it ends in no dense layer, linear model or ensemble of trees whose numbers could be changed in place"


def answered_classes(head: Head, outputs: Mapping[str, NDArray[Any]]) -> NDArray[np.intp]:
    """The class of each row, as clients see it (rows,); -1 for a label that is none of the head's."""
    if head.label is None:
        scores = outputs[head.scores or ""]
        two = scores.shape[-1] > 1
        return np.asarray(scores.reshape(len(scores), -1).argmax(axis=1) if two else scores.reshape(-1) > 0, np.intp)
    labels = outputs[head.label].reshape(-1)
    if not head.names:
        return labels.astype(np.intp)
    place = {name: index for index, name in enumerate(head.names)}
    return np.array([place.get(str(item), -1) for item in labels.tolist()], np.intp)


_Found = tuple[str, Trees | tuple[Dense, ...], frozenset[str], tuple[str, ...]]


def _trees_head(model: Model, node: Node) -> _Found | None:
    if node.op_type != TREES or node.domain != "ai.onnx.ml":
        return None
    trees = read_trees(node, model.tensors)
    if trees.tensor not in locate(model):
        raise FormatError("the leaf values of its trees do not lie in the file as they are")
    return node.inputs[0], trees, frozenset(), _label_names(model, node)


def _linear_head(model: Model, node: Node) -> _Found | None:
    """LinearClassifier of ai.onnx.ml: coefficients (classes, features) and intercepts in attributes."""
    if node.op_type != "LinearClassifier" or node.domain != "ai.onnx.ml":
        return None
    attributes = {item.name: item.value for item in node.attributes}
    weights, bias = (_numbers(model, attributes.get(name)) for name in ("coefficients", "intercepts"))
    names = _label_names(model, node)
    reference = attributes["coefficients"]
    if weights is None or not isinstance(reference, TensorRef) or reference.tensor not in locate(model):
        return None
    classes = len(bias) if bias is not None else len(names)
    if classes < 2 or weights.size % classes:
        return None
    table = weights.reshape(classes, -1).T.astype(np.float32)
    base = np.zeros(classes, np.float32) if bias is None else bias.astype(np.float32)
    return node.inputs[0], (Dense(reference.tensor, table, base),), frozenset({reference.tensor}), names


def _dense_head(model: Model, node: Node) -> _Found | None:
    """The longest row of dense layers, each the only way to the next, that ends in `node`."""
    graph = model.graph
    if graph is None or node.op_type not in {"MatMul", "Gemm"}:
        return None
    makers = {name: item for item in graph.main.nodes for name in item.outputs if name}
    readers: dict[str, list[Node]] = {}
    for item in graph.main.nodes:
        for name in item.inputs:
            readers.setdefault(name, []).append(item)
    layers: list[Dense] = []
    transposed: set[str] = set()
    numbers = 0
    activation: Activation = ""
    tap = ""
    at: Node | None = node
    while at is not None:
        read = _layer(model, at, readers, activation)
        if read is None or (layers and read[0].weights.shape[1] != layers[0].weights.shape[0]):
            break
        layer, is_transposed = read
        numbers += layer.weights.size
        if layers and numbers > TAIL_NUMBERS_MAX:
            break
        layers.insert(0, layer)
        transposed |= {layer.tensor} if is_transposed else set()
        tap = at.inputs[0]
        at, activation = _before(tap, makers, readers)
    return (tap, tuple(layers), frozenset(transposed), ()) if layers else None


def _layer(
    model: Model, node: Node, readers: Mapping[str, Sequence[Node]], activation: Activation
) -> tuple[Dense, bool] | None:
    """The dense layer of a node, and whether its tensor holds the weights as (outputs, inputs)."""
    if node.op_type not in {"MatMul", "Gemm"} or node.domain or model.graph is None:
        return None
    constants = model.graph.main.constants
    reference = constants.get(node.inputs[1])
    weights = _numbers(model, reference)
    if weights is None or weights.ndim != 2 or not isinstance(reference, TensorRef):
        return None
    if reference.tensor not in locate(model) or len(readers.get(node.inputs[1], ())) != 1:
        return None
    options = {item.name: item.value for item in node.attributes}
    # a scale of the whole layer is rare, and would have to be undone
    if any(float(str(options.get(name, 1.0))) != 1.0 for name in ("alpha", "beta")) or options.get("transA", 0):
        return None
    is_transposed = bool(options.get("transB", 0))
    table = np.asarray(weights.T if is_transposed else weights, np.float32)
    bias_name = node.inputs[2] if node.op_type == "Gemm" and len(node.inputs) > 2 else _added(node, readers, constants)
    bias = _numbers(model, constants.get(bias_name))
    if bias is not None and bias.size not in {1, table.shape[1]}:
        return None
    base = np.broadcast_to(0.0 if bias is None else bias.reshape(-1), table.shape[1]).astype(np.float32)
    return Dense(reference.tensor, table, base, activation), is_transposed


def _added(node: Node, readers: Mapping[str, Sequence[Node]], constants: Mapping[str, Any]) -> str:
    """The constant that the only reader of a product adds to it, or none."""
    following = readers.get(node.outputs[0], ())
    if len(following) != 1 or following[0].op_type != "Add":
        return ""
    return next((name for name in following[0].inputs if name in constants), "")


def _before(
    value: str, makers: Mapping[str, Node], readers: Mapping[str, Sequence[Node]]
) -> tuple[Node | None, Activation]:
    """The product that `value` is made from, and the activation between; None where something else comes before."""
    activation: Activation = ""
    while (maker := makers.get(value)) is not None and len(readers.get(value, ())) == 1:
        if maker.op_type in {"MatMul", "Gemm"}:
            return maker, activation
        if maker.op_type in _ACTIVATIONS and not activation:
            activation = _ACTIVATIONS[maker.op_type]
        elif maker.op_type not in _PASSING and not (maker.op_type == "Add" and _adds_to_product(maker, makers)):
            break
        value = next((name for name in maker.inputs if name in makers), "")
    return None, ""


def _adds_to_product(node: Node, makers: Mapping[str, Node]) -> bool:
    made = [makers[name].op_type for name in node.inputs if name in makers]
    return made == ["MatMul"]


def _numbers(model: Model, reference: object) -> NDArray[Any] | None:
    if not isinstance(reference, TensorRef):
        return None
    tensor = model.tensors[reference.tensor]
    return np.asarray(tensor.data) if tensor.dtype.name in _FLOATS else None


def _class_count(part: Trees | tuple[Dense, ...]) -> int:
    return part.class_count if isinstance(part, Trees) else max(2, part[-1].weights.shape[1])


def _label_names(model: Model, node: Node) -> tuple[str, ...]:
    for item in node.attributes:
        if item.name.startswith("classlabels_"):
            return _names(model, item.value)
    return ()


def _looked_up(model: Model, classes: int) -> tuple[str, ...]:
    """Names that the graph takes from a list of as many constants: how scikit-learn's networks label."""
    if model.graph is None:
        return ()
    for node in model.graph.main.nodes:
        if node.op_type == "ArrayFeatureExtractor":
            names = _names(model, model.graph.main.constants.get(node.inputs[0]))
            if len(names) == classes:
                return names
    return ()


def _names(model: Model, value: object) -> tuple[str, ...]:
    if isinstance(value, TensorRef):
        return tuple(str(item) for item in model.tensors[value.tensor].data.reshape(-1).tolist())
    if isinstance(value, StringTensor):
        return tuple(item.decode(errors="replace") for item in value.strings)
    return ()


def _outputs(model: Model) -> tuple[str | None, str | None]:
    label = scores = None
    for value in model.graph.outputs if model.graph else ():
        kind = value.type
        if kind is None or kind.kind != "tensor":
            continue
        wide = kind.shape is None or len(kind.shape) == 2
        if kind.element.startswith(("int", "string")) and (kind.shape is None or len(kind.shape) <= 2):
            label = label or value.name
        elif kind.element.startswith("float") and wide:
            scores = scores or value.name
    return label, scores


def _block(array: NDArray[Any], first: int, step: int, *, pad: bool) -> NDArray[Any]:
    block = array[first : first + step]
    if pad and len(block) < step:
        block = np.concatenate([block, np.repeat(block[-1:], step - len(block), axis=0)])
    return np.ascontiguousarray(block)
