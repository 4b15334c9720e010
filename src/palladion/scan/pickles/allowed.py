"""Which functions and classes a pickle may name: those that hold data, and reach neither code, files nor the network.

The list is `allowed.json`: for a module the classes, the functions (`call`) and the mere values that may stand in a
pickle; and of families of modules, whose layout changes from version to version, the names of their classes. A name
that is on no list is refused, whatever it may be: lists of dangerous ones are never complete (docs/scan.md).
"""

import json
import re
from functools import cache
from importlib.resources import files
from typing import Literal

Kind = Literal["class", "call", "value"]

# Parts of families that load data, or are made for tests: whatever they hold is not on the list.
_LEFT_OUT = frozenset({"externals", "tests", "datasets", "_testing", "experimental", "estimator_checks", "conftest"})
_CYTHON = re.compile(
    r"__pyx_unpickle_[A-Z]\w*|__pyx_unpickle__\w+|newObj"
)  # make an object of the class they are given
_MODULE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*")
# What a torch storage holds: bytes of one number.
STORAGE_BYTES = {
    "ByteStorage": 1, "DoubleStorage": 8, "FloatStorage": 4, "HalfStorage": 2, "LongStorage": 8, "IntStorage": 4,
    "ShortStorage": 2, "CharStorage": 1, "BoolStorage": 1, "BFloat16Storage": 2, "ComplexDoubleStorage": 16,
    "ComplexFloatStorage": 8, "QUInt8Storage": 1, "QInt8Storage": 1, "QInt32Storage": 4, "QUInt4x2Storage": 1,
    "QUInt2x4Storage": 1, "UntypedStorage": 1,
}  # fmt: skip
STORAGE_MODULES = frozenset({"torch", "torch.storage", "torch.cuda"})


@cache
def _tables() -> tuple[dict[tuple[str, str], Kind], dict[str, frozenset[str]]]:
    document = json.loads(files("palladion.scan.pickles").joinpath("allowed.json").read_text(encoding="utf-8"))
    exact: dict[tuple[str, str], Kind] = {}
    for module, kinds in document["exact"].items():
        for kind, lines in kinds.items():
            for name in " ".join(lines).split():
                exact[module, name] = kind
    families = {family: frozenset(" ".join(lines).split()) for family, lines in document["families"].items()}
    return exact, families


def is_name(text: str) -> bool:
    """Whether `text` could name a module, or what is in one."""
    return _MODULE.fullmatch(text) is not None


def kind_of(module: str, name: str) -> Kind | None:
    """What `module.name` is, if a pickle may name it; None if it may not."""
    exact, families = _tables()
    if (kind := exact.get((module, name))) is not None:
        return kind
    for family, names in families.items():
        if module == family or module.startswith(f"{family}."):
            parts = module.split(".")
            if _MODULE.fullmatch(module) is None or not _LEFT_OUT.isdisjoint(parts):
                return None
            if name in names:
                return "class"
            if family == "sklearn" and _CYTHON.fullmatch(name):
                return "call"
    return None
