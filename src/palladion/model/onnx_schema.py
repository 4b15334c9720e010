"""The messages of an ONNX file, as tables for `protobuf.Message`, and the codes of its types.

Source: onnx/onnx.in.proto of ONNX 1.23 (IR version 13 and before; every field that IR 3 and later ever had).
"""

from collections.abc import Mapping
from types import MappingProxyType

from palladion.model.protobuf import BYTES, FIXED32, FIXED64, VARINT, Field, Schema


def _one(name: str) -> Field:
    return Field(name, BYTES)


def _many(name: str) -> Field:
    return Field(name, BYTES, repeated=True)


def _integer(name: str) -> Field:
    return Field(name, VARINT)


def _integers(name: str) -> Field:
    return Field(name, VARINT, repeated=True)


MODEL = Schema(
    "ModelProto",
    {
        1: _integer("ir_version"),
        2: _one("producer_name"),
        3: _one("producer_version"),
        4: _one("domain"),
        5: _integer("model_version"),
        6: _one("doc_string"),
        7: _one("graph"),
        8: _many("opset_import"),
        14: _many("metadata_props"),
        20: _many("training_info"),
        25: _many("functions"),
        26: _many("configuration"),
    },
)
GRAPH = Schema(
    "GraphProto",
    {
        1: _many("node"),
        2: _one("name"),
        5: _many("initializer"),
        10: _one("doc_string"),
        11: _many("input"),
        12: _many("output"),
        13: _many("value_info"),
        14: _many("quantization_annotation"),
        15: _many("sparse_initializer"),
        16: _many("metadata_props"),
    },
)
NODE = Schema(
    "NodeProto",
    {
        1: _many("input"),
        2: _many("output"),
        3: _one("name"),
        4: _one("op_type"),
        5: _many("attribute"),
        6: _one("doc_string"),
        7: _one("domain"),
        8: _one("overload"),
        9: _many("metadata_props"),
        10: _many("device_configurations"),
    },
)
ATTRIBUTE = Schema(
    "AttributeProto",
    {
        1: _one("name"),
        2: Field("f", FIXED32),
        3: _integer("i"),
        4: _one("s"),
        5: _one("t"),
        6: _one("g"),
        7: Field("floats", FIXED32, repeated=True),
        8: _integers("ints"),
        9: _many("strings"),
        10: _many("tensors"),
        11: _many("graphs"),
        13: _one("doc_string"),
        14: _one("tp"),
        15: _many("type_protos"),
        20: _integer("type"),
        21: _one("ref_attr_name"),
        22: _one("sparse_tensor"),
        23: _many("sparse_tensors"),
    },
)
TENSOR = Schema(
    "TensorProto",
    {
        1: _integers("dims"),
        2: _integer("data_type"),
        3: _one("segment"),
        4: Field("float_data", FIXED32, repeated=True),
        5: _integers("int32_data"),
        6: _many("string_data"),
        7: _integers("int64_data"),
        8: _one("name"),
        9: _one("raw_data"),
        10: Field("double_data", FIXED64, repeated=True),
        11: _integers("uint64_data"),
        12: _one("doc_string"),
        13: _many("external_data"),
        14: _integer("data_location"),
        16: _many("metadata_props"),
    },
)
SPARSE_TENSOR = Schema("SparseTensorProto", {1: _one("values"), 2: _one("indices"), 3: _integers("dims")})
FUNCTION = Schema(
    "FunctionProto",
    {
        1: _one("name"),
        4: _many("input"),
        5: _many("output"),
        6: _many("attribute"),
        7: _many("node"),
        8: _one("doc_string"),
        9: _many("opset_import"),
        10: _one("domain"),
        11: _many("attribute_proto"),
        12: _many("value_info"),
        13: _one("overload"),
        14: _many("metadata_props"),
    },
)
TRAINING = Schema(
    "TrainingInfoProto",
    {
        1: _one("initialization"),
        2: _one("algorithm"),
        3: _many("initialization_binding"),
        4: _many("update_binding"),
    },
)
VALUE = Schema("ValueInfoProto", {1: _one("name"), 2: _one("type"), 3: _one("doc_string"), 4: _many("metadata_props")})
TYPE = Schema(
    "TypeProto",
    {
        1: _one("tensor_type"),
        4: _one("sequence_type"),
        5: _one("map_type"),
        6: _one("denotation"),
        7: _one("opaque_type"),
        8: _one("sparse_tensor_type"),
        9: _one("optional_type"),
    },
)
TENSOR_TYPE = Schema("TypeProto.Tensor", {1: _integer("elem_type"), 2: _one("shape")})
HOLDER_TYPE = Schema("TypeProto.Sequence", {1: _one("elem_type")})
MAP_TYPE = Schema("TypeProto.Map", {1: _integer("key_type"), 2: _one("value_type")})
OPAQUE_TYPE = Schema("TypeProto.Opaque", {1: _one("domain"), 2: _one("name")})
SHAPE = Schema("TensorShapeProto", {1: _many("dim")})
DIMENSION = Schema("Dimension", {1: _integer("dim_value"), 2: _one("dim_param"), 3: _one("denotation")})
OPERATOR_SET = Schema("OperatorSetIdProto", {1: _one("domain"), 2: _integer("version")})
ENTRY = Schema("StringStringEntryProto", {1: _one("key"), 2: _one("value")})
ANNOTATION = Schema("TensorAnnotation", {1: _one("tensor_name"), 2: _many("quant_parameter_tensor_names")})

STRING = "string"
DATA_TYPES: Mapping[int, str] = MappingProxyType(
    dict(
        enumerate(
            [
                *("float32", "uint8", "int8", "uint16", "int16", "int32", "int64", STRING, "bool", "float16"),
                *("float64", "uint32", "uint64", "complex64", "complex128", "bfloat16"),
                *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz"),
                *("uint4", "int4", "float4_e2m1fn", "float8_e8m0fnu", "uint2", "int2"),
                *("float6_e2m3fn", "float6_e3m2fn"),
            ],
            start=1,
        )
    )
)
# Attribute kinds by their code: the name of the kind and the field that holds the value.
ATTRIBUTE_KINDS: Mapping[int, tuple[str, str]] = MappingProxyType(
    {
        1: ("float", "f"),
        2: ("int", "i"),
        3: ("string", "s"),
        4: ("tensor", "t"),
        5: ("graph", "g"),
        6: ("floats", "floats"),
        7: ("ints", "ints"),
        8: ("strings", "strings"),
        9: ("tensors", "tensors"),
        10: ("graphs", "graphs"),
        11: ("sparse_tensor", "sparse_tensor"),
        12: ("sparse_tensors", "sparse_tensors"),
        13: ("type", "tp"),
        14: ("types", "type_protos"),
    }
)
