"""Inner values of an ONNX graph as outputs: which ones show most of how a model works, and a file that gives them too.

The file is that in memory, with outputs appended: a message of Protocol Buffers followed by another is the two of them
merged (protobuf.dev, Encoding, "Last One Wins"). What is sealed, and its digest, stay as they are.
"""

from collections.abc import Sequence
from dataclasses import replace

from palladion.model.model import Model, ModelFile

CANDIDATES_MAX = 32  # of a graph with thousands of nodes: each is held in memory, for one row, while they are tried
NAME_BYTES_MAX = 512  # a graph can call a value anything, and names go into calibrations

_STANDARD = ("", "ai.onnx", "com.microsoft")
_ACTIVATIONS = {
    *("Celu", "Clip", "Elu", "Erf", "FastGelu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Mish", "PRelu"),
    *("QuickGelu", "Relu", "Selu", "Sigmoid", "Softplus", "Softsign", "Swish", "Tanh", "ThresholdedRelu"),
}
_WEIGHTS = {"Conv", "ConvTranspose", "FusedConv", "FusedMatMul", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul"}
_NORMS = {"BatchNormalization", "GroupNormalization", "InstanceNormalization", "LayerNormalization"}
_GRAPH, _OUTPUT, _NAME = 7, 12, 1  # fields of ModelProto, GraphProto and ValueInfoProto (onnx.in.proto)


def candidates(model: Model) -> tuple[str, ...]:
    """Names of values within the main graph, in its order, that layers give before the last one with weights.

    Those of activation functions; where there are none, those of layers with weights and of norms. At most
    `CANDIDATES_MAX`, spread over the depth. None of a model without such layers (trees, one linear layer), or without
    a graph; and none is an output already, or lies in a branch or a function.
    """
    if model.graph is None:
        return ()
    nodes = [node for node in model.graph.main.nodes if node.domain in _STANDARD]
    last = max((place for place, node in enumerate(nodes) if node.op_type in _WEIGHTS), default=0)
    given = {value.name for value in model.graph.outputs}
    by_kind: list[list[str]] = []
    for kind in (_ACTIVATIONS, _WEIGHTS | _NORMS):
        names = [node.outputs[0] for node in nodes[:last] if node.op_type in kind and node.outputs]
        by_kind.append([name for name in names if name not in given and is_layer_name(name)])
    return spread(by_kind[0] or by_kind[1], CANDIDATES_MAX)


def is_layer_name(name: str) -> bool:
    """Whether a layer may be called so."""
    return name.isprintable() and 0 < len(name.encode()) <= NAME_BYTES_MAX


def spread(names: Sequence[str], count: int) -> tuple[str, ...]:
    """At most `count` of `names`, evenly from the first to the last; of fewer, all."""
    if len(names) <= count:
        return tuple(names)
    if count == 1:
        return (names[-1],)
    return tuple(names[place * (len(names) - 1) // (count - 1)] for place in range(count))


def with_outputs(model: Model, names: Sequence[str]) -> Model:
    """`model` whose main file gives these values as outputs too, after its own. Copies that file.

    `graph` stays that of the model as it was. Raises ValueError for a model without a graph, and for a name that is an
    output already, or none that a node of the main graph gives.
    """
    if model.graph is None:
        raise ValueError("a model without a graph has no inner values")
    made = {name for node in model.graph.main.nodes for name in node.outputs}
    given = [value.name for value in model.graph.outputs]
    for name in names:
        if not name or name not in made or name in given:
            raise ValueError(f"{name[:80]!r} is no inner value of the graph")
        given.append(name)
    main, *others = model.files
    extended = b"".join((main.data, *map(as_output, names)))
    return replace(model, files=(ModelFile(main.name, memoryview(extended)), *others))


def as_output(name: str) -> bytes:
    """A ModelProto whose graph has nothing but this output."""
    return _field(_GRAPH, _field(_OUTPUT, _field(_NAME, name.encode())))


def _field(number: int, content: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
