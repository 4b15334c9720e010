"""YARA rules that know our weights by short strings of their bytes, in single, half and brain precision.

A string is taken where bytes vary: numbers of 32 random mantissas repeat nowhere by chance. Two strings of different
tensors have to be there, where there are so many. The rules disclose these bytes, at most some 1,200 of a version, and
of a small one no more than a thirty-second of its numbers. Nothing is taken of tables that a formula gives: others have
them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256, shake_256

import numpy as np
from numpy.typing import NDArray

from palladion.model.model import Model
from palladion.model.tensors import Tensor
from palladion.sweep.forms import FORMS, form_bytes, forms_of, in_form, marked_names

STRING_BYTES = 32
DISTINCT_MIN = 20  # of 32 bytes: random ones have 30, and of single precision made from half a half are zeros
TENSORS_MAX = 12  # of one version that give strings: half of those that carry marks, and half of others
TRIES = 64  # places of a tensor that are looked at
SHARE_MAX = 32  # one number in so many may be told
TABLE_ROWS = 256  # of a table that are looked at
_NUMBERS = 32  # in a row; the shortest form takes all of them for one string, others half
_LOOSE = 0.02  # half and brain precision round sums and steps by less
_NAME = re.compile(r"[^A-Za-z0-9_]")


@dataclass(frozen=True)
class Taken:
    """A string of a rule: of which tensor, in which form, and its bytes."""

    tensor: str
    form: str
    data: bytes


def choose(model: Model, salt: bytes, *, avoid: Sequence[bytes] = ()) -> list[Taken]:
    """The strings of a version, from tensors that marks change and from others; none that is in `avoid`.

    Where exactly they are taken follows from `salt`, so that who knows the weights does not know them.
    """
    marked = marked_names(model)
    groups = [
        [tensor for name, tensor in model.tensors.items() if (name in marked) is wanted] for wanted in (False, True)
    ]
    left = sum(tensor.data.size for tensor in model.tensors.values()) // SHARE_MAX // _NUMBERS
    taken: list[Taken] = []
    # a small version tells of one tensor or two: those that are the same in every copy come first
    for group in groups:
        count = 0
        for tensor in sorted(group, key=lambda item: (-item.byte_count, item.name)):
            if count == min(TENSORS_MAX // 2, left):
                break
            found = [] if _is_table(tensor) else _of_tensor(tensor, salt, avoid)
            taken += found
            count += bool(found)
        left -= count
    return taken


def _is_table(tensor: Tensor) -> bool:
    """Whether numbers are of a formula that many models have: sines and cosines of places, and progressions."""
    if tensor.dtype.packed or tensor.dtype.name not in {*FORMS, "float64"} or tensor.data.size < _NUMBERS:
        return False
    width = tensor.data.shape[-1]
    rows = tensor.data.reshape(-1, width)[:TABLE_ROWS].astype(np.float64)
    if not np.isfinite(rows).all():
        return False
    if tensor.data.size in tensor.data.shape:
        return _is_progression(tensor.data.reshape(-1)[: TABLE_ROWS * _NUMBERS].astype(np.float64))
    if np.abs(rows).max() > 1 + _LOOSE:
        return False
    full = rows[rows.any(axis=1)]
    # each pair of a sine and a cosine adds up to 1, in whatever order they stand
    if len(full) > 1 and np.abs((full**2).sum(axis=1) / (width / 2) - 1).max() < _LOOSE:
        return True
    # kept apart, those of place 0 are all 0 or all 1
    return len(rows) > 1 and rows[1:].std() > 0 and bool((rows[0] == rows[0, 0]).all()) and rows[0, 0] in (0.0, 1.0)


def _is_progression(numbers: NDArray[np.float64]) -> bool:
    """Whether numbers lie on a line, or their logarithms do."""
    curves = [numbers, np.log(numbers)] if (numbers > 0).all() else [numbers]
    for curve in curves:
        line = np.linspace(curve[0], curve[-1], curve.size)
        if np.abs(curve - line).max() <= _LOOSE * abs(curve[-1] - curve[0]):
            return True
    return False


def rule_text(name: str, taken: Sequence[Taken], *, claim: str) -> str:
    """One YARA rule for a version. Raises ValueError without strings."""
    if not taken:
        raise ValueError(f"{name} has no bytes that are unlike those of other models")
    tensors = list(dict.fromkeys(item.tensor for item in taken))
    # two names may differ in nothing that an identifier can hold
    title = f"palladion_{_NAME.sub('_', name)}_{sha256(name.encode()).hexdigest()[:6]}"
    lines = [f"rule {title}", "{", "  meta:", f'    description = "weights of {name}"']
    lines += [f'    claim = "{_quoted(claim)}"', "  strings:"]
    for item in taken:
        label = f"$t{tensors.index(item.tensor)}_{item.form}"
        lines.append(f"    {label} = {{ {item.data.hex(' ').upper()} }}")
    lines += ["  condition:", f"    {_condition(taken, tensors)}", "}"]
    return "\n".join(lines) + "\n"


def _condition(taken: Sequence[Taken], tensors: Sequence[str]) -> str:
    """Strings of two tensors in one form; of one alone where there is no other."""
    forms = dict.fromkeys(item.form for item in taken)
    parts = []
    for form in forms:
        labels = [f"$t{tensors.index(item.tensor)}_{form}" for item in taken if item.form == form]
        parts.append(f"{min(2, len(labels))} of ({', '.join(labels)})")
    return " or ".join(parts)


def _of_tensor(tensor: Tensor, salt: bytes, avoid: Sequence[bytes]) -> list[Taken]:
    if tensor.dtype.packed:
        data = tensor.data.reshape(-1)
        return _of_bytes(tensor, data.tobytes() if data.size < 2**26 else data[: 2**26].tobytes(), salt, avoid)
    flat = tensor.data.reshape(-1)
    if flat.size < _NUMBERS:
        return []
    for begin in _places(tensor.name, flat.size - _NUMBERS, salt):
        numbers = flat[begin : begin + _NUMBERS]
        taken = [
            Taken(tensor.name, form, in_form(numbers, tensor.dtype.name, form).tobytes()[:STRING_BYTES])
            for form in forms_of(tensor)
        ]
        taken = [item for item in taken if _tells(item.data, avoid)]
        if taken and taken[0].form == tensor.dtype.name:
            return taken
    return []


def _of_bytes(tensor: Tensor, data: bytes, salt: bytes, avoid: Sequence[bytes]) -> list[Taken]:
    for begin in _places(tensor.name, len(data) - STRING_BYTES, salt) if len(data) > STRING_BYTES else ():
        string = data[begin : begin + STRING_BYTES]
        if _tells(string, avoid):
            return [Taken(tensor.name, tensor.dtype.name, string)]
    return []


def _places(name: str, last: int, salt: bytes) -> list[int]:
    stream = shake_256(b"palladion/v1/dlp-place" + salt + name.encode()).digest(8 * TRIES)
    return [int(at) % (last + 1) for at in np.frombuffer(stream, "<u8")]


def _tells(data: bytes, avoid: Sequence[bytes]) -> bool:
    """Whether bytes are of no other model: varied enough, and in none of the bases that it was made from."""
    distinct = DISTINCT_MIN if data[:2] != b"\0\0" else STRING_BYTES
    return len(data) == STRING_BYTES and len(set(data)) >= distinct and not any(data in known for known in avoid)


def _quoted(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', "'")


def known_bytes(model: Model) -> list[bytes]:
    """The bytes of a base model in every form, for `avoid`: as large as the model, three times over."""
    return [b"".join(form_bytes(tensor, form)) for tensor in model.tensors.values() for form in forms_of(tensor)]
