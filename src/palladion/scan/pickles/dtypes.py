"""NumPy dtypes as pickles write them: what one number holds, and whether a dtype's fields say the truth about it."""

import re
from collections.abc import Mapping
from math import prod
from typing import Any

from palladion.scan.pickles.values import ITEMS_MAX, Made, Ref, is_ref

_CLASSES = tuple(
    (module, "dtype")
    for module in ("numpy", "numpy.core", "numpy._core", "numpy.core.multiarray", "numpy._core.multiarray")
)
_RECORDS = tuple((module, "record") for module in ("numpy", "numpy.rec", "numpy._core.records", "numpy.core.records"))
_DEPTH_MAX = 32  # of dtypes in dtypes: NumPy's own are two or three deep
_OBJECT_FLAGS = 27  # that NumPy has for objects: they are counted, kept in a list, begun, and need Python
_COUNTED = 3  # of these, what numbers never have


def is_dtype(value: Any) -> bool:
    """Whether `value` is a dtype that a call made."""
    return (
        isinstance(value, Made)
        and isinstance(value.of, Ref)
        and (value.of.module == "numpy.dtypes" or is_ref(value.of, *_CLASSES))
    )


def sound_state(target: Made, state: Any) -> bool:
    """Whether the first state of a dtype is true: `(version, order, base, names, fields, size, alignment, flags)`.

    NumPy believes it (`arraydescr_setstate`): what a field calls an object is taken for an address.
    """
    if target.states or not isinstance(state, tuple) or len(state) < 5:
        return False
    if len(state) < 8:  # of NumPy before 1.0, which had other places for them
        return not any(isinstance(item, dict | Made) for item in state) and state[2] is None
    base, names, fields, size = state[2:6]
    flags = state[7]
    own = ("V", size) if target.args and is_ref(target.args[0], *_RECORDS) else dtype_of(target)
    if not isinstance(size, int) or not isinstance(flags, int) or any(isinstance(item, Made) for item in target.args):
        return False  # a dtype of a dtype is that dtype, whose state was put in before
    if own is not None and size not in {-1, own[1]}:
        return False
    if base is None and not names and not fields:
        return flags & _OBJECT_FLAGS == _OBJECT_FLAGS if own is not None and own[0] == "O" else not flags & _COUNTED
    if own is None or own[0] != "V":
        return False
    objects = False
    for part, offset, count in _parts(base, fields):
        found = dtype_of(part)
        if found is None or not isinstance(offset, int) or offset < 0 or offset + found[1] * count > size:
            return False
        objects = objects or found[0] == "O"
    return flags & _OBJECT_FLAGS == _OBJECT_FLAGS if objects else not flags & _COUNTED


def _parts(base: Any, fields: Any) -> list[tuple[Any, Any, int]]:
    """The dtypes in a dtype, where they stand and how many there are; None for what cannot be told."""
    unknown = [(None, None, 1)]
    parts: list[tuple[Any, Any, int]] = []
    if fields is not None:
        if not isinstance(fields, dict) or len(fields) >= ITEMS_MAX:
            return unknown
        for item in fields.values():
            if not isinstance(item, tuple) or len(item) not in {2, 3}:
                return unknown
            parts.append((item[0], item[1], 1))
    if base is not None:
        if not isinstance(base, tuple) or len(base) != 2:
            return unknown
        shape = base[1] if isinstance(base[1], tuple) else (base[1],)
        if not all(isinstance(item, int) and item >= 0 for item in shape):
            return unknown
        parts.append((base[0], 0, prod(shape)))
    return parts


def dtype_of(value: Any) -> tuple[str, int] | None:
    """Kind and bytes of one number of a NumPy dtype as a pickle writes it; None if it cannot be told."""
    return _told(value, {}, 0)


def _told(value: Any, known: dict[int, tuple[str, int] | None], depth: int) -> tuple[str, int] | None:
    """`dtype_of`, with what is known of dtypes by their ids: one may be the field of many, on every level."""
    if not isinstance(value, Made) or not is_ref(value.of, ("numpy", "dtype")) or not value.args:
        return None
    if depth > _DEPTH_MAX:
        return None
    if id(value) not in known:
        known[id(value)] = _looked_at(value, known, depth)
    return known[id(value)]


def _looked_at(value: Made, known: dict[int, tuple[str, int] | None], depth: int) -> tuple[str, int] | None:
    code = value.args[0]
    found = re.fullmatch(r"([?bBiufcmMOSUV])(\d{0,9})", code) if isinstance(code, str) else None
    if found is None:
        return None
    kind, size = found.group(1), int(found.group(2) or "1")
    state = value.states[0] if value.states and isinstance(value.states[0], tuple) else ()
    if kind == "V" and _holds_objects(state, known, depth + 1):
        return "O", size
    return kind, size * 4 if kind == "U" else size


def _holds_objects(state: tuple[Any, ...], known: dict[int, tuple[str, int] | None], depth: int) -> bool:
    """Whether fields of a structured dtype hold objects: then its numbers are pickles."""
    fields = next((item for item in state if isinstance(item, dict)), None)
    if isinstance(fields, Mapping):
        for field in fields.values():
            inner = field[0] if isinstance(field, tuple) and field else field
            found = _told(inner, known, depth)
            if found is None or found[0] == "O":
                return True
    if len(state) > 2 and isinstance(state[2], tuple) and state[2]:
        found = _told(state[2][0], known, depth)
        if found is None or found[0] == "O":
            return True
    flags = state[7] if len(state) >= 8 else 0
    return isinstance(flags, int) and bool(flags & 1)  # NPY_ITEM_REFCOUNT
