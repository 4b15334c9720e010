"""Which values of a JSON document stand where: read by paths, and written by the same. Pure; knows no arrays.

Paths are the part of JSONPath that leads to one place (RFC 9535): names, indexes, and `[*]` once, for the rows. A
document is rows side by side, columns side by side, or a single row.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

SEGMENTS_MAX = 16  # a document that needs more has no shape that a person chose
INDEX_MAX = 63  # elements before it are there, or are written as null
TREE_VALUES_MAX = 1024  # of paths in one tree
SHOWN_CHARACTERS_MAX = 60
ROWS = "[*]"

_SEGMENT = re.compile(r"\.([A-Za-z_][A-Za-z0-9_-]{0,99})|\['([^'\\\x00-\x1f\x7f]{1,100})'\]|\[(\*|0|[1-9][0-9]?)\]")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")

Segment = str | int | None  # a name, an index, or None for all rows


class MisfitError(ValueError):
    """A document is not of the shape; `place` is the path of what does not fit."""

    def __init__(self, message: str, place: str) -> None:
        super().__init__(message)
        self.place = place


def parse_path(text: str) -> tuple[Segment, ...]:
    """The segments of a path. Raises ValueError for one that is none, or leads to more than rows of one place."""
    found: list[Segment] = []
    place = 1
    while place < len(text):
        segment = _SEGMENT.match(text, place)
        if segment is None or len(found) == SEGMENTS_MAX:
            break
        plain, quoted, index = segment.groups()
        found.append(None if index == "*" else int(index) if index else plain or quoted)
        place = segment.end()
    if text[:1] != "$" or place != len(text):
        raise ValueError(f"{text[:SHOWN_CHARACTERS_MAX]!r} is no path of names, indexes and [*] from $")
    if any(isinstance(item, int) and item > INDEX_MAX for item in found):
        raise ValueError(f"{text!r} has an index above {INDEX_MAX}")
    if found.count(None) > 1:
        raise ValueError(f"{text!r} has [*] more than once: the rows are in one place")
    return tuple(found)


@dataclass(eq=False)
class _Node:
    """A place in the document: a value, a constant, or what is in it by name, by index, or in each row."""

    value: int | None = None  # its number, where it is a leaf
    constant: Any = None
    is_constant: bool = False
    inside: dict[Segment, "_Node"] = field(default_factory=dict)

    @property
    def kind(self) -> type | None:
        """Of what is inside: str, int, or NoneType for rows."""
        return type(next(iter(self.inside))) if self.inside else None


class Tree:
    """The places of some values in one kind of document."""

    def __init__(self, paths: Sequence[str], constants: Sequence[tuple[str, Any]] = (), *, whole: bool) -> None:
        """With `whole`, documents hold these and nothing else; without it, whatever else is there is not looked at.

        Raises ValueError for paths that stand in each other's way.
        """
        if len(paths) + len(constants) > TREE_VALUES_MAX:
            raise ValueError(f"there are {len(paths) + len(constants)} paths, at most {TREE_VALUES_MAX} are taken")
        self._root = _Node()
        self._count = len(paths)
        self._whole = whole
        for number, path in enumerate(paths):
            self._place(path).value = number
        for path, constant in constants:
            if ROWS in path and None in parse_path(path):
                raise ValueError(f"{path!r} is for one value, and has [*]")
            node = self._place(path)
            node.constant, node.is_constant = constant, True
        self.has_rows = [None in parse_path(path) for path in paths]
        if whole and len(set(self.has_rows)) > 1:
            raise ValueError("some paths have [*] and some have not: the rows are counted by all of them")
        for node in _nodes(self._root):
            if whole and node.kind is int and node.inside.keys() != set(range(len(node.inside))):
                raise ValueError("indexes have to begin with [0], without a gap: what stands between is not known")

    def read(self, document: Any, *, rows_max: int) -> list[list[Any]]:
        """For each value, what stands there, row by row. Raises MisfitError."""
        found: list[list[Any]] = [[] for _ in range(self._count)]
        self._read(self._root, document, "$", found, rows_max)
        return found

    def unread(self, rows: int) -> Any:
        """The type of documents with exactly so many rows in which each value is still text (`msgspec.Raw`).

        What no path names is skipped, and what does not fit ends the reading: a document costs no more memory than
        its rows. Not for documents that hold nothing but these. Raises ValueError for a name with a quote.
        """
        if self._whole:
            raise ValueError("what else there is would be skipped, and has to be refused")
        return _unread(self._root, rows)

    def write(self, values: Sequence[Sequence[Any] | None]) -> Any:
        """The document of `values`, each row by row; one that is None is left out. None where nothing is left."""
        written = _write(self._root, values, None)
        return None if written is _ABSENT else written

    def schema(self, values: Sequence[dict[str, Any]], *, rows_max: int) -> dict[str, Any]:
        """The JSON Schema of documents; `values` are those of what stands in one row."""
        return _schema(self._root, values, rows_max=rows_max, whole=self._whole)

    def _place(self, path: str) -> _Node:
        node = self._root
        for segment in parse_path(path):
            if node.value is not None or node.is_constant or (node.inside and node.kind is not type(segment)):
                raise ValueError(f"{path!r} leads into what another path says is something else")
            node = node.inside.setdefault(segment, _Node())
        if node.value is not None or node.is_constant or node.inside:
            raise ValueError(f"{path!r} leads where another path leads already")
        return node

    def _read(self, node: _Node, value: Any, place: str, found: list[list[Any]], rows_max: int) -> None:
        if node.value is not None:
            found[node.value].append(value)
        elif node.is_constant:
            if type(value) is not type(node.constant) or value != node.constant:
                raise MisfitError(f"it is {shown(value)}, expected {shown(node.constant)}", place)
        elif node.kind is str:
            self._read_members(node, value, place, found, rows_max)
        elif node.kind is int:
            self._read_items(node, value, place, found, rows_max)
        elif node.inside:
            self._read_rows(node.inside[None], value, place, found, rows_max)

    def _read_members(self, node: _Node, value: Any, place: str, found: list[list[Any]], rows_max: int) -> None:
        if isinstance(value, msgspec.Struct):  # of `unread`, in the order of `inside`
            for (name, child), item in zip(node.inside.items(), msgspec.structs.astuple(value), strict=True):
                if child.value is None:
                    self._read(child, item, _member(place, str(name)), found, rows_max)
                else:
                    found[child.value].append(item)
            return
        if not isinstance(value, dict):
            raise MisfitError(f"it is {shown(value)}, expected an object", place)
        if self._whole and (unknown := value.keys() - node.inside.keys()):
            raise MisfitError("it is not known here", _member(place, min(unknown)[:SHOWN_CHARACTERS_MAX]))
        for name, child in node.inside.items():
            at = _member(place, str(name))
            if name in value:
                self._read(child, value[name], at, found, rows_max)
            elif not _is_all_constant(child):
                raise MisfitError("it is missing", at)

    def _read_items(self, node: _Node, value: Any, place: str, found: list[list[Any]], rows_max: int) -> None:
        size = 1 + max(index for index in node.inside if index is not None and not isinstance(index, str))
        if isinstance(value, msgspec.Struct):  # of `unread`
            value = list(msgspec.structs.astuple(value))
        if not isinstance(value, list) or len(value) < size or (self._whole and len(value) > size):
            raise MisfitError(f"it is {shown(value)}, expected an array of {size}", place)
        for index, child in node.inside.items():
            self._read(child, value[int(index or 0)], f"{place}[{index}]", found, rows_max)

    def _read_rows(self, node: _Node, value: Any, place: str, found: list[list[Any]], rows_max: int) -> None:
        if not isinstance(value, list | tuple):
            raise MisfitError(f"it is {shown(value)}, expected an array", place)
        if not 1 <= len(value) <= rows_max:
            raise MisfitError(f"{len(value)} rows, expected 1 to {rows_max}", place)
        if node.value is not None:
            found[node.value] = list(value)
            return
        for row, item in enumerate(value):
            self._read(node, item, f"{place}[{row}]", found, rows_max)


def shown(value: Any) -> str:
    """What a value of JSON is, in a few words, without telling all of it."""
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return f"an array of {len(value)}"
    if isinstance(value, str):
        return f"the text {value[:SHOWN_CHARACTERS_MAX]!r}"
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return f"the number {value:.6g}" if isinstance(value, float) or abs(value) < 10**15 else "a large number"


def _unread(node: _Node, rows: int) -> Any:
    inside = {name: _unread(child, rows) for name, child in node.inside.items()}
    if node.kind is str:
        members = [(f"member_{number}", kind) for number, kind in enumerate(inside.values())]
        names = {f"member_{number}": str(name) for number, name in enumerate(inside)}
        return msgspec.defstruct("Members", members, rename=names, gc=False)
    if node.kind is int:
        size = 1 + max(int(index or 0) for index in inside)
        items = [(f"item_{index}", inside.get(index, msgspec.Raw)) for index in range(size)]
        return msgspec.defstruct("Items", items, array_like=True, gc=False)  # one that is longer is read no further
    return tuple[(inside[None],) * rows] if inside else msgspec.Raw  # type: ignore[misc]


class _Absent:
    pass


_ABSENT = _Absent()


def _write(node: _Node, values: Sequence[Sequence[Any] | None], row: int | None) -> Any:
    if node.is_constant:
        return node.constant
    if node.value is not None:
        value = values[node.value]
        return _ABSENT if value is None else value[row or 0]
    if node.kind is str:
        members = {name: _write(child, values, row) for name, child in node.inside.items()}
        kept = {name: item for name, item in members.items() if item is not _ABSENT}
        return kept or _ABSENT
    if node.kind is int:
        items: list[Any] = [_ABSENT] * (1 + max(int(index or 0) for index in node.inside))
        for index, child in node.inside.items():
            items[int(index or 0)] = _write(child, values, row)
        return _ABSENT if all(item is _ABSENT for item in items) else [None if i is _ABSENT else i for i in items]
    return _write_rows(node.inside[None], values) if node.inside else _ABSENT


def _write_rows(node: _Node, values: Sequence[Sequence[Any] | None]) -> Any:
    if node.value is not None:
        value = values[node.value]
        return _ABSENT if value is None else list(value)
    given = [value for leaf in _nodes(node) if leaf.value is not None and (value := values[leaf.value]) is not None]
    return [_write(node, values, row) for row in range(len(given[0]))] if given else _ABSENT


def _schema(node: _Node, values: Sequence[dict[str, Any]], *, rows_max: int, whole: bool) -> dict[str, Any]:
    if node.is_constant:
        return {"const": node.constant}
    if node.value is not None:
        return values[node.value]
    inside = {name: _schema(child, values, rows_max=rows_max, whole=whole) for name, child in node.inside.items()}
    if node.kind is str:
        # what a standing withholds is left out of an answer
        needed = [name for name, child in node.inside.items() if whole and not _is_all_constant(child)]
        return {"type": "object", "properties": inside, "required": needed, "additionalProperties": False}
    if node.kind is int:
        size = 1 + max(int(index or 0) for index in inside)
        items = [inside.get(index, {"type": "null"}) for index in range(size)]
        return {"type": "array", "prefixItems": items, "minItems": size, "maxItems": size}
    return {"type": "array", "items": inside[None], "minItems": 1, "maxItems": rows_max} if inside else {}


def _nodes(node: _Node) -> Iterator[_Node]:
    yield node
    for child in node.inside.values():
        yield from _nodes(child)


def _is_all_constant(node: _Node) -> bool:
    return all(leaf.is_constant for leaf in _nodes(node) if not leaf.inside)


def _member(place: str, name: str) -> str:
    return f"{place}.{name}" if _NAME.fullmatch(name) else f"{place}[{name!r}]"
