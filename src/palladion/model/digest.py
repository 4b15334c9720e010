"""Digests of tensors, graphs and whole models: the same for the same model however it is stored (docs/model.md).

SHA-256 over encodings in which every part has its length before it, so that no two different models share one.

* A tensor's digest covers element type, shape and little-endian bytes, not its name: moved weights can be found again.
* A graph's digest covers operators, edges, attributes, names and types of inputs and outputs, operator sets and
  functions, with the names of tensors in place of their numbers. Nodes, initializers and attributes are sorted, so
  their order in the file does not matter; inputs and outputs keep theirs, because callers see it.
* A model's digest covers the names and digests of its tensors and the digest of its graph. Metadata is not in it: it
  computes nothing, and tools write their own name and the time into it.
"""

from collections.abc import Iterable, Iterator, Mapping
from hashlib import sha256

import numpy as np

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
    Value,
    ValueType,
)
from palladion.model.model import Model
from palladion.model.tensors import DType, Tensor

CHUNK_ELEMENTS = 1 << 18  # a strided view is copied this much at a time: 1 to 4 MiB
STRINGS_PER_CHUNK = 4096
_TENSOR_DOMAIN = b"palladion/v1/tensor\n"
_GRAPH_DOMAIN = b"palladion/v1/graph\n"
_MODEL_DOMAIN = b"palladion/v1/model\n"


def tensor_digest(tensor: Tensor) -> bytes:
    """SHA-256 of a tensor's element type, shape and numbers, bit for bit; its name does not matter.

    Copies nothing that lies contiguously in memory, and bounded chunks of what does not.
    """
    hasher = sha256(tensor_prefix(tensor.dtype, tensor.shape))
    for chunk in _chunks(tensor):
        hasher.update(chunk)
    return hasher.digest()


def tensor_prefix(dtype: DType, shape: tuple[int, ...]) -> bytes:
    """What goes into a tensor's digest before its numbers, little-endian and in row-major order."""
    return _TENSOR_DOMAIN + _pack(dtype.name.encode(), _pack(*map(_integer, shape)))


def graph_digest(graph: Graph) -> bytes:
    """SHA-256 of what a graph computes, apart from the numbers of its tensors."""
    encoding = _pack(
        b"replaceable" if graph.constants_replaceable else b"constant",
        _opset_imports(graph.opset_imports),
        _subgraph(graph.main),
        _pack(*sorted(map(_function, graph.functions))),
        _pack(*map(_training, graph.training)),
    )
    return sha256(_GRAPH_DOMAIN + encoding).digest()


def model_digest(model: Model) -> bytes:
    """SHA-256 of the sorted names and digests of a model's tensors and of the digest of its graph."""
    return listing_digest(
        {name: tensor_digest(tensor) for name, tensor in model.tensors.items()},
        graph_digest(model.graph) if model.graph is not None else None,
    )


def listing_digest(tensors: Mapping[str, bytes], graph: bytes | None) -> bytes:
    """The digest of a model whose tensor digests (by name) and graph digest are known already."""
    listing = sorted(_pack(name.encode(), digest) for name, digest in tensors.items())
    return sha256(_MODEL_DOMAIN + _pack(_pack(*listing), _pack() if graph is None else _pack(graph))).digest()


def _chunks(tensor: Tensor) -> Iterator[memoryview]:
    data = tensor.data
    if not data.size:
        return
    if data.flags.c_contiguous:
        yield data.reshape(-1).view(np.uint8).data
        return
    iterator = np.nditer(data, flags=["external_loop", "buffered"], order="C", buffersize=CHUNK_ELEMENTS)
    for chunk in iterator:
        yield np.ascontiguousarray(chunk).view(np.uint8).data


def _pack(*parts: bytes) -> bytes:
    """`parts` with the length of each before it: no two lists of parts have the same encoding."""
    return b"".join(len(part).to_bytes(8, "little") + part for part in parts)


def _integer(value: int) -> bytes:
    return value.to_bytes(9, "little", signed=True)  # room for unsigned 64-bit sizes


def _texts(texts: Iterable[str]) -> bytes:
    return _pack(*(text.encode() for text in texts))


def _pairs(pairs: Iterable[tuple[str, str]]) -> bytes:
    return _pack(*sorted(map(_texts, pairs)))


def _opset_imports(imports: Mapping[str, int]) -> bytes:
    return _pack(*sorted(_pack(domain.encode(), _integer(version)) for domain, version in imports.items()))


def _subgraph(subgraph: Subgraph) -> bytes:
    constants = (_pack(name.encode(), _attribute_value(item)) for name, item in subgraph.constants.items())
    encoding = _pack(
        _pack(*map(_value, subgraph.inputs)),
        _pack(*map(_value, subgraph.outputs)),
        _nodes(subgraph.nodes),
        _pack(*sorted(constants)),
        _pack(*sorted(_pack(name.encode(), _pairs(pairs)) for name, pairs in subgraph.annotations)),
    )
    return sha256(encoding).digest()


def _nodes(nodes: Iterable[Node]) -> bytes:
    # every value has one origin (checked when read), so a set of nodes has one meaning
    return b"".join(sorted(sha256(_node(node)).digest() for node in nodes))


def _node(node: Node) -> bytes:
    return _pack(
        _texts([node.domain, node.op_type, node.overload]),
        _texts(node.inputs),
        _texts(node.outputs),
        _pack(*sorted(map(_attribute, node.attributes))),
    )


def _attribute(attribute: Attribute) -> bytes:
    names = _texts([attribute.name, attribute.kind, attribute.reference])
    return _pack(names, _attribute_value(attribute.value))


def _attribute_value(value: AttributeValue) -> bytes:
    if isinstance(value, np.ndarray | np.floating):
        return value.tobytes()
    match value:
        case None:
            return b""
        case int():
            return _integer(value)
        case bytes():
            return value
        case StringTensor():
            return _string_tensor(value)
        case TensorRef():
            return _pack(b"tensor", value.tensor.encode())
        case SparseRef():
            return _pack(b"sparse", value.values.encode(), value.indices.encode(), *map(_integer, value.shape))
        case Subgraph():
            return _subgraph(value)
        case ValueType():
            return _type(value)
        case tuple():
            return _pack(*map(_attribute_value, value))


def _string_tensor(tensor: StringTensor) -> bytes:
    hasher = sha256()
    pending: list[bytes] = []
    for string in tensor.strings:
        pending.append(string)
        if len(pending) == STRINGS_PER_CHUNK:
            hasher.update(_pack(*pending))
            pending.clear()
    hasher.update(_pack(*pending))
    return _pack(b"strings", _pack(*map(_integer, tensor.shape)), hasher.digest())


def _value(value: Value) -> bytes:
    return _pack(value.name.encode(), _pack() if value.type is None else _pack(_type(value.type)))


def _type(value_type: ValueType) -> bytes:
    shape = b"open" if value_type.shape is None else _pack(*map(_size, value_type.shape))
    return _pack(
        _texts([value_type.kind, value_type.element]),
        shape,
        _pack(*map(_type, value_type.items)),
        _texts(value_type.denotations),
    )


def _size(size: int | str | None) -> bytes:
    match size:
        case None:
            return b""
        case int():
            return b"=" + _integer(size)
        case str():
            return b"?" + size.encode()


def _function(function: Function) -> bytes:
    return _pack(
        _texts([function.domain, function.name, function.overload]),
        _texts(function.inputs),
        _texts(function.outputs),
        _texts(sorted(function.attributes)),
        _pack(*sorted(map(_attribute, function.defaults))),
        _nodes(function.nodes),
        _opset_imports(function.opset_imports),
    )


def _training(training: Training) -> bytes:
    return _pack(
        _subgraph(training.initialisation),
        _subgraph(training.algorithm),
        _pairs(training.initialisation_bindings),
        _pairs(training.update_bindings),
    )
