"""What a pickle may call, make and change: the judgement of instructions that act.

Each name is judged where it is looked up; here it matters what is done with it. CPython's reader is the reference:
`find_class`, `load_reduce`, `load_newobj`, `load_build`, `persistent_load`.
"""

import re
from typing import TYPE_CHECKING, Any

from palladion.scan.look import HELD_BYTES_MAX
from palladion.scan.pickles import dtypes
from palladion.scan.pickles.allowed import STORAGE_MODULES
from palladion.scan.pickles.reader import PickleError
from palladion.scan.pickles.strings import TORCH_MAGIC
from palladion.scan.pickles.values import ITEMS_MAX, TEXT_MAX, Long, Made, Marker, Ref, is_ref, said

if TYPE_CHECKING:
    from palladion.scan.pickles.machine import Machine

dtype_of = dtypes.dtype_of
ZEROS_MAX = 2**20  # bytearray(10**12) asks for a terabyte
NUMBERS_MAX = 10**7
_ENCODINGS = frozenset({"latin1", "latin-1", "iso-8859-1", "utf-8", "utf8", "ascii"})
_CODE_NAMES = frozenset({
    "__setstate__", "__reduce__", "__reduce_ex__", "__class__", "__init__", "__new__", "__call__", "__getattr__",
    "__getattribute__", "__setattr__", "__del__", "__enter__", "__exit__", "__iter__", "__next__", "__len__", "__eq__",
    "__hash__", "__repr__", "__str__", "__code__", "__globals__", "__builtins__", "__closure__", "__defaults__",
    "__kwdefaults__", "__bases__", "__mro__", "__subclasses__", "__import__", "__wrapped__", "extend", "append",
    "__setitem__", "__deepcopy__", "__copy__", "add", "__dict__",
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
_TORCH_BYTES = ("torch.storage", "_load_from_bytes")
# On no list: what they do depends on their arguments. Estimators keep methods of text, and layers they are to make;
# a tensor in a plain pickle is loaded from bytes. Kept in an object instead of called, they would be called unseen.
BY_ARGUMENTS = frozenset({("builtins", "getattr"), ("__builtin__", "getattr"), ("functools", "partial"), _TORCH_BYTES})
_TEXT_CLASSES = frozenset({("builtins", "str"), ("__builtin__", "str"), ("__builtin__", "unicode")})
_METHODS = frozenset(
    {"split", "lower", "upper", "strip", "lstrip", "rstrip", "title", "casefold", "capitalize", "splitlines"}
)
_OPERATORS = frozenset(
    {"relu", "sigmoid", "tanh", "softmax", "selu", "celu", "rrelu", "log_softmax", "sin", "cos", "exp"}
)
_SEQUENCES = frozenset({"list", "tuple", "set", "frozenset", "bytes", "bytearray", "dict"})
# Dictionaries and tuples that a call makes: whatever is in them goes into the object whose state they are.
_STATES = frozenset({
    "tuple", "dict", "OrderedDict", "defaultdict", "Counter", "Bunch", "OptimizeResult", "AttrsDict", "ParamsDict",
    "DeprecationDict", "KeyValTuple", "MethodPair", "RouterMappingPair",
})  # fmt: skip
# Their items, or what they stand for, are asked for `__setstate__`; a pickle of one has no state.
_STATELESS = frozenset({"OptimizeResult", "GenericAlias"})
# What gives its argument back (torch/jit/_pickle.py), or may.
_SAME = frozenset({"restore_type_tag", "build_intlist", "build_tensorlist", "build_doublelist", "build_boollist"})
# What has an `append`, `extend` or `add` of its own; of other objects an attribute would be called.
_GROWING = frozenset({"list", "set", "bytearray", "deque"})
_GROWS = (b"a", b"e", b"\x90")  # APPEND, APPENDS, ADDITEMS
_NAME = re.compile(r"[\w.-]{1,64}")


def called(m: "Machine", of: Any, args: Any) -> Any:
    """The value of `of(*args)`."""
    m.calls_made += 1
    if not isinstance(args, tuple):
        if not isinstance(args, Made | Marker):
            raise PickleError(f"arguments are {said(args)}, expected a tuple")
        m.add("pickle-call", f"calls {said(of)} with computed arguments ({said(args)})")
        args = ()
    if isinstance(of, Ref) and of.kind == "judged":
        return _by_arguments(m, of, args)
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
    elif key[0] == "torch.jit._pickle" and key[1] in _SAME and args and not isinstance(args[0], Ref):
        return args[0]
    elif (key[1] in _SAME or key[1] == "scalar") and any(isinstance(item, Ref) for item in args):
        m.add("pickle-call", f"takes {said(next(item for item in args if isinstance(item, Ref)))} for data")
    elif _reads(of):
        # their constructors read files, start threads or join clusters; a pickle of one makes it by `__new__`
        m.add("pickle-call", f"calls {of.full}, whose constructor may read files")
    elif key[1] == "defaultdict" and args and args[0] is not None and not is_class(args[0]):
        m.add("pickle-call", f"makes a defaultdict of {said(args[0])}, expected a class")
    return Made(of, args)


def _reads(of: Ref) -> bool:
    return of.kind == "class" and of.module.split(".", maxsplit=1)[0] in _READING and of.name not in _ENUMERATIONS


def _by_arguments(m: "Machine", of: Ref, args: tuple[Any, ...]) -> Any:
    """What `getattr` and the others give, where it does no harm: a method of text, a class with some arguments."""
    if (of.module, of.name) == _TORCH_BYTES:
        m.judged(of)
        _nested_torch(m, args)
        return Made(of, args)
    if of.name == "partial":
        if args and _applied(args[0]):
            m.judged(of)
        else:
            m.refuse(of)
        return Made(of, args)
    owner, name = args if len(args) == 2 else (None, None)
    if isinstance(owner, Ref) and isinstance(name, str):
        key = (owner.module, owner.name)
        harmless = (
            (key in _TEXT_CLASSES and name in _METHODS)
            or (key == ("torch._C", "_VariableFunctionsClass") and name in _OPERATORS)
            or (key == ("zoneinfo", "ZoneInfo") and name == "_unpickle")
        )
        if harmless:
            m.judged(of)
            return Ref(owner.module, f"{owner.name}.{name}", "call" if owner.name == "ZoneInfo" else "value")
    m.refuse(of)
    return Made(of, args)


def _applied(of: Any) -> bool:
    """Whether a function or class may be kept with arguments for later."""
    return is_class(of) or is_ref(of, ("sklearn.utils.validation", "check_array"))


def instance(m: "Machine", of: Any, args: Any) -> Any:
    """An instance of `of`, made by its `__new__`."""
    m.calls_made += 1
    if not isinstance(args, tuple):
        if not isinstance(args, Made | Marker):
            raise PickleError(f"arguments are {said(args)}, expected a tuple")
        args = ()
    if isinstance(of, Ref) and of.kind == "judged":
        m.refuse(of)
        return Made(of, args)
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
    if isinstance(target, Made) and is_ref(target.of, ("functools", "partial")):
        if not (isinstance(state, tuple) and len(state) == 4 and _applied(state[0])):
            m.add("pickle-call", f"puts a state into {said(target)} that is none")
        return
    if not isinstance(target, Made | Marker):
        m.add("pickle-call", f"puts a state into {said(target)}")
        return
    if isinstance(target, Made) and isinstance(target.of, Ref) and target.of.name in _STATELESS:
        m.add("pickle-call", f"puts a state into {said(target)}, which has none")
    for part in state if isinstance(state, tuple) and len(state) == 2 else (state,):
        _attributes(m, target, part)
    if not isinstance(target, Made):
        return
    if dtypes.is_dtype(target) and not dtypes.sound_state(target, state):
        m.add("pickle-call", "makes a NumPy dtype that lies about what its fields hold")
    if dtypes.is_dtype(target) and isinstance(state, tuple):
        m.fields.update({id(part): part for part in state if isinstance(part, dict)})
    if len(target.states) < 4:
        target.states.append(state)
    if is_ref(target.of, *ARRAY_WRAPPERS) and isinstance(state, dict) and m.raw_array is not None:
        m.raw_array(m, state)


def _attributes(m: "Machine", target: Any, part: Any) -> None:
    """A part of a state: names and values that become attributes."""
    if isinstance(part, Made) and isinstance(part.of, Ref) and part.of.name in _STATES:
        m.add("pickle-call", f"puts a state into {said(target)} that it computes ({said(part)})")
    if not isinstance(part, dict):
        return
    if len(part) >= ITEMS_MAX:
        m.add("pickle-call", f"puts a state of more than {ITEMS_MAX} attributes into {said(target)}")
    for name in part:
        if name in _CODE_NAMES:
            m.add("pickle-call", f"puts {name} into {said(target)}, which Python then calls")


def extended(m: "Machine", target: Any) -> None:
    """Items are put into an object, by its `append`, `extend` or `__setitem__`."""
    if isinstance(target, Ref):
        m.add("pickle-call", f"puts items into {target.full} itself")
    elif id(target) in m.fields:
        m.add("pickle-call", "changes the fields of a NumPy dtype afterwards")
    elif isinstance(target, Made):
        m.calls_made += 1
        known = isinstance(target.of, Ref) and (target.of.name in _GROWING or target.of.kind is None)
        if not known and m.reader.source.read(m.reader.position - 1, 1) in _GROWS:
            m.add("pickle-call", f"appends to {said(target)}, which is no list: an attribute of it would be called")
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
    elif _reads(args[1]):
        m.add("pickle-call", f"calls {args[1].full}, whose constructor may read files")
    return Made(args[0] if args else None, ())


def _rebuilt(m: "Machine", args: tuple[Any, ...]) -> Any:
    """torch._tensor._rebuild_from_type_v2: calls its first argument with the third, and puts the fourth in."""
    if len(args) != 4 or not isinstance(args[0], Ref) or args[0].kind == "judged" or not isinstance(args[2], tuple):
        m.add("pickle-call", "rebuilds a tensor by what is no function, or of arguments that are no tuple")
        return Made(args[0], ())
    made = called(m, args[0], args[2])
    if isinstance(made, Made):
        built(m, made, args[3])
    return made


def _array(m: "Machine", args: tuple[Any, ...]) -> None:
    """An array of nothing: its memory is taken at once."""
    shape = args[0] if args else ()
    sizes = [item for item in (shape if isinstance(shape, tuple | list) else (shape,)) if isinstance(item, int)]
    count = 1
    for size in sizes:
        count *= abs(size)
        if not 0 < count <= NUMBERS_MAX:  # no further: sizes may be many, and each of thousands of digits
            break
    if count > NUMBERS_MAX:
        m.add("pickle-call", "makes an array of more numbers than fit into memory")
