"""Protocol Buffers on the wire, read only: a message is a view into the file, checked against a table of its fields.

Source: protobuf.dev/programming-guides/encoding. Stricter than the reference on purpose: an unknown field, a wrong
wire type, a singular field given twice (which the reference merges) or a group is refused, because what we digest must
be what the runtime executes. Long runs of numbers become NumPy views or are decoded in bounded chunks; nothing is
allocated because a length claims it.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.model.wire_rows import CHUNK_BYTES, VARINT_BYTES_MAX, decode_varints, fixed_run, varint_run

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

OBJECTS_MAX = 3_000_000  # messages, texts and runs in one file: an unrolled graph of 100 000 nodes has 2 million


@dataclass(frozen=True)
class Field:
    """A field of a message: its name, the wire type of one value, and whether it may occur more than once."""

    name: str
    wire: int
    repeated: bool = False


class Schema:
    """A message type: its name and its fields by number."""

    def __init__(self, name: str, fields: Mapping[int, Field]) -> None:
        if any(number > 15 and field.repeated and field.wire != BYTES for number, field in fields.items()):
            raise ValueError("runs of numbers are found by their one-byte tag")
        self.name = name
        self.fields = dict(fields)
        self.numbers = {field.name: number for number, field in fields.items()}


class Budget:
    """How many objects one file may still make us build; each costs a few hundred bytes however short it is."""

    def __init__(self, objects: int = OBJECTS_MAX) -> None:
        self._total = objects
        self._left = objects

    def spend(self) -> None:
        """Count one. Raises FormatError when the file has had its share."""
        self._left -= 1
        if self._left < 0:
            raise FormatError(f"the file is made of more than {self._total} parts, the most that is read")


class _Run(NamedTuple):
    """Where `values` values of one field lie: bare (packed or singular, and then not counted), or each with its tag."""

    start: int
    stop: int
    values: int
    bare: bool


class Message:
    """One message, scanned once: every byte of `view` belongs to a known field. Values are decoded when asked for.

    `where` names it in errors.
    """

    __slots__ = ("_budget", "_runs", "_view", "schema", "where")

    def __init__(self, view: memoryview, schema: Schema, where: str, budget: Budget) -> None:
        budget.spend()
        self._view = view
        self._budget = budget
        self._runs: dict[int, list[_Run]] = {}
        self.schema = schema
        self.where = where
        position = 0
        while position < len(view):
            position = self._scan_field(position)

    def has(self, name: str) -> bool:
        """Whether the field occurs."""
        return self.schema.numbers[name] in self._runs

    def integer(self, name: str) -> int:
        """A singular int64, or 0 where it is absent."""
        run = self._single(name)
        value = 0 if run is None else self._varint(run.start)[0]
        return value - 2**64 if value >= 2**63 else value

    def float32(self, name: str) -> np.float32:
        """A singular float, bit for bit, or 0 where it is absent."""
        run = self._single(name)
        return np.float32(0) if run is None else np.frombuffer(self._view[run.start : run.stop], "<f4")[0]

    def blob(self, name: str) -> memoryview:
        """A singular bytes field, or nothing where it is absent."""
        run = self._single(name)
        return self._view[:0] if run is None else self._view[run.start : run.stop]

    def text(self, name: str) -> str:
        """A singular string, or the empty one where it is absent. Raises FormatError unless it is UTF-8."""
        return self._decode(self.blob(name), name)

    def texts(self, name: str) -> tuple[str, ...]:
        """A repeated string."""
        return tuple(self._decode(item, name) for item in self.items(name))

    def message(self, name: str, schema: Schema, where: str) -> "Message":
        """A singular message, or the empty one where it is absent."""
        return Message(self.blob(name), schema, where, self._budget)

    def messages(self, name: str, schema: Schema, where: str) -> Iterator["Message"]:
        """A repeated message; `where` gets its index."""
        for index, item in enumerate(self.items(name)):
            yield Message(item, schema, f"{where}[{index}]", self._budget)

    def items(self, name: str) -> Iterator[memoryview]:
        """A repeated field of bytes, strings or messages, one view at a time."""
        view = self._view
        for run in self._runs.get(self.schema.numbers[name], ()):
            position = run.start
            while position < run.stop:
                body = position + 1 if view[position] < 0x80 else self._varint(position)[1]
                start, position = (body + 1, body + 1 + view[body]) if view[body] < 0x80 else self._payload(body)
                yield view[start:position]

    def strings(self, name: str) -> "Strings":
        """A repeated field of bytes as a collection that takes no memory of its own."""
        return Strings(self, name)

    def count(self, name: str) -> int:
        """How often a repeated field of bytes, strings or messages occurs."""
        return sum(run.values for run in self._runs.get(self.schema.numbers[name], ()))

    def floats(self, name: str, dtype: str) -> NDArray[Any]:
        """A repeated float (`<f4`) or double (`<f8`): one view into the file where the values lie in one run."""
        width = np.dtype(dtype).itemsize
        parts: list[NDArray[Any]] = []
        for run in self._runs.get(self.schema.numbers[name], ()):
            if (run.stop - run.start) % (width if run.bare else 1):
                raise self._error(f"{name} holds {run.stop - run.start} bytes, not a multiple of {width}")
            if run.bare and run.stop > run.start:
                parts.append(np.frombuffer(self._view[run.start : run.stop], dtype))
            elif not run.bare:
                parts.append(np.ndarray((run.values,), dtype, self._view, run.start + 1, (width + 1,)))
        return parts[0] if len(parts) == 1 else np.concatenate([np.empty(0, dtype), *parts])

    def integers(self, name: str, dtype: str) -> NDArray[Any]:
        """A repeated integer as `dtype`; takes at most `dtype`'s width for each byte of the file.

        Raises FormatError where a value does not fit.
        """
        runs = self._runs.get(self.schema.numbers[name], ())
        values = np.empty(sum(self._varint_count(run) for run in runs), dtype)
        limits = np.iinfo(dtype)
        filled = 0
        for run in runs:
            for chunk in self._varint_chunks(run, name):
                numbers = chunk if limits.min == 0 else chunk.view(np.int64)
                if len(numbers) and (numbers.min() < limits.min or numbers.max() > limits.max):
                    raise self._error(f"{name} holds a value that is not in {limits.min} to {limits.max}")
                values[filled : filled + len(numbers)] = numbers
                filled += len(numbers)
        return values

    def _scan_field(self, position: int) -> int:
        tag, body = self._varint(position)
        number, wire = tag >> 3, tag & 7
        field = self.schema.fields.get(number)
        if field is None:
            raise self._error(
                f"unknown field {number}", "the file is broken, or newer than this version of Palladion understands"
            )
        if body - position != (tag.bit_length() + 6) // 7:
            raise self._error(f"the tag of {field.name} is not in its shortest form")
        if wire == BYTES != field.wire and field.repeated:
            start, stop = self._payload(body)
            run = _Run(start, stop, 0, bare=True)
        elif wire != field.wire:
            raise self._error(f"{field.name} has wire type {wire}, expected {field.wire}")
        elif field.repeated:
            stop, count = self._run_of(position, tag, field)
            run = _Run(position, stop, count, bare=False)
        else:
            start, stop = self._value(body, wire)
            run = _Run(start, stop, 1, bare=True)
        runs = self._runs.setdefault(number, [])
        if runs and not field.repeated:
            raise self._error(f"{field.name} is given twice")
        self._budget.spend()
        runs.append(run)
        return run.stop

    def _run_of(self, position: int, tag: int, field: Field) -> tuple[int, int]:
        if field.wire == BYTES:
            return self._run_of_bytes(position, tag)
        data = np.frombuffer(self._view, np.uint8)
        if field.wire == VARINT:
            stop, count = varint_run(data, position, tag)
        else:
            stop, count = fixed_run(data, position, tag, 1 + (8 if field.wire == FIXED64 else 4))
        if not count:
            raise self._error(f"{field.name} is cut off or longer than a number can be")
        return stop, count

    def _run_of_bytes(self, position: int, tag: int) -> tuple[int, int]:
        view = self._view
        end = len(view)
        count = 0
        while position < end:
            if view[position] == tag < 0x80 and position + 1 < end and view[position + 1] < 0x80:
                # short and common: a model can have millions of strings, and this is 4 times as fast
                stop = position + 2 + view[position + 1]
            else:
                found, body = self._varint(position)
                if found != tag:
                    break
                stop = self._payload(body)[1]
            if stop > end:
                raise self._error(f"a field claims {stop - position - 2} bytes, and only {end - position - 2} follow")
            position = stop
            count += 1
        return position, count

    def _value(self, body: int, wire: int) -> tuple[int, int]:
        if wire == BYTES:
            return self._payload(body)
        if wire == VARINT:
            return body, self._varint(body)[1]
        stop = body + (8 if wire == FIXED64 else 4)
        if stop > len(self._view):
            raise self._error("a number is cut off")
        return body, stop

    def _payload(self, position: int) -> tuple[int, int]:
        length, start = self._varint(position)
        if length > len(self._view) - start:
            raise self._error(f"a field claims {length} bytes, and only {len(self._view) - start} follow")
        return start, start + length

    def _varint(self, position: int) -> tuple[int, int]:
        found = _read_varint(self._view, position)
        if found is None:
            raise self._error("a number is cut off or longer than 64 bits")
        return found

    def _single(self, name: str) -> _Run | None:
        runs = self._runs.get(self.schema.numbers[name])
        return runs[0] if runs else None

    def _decode(self, view: memoryview, name: str) -> str:
        self._budget.spend()
        try:
            return str(view, "utf-8")
        except UnicodeDecodeError:
            raise self._error(f"{name} is not UTF-8") from None

    def _varint_count(self, run: _Run) -> int:
        if not run.bare:
            return run.values
        steps = range(run.start, run.stop, CHUNK_BYTES)
        data = np.frombuffer(self._view, np.uint8)
        return sum(int(np.count_nonzero(data[at : min(at + CHUNK_BYTES, run.stop)] < 0x80)) for at in steps)

    def _varint_chunks(self, run: _Run, name: str) -> Iterator[NDArray[np.uint64]]:
        data = np.frombuffer(self._view, np.uint8)
        position = run.start
        while position < run.stop:
            block = data[position : min(position + CHUNK_BYTES, run.stop)]
            ends = np.flatnonzero(block < 0x80)
            if not run.bare:
                ends = ends[: len(ends) // 2 * 2]  # tag and value
            values = decode_varints(block, ends) if len(ends) else None
            if values is None:
                raise self._error(f"{name} holds a number that is cut off or longer than 64 bits")
            yield values if run.bare else values[1::2]
            position += int(ends[-1]) + 1

    def _error(self, reason: str, *hints: str) -> FormatError:
        return FormatError(f"{self.where} ({self.schema.name}): {reason}", *hints)


def peek(view: memoryview, schema: Schema, *, fields_max: int) -> tuple[set[str], bool]:
    """Names of the fields that `view` starts with, as `schema` knows them, and whether nothing else came up.

    For telling formats apart, not for trusting them.
    """
    names: set[str] = set()
    position = 0
    for _ in range(fields_max):
        if position == len(view):
            break
        tag, body = _read_varint(view, position) or (0, 0)
        field = schema.fields.get(tag >> 3)
        if field is None or tag & 7 != field.wire or field.wire not in {VARINT, BYTES}:
            return names, False
        names.add(field.name)
        number, position = _read_varint(view, body) or (len(view), body)
        position += number if field.wire == BYTES else 0
        if position > len(view):
            return names, False
    return names, True


class Strings(Collection[bytes]):
    """Byte strings that stay where they are in the file and are read whenever they are gone through."""

    def __init__(self, message: Message, name: str) -> None:
        self._message = message
        self._name = name

    def __len__(self) -> int:
        return self._message.count(self._name)

    def __iter__(self) -> Iterator[bytes]:
        return map(bytes, self._message.items(self._name))

    def __contains__(self, value: object) -> bool:
        return any(item == value for item in self)


def _read_varint(view: memoryview, position: int) -> tuple[int, int] | None:
    """A varint and where it ends; None if it is cut off or longer than 64 bits."""
    value = shift = 0
    for index in range(position, min(position + VARINT_BYTES_MAX, len(view))):
        byte = view[index]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value, index + 1) if value < 2**64 else None
        shift += 7
    return None
