"""Types of values in an ONNX file: `ValueInfoProto` and `TypeProto` (onnx/onnx.in.proto)."""

from palladion.errors import FormatError
from palladion.model import onnx_schema as schema
from palladion.model.graph import Value, ValueType
from palladion.model.protobuf import Message

TYPE_DEPTH_MAX = 8  # a sequence of maps of tensors is 3 deep


def read_value(message: Message) -> Value:
    """The input or output that a ValueInfoProto describes."""
    name = message.text("name")
    if not name:
        raise FormatError(f"{message.where} is a value without a name")
    if not message.has("type"):
        return Value(name, None)
    return Value(name, read_type(message.message("type", schema.TYPE, f"type of {name!r}")))


def read_type(message: Message, depth: int = 0) -> ValueType | None:
    """The type that a TypeProto describes; None where it leaves the type open."""
    if depth > TYPE_DEPTH_MAX:
        raise FormatError(f"{message.where} is nested deeper than {TYPE_DEPTH_MAX}")
    fields = [field for field in schema.TYPE.numbers if field.endswith("_type") and message.has(field)]
    if len(fields) > 1:
        # the reference keeps the last one, so the order of fields would decide
        raise FormatError(f"{message.where} is more than one type: {', '.join(fields)}")
    denotation = message.text("denotation")
    if not fields:
        return ValueType("open", denotations=(denotation,)) if denotation else None
    kind = fields[0].removesuffix("_type")
    match kind:
        case "tensor" | "sparse_tensor":
            return _tensor_type(message.message(fields[0], schema.TENSOR_TYPE, message.where), kind, denotation)
        case "opaque":
            held = message.message(fields[0], schema.OPAQUE_TYPE, message.where)
            return ValueType(kind, f"{held.text('domain')}:{held.text('name')}", denotations=(denotation,))
        case "map":
            held = message.message(fields[0], schema.MAP_TYPE, message.where)
            element = _element(held.integer("key_type"), held.where)
            item = read_type(held.message("value_type", schema.TYPE, held.where), depth + 1)
        case _:
            held = message.message(fields[0], schema.HOLDER_TYPE, message.where)
            element = ""
            item = read_type(held.message("elem_type", schema.TYPE, held.where), depth + 1)
    return ValueType(kind, element, items=(item,) if item else (), denotations=(denotation,))


def _tensor_type(message: Message, kind: str, denotation: str) -> ValueType:
    element = _element(message.integer("elem_type"), message.where)
    if not message.has("shape"):
        return ValueType(kind, element, denotations=(denotation,))
    sizes: list[int | str | None] = []
    denotations = [denotation]
    shape = message.message("shape", schema.SHAPE, message.where)
    for dimension in shape.messages("dim", schema.DIMENSION, f"{message.where} dimension"):
        if dimension.has("dim_value") and dimension.has("dim_param"):
            raise FormatError(f"{dimension.where} has both a size and a name")
        if dimension.has("dim_value"):
            sizes.append(dimension.integer("dim_value"))
        else:
            sizes.append(dimension.text("dim_param") or None)
        denotations.append(dimension.text("denotation"))
    return ValueType(kind, element, tuple(sizes), denotations=tuple(denotations))


def _element(code: int, where: str) -> str:
    name = schema.DATA_TYPES.get(code, "" if code == 0 else None)
    if name is None:
        raise FormatError(f"{where} has the unknown element type {code}")
    return name
