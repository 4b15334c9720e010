"""A request's JSON → the arrays that the model takes, or a problem that names the field at fault.

Strict: only the names, types and shapes that the model declares; every number finite in the model's own precision.
"""

import math
import re
import struct
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import chain
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.gate.problems import Problem
from palladion.model.run import STRING, Port

Feeds = dict[str, NDArray[Any]]

WORDS_CHARACTERS_MAX = 200  # of what a problem repeats: a name that the client chose can be as long as the body
DOUBLE_BYTES = 8
SQUARED_MAX = 4096  # numbers up to which BLAS sums their squares without waking threads of its own
INTEGER_MAX = 2**53 - 1  # 2^53 + 1 is 2^53 in double precision
INEXACT = "an integer is not between -2^53 and 2^53, where double precision tells integers apart"
# Formats of `struct`, which writes a list in a quarter of NumPy's time, with the same rounding.
_PACKED: Mapping[str, str] = {"float32": "f", "float64": "d", "int32": "i", "int64": "q"}


class InputDecoder:
    """Decodes `{"inputs": …}`: an object by input name, or for a model with one input its array alone."""

    def __init__(self, ports: Sequence[Port], *, rows_max: int) -> None:
        """Raises ValueError for a model that no request can be written for: an input without rows."""
        scalars = [port.name for port in ports if not port.shape]
        if not ports or scalars:
            raise ValueError(f"inputs {scalars or 'none'} have no rows")
        self._rows_max = rows_max
        single = len(ports) == 1
        self._inputs = [_Input(port, "inputs" if single else f"inputs.{port.name}") for port in ports]
        kind: Any = _json_type(ports[0])
        if not single:
            fields = [(f"input_{index}", _json_type(port)) for index, port in enumerate(ports)]
            names = {f"input_{index}": port.name for index, port in enumerate(ports)}
            kind = msgspec.defstruct("Inputs", fields, rename=names, forbid_unknown_fields=True)
        self._single = single
        self._decoder = msgspec.json.Decoder(
            msgspec.defstruct("Request", [("inputs", kind)], forbid_unknown_fields=True)
        )

    def decode(self, body: bytes) -> tuple[Feeds, int]:
        """Arrays by input name and the number of rows. Raises Problem."""
        try:
            request: Any = self._decoder.decode(body)
        except msgspec.ValidationError as error:
            raise _located(str(error)) from None
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise Problem("bad-request", f"the body is not JSON: {error}") from None
        if self._single:
            values = [request.inputs]
        else:
            values = [getattr(request.inputs, f"input_{index}") for index in range(len(self._inputs))]
        rows, first = len(values[0]), self._inputs[0].field
        if not 1 <= rows <= self._rows_max:
            raise Problem("bad-input", f"{rows} rows, expected 1 to {self._rows_max}", field=first)
        feeds = {}
        for item, value in zip(self._inputs, values, strict=True):
            if len(value) != rows:
                raise Problem("bad-input", f"{len(value)} rows, expected {rows} as in {first}", field=item.field)
            feeds[item.port.name] = item.read(value)
        return feeds, rows


class _Input:
    """What one input has to be. `field` is what a problem calls it."""

    def __init__(self, port: Port, field: str) -> None:
        self.port = port
        self.field = field
        self._sizes = [size if isinstance(size, int) else None for size in port.shape]

    def read(self, value: Any) -> NDArray[Any]:
        """The array of lists in lists. Raises Problem."""
        array = packed(value, self.port.dtype, len(self._sizes))
        if array is None or not self._fits(array) or not is_finite(array):
            return self._read(value)  # which finds what is wrong, if anything
        return array

    def _fits(self, array: NDArray[Any]) -> bool:
        shape = array.shape
        if len(shape) != len(self._sizes):
            return False
        return all(want is None or want == got for want, got in zip(self._sizes, shape, strict=True))

    def _read(self, value: Any) -> NDArray[Any]:
        port, field = self.port, self.field
        try:
            with np.errstate(over="ignore"):
                array = np.array(value, object if port.dtype == STRING else np.dtype(port.dtype))
        except (ValueError, OverflowError) as error:
            # NumPy's own words for a ragged list are long; what is too large it says in one clause
            ragged = "inhomogeneous" in str(error)
            sentence = "its rows do not have the same shape" if ragged else f"a number does not fit {port.dtype}"
            raise Problem("bad-input", sentence, field=field) from None
        if not self._fits(array):
            shown = "×".join(str(size if size is not None else "any") for size in self._sizes)
            got = "×".join(map(str, array.shape))
            raise Problem("bad-input", f"its shape is {got}, expected {shown}", field=field)
        if not is_finite(array):
            place = "][".join(map(str, np.argwhere(~np.isfinite(array))[0]))
            raise Problem("bad-input", f"a number does not fit {port.dtype}", field=f"{field}[{place}]")
        return array


def verify_exact(feeds: Feeds) -> None:
    """Raise Problem for an integer that a double cannot tell from its neighbours: the watch would take it for them."""
    for name, array in feeds.items():
        if array.dtype.kind not in "iu":
            continue
        is_long = array.dtype.itemsize == DOUBLE_BYTES and array.size > 0
        if is_long and max(int(array.max()), -int(array.min())) > INTEGER_MAX:
            field = "inputs" if len(feeds) == 1 else f"inputs.{name}"
            raise Problem("bad-input", INEXACT, field=field)


def numbers(feeds: Feeds, rows: int) -> NDArray[np.float64]:
    """All numeric inputs of each row, side by side (rows, inputs): what the watch looks at. Texts are left out."""
    if len(feeds) == 1:
        (array,) = feeds.values()
        if is_numeric(array):
            return array.reshape(rows, -1).astype(np.float64)
    columns = [array.reshape(rows, -1) for array in feeds.values() if is_numeric(array)]
    return np.concatenate(columns, axis=1).astype(np.float64) if columns else np.zeros((rows, 0))


def is_numeric(array: NDArray[Any]) -> bool:
    """Whether an input holds numbers, and no texts."""
    return array.dtype.kind in "biuf"


def is_finite(array: NDArray[Any]) -> bool:
    """Whether no number of an array is infinite, or none at all."""
    if array.dtype.kind != "f":
        return True
    if array.size <= SQUARED_MAX and math.isfinite(np.vdot(array, array)):
        return True  # a sum of squares is finite only if all are; it can overflow, too
    # the methods `all` and `reduce` take twice the time
    return bool(np.count_nonzero(np.isfinite(array)) == array.size)


def packed(values: Sequence[Any], dtype: str, rank: int) -> NDArray[Any] | None:
    """`np.array(values, dtype)` of lists in lists of `rank`, where their numbers fit and they are alike; None else.

    The caller knows that they are numbers of the kind that `dtype` holds.
    """
    if dtype not in _PACKED:
        return None
    shape = [len(values)]
    for _ in range(rank - 1):
        sizes = set(map(len, values))
        if len(sizes) != 1:
            return None
        shape.append(sizes.pop())
        values = values[0] if len(values) == 1 else list(chain.from_iterable(values))
    return packed_flat(values, dtype, shape)


def packed_flat(values: Sequence[Any], dtype: str, shape: Sequence[int]) -> NDArray[Any] | None:
    """The same of one list of as many numbers as `shape` has."""
    code = _PACKED.get(dtype)
    if code is None:
        return None
    array = np.empty(shape, dtype)
    try:
        _writer(len(values), code).pack_into(array.data, 0, *values)
    except (struct.error, OverflowError):
        return None
    return array


@lru_cache(maxsize=256)  # clients may send any number of rows
def _writer(count: int, code: str) -> struct.Struct:
    return struct.Struct(f"{count}{code}")


def _json_type(port: Port) -> Any:
    kind: Any = str if port.dtype == STRING else bool if port.dtype == "bool" else float
    if port.dtype.lstrip("u").startswith("int"):
        kind = int
    for _ in port.shape:
        kind = list[kind]
    return kind


def _located(message: str) -> Problem:
    reason, _, path = message.partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    if named := re.search(r" field `(.*)`", reason, re.DOTALL):
        field = f"{field}.{named[1]}".lstrip(".")
    reason = reason.replace("`", "")[:WORDS_CHARACTERS_MAX]
    return Problem("bad-input", f"{reason[0].lower()}{reason[1:]}", field=field[:WORDS_CHARACTERS_MAX])
