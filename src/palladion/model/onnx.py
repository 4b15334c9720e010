"""ONNX files: every number becomes a named tensor, and everything else that decides what is computed the graph.

Names of tensors: an initializer has its own name; what a node holds is `node:OUTPUT/ATTRIBUTE`, after the node's first
named output, because node names mean nothing; inside a branch or loop body `node:OUTPUT/ATTRIBUTE/` comes before the
name, inside a function `function:DOMAIN:NAME/` or `function:DOMAIN:NAME:OVERLOAD/`.

Which attributes are tensors: every tensor, every list of floats, and in the `ai.onnx.ml` domain (trees, linear models,
scalers) every list of integers. Single numbers, strings and the integer lists of other operators (strides, axes)
belong to the graph. Documentation, producers, node and graph names, intermediate value types and device placement
decide nothing and are in neither.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from palladion.errors import FormatError
from palladion.model import onnx_schema as schema
from palladion.model.graph import (
    Attribute,
    AttributeValue,
    Function,
    Graph,
    Node,
    SparseRef,
    StringTensor,
    Subgraph,
    TensorRef,
    Training,
)
from palladion.model.onnx_tensors import ExternalData, read_dims, read_tensor
from palladion.model.onnx_types import read_type, read_value
from palladion.model.protobuf import Budget, Message
from palladion.model.tensors import DTYPES, Tensor, tensor_from_array

ONNX_BYTES_MAX = 2**31 - 1  # no protobuf reader takes more; larger models keep their weights in external data
DEPTH_MAX = 32  # branches within branches; the reference protobuf reader stops at about the same depth
MACHINE_LEARNING_DOMAIN = "ai.onnx.ml"
_SAME_DOMAIN = {"ai.onnx": ""}  # two spellings of the standard operator set


@dataclass(frozen=True, eq=False)
class OnnxContent:
    """What an ONNX file holds, with the external data that it asked for by location."""

    tensors: dict[str, Tensor]
    graph: Graph
    metadata: dict[str, str]
    external_files: dict[str, memoryview]


def parse(data: memoryview, open_file: Callable[[str], memoryview], *, what: str) -> OnnxContent:
    """The content of the ONNX bytes `data`; tensors are views into `data` and the external files wherever they can be.

    `open_file` is called once for each external-data file, with a location that was checked. Raises FormatError,
    naming `what` or the part at fault.
    """
    if data.nbytes > ONNX_BYTES_MAX:
        raise FormatError(
            f"{what} has {data.nbytes} bytes, more than the {ONNX_BYTES_MAX} an ONNX file can have",
            "save it with its weights in external data",
        )
    return _Reader(open_file).read(Message(data, schema.MODEL, what, Budget()), what)


class _Reader:
    """Goes through one file and collects its tensors and operators."""

    def __init__(self, open_file: Callable[[str], memoryview]) -> None:
        self._external = ExternalData(open_file)
        self._tensors: dict[str, Tensor] = {}
        self._operators: set[tuple[str, str]] = set()

    def read(self, model: Message, what: str) -> OnnxContent:
        if not model.has("graph"):
            raise FormatError(f"{what} has no graph")
        opset_imports = _opset_imports(model, what)
        main = self._subgraph(model.message("graph", schema.GRAPH, "graph"), "", 0)
        functions = tuple(map(self._function, model.messages("functions", schema.FUNCTION, "functions")))
        keys = {(function.domain, function.name, function.overload) for function in functions}
        if len(keys) != len(functions):
            raise FormatError(f"{what} defines a function twice")
        training = tuple(
            self._training(message, f"training:{index}/")
            for index, message in enumerate(model.messages("training_info", schema.TRAINING, "training_info"))
        )
        self._external.check_coverage()
        files = self._external.files
        graph = Graph(
            model.integer("ir_version"),
            opset_imports,
            main,
            functions,
            training,
            frozenset(self._operators),
            tuple(files),
        )
        return OnnxContent(self._tensors, graph, _unique_entries(model, "metadata_props", what), files)

    def _subgraph(self, graph: Message, prefix: str, depth: int) -> Subgraph:
        if depth > DEPTH_MAX:
            raise FormatError(f"graph {prefix[:80]!r} is nested deeper than {DEPTH_MAX}")
        inputs = tuple(read_value(value) for value in graph.messages("input", schema.VALUE, f"{prefix}input"))
        outputs = tuple(read_value(value) for value in graph.messages("output", schema.VALUE, f"{prefix}output"))
        constants: dict[str, TensorRef | SparseRef | StringTensor] = {}
        for name, constant in self._constants(graph, prefix):
            if name in constants:
                raise FormatError(f"initializer {prefix}{name} is given twice")
            constants[name] = constant
        nodes = self._nodes(graph, prefix, depth)
        _check_single_assignment([value.name for value in inputs], constants, nodes, prefix)
        annotations = tuple(
            (annotation.text("tensor_name"), _entries(annotation, "quant_parameter_tensor_names"))
            for annotation in graph.messages("quantization_annotation", schema.ANNOTATION, f"{prefix}annotation")
        )
        return Subgraph(inputs, outputs, nodes, constants, annotations)

    def _constants(self, graph: Message, prefix: str) -> Iterator[tuple[str, TensorRef | SparseRef | StringTensor]]:
        for message in graph.messages("initializer", schema.TENSOR, f"{prefix}initializer"):
            name = _required(message, "name")
            yield name, self._tensor(message, prefix + name, f"initializer {prefix}{name}")
        for message in graph.messages("sparse_initializer", schema.SPARSE_TENSOR, f"{prefix}sparse_initializer"):
            name = _required(message.message("values", schema.TENSOR, message.where), "name")
            yield name, self._sparse(message, prefix + name, f"sparse initializer {prefix}{name}")

    def _nodes(self, owner: Message, prefix: str, depth: int) -> tuple[Node, ...]:
        return tuple(self._node(node, prefix, depth) for node in owner.messages("node", schema.NODE, f"{prefix}node"))

    def _node(self, node: Message, prefix: str, depth: int) -> Node:
        op_type = _required(node, "op_type")
        domain = node.text("domain")
        outputs = node.texts("output")
        output = next(filter(None, outputs), None)
        if output is None:
            raise FormatError(f"{node.where} ({op_type}) has no named output, so nothing can use it")
        path = f"{prefix}node:{output}"
        attributes = self._attributes(node, "attribute", _Site(path, domain, depth))
        self._operators.add((domain, op_type))
        return Node(op_type, domain, node.text("overload"), node.texts("input"), outputs, attributes)

    def _attributes(self, owner: Message, field: str, site: "_Site") -> tuple[Attribute, ...]:
        attributes = tuple(
            self._attribute(message, site)
            for message in owner.messages(field, schema.ATTRIBUTE, f"{site.path}/attribute")
        )
        if len({attribute.name for attribute in attributes}) != len(attributes):
            raise FormatError(f"{site.path} has an attribute twice")
        return attributes

    def _attribute(self, message: Message, owner: "_Site") -> Attribute:
        name = _required(message, "name")
        path = f"{owner.path}/{name}"
        # a missing type is not guessed: runtimes that do not guess would take the default value instead
        if message.integer("type") not in schema.ATTRIBUTE_KINDS:
            raise FormatError(f"{path} has the unknown attribute type {message.integer('type')}")
        kind, field = schema.ATTRIBUTE_KINDS[message.integer("type")]
        others = [other for _, other in schema.ATTRIBUTE_KINDS.values() if message.has(other) and other != field]
        if others:
            raise FormatError(f"{path} is of type {kind} and has a value in {', '.join(others)}")
        reference = message.text("ref_attr_name")
        if reference:
            if message.has(field):
                raise FormatError(f"{path} has both a value and a reference to {reference!r}")
            return Attribute(name, kind, None, reference)
        return Attribute(name, kind, self._attribute_value(message, kind, field, owner._replace(path=path)))

    def _attribute_value(self, message: Message, kind: str, field: str, site: "_Site") -> AttributeValue:
        path = site.path
        if kind in {"tensor", "graph", "sparse_tensor", "type"} and not message.has(field):
            raise FormatError(f"{path} is of type {kind} and has no value")
        match kind:
            case "float":
                return message.float32(field)
            case "int":
                return message.integer(field)
            case "string":
                return bytes(message.blob(field))
            case "strings":
                strings = message.strings(field)
                return StringTensor((len(strings),), strings)
            case "floats":
                numbers = message.floats(field, "<f4")
                return self._add(tensor_from_array(path, DTYPES["float32"], numbers.shape, numbers, what=path))
            case "ints":
                integers = message.integers(field, "<i8")
                if site.domain != MACHINE_LEARNING_DOMAIN:
                    return integers
                return self._add(tensor_from_array(path, DTYPES["int64"], integers.shape, integers, what=path))
            case "tensor" | "graph" | "sparse_tensor" | "type":
                table = _NESTED_SCHEMAS[kind]
                return self._nested_value(message.message(field, table, path), kind, path, site.depth)
            case _:
                kind = kind.removesuffix("s")
                items = message.messages(field, _NESTED_SCHEMAS[kind], path)
                return tuple(
                    self._nested_value(item, kind, f"{path}[{index}]", site.depth) for index, item in enumerate(items)
                )

    def _nested_value(self, message: Message, kind: str, path: str, depth: int) -> AttributeValue:
        match kind:
            case "tensor":
                return self._tensor(message, path, path)
            case "sparse_tensor":
                return self._sparse(message, path, path)
            case "graph":
                return self._subgraph(message, f"{path}/", depth + 1)
            case _:
                return read_type(message)

    def _tensor(self, message: Message, name: str, what: str) -> TensorRef | StringTensor:
        tensor = read_tensor(message, name, self._external, what=what)
        return self._add(tensor) if isinstance(tensor, Tensor) else tensor

    def _sparse(self, message: Message, name: str, what: str) -> SparseRef:
        values = self._tensor(message.message("values", schema.TENSOR, what), name, what)
        indices = self._tensor(message.message("indices", schema.TENSOR, what), f"{name}/indices", f"{what} indices")
        if isinstance(values, StringTensor) or isinstance(indices, StringTensor):
            raise FormatError(f"{what} is made of strings, expected numbers")
        return SparseRef(values.tensor, indices.tensor, read_dims(message, what=what))

    def _add(self, tensor: Tensor) -> TensorRef:
        if tensor.name in self._tensors:
            raise FormatError(f"two tensors have the name {tensor.name!r}")
        self._tensors[tensor.name] = tensor
        return TensorRef(tensor.name)

    def _function(self, message: Message) -> Function:
        domain, name, overload = message.text("domain"), _required(message, "name"), message.text("overload")
        prefix = f"function:{domain}:{name}{':' if overload else ''}{overload}/"
        nodes = self._nodes(message, prefix, 0)
        inputs = message.texts("input")
        _check_single_assignment(list(inputs), {}, nodes, prefix)
        attributes = message.texts("attribute")
        defaults = self._attributes(message, "attribute_proto", _Site(f"{prefix}attribute", domain, 0))
        names = [*attributes, *(attribute.name for attribute in defaults)]
        if len(set(names)) != len(names):
            raise FormatError(f"{prefix} has an attribute twice")
        return Function(
            domain,
            name,
            overload,
            inputs,
            message.texts("output"),
            attributes,
            defaults,
            nodes,
            _opset_imports(message, prefix),
        )

    def _training(self, message: Message, prefix: str) -> Training:
        initialisation = message.message("initialization", schema.GRAPH, prefix)
        algorithm = message.message("algorithm", schema.GRAPH, prefix)
        return Training(
            self._subgraph(initialisation, f"{prefix}initialization/", 0),
            self._subgraph(algorithm, f"{prefix}algorithm/", 0),
            _entries(message, "initialization_binding"),
            _entries(message, "update_binding"),
        )


class _Site(NamedTuple):
    """Where an attribute stands: the path of its tensors, the domain of its operator, and how deep its graph is."""

    path: str
    domain: str
    depth: int


_NESTED_SCHEMAS = {
    "tensor": schema.TENSOR,
    "graph": schema.GRAPH,
    "sparse_tensor": schema.SPARSE_TENSOR,
    "type": schema.TYPE,
}


def _check_single_assignment(
    inputs: list[str],
    constants: dict[str, TensorRef | SparseRef | StringTensor],
    nodes: tuple[Node, ...],
    prefix: str,
) -> None:
    """Every name is made once, so that edges mean the same whatever the order of the nodes."""
    names = set(inputs)
    if len(names) != len(inputs):
        raise FormatError(f"graph {prefix!r} has an input twice")
    names.update(constants)  # an input that is also a constant has a default
    for node in nodes:
        for output in filter(None, node.outputs):
            if output in names:
                raise FormatError(f"value {prefix}{output} is made twice, expected one origin for every name")
            names.add(output)


def _opset_imports(owner: Message, what: str) -> dict[str, int]:
    imports: dict[str, int] = {}
    for message in owner.messages("opset_import", schema.OPERATOR_SET, f"{what} opset_import"):
        domain = _SAME_DOMAIN.get(message.text("domain"), message.text("domain"))
        version = message.integer("version")
        # skl2onnx writes the same line twice for pipelines; of two versions, readers disagree on which one counts
        if imports.setdefault(domain, version) != version:
            raise FormatError(f"{what} imports the operator set {domain!r} in versions {imports[domain]} and {version}")
    if not imports:
        raise FormatError(f"{what} does not say which operator sets it uses")
    return imports


def _entries(owner: Message, field: str) -> tuple[tuple[str, str], ...]:
    messages = owner.messages(field, schema.ENTRY, f"{owner.where} {field}")
    return tuple((entry.text("key"), entry.text("value")) for entry in messages)


def _unique_entries(owner: Message, field: str, what: str) -> dict[str, str]:
    entries = _entries(owner, field)
    if len(dict(entries)) != len(entries):
        raise FormatError(f"{what} has a key of {field} twice")
    return dict(entries)


def _required(message: Message, field: str) -> str:
    text = message.text(field)
    if not text:
        raise FormatError(f"{message.where} ({message.schema.name}) has no {field}")
    return text
