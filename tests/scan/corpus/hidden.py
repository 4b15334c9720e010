"""Programs and pickles that hide in text: encoded, compressed, compiled, turned around, and in places nobody reads."""

import base64
import bz2
import codecs
import gzip
import io
import json
import lzma
import marshal
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

import onnx
from onnx import helper

from tests.models import onnx_bytes
from tests.scan.corpus.keras_files import hdf5_bytes
from tests.scan.corpus.sample import Sample, call, name, raw, start, text

SYSTEM = "import os\nos.system('echo palladion')\n"
FROM = "from os import system\nsystem('echo palladion')\n"
PICKLE = call("os", "system", protocol=2)


def hidden() -> list[Sample]:
    """Every file in which something hides."""
    parts = (_layers, _words, _onnx, _exports, _configurations, _values, _judged)
    return [Sample(f"hidden-{label}", data, "hidden") for make in parts for label, data in make()]


def archive(files: dict[str, bytes]) -> bytes:
    """A ZIP archive that compresses nothing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        for place, data in files.items():
            made.writestr(place, data)
    return buffer.getvalue()


def export(changes: dict[str, bytes]) -> bytes:
    """An archive of torch.export with one number, and something else in it."""
    graph = {"graph_module": {"graph": {"nodes": [{"target": "torch.ops.aten.relu.default", "inputs": []}]}}}
    files = {
        "archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little", "models/model.json":
        json.dumps(graph).encode(), "data/weights/weight_0": b"\x00\x00\x80\x3f", **changes,
    }  # fmt: skip
    return archive({f"m/{place}": data for place, data in files.items()})


def graph_of(target: str) -> bytes:
    """A graph of torch.export with one operator."""
    return json.dumps({"graph_module": {"graph": {"nodes": [{"target": target, "inputs": []}]}}}).encode()


def onnx_with(place: str, value: Any) -> bytes:
    """A model with a text somewhere."""
    model = onnx.load_model_from_string(onnx_bytes())
    if place == "metadata":
        helper.set_model_props(model, {"k": str(value)})
    elif place == "strings":
        items: list[Any] = [value if isinstance(value, bytes) else value.encode()]
        model.graph.initializer.append(helper.make_tensor("s", onnx.TensorProto.STRING, [1], items))
    elif place == "attribute":
        model.graph.node[0].attribute.append(helper.make_attribute("x", value))
    else:
        target = {"model": model, "graph": model.graph, "node": model.graph.node[0]}[place]
        target.doc_string = str(value)
    data = model.SerializeToString()
    assert isinstance(data, bytes)
    return data


def _layers() -> Iterator[tuple[str, bytes]]:
    plain = SYSTEM.encode()
    packed = {
        "gzip": gzip.compress(plain, mtime=0), "zlib": zlib.compress(plain), "bz2": bz2.compress(plain),
        "xz": lzma.compress(plain), "marshal": marshal.dumps(compile(SYSTEM, "x", "exec")),
        "pickle-gzip": gzip.compress(PICKLE, mtime=0),
    }  # fmt: skip
    for label, data in packed.items():
        yield f"{label}.pkl", start(4) + raw(data) + b"."
        yield f"{label}-base64.json", json.dumps({"x": base64.b64encode(data).decode()}).encode()
        yield f"{label}-hex.pkl", start(4) + text(data.hex()) + b"."
    encoded = {
        "base32": base64.b32encode(plain), "hex": plain.hex().encode(), "base85": base64.b85encode(plain),
        "base64-twice": base64.b64encode(base64.b64encode(plain)), "base64-lines": base64.encodebytes(plain * 4),
        "rot13": codecs.encode(SYSTEM, "rot13").encode(), "backwards": SYSTEM[::-1].encode(),
        "escapes": "".join(f"\\x{byte:02x}" for byte in plain).encode(), "numbers": ",".join(map(str, plain)).encode(),
        "chr": "+".join(f"chr({byte})" for byte in plain).encode(),
    }  # fmt: skip
    for label, data in encoded.items():
        yield f"{label}.pkl", start(4) + text(data.decode()) + b"."
        yield f"{label}.json", json.dumps({"x": data.decode()}).encode()
        yield f"{label}.txt", b"note: " + data + b"\n"
    # sixty-four others in front were as far as was looked
    decoys = " ".join(base64.b64encode(bytes([number]) * 30).decode() for number in range(100))
    yield "behind-others.txt", f"{decoys} {base64.b64encode(plain).decode()}\n".encode()


def _words() -> Iterator[tuple[str, bytes]]:
    for label, value in {
        "from": FROM, "from-as": "from os import system as s; s('x')", "as": "import subprocess as p\np.run(['x'])",
        "builtins": "globals()['__builtins__']['eval']('1')", "importlib": "from importlib import import_module",
    }.items():  # fmt: skip
        yield f"words-{label}.pkl", start(4) + text(value) + b"."
        yield f"words-{label}.json", json.dumps({"x": value}).encode()
    yield "words.h5", hdf5_bytes({"note": FROM})
    yield "words-long.json", json.dumps({"x": " " * 20_000 + SYSTEM}).encode()


def _onnx() -> Iterator[tuple[str, bytes]]:
    for place in ("metadata", "model", "graph", "node", "strings", "attribute"):
        yield f"{place}.onnx", onnx_with(place, FROM)
        yield f"{place}-base64.onnx", onnx_with(place, base64.b64encode(PICKLE).decode())
    yield "strings-pickle.onnx", onnx_with("strings", PICKLE)
    yield "metadata-template.onnx", onnx_with("metadata", "{{ ''.__class__.__mro__ }}")


def _exports() -> Iterator[tuple[str, bytes]]:
    inner = archive({"a/data.pkl": PICKLE, "a/version": b"3\n"})
    yield "inputs.pt2", export({"data/sample_inputs/model.pt": inner})
    yield "weight.pt2", export({"data/weights/weight_1": PICKLE})
    yield "weight-zip.pt2", export({"data/weights/weight_1": inner})
    yield "object.pt2", export({"data/constants/custom_obj_0": b"x"})
    yield "library.pt2", export({"data/aotinductor/model/x.so": b"\x7fELF" + bytes(60)})
    yield "source.pt2", export({"data/aotinductor/model/x.cpp": b"int main() { return 0; }\n"})
    for target in ("os.system", "torch.load", "torch.ops.evil.run", "torch.ops.aten.from_file.default"):
        yield f"target-{target}.pt2", export({"models/model.json": graph_of(target)})


def _configurations() -> Iterator[tuple[str, bytes]]:
    for number, target in enumerate(
        ("torch.load", "torch.hub.load", "pip.main", "numpy.load", "hydra.utils.get_method")
    ):
        yield f"target-{number}.yaml", f"_target_: {target}\n".encode()
        yield f"target-{number}.json", json.dumps({"_target_": target}).encode()
    yield "MLmodel", b"flavors:\n  python_function:\n    loader_module: evil\n    code: code\n"
    yield "ruby.yaml", b"a: !ruby/object:Gem::Installer\n"
    yield "java.yaml", b"a: !!javax.script.ScriptEngineManager [x]\n"
    yield "kernel.json", json.dumps({"_attn_implementation": "evil/kernel"}).encode()
    yield "library.json", json.dumps({"auto_mapping": {"parent_library": "os"}}).encode()
    yield "import.py", b"import ray\nray.init()\n"


def _values() -> Iterator[tuple[str, bytes]]:
    """Programs as values of a configuration, and names of functions that are written otherwise."""
    yield "value.yaml", b"config:\n  fn: \"lambda x: __import__('os').system('x')\"\n"
    yield "block.yaml", b"fn: |\n  from os import system\n  system('x')\n"
    yield "value.toml", b'[x]\nrun = "from os import system"\n'
    yield "reference.yaml", b"a: &x os.system\n_target_: *x\n"
    yield "escaped.yaml", b'"_target_": "\\x6fs.system"\n'
    yield "next-line.yaml", b"_target_:\n  os.system\n"
    yield "folded.yaml", b"_target_: >-\n  os.system\n"
    for tag in ("new", "apply", "name"):
        yield f"tag-{tag}.yaml", f"x: !{tag}:os.system [x]\n".encode()
    yield "config.py", b"model = dict(type='x')\ncustom_imports = dict(imports=['evil'])\n"
    yield "generate.json", json.dumps({"custom_generate": "evil/repo"}).encode()
    yield "router.json", json.dumps({"types": {"a": "evil.Module"}, "structure": {}}).encode()
    letters = base64.b64encode(SYSTEM.encode()).decode()
    yield "shifted.json", json.dumps({"x": f"abc{letters}"}).encode()
    yield "bytes.txt", ("x: " + " ".join(f"{byte:02x}" for byte in SYSTEM.encode()) + "\n").encode()
    yield "array.txt", ("x: [" + ", ".join(f"0x{byte:02x}" for byte in SYSTEM.encode()) + "]\n").encode()


def _judged() -> Iterator[tuple[str, bytes]]:
    """`getattr` and `partial`, which are harmless with a few arguments."""
    four, get = start(4), name("builtins", "getattr")
    partial = name("functools", "partial")
    method = get + name("builtins", "str") + text("split") + b"\x86R"
    yield "getattr-other.pkl", four + get + name("builtins", "str") + text("format") + b"\x86R."
    yield "getattr-chain.pkl", four + get + method + text("__self__") + b"\x86R."
    yield "getattr-class.pkl", four + get + name("collections", "OrderedDict") + text("__init__") + b"\x86R."
    yield "getattr-alone.pkl", four + get + b"."
    yield "getattr-new.pkl", four + get + b")\x81."
    yield "getattr-called.pkl", four + method + text("x") + b"\x85R."
    kept = b"\x94" + method + b"0h\x00" + name("collections", "OrderedDict") + text("pop") + b"\x86R."
    yield "getattr-again.pkl", four + get + kept
    yield "partial-function.pkl", four + partial + name("os", "system") + b"\x85R."
    yield "partial-listed.pkl", four + partial + name("_codecs", "encode") + b"\x85R."
    yield "partial-called.pkl", four + partial + name("builtins", "list") + b"\x85R)R."
    changed = b"(" + get + b")}Ntb."
    yield "partial-state.pkl", four + partial + name("builtins", "list") + b"\x85R" + changed
    yield (
        "partial-factory.pkl",
        (four + name("collections", "defaultdict") + partial + name("builtins", "list") + b"\x85R\x85R."),
    )


def records(payload: bytes) -> bytes:
    """A TFRecord file of one record, with the checksum of its length."""
    from palladion.scan.records import _masked

    size = struct.pack("<Q", len(payload))
    return size + struct.pack("<I", _masked(size)) + payload + bytes(4)
