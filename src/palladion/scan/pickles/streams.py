"""A file of pickles: one after another, with the raw arrays of joblib between them, or the raw storages of torch."""

import re
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from math import prod
from typing import Any

from palladion.errors import FormatError
from palladion.scan.look import Look
from palladion.scan.pickles.allowed import STORAGE_BYTES
from palladion.scan.pickles.calls import dtype_of
from palladion.scan.pickles.machine import Machine
from palladion.scan.pickles.reader import PickleError, Reader
from palladion.scan.pickles.strings import LEGACY_MAGICS
from palladion.scan.source import LimitError, Source

STREAMS_MAX = 10_000
NESTED_ARRAYS_MAX = 8  # arrays of objects in arrays of objects
DIMENSIONS_MAX = 64
PROBE_STEPS = 10_000
_IMPORTABLE = sys.stdlib_module_names | frozenset(
    {
        "cloudpickle",
        "dill",
        "joblib",
        "numpy",
        "pandas",
        "pip",
        "scipy",
        "setuptools",
        "sklearn",
        "torch",
        "transformers",
    }
)
_RUNS = re.compile(
    r"system|popen\w*|Popen|exec\w*|spawn\w*|posix_spawn\w*|eval|compile|getattr|run\w*|call|check_\w+|getoutput|"
    r"getstatusoutput|loads?|open|startfile|import_module|__import__|attrgetter|methodcaller|partial"
)
# Modules that act when they are imported; of the others a name alone does nothing. Words of a list look like names.
_ACTING = frozenset({"antigravity", "this", "idlelib", "turtledemo", "test", "lib2to3", "pip", "torch", "transformers"})
_TORCH_STREAMS = 5  # magic number, protocol, system, the object, the keys of storages


@dataclass
class Outcome:
    """What the pickles of a file were: `format`, and the storages that they name."""

    format: str = "pickle"
    streams: int = 0
    storages: dict[str, tuple[str, int]] = field(default_factory=dict)


def scan_pickles(source: Source, look: Look, where: str, *, torch: str = "") -> Outcome:
    """Run every pickle of a file; reports what each would do, and bytes that belong to none."""
    outcome = Outcome()
    legacy = not torch and source.read(0, 32).startswith(LEGACY_MAGICS)
    if legacy:
        outcome.format = "torch-legacy"
    position = 0
    keys: Any = None
    while position < source.size and outcome.streams < STREAMS_MAX:
        machine = Machine(Reader(source, position), look, where, torch=torch or ("legacy" if legacy else ""))
        machine.raw_array = _Joblib(outcome)
        try:
            keys = machine.run()
        except LimitError as error:
            look.add("limit", where, f"{where}: {error.message}")
            return outcome
        except FormatError as error:
            _broken(look, where, error, position, source.size)
            return outcome
        outcome.storages.update(machine.storages)
        outcome.streams += 1
        position = machine.reader.position
        if legacy and outcome.streams == _TORCH_STREAMS:
            break
    if legacy:
        if (said := _legacy_storages(source, position, outcome, keys)) is not None:
            look.add("structure", where, f"{where} {said}")
    elif position < source.size:
        look.add("limit", where, f"{where} holds more than {STREAMS_MAX} pickles")
    return outcome


def _broken(look: Look, where: str, error: FormatError, position: int, size: int) -> None:
    if position:
        look.add("structure", where, f"{where}: {size - position} bytes after a pickle are none: {error.message}")
    else:
        look.add("structure", where, f"{where} is a broken pickle: {error.message}")


def _legacy_storages(source: Source, at: int, outcome: Outcome, keys: Any) -> str | None:
    """Pass over the numbers of a torch file of before 1.6: a count and the bytes, for each key in turn.

    Gives what is wrong with them, None if nothing is.
    """
    if outcome.streams < _TORCH_STREAMS:
        return f"has {outcome.streams} of the {_TORCH_STREAMS} pickles of a torch file"
    for key in sorted(outcome.storages, key=lambda key: _rank(keys, key)):
        kind, _ = outcome.storages[key]
        count = int.from_bytes(source.read(at, 8), "little")
        at += 8 + count * STORAGE_BYTES.get(kind, 1)
        if at > source.size:
            return "ends within the numbers of a tensor"
    return f"goes on for {source.size - at} bytes after the last tensor" if at != source.size else None


def _rank(keys: Any, key: str) -> int:
    return keys.index(key) if isinstance(keys, list) and key in keys else len(keys) if isinstance(keys, list) else 0


class _Joblib:
    """Passes over the array that follows a wrapper of joblib's (joblib/numpy_pickle.py, `read_array`)."""

    def __init__(self, outcome: Outcome, depth: int = 0) -> None:
        self._outcome = outcome
        self._depth = depth

    def __call__(self, machine: Machine, state: dict[Any, Any]) -> None:
        """The reader stands behind the wrapper; afterwards it stands behind the array."""
        self._outcome.format = "joblib"
        reader = machine.reader
        if reader.frame_end not in {None, reader.position}:
            raise PickleError("an array lies within a frame")
        reader.frame_end = None
        shape, found = state.get("shape"), dtype_of(state.get("dtype"))
        if (
            found is None
            or not isinstance(shape, tuple)
            or len(shape) > DIMENSIONS_MAX
            or any(not isinstance(item, int) or item < 0 for item in shape)
        ):
            raise PickleError("an array of joblib's has no shape, or numbers that nobody knows the size of")
        kind, size = found
        self._as_plain_pickle(machine, objects=kind == "O")
        if kind == "O":
            self._objects(machine)
            return
        if state.get("numpy_array_alignment_bytes") is not None:
            reader.skip(reader.number(1))
        reader.skip(size * prod(shape))

    def _objects(self, machine: Machine) -> None:
        """An array of objects is a pickle of its own."""
        if self._depth >= NESTED_ARRAYS_MAX:
            raise LimitError("arrays of objects lie too deep in one another")
        inner = Machine(Reader(machine.reader.source, machine.reader.position), machine.look, machine.where)
        inner.raw_array = _Joblib(self._outcome, self._depth + 1)
        inner.run()
        machine.reader.position = inner.reader.position

    def _as_plain_pickle(self, machine: Machine, *, objects: bool) -> None:
        """Whoever reads the file without joblib takes the array for instructions: what would these do?"""
        machine.look.work(len(machine.stack) // 16)  # which is copied
        own = Look(machine.look.inside, opcodes_left=PROBE_STEPS, searched=machine.look.searched)
        other = Machine(Reader(machine.reader.source, machine.reader.position), own, machine.where)
        other.stack, other.memo = list(machine.stack), _Overlay(machine.memo)
        with suppress(FormatError):
            other.run()
        machine.look.work(other.steps)
        # objects are a pickle, which takes other objects than its own where it is read as a part of this one
        if any(not objects or name.split(".")[0] in _IMPORTABLE for name in other.named):
            machine.add("polyglot", "hides instructions in an array, which run if it is opened without joblib")


def _acts(name: str) -> bool:
    """Whether a pickle that ends early has done something, or was made to, by naming this."""
    module, _, attribute = name.rpartition(".")
    return module.split(".", maxsplit=1)[0] in _ACTING or (
        module in sys.stdlib_module_names and _RUNS.fullmatch(attribute) is not None
    )


class _Overlay(dict[int, Any]):
    """What was kept so far, without a copy of it, and what is kept from here on."""

    def __init__(self, below: dict[int, Any]) -> None:
        super().__init__()
        self._below = below

    def __contains__(self, key: object) -> bool:
        return super().__contains__(key) or key in self._below

    def __missing__(self, key: int) -> Any:
        return self._below[key]

    def __len__(self) -> int:
        return len(self._below) + super().__len__()


def acts_as_pickle(source: Source, look: Look) -> bool:
    """Whether bytes without a mark are a pickle of an early protocol: up to STOP, or as far as something is called."""
    own = Look(look.inside, opcodes_left=min(look.opcodes_left, PROBE_STEPS), searched=look.searched)
    machine = Machine(Reader(source, 0), own, "it")
    try:
        machine.run()
    except LimitError:
        return True
    except FormatError:
        # a module that is named has been imported by then
        return machine.calls_made > 0 or any(_acts(name) for name in machine.named)
    finally:
        look.opcodes_left -= machine.steps
    return machine.steps > 1 and (machine.reader.position == source.size or machine.calls_made > 0)
