"""Text by its bytes, and the program text of TorchScript."""

import re

from palladion.errors import FormatError
from palladion.scan.configs import TEXT_BYTES_MAX, scan_text
from palladion.scan.look import Look
from palladion.scan.source import Source

_CONTROL = re.compile(r"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_CONTROL_ABOVE = re.compile(r"[\x80-\x9f]")
_ABOVE_ASCII = bytes(range(128, 256))
HEAD_BYTES = 4096
# Loaders choose Python by its name (custom_generate/generate.py, pipeline.py), so that no words in it decide.
_PROGRAM_NAMES = (
    ".py", ".pyi", ".pyw", ".pyx", ".pth", ".bat", ".cmd", ".ps1", ".vbs", ".js", ".rb", ".pl", ".lua", ".sh",
)  # fmt: skip
# Of the operators that serialised TorchScript may call, those that reach files or the process.
_SCRIPT_REFUSED = re.compile(
    r"\b(?:torch|ops\.aten|aten)\.(?:from_file|save|load|_test_\w+|classes(?!\.(?:quantized|sparse|xnnpack)\b))\b|ops\.(?:profiler|rpc|dist_rpc|c10d\w*|"
    r"_c10d\w*|fb|static_runtime|prim\.(?:RaiseException_)?\b(?:fork|rpc_\w+|py_\w+|PythonOp))\b|\bpython_value\b|"
    r"\bprim\.PythonOp\b|\^\w+\("
)
_SCRIPT_NAMESPACE = re.compile(r"\bops\.(\w+)\.")
_NAMESPACES = frozenset({"prim", "aten", "quantized", "prepacked", "torchvision", "torchaudio", "mkldnn_prepacked",
                         "xnnpack", "sparse", "quantized_decomposed", "torchao", "inductor"})  # fmt: skip


def is_text(source: Source) -> bool:
    """Whether bytes are text: UTF-8, UTF-16 or Latin-1 without control characters, judged by the first ones."""
    try:
        head = source.read(0, HEAD_BYTES)
    except FormatError:
        return False
    return bool(head) and _decoded(head, cut=source.size > HEAD_BYTES) is not None


def scan_any_text(source: Source, look: Look, where: str) -> str:
    """Look at a file of text; gives its format."""
    if source.size > TEXT_BYTES_MAX:
        look.add(
            "limit", where, f"{where} has {source.size} bytes of text, more than the {TEXT_BYTES_MAX} that are read"
        )
        return "text"
    text = _decoded(source.read(0, source.size), cut=False)
    if text is None:
        look.add("format", where, f"{where} begins as text, and goes on as something else")
        return "unknown"
    kind = scan_text(text, look, where)
    if kind != "python" and where.lower().endswith(_PROGRAM_NAMES):
        look.add(
            "source-code", where, f"{where} is a program by its name, which runs if a loader trusts it", "suspicious"
        )
    return kind


def _decoded(data: bytes, *, cut: bool) -> str | None:
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            text = data[: len(data) // 2 * 2].decode("utf-16", "ignore" if cut else "strict")
        except UnicodeDecodeError:
            return None
        return None if _CONTROL.search(text) else text
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        if not cut or error.start < len(data) - 3:
            return _latin(data)
        text = data[: error.start].decode("utf-8")
    return None if _CONTROL.search(text) else text


def _latin(data: bytes) -> str | None:
    """Text of one byte a letter, if most of it is ASCII and nothing in it controls."""
    plain = len(data.translate(None, _ABOVE_ASCII))
    text = data.decode("latin-1")
    if plain * 4 < len(data) * 3 or _CONTROL.search(text) or _CONTROL_ABOVE.search(text):
        return None
    return text


def scan_torchscript(source: Source, look: Look, where: str) -> None:
    """Report operators of a TorchScript program that reach files or native libraries of others."""
    if source.size > TEXT_BYTES_MAX:
        look.add("limit", where, f"{where} has {source.size} bytes of program text")
        return
    text = source.read(0, source.size).decode("utf-8", "replace")
    if (found := _SCRIPT_REFUSED.search(text)) is not None:
        look.add("graph-operator", where, f"{where} calls {found.group()!r}, which reaches files or the process")
    for name in {found.group(1) for found in _SCRIPT_NAMESPACE.finditer(text)} - _NAMESPACES:
        look.add(
            "graph-operator", where, f"{where} calls operators of {name!r}, which need a native library", "suspicious"
        )
