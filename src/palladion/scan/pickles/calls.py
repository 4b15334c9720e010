"""What a pickle may call, make and change: the judgement of instructions that act.

Each name is judged where it is looked up; here it matters what is done with it. CPython's reader is the reference:
`find_class`, `load_reduce`, `load_newobj`, `load_build`, `persistent_load`.
"""

import re
from collections.abc import Mapping
from math import prod
from typing import TYPE_CHECKING, Any

from palladion.scan.look import HELD_BYTES_MAX
from palladion.scan.pickles.allowed import STORAGE_MODULES
from palladion.scan.pickles.reader import PickleError
from palladion.scan.pickles.strings import TORCH_MAGIC
from palladion.scan.pickles.values import TEXT_MAX, Long, Made, Marker, Ref, is_ref, said

if TYPE_CHECKING:
    from palladion.scan.pickles.machine import Machine

ZEROS_MAX = 2**20  # bytearray(10**12) asks for a terabyte
NUMBERS_MAX = 10**7
_ENCODINGS = frozenset({"latin1", "latin-1", "iso-8859-1", "utf-8", "utf8", "ascii"})
_CODE_NAMES = frozenset({
    "__setstate__", "__reduce__", "__reduce_ex__", "__class__", "__init__", "__new__", "__call__", "__getattr__",
    "__getattribute__", "__setattr__", "__del__", "__enter__", "__exit__", "__iter__", "__next__", "__len__", "__eq__",
    "__hash__", "__repr__", "__str__", "__code__", "__globals__", "__builtins__", "__closure__", "__defaults__",
    "__kwdefaults__", "__bases__", "__mro__", "__subclasses__", "__import__", "__wrapped__", "extend", "append",
    "__setitem__", "__deepcopy__", "__copy__",
})  # fmt: skip
ARRAY_WRAPPERS = (
    ("joblib.numpy_pickle", "NumpyArrayWrapper"),
    ("sklearn.externals.joblib.numpy_pickle", "NumpyArrayWrapper"),
)
_READING = frozenset({"xgboost", "lightgbm", "catboost", "transformers", "accelerate"})
_ENUMERATIONS = frozenset({
    "DistributedType", "DynamoBackend", "EvaluationStrategy", "FSDPOption", "HubStrategy", "IntervalStrategy",
    "SaveStrategy", "SchedulerType", "OptimizerNames",
})  # fmt: skip
_ARRAY_MODULES = frozenset({
    "numpy", "numpy.core", "numpy._core", "numpy.core.multiarray", "numpy._core.multiarray",
})  # fmt: skip
_SEQUENCES = frozenset({"list", "tuple", "set", "frozenset", "bytes", "bytearray", "dict"})
_NAME = re.compile(r"[\w.-]{1,64}")


def called(m: "Machine", of: Any, args: Any) -> Any:
    """The value of `of(*args)`."""
    m.calls_made += 1
    if not isinstance(args, tuple):
        if not isinstance(args, Made | Marker):
            raise PickleError(f"arguments are {said(args)}, expected a tuple")
        m.add("pickle-call", f"calls {said(of)} with computed arguments ({said(args)})")
        args = ()
    if not _callable(m, of):
        return Made(of, args)
    return _judged(m, of, args)


def _judged(m: "Machine", of: Ref, args: tuple[Any, ...]) -> Any:
    """What a call of what may be called gives; some need their arguments looked at."""
    key = (of.module, of.name)
    if key == ("_codecs", "encode"):
        return _encoded(m, args)
    if key[0] in {"builtins", "__builtin__"}:
        _builtin(m, of, args)
    elif key == ("torch.storage", "_load_from_bytes"):
        _nested_torch(m, args)
    elif key[1] == "_reconstructor" and key[0] in {"copyreg", "copy_reg"}:
        return _reconstructed(m, args)
    elif key[1] in {"__newobj__", "__newobj_ex__"} and args:
        return instance(m, args[0], args[1:] if key[1] == "__newobj__" else ())
    elif key[1].startswith("_rebuild_from_type") and args:
        return _rebuilt(m, args)
    elif key[1] == "_rebuild_parameter_with_state" and args:
        built(m, Made(of, args), args[-1])
    elif key[1] == "ndarray" and key[0] in _ARRAY_MODULES:
        _array(m, args)
    elif key[1] == "_reconstruct" and key[0] in _ARRAY_MODULES:
        _array(m, args[1:])
    elif of.kind == "class" and key[0].split(".", maxsplit=1)[0] in _READING and of.name not in _ENUMERATIONS:
        # their constructors read files, start threads or join clusters; a pickle of one makes it by `__new__`
        m.add("pickle-call", f"calls {of.full}, whose constructor may read files")
    elif key[1] == "defaultdict" and args and args[0] is not None and not is_class(args[0]):
        m.add("pickle-call", f"makes a defaultdict of {said(args[0])}, expected a class")
    return Made(of, args)


def instance(m: "Machine", of: Any, args: Any) -> Any:
    """An instance of `of`, made by its `__new__`."""
    m.calls_made += 1
    if not isinstance(args, tuple):
        if not isinstance(args, Made | Marker):
            raise PickleError(f"arguments are {said(args)}, expected a tuple")
        args = ()
    if _callable(m, of) and of.kind != "class":
        m.add("pickle-call", f"makes an instance of {of.full}, which is no class")
    elif isinstance(of, Ref) and of.module in {"builtins", "__builtin__"}:
        _builtin(m, of, args)
    return Made(of, args)


def built(m: "Machine", target: Any, state: Any) -> None:
    """State is put into an object, by its `__setstate__` or attribute by attribute."""
    m.calls_made += 1
    if isinstance(target, Ref):
        # setattr on a class or function changes it for the whole process
        m.add("pickle-call", f"changes {target.full} itself, and no object of it")
        return
    if not isinstance(target, Made | Marker):
        m.add("pickle-call", f"puts a state into {said(target)}")
        return
    parts = state if isinstance(state, tuple) and len(state) == 2 else (state,)
    for part in parts:
        if isinstance(part, dict):
            for name in part:
                if name in _CODE_NAMES:
                    m.add("pickle-call", f"puts {name} into {said(target)}, which Python then calls")
    if isinstance(target, Made):
        if len(target.states) < 4:
            target.states.append(state)
        if is_ref(target.of, *ARRAY_WRAPPERS) and isinstance(state, dict) and m.raw_array is not None:
            m.raw_array(m, state)


def extended(m: "Machine", target: Any) -> None:
    """Items are put into an object, by its `append`, `extend` or `__setitem__`."""
    if isinstance(target, Ref):
        m.add("pickle-call", f"puts items into {target.full} itself")
    elif isinstance(target, Made):
        m.calls_made += 1
    elif not isinstance(target, list | dict | Marker):
        raise PickleError(f"puts items into {said(target)}")


def persistent(m: "Machine", name: Any) -> Any:
    """An object that its reader gives for a name: of torch, the storage of a tensor."""
    if m.torch:
        if isinstance(name, tuple) and len(name) >= 5 and name[0] == "storage":
            _, kind, key, _, count = name[:5]
            is_storage = isinstance(kind, Ref) and kind.module in STORAGE_MODULES and "Storage" in kind.name
            if is_storage and isinstance(key, str) and _NAME.fullmatch(key) and isinstance(count, int):
                m.storages[key] = (kind.name, count)
                return Made(kind, ())
        if (
            m.torch == "legacy"
            and isinstance(name, tuple)
            and len(name) == 4
            and name[0] == "module"
            and is_class(name[1])
        ):
            return name[1]  # with its source, which torch only compares
        m.add("pickle-persistent", f"asks for {said(name)} by name, expected the storage of a tensor")
    else:
        m.add("pickle-persistent", "asks its reader for objects by name, and no known format does so here")
    return Marker("named")


def is_class(value: Any) -> bool:
    """Whether `value` names a class that is on the list."""
    return isinstance(value, Ref) and value.kind == "class"


def _callable(m: "Machine", of: Any) -> bool:
    """Whether `of` may be called; reports it if not, unless its name was."""
    if not isinstance(of, Ref):
        if isinstance(of, Made | Marker):
            m.add("pickle-call", f"calls {said(of)}, which nobody can know")
            return False
        raise PickleError(f"calls {said(of)}")
    if of.kind == "value":
        m.add("pickle-call", f"calls {of.full}, which is a mere value")
    return of.kind in {"class", "call"}


def _builtin(m: "Machine", of: Ref, args: tuple[Any, ...]) -> None:
    first = args[0] if args else None
    if of.name in {"bytes", "bytearray"} and isinstance(first, int) and first > ZEROS_MAX:
        m.add("pickle-call", f"makes {first} bytes of nothing")
    if of.name in {"range", "xrange"} and any(isinstance(item, int) and abs(item) > NUMBERS_MAX for item in args):
        m.add("pickle-call", "makes a range of more numbers than fit into memory", suspicious=True)
    if (
        of.name in _SEQUENCES
        and isinstance(first, Made)
        and is_ref(first.of, ("builtins", "map"), ("builtins", "filter"))
    ):
        m.add("pickle-call", f"runs through {said(first)}")


def _encoded(m: "Machine", args: tuple[Any, ...]) -> Any:
    text = args[0] if args else None
    encoding = args[1] if len(args) > 1 else "utf-8"
    if not isinstance(encoding, str) or encoding.lower() not in _ENCODINGS or len(args) > 3:
        m.add("pickle-call", f"encodes text as {encoding if isinstance(encoding, str) else said(encoding)}")
        return Marker("computed")
    if isinstance(text, str):
        data = text.encode(encoding, "replace")
        m.strings.look_at(data)
        return data
    if isinstance(text, Long) and text.begin is not None and text.size <= HELD_BYTES_MAX:
        m.look.unpack(text.size)  # the same text may be encoded again and again
        data = m.reader.source.read(text.begin, text.size).decode("utf-8", "replace").encode(encoding, "replace")
        m.strings.look_at(data)
        return Long(len(data), data[:TEXT_MAX])
    if isinstance(text, Long):
        head = text.head.encode("latin-1", "replace") if isinstance(text.head, str) else text.head
        return Long(text.size, head, seen=False)
    return Marker("computed")


def _nested_torch(m: "Machine", args: tuple[Any, ...]) -> None:
    """A tensor in a plain pickle is a torch file in a bytes object: it was looked at when it was read."""
    data = args[0] if len(args) == 1 else None
    head = data.head if isinstance(data, Long) and data.seen else data
    if not isinstance(head, bytes) or not head.startswith(TORCH_MAGIC):
        m.add("pickle-call", "loads a torch file from what is none, or cannot be looked at")


def _reconstructed(m: "Machine", args: tuple[Any, ...]) -> Any:
    if len(args) != 3 or not is_class(args[0]) or not is_class(args[1]):
        named = next((item.full for item in args if isinstance(item, Ref) and item.kind is None), None)
        if named is None:
            m.add("pickle-call", "rebuilds an object of what is no harmless class")
    elif args[1].module in {"builtins", "__builtin__"}:
        _builtin(m, args[1], args[2:])
    return Made(args[0] if args else None, ())


def _rebuilt(m: "Machine", args: tuple[Any, ...]) -> Any:
    """torch._tensor._rebuild_from_type_v2: calls its first argument with the tuple, and puts the last one in."""
    function, rest = args[0], args[1:]
    inner = next((item for item in rest if isinstance(item, tuple)), None)
    if not isinstance(function, Ref) or inner is None:
        _callable(m, function)
        return Made(function, ())
    made = called(m, function, inner)
    state = args[-1]
    if len(args) > 3 and isinstance(made, Made):
        built(m, made, state)
    return made


def _array(m: "Machine", args: tuple[Any, ...]) -> None:
    """An array of nothing: its memory is taken at once."""
    shape = args[0] if args else ()
    sizes = [item for item in (shape if isinstance(shape, tuple | list) else (shape,)) if isinstance(item, int)]
    if prod(abs(size) for size in sizes) > NUMBERS_MAX:
        m.add("pickle-call", "makes an array of more numbers than fit into memory")


def dtype_of(value: Any) -> tuple[str, int] | None:
    """Kind and bytes of one number of a NumPy dtype as a pickle writes it; None if it cannot be told."""
    if not isinstance(value, Made) or not is_ref(value.of, ("numpy", "dtype")) or not value.args:
        return None
    code = value.args[0]
    found = re.fullmatch(r"([?bBiufcmMOSUV])(\d{0,9})", code) if isinstance(code, str) else None
    if found is None:
        return None
    kind, size = found.group(1), int(found.group(2) or "1")
    state = value.states[0] if value.states and isinstance(value.states[0], tuple) else ()
    if kind == "V" and _holds_objects(state):
        return "O", size
    return kind, size * 4 if kind == "U" else size


def _holds_objects(state: tuple[Any, ...]) -> bool:
    """Whether fields of a structured dtype hold objects: then its numbers are pickles."""
    fields = next((item for item in state if isinstance(item, dict)), None)
    if isinstance(fields, Mapping):
        for field in fields.values():
            inner = field[0] if isinstance(field, tuple) and field else field
            found = dtype_of(inner)
            if found is None or found[0] == "O":
                return True
    if len(state) > 2 and isinstance(state[2], tuple) and state[2]:
        found = dtype_of(state[2][0])
        if found is None or found[0] == "O":
            return True
    flags = state[7] if len(state) >= 8 else 0
    return isinstance(flags, int) and bool(flags & 1)  # NPY_ITEM_REFCOUNT
