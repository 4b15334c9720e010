"""Rows that exist nowhere: made of the columns of a data set, mixed into a copy of it, and kept as a decoy."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from palladion import files
from palladion.errors import FormatError, StorageError
from palladion.ledger.writer import Receipt
from palladion.lifecycle.decoys import FILE_BYTES_MAX, add_decoy_rows
from palladion.lifecycle.installation import Installation
from palladion.registry import Decoy

TOLERANCE = 1e-3  # as `palladion decoy add input` has it unless told otherwise
TRIES_MAX = 100  # for each row; in a table of few different values all mixtures may exist
ROWS_MIN = 10


@dataclass(frozen=True)
class _Table:
    """Numbers (rows, columns), the lines that they came from, and what separates a line."""

    numbers: NDArray[np.float64]
    header: list[str]
    lines: list[str]
    target: int | None

    @property
    def inputs(self) -> NDArray[np.float64]:
        """The columns that a model is asked (rows, inputs)."""
        return self.numbers if self.target is None else np.delete(self.numbers, self.target, axis=1)


def plant_rows(
    installation: Installation,
    model: str,
    into: Path,
    out: Path,
    *,
    label: str,
    count: int,
    target: str | None,
    actor: str,
    generator: np.random.Generator | None = None,
) -> tuple[Decoy, Receipt]:
    """Write a copy of the data set `into` with `count` new rows to the new file `out`, and keep these as a decoy.

    Each number of a new row is of its column, from a row drawn at random; no new row is one of the data set. Raises
    FormatError on a table that cannot be read or whose mixtures all exist, StorageError if `out` exists, and what
    `add_decoy_rows` raises.
    """
    if out.exists():
        raise StorageError(f"{out} exists already", "name a new file: nothing is overwritten")
    # a secret: whoever could repeat the draw could take the rows out again
    generator = generator or np.random.default_rng()
    is_array = into.suffix == ".npy"
    table = _read_array(into, target) if is_array else _read_csv(into, target)
    made = _mixed(table.numbers, count, generator)
    places = np.sort(generator.integers(0, len(table.numbers) + 1, size=count))
    inputs = made if table.target is None else np.delete(made, table.target, axis=1)
    decoy = add_decoy_rows(installation, model, inputs, label=label, tolerance=TOLERANCE, one_unit=False, actor=actor)
    if is_array:
        buffer = io.BytesIO()
        whole = np.insert(np.load(into, allow_pickle=False), places, made, axis=0)
        np.save(buffer, whole, allow_pickle=False)
        data = buffer.getvalue()
    else:
        data = _csv(table, made, places)
    with files.atomic_writer(out, replace=False) as stream:
        stream.write(data)
    return decoy


def _mixed(numbers: NDArray[np.float64], count: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """`count` rows (count, columns) of which none is in `numbers` (rows, columns), each column drawn for itself."""
    rows, columns = numbers.shape
    if rows < ROWS_MIN:
        raise FormatError(f"a data set of {rows} rows, at least {ROWS_MIN} were expected to make others of")
    known = {row.tobytes() for row in np.ascontiguousarray(numbers)}
    found: list[NDArray[np.float64]] = []
    for _ in range(TRIES_MAX * count):
        drawn = numbers[generator.integers(0, rows, size=columns), np.arange(columns)]
        if drawn.tobytes() not in known:
            known.add(drawn.tobytes())
            found.append(drawn)
        if len(found) == count:
            return np.stack(found)
    raise FormatError(
        f"the data set gives only {len(found)} rows that are not in it", "it has too few different values"
    )


def _read_array(path: Path, target: str | None) -> _Table:
    data = files.read_limited(path, size_max=FILE_BYTES_MAX, what="the data set")
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(f"{path} is no array: {error}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiub":
        raise FormatError(f"{path} is no table of numbers", "an array (rows, columns) was expected")
    return _Table(array.astype(np.float64), [], [], _column(target, [], array.shape[1]))


def _read_csv(path: Path, target: str | None) -> _Table:
    data = files.read_limited(path, size_max=FILE_BYTES_MAX, what="the data set")
    try:
        lines = [line for line in data.decode("utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise FormatError(f"{path} is not UTF-8 text") from None
    header = [] if not lines or _is_numbers(lines[0]) else [name.strip() for name in lines[0].split(",")]
    body = lines[1:] if header else lines
    try:
        numbers = np.array([[float(text) for text in line.split(",")] for line in body], np.float64)
    except ValueError:
        raise FormatError(f"{path} is not a table of numbers with commas", "every row needs as many") from None
    if numbers.ndim != 2:
        raise FormatError(f"{path} holds no rows")
    return _Table(numbers, lines[:1] if header else [], body, _column(target, header, numbers.shape[1]))


def _csv(table: _Table, made: NDArray[np.float64], places: NDArray[np.int64]) -> bytes:
    """The lines as they were, with the new ones among them, whose numbers are written as in the column."""
    written = {
        column: {float(line.split(",")[column]): line.split(",")[column] for line in table.lines}
        for column in range(made.shape[1])
    }
    lines = list(table.lines)
    for place, row in sorted(zip(places.tolist(), made.tolist(), strict=True), key=lambda item: -item[0]):
        lines.insert(place, ",".join(written[column][value] for column, value in enumerate(row)))
    return ("\n".join([*table.header, *lines]) + "\n").encode()


def _column(target: str | None, header: list[str], width: int) -> int | None:
    if target is None:
        return None
    if target in header:
        return header.index(target)
    if target.isascii() and target.isdecimal() and 1 <= int(target) <= width:
        return int(target) - 1
    raise FormatError(f"no column {target!r}, a name or a number from 1 to {width} was expected")


def _is_numbers(line: str) -> bool:
    try:
        return bool([float(text) for text in line.split(",")])
    except ValueError:
        return False
