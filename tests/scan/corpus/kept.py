"""Pickles that keep a function where Python calls it while it loads, and arrays and dtypes that lie about memory.

Each of them ran a command, or crashed the process, when it was loaded or shown, and passed a scan once.
"""

from collections.abc import Iterator

from tests.scan.corpus.sample import Sample, name, raw, start, text

_LOAD = name("torch.storage", "_load_from_bytes")
# Bytes from a list of numbers: nothing that the scan could look at. They stand for a torch file that runs a command.
_HIDDEN = name("builtins", "bytes") + b"](K\x80K\x02e\x85R"
_OPTIMUM = name("scipy.optimize._optimize", "OptimizeResult") + b")R"


def kept() -> list[Sample]:
    """Every such file."""
    return [
        *(Sample(f"kept-{label}.pkl", start(4) + data, "kept") for label, data in _kept()),
        *(Sample(f"lie-{label}.pkl", start(4) + data, "kept") for label, data in _lies()),
    ]


def _kept() -> Iterator[tuple[str, bytes]]:
    tensor = name("torch._tensor", "_rebuild_from_type_v2")
    array = name("builtins", "bytearray")
    yield "rebuilt", tensor + b"(" + array + raw(b"x") + b"\x85](J\xff\xff\xff\x7fe}tR."
    yield "bunch", name("sklearn.utils._bunch", "Bunch") + b")R" + text("append") + _LOAD + b"s" + _HIDDEN + b"a."
    space = name("argparse", "Namespace") + b")R"
    ordered = name("collections", "OrderedDict") + b"]" + text("append") + _LOAD + b"\x86a\x85R"
    yield "computed-state", space + ordered + b"b" + _HIDDEN + b"a."
    yield "add", space + b"}" + text("add") + _LOAD + b"sb(" + _HIDDEN + b"\x90."
    yield "items", _OPTIMUM + text("__setstate__") + _LOAD + b"s" + _HIDDEN + b"b."
    modules = b"}" + text("_modules") + b"}" + text("append") + _LOAD + b"ss"
    yield "module", name("torch.nn.modules.module", "Module") + b")R" + modules + b"b" + _HIDDEN + b"a."
    many = b"}(" + b"".join(b"J" + number.to_bytes(4, "little") + b"N" for number in range(100_001))
    yield "many", space + many + text("append") + name("builtins", "list") + b"ub."
    parameter = name("torch.nn.parameter", "Parameter")
    yield "by-reference", name("torch._tensor", "_rebuild_from_type") + b"(" + parameter * 2 + b")}tR."
    judged = b"(" + name("builtins", "getattr") + name("torch", "Tensor") + name("builtins", "str") + text("split")
    yield "judged", tensor + judged + b"\x86}tR."
    same = name("torch.jit._pickle", "restore_type_tag") + name("argparse", "Namespace") + text("x") + b"\x86R"
    yield "class-itself", same + b"N}" + text("x") + b"K\x01s\x86b."
    scalar = name("numpy._core.multiarray", "scalar") + _dtype("O8") + name("argparse", "Namespace") + b"\x86R"
    yield "scalar-itself", scalar + b"N}" + text("x") + b"K\x01s\x86b."
    booster = name("xgboost.core", "Booster")
    yield "reconstructed", name("copyreg", "_reconstructor") + booster * 2 + text("model.json") + b"\x87R."
    yield "called-value", name("numpy", "multiply") + raw(b"x") + b"J\xff\xff\xff\x7f\x86R."


def _dtype(code: str, state: bytes = b"") -> bytes:
    return name("numpy", "dtype") + text(code) + b"\x89\x88\x87R" + state


def _struct(field: bytes, size: int = 8, offset: int = 0, flags: int = 16) -> bytes:
    """A dtype of one field, as it says of itself."""
    fields = b"}" + text("a") + field + b"K" + bytes([offset]) + b"\x86s"
    numbers = b"K" + bytes([size]) + b"K\x01K" + bytes([flags])
    return _dtype("V8", b"(K\x03" + text("|") + b"N" + text("a") + b"\x85" + fields + numbers + b"tb")


def _lies() -> Iterator[tuple[str, bytes]]:
    objects = _dtype("O8")
    yield (
        "addresses",
        name("numpy._core.numeric", "_frombuffer")
        + b"("
        + raw(b"A" * 8)
        + _struct(objects)
        + b"K\x01\x85"
        + text("C")
        + b"tR.",
    )
    yield "offset", _struct(_dtype("f8"), offset=200) + b"."
    yield "size", _struct(_dtype("f8"), size=255) + b"."
    yield "twice", _struct(_dtype("f8"))[:-1] + b"b(K\x03" + text("|") + b"NNNK\x08K\x01K\x3ftb."
    monitor = name("sklearn.callback._scoring_monitor", "ScoringMonitor") + b")\x81}"
    yield "connects", monitor + text("_listener_handle") + name("argparse", "Namespace") + b")Rs" + b"b."
    yield "flags", _dtype("f8", b"(K\x03" + text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x3ftb.")
    again = name("numpy", "dtype") + _dtype("V8") + b"\x85R"
    yield "dtype-of-dtype", again + b"(K\x03" + text("|") + b"NNNK\xffK\x01K\x00tb."
    alias = name("types", "GenericAlias") + _dtype("V8") + b")\x86R"
    yield "alias", alias + b"(K\x03" + text("|") + b"NNNK\xffK\x01K\x00tb."
    string = name("pyarrow.lib", "type_for_alias") + text("string") + b"\x85R"
    yield "arrow", name("pyarrow.lib", "_restore_array") + b"(" + string + b"K\x03K\x00K\x00]]Nt\x85R."
