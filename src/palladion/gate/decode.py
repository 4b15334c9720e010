"""A request's JSON → the arrays that the model takes, or a problem that names the field at fault.

Strict: only the names, types and shapes that the model declares; every number finite in the model's own precision.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.gate.problems import Problem
from palladion.model.run import STRING, Port

Feeds = dict[str, NDArray[Any]]

WORDS_CHARACTERS_MAX = 200  # of what a problem repeats: a name that the client chose can be as long as the body


class InputDecoder:
    """Decodes `{"inputs": …}`: an object by input name, or for a model with one input its array alone."""

    def __init__(self, ports: Sequence[Port], *, rows_max: int) -> None:
        """Raises ValueError for a model that no request can be written for: an input without rows."""
        scalars = [port.name for port in ports if not port.shape]
        if not ports or scalars:
            raise ValueError(f"inputs {scalars or 'none'} have no rows")
        self._ports = tuple(ports)
        self._rows_max = rows_max
        single = len(ports) == 1
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
            values = [getattr(request.inputs, f"input_{index}") for index in range(len(self._ports))]
        fields = ["inputs"] if self._single else [f"inputs.{port.name}" for port in self._ports]
        rows = len(values[0])
        if not 1 <= rows <= self._rows_max:
            raise Problem("bad-input", f"{rows} rows, expected 1 to {self._rows_max}", field=fields[0])
        feeds = {}
        for port, value, field in zip(self._ports, values, fields, strict=True):
            if len(value) != rows:
                raise Problem("bad-input", f"{len(value)} rows, expected {rows} as in {fields[0]}", field=field)
            feeds[port.name] = _array(port, value, field)
        return feeds, rows


def numbers(feeds: Feeds, rows: int) -> NDArray[np.float64]:
    """All numeric inputs of each row, side by side (rows, inputs): what the watch looks at. Texts are left out."""
    columns = [array.reshape(rows, -1) for array in feeds.values() if is_numeric(array)]
    return np.concatenate(columns, axis=1).astype(np.float64) if columns else np.zeros((rows, 0))


def is_numeric(array: NDArray[Any]) -> bool:
    """Whether an input holds numbers, and no texts."""
    return array.dtype.kind in "biuf"


def _json_type(port: Port) -> Any:
    kind: Any = str if port.dtype == STRING else bool if port.dtype == "bool" else float
    if port.dtype.lstrip("u").startswith("int"):
        kind = int
    for _ in port.shape:
        kind = list[kind]
    return kind


def _array(port: Port, value: Any, field: str) -> NDArray[Any]:
    dtype = object if port.dtype == STRING else np.dtype(port.dtype)
    try:
        with np.errstate(over="ignore"):
            array = np.array(value, dtype)
    except (ValueError, OverflowError) as error:
        # NumPy's own words for a ragged list are long; what is too large it says in one clause
        ragged = "inhomogeneous" in str(error)
        raise Problem(
            "bad-input",
            "its rows do not have the same shape" if ragged else f"a number does not fit {port.dtype}",
            field=field,
        ) from None
    expected = [size if isinstance(size, int) else None for size in port.shape]
    if array.ndim != len(expected) or any(w not in {None, g} for w, g in zip(expected, array.shape, strict=True)):
        shown = "×".join(str(size if size is not None else "any") for size in expected)
        got = "×".join(map(str, array.shape))
        raise Problem("bad-input", f"its shape is {got}, expected {shown}", field=field)
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        place = "][".join(map(str, np.argwhere(~np.isfinite(array))[0]))
        raise Problem("bad-input", f"a number does not fit {port.dtype}", field=f"{field}[{place}]")
    return array


def _located(message: str) -> Problem:
    reason, _, path = message.partition(" - at `$")
    field = path.rstrip("`").lstrip(".")
    if named := re.search(r" field `(.*)`", reason, re.DOTALL):
        field = f"{field}.{named[1]}".lstrip(".")
    reason = reason.replace("`", "")[:WORDS_CHARACTERS_MAX]
    return Problem("bad-input", f"{reason[0].lower()}{reason[1:]}", field=field[:WORDS_CHARACTERS_MAX])
