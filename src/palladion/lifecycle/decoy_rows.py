"""Rows that exist nowhere: made between neighbours of a data set, mixed into a copy of it, and kept as a decoy.

A row is begun from one row and its near neighbours, so that columns which go together still do. A number that many rows
have is one of theirs; one that is its row's alone, as measured numbers are, is a new one between two of them: else the
rows in which no number is new would be the decoys. None lies so near to a row of the data that asking that is a touch.
"""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
NEIGHBOURS = 6
NEIGHBOURS_OF = 20_000  # rows among which neighbours are looked for
_APART = 2.0  # tolerances between a new row and every row of the data, in one number at least
_SHARED = 2  # so many rows have a number of a column that takes few values


@dataclass(frozen=True)
class _Table:
    """Numbers (rows, columns), and the lines that they came from, or the type of the array."""

    numbers: NDArray[np.float64]
    header: list[str]
    lines: list[str]
    target: int | None
    dtype: np.dtype[Any] | None = None  # of an array

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
    made, texts = _mixed(table, count, generator)
    places = np.sort(generator.integers(0, len(table.numbers) + 1, size=count))
    inputs = made if table.target is None else np.delete(made, table.target, axis=1)
    decoy = add_decoy_rows(installation, model, inputs, label=label, tolerance=TOLERANCE, one_unit=False, actor=actor)
    if is_array:
        buffer = io.BytesIO()
        whole = np.insert(np.load(into, allow_pickle=False), places, made, axis=0)
        np.save(buffer, whole, allow_pickle=False)
        data = buffer.getvalue()
    else:
        data = _csv(table, texts, places)
    with files.atomic_writer(out, replace=False) as stream:
        stream.write(data)
    return decoy


def _mixed(table: _Table, count: int, generator: np.random.Generator) -> tuple[NDArray[np.float64], list[list[str]]]:
    """`count` rows (count, columns) that are not in a table, and how their numbers are written."""
    numbers = table.numbers
    rows, columns = numbers.shape
    if rows < ROWS_MIN:
        raise FormatError(f"a data set of {rows} rows, at least {ROWS_MIN} were expected to make others of")
    column = [
        _Values(numbers[:, index], [line.split(",")[index] for line in table.lines], table.dtype)
        for index in range(columns)
    ]
    spread = numbers.std(axis=0)
    scaled = numbers / np.where(spread > 0, spread, 1.0)
    pool = generator.permutation(rows)[:NEIGHBOURS_OF]
    slack = np.abs(table.inputs).max(axis=0) * TOLERANCE * _APART
    found: list[NDArray[np.float64]] = []
    written: list[list[str]] = []
    for _ in range(TRIES_MAX * count):
        seed = int(generator.integers(rows))
        near = pool[np.argsort(((scaled[pool] - scaled[seed]) ** 2).sum(axis=1))[: NEIGHBOURS + 1]]
        near = near[near != seed]
        drawn = [one.between(seed, int(generator.choice(near)), generator) for one in column]
        row = np.array([number for number, _ in drawn])
        asked = row if table.target is None else np.delete(row, table.target)
        known = [*found] if table.target is None else [np.delete(one, table.target) for one in found]
        others = np.concatenate([table.inputs, np.array(known)]) if known else table.inputs
        if not (np.abs(others - asked) <= slack).all(axis=1).any():
            found.append(row)
            written.append([text for _, text in drawn])
        if len(found) == count:
            return np.stack(found), written
    raise FormatError(
        f"the data set gives only {len(found)} rows that are not in it", "it has too few different values"
    )


class _Values:
    """A column of a table: its numbers, and how they are written where they come from lines."""

    def __init__(self, numbers: NDArray[np.float64], texts: list[str], dtype: np.dtype[Any] | None) -> None:
        self._numbers, self._texts, self._dtype = numbers, texts, dtype
        _, place, counts = np.unique(numbers, return_inverse=True, return_counts=True)
        self._alone = counts[place] < _SHARED
        self._low, self._high = float(numbers.min()), float(numbers.max())

    def between(self, one: int, other: int, generator: np.random.Generator) -> tuple[float, str]:
        """A number that rows `one` and `other` could have, and how it is written."""
        own = one if generator.random() < 0.5 else other
        text = self._texts[own].strip() if self._texts else ""
        low, high = float(self._numbers[one]), float(self._numbers[other])
        if not (self._alone[one] and self._alone[other]) or low == high:
            return float(self._numbers[own]), text
        # a little beyond either, too: what always lies between two neighbours could be looked for
        number = low + (high - low) * float(generator.uniform(-0.25, 1.25))
        number = min(max(number, self._low), self._high)
        if self._dtype is not None:
            number = round(number) if self._dtype.kind in "iub" else number
            return float(np.array(number, self._dtype)), ""
        text = _written_as(number, text)
        return float(text), text


def _written_as(number: float, text: str) -> str:
    """A number with as many digits as `text` has."""
    digits, marker, _ = text.lower().partition("e")
    places = len(digits.partition(".")[2])
    return f"{number:.{places}{'e' if marker else 'f'}}"


def _read_array(path: Path, target: str | None) -> _Table:
    data = files.read_limited(path, size_max=FILE_BYTES_MAX, what="the data set")
    try:
        array = np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise FormatError(f"{path} is no array: {error}") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind not in "fiub":
        raise FormatError(f"{path} is no table of numbers", "an array (rows, columns) was expected")
    return _Table(array.astype(np.float64), [], [], _column(target, [], array.shape[1]), array.dtype)


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


def _csv(table: _Table, texts: list[list[str]], places: NDArray[np.int64]) -> bytes:
    """The lines as they were, with the new ones among them."""
    lines = list(table.lines)
    for place, row in sorted(zip(places.tolist(), texts, strict=True), key=lambda item: -item[0]):
        lines.insert(place, ",".join(row))
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
