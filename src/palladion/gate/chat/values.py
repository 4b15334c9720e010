"""Which values a field takes that takes only a few: by the types of requests, for problems that name such a field.

Pure. msgspec, which decodes requests, says what was wrong and where, and not what would have been right.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import inspect

KINDS_MAX = 128  # of requests whose types are kept: four for each of 32 routes, with their extra fields
_STEP = re.compile(r"\.([^.\[\]]+)|\[[^\]]*\]")  # a field, or any one of a list or of an object's values


def values_of(kind: type, path: str) -> Sequence[str]:
    """The values that stand at a path such as `.messages[0].role`, as JSON; nothing where it is not about a few."""
    types = [_described(kind)]
    steps = list(_STEP.finditer(path))
    for number, step in enumerate(steps, 1):
        name = step[1]
        if number == len(steps) and name is not None:
            tags = [item.tag for item in _structs(types) if item.tag_field == name]
            if tags:
                return [_json(tag) for tag in tags]
        types = [child for item in types for child in _children(item, name)]
    return [_json(value) for item in types if isinstance(item, inspect.LiteralType) for value in item.values]


@lru_cache(maxsize=KINDS_MAX)
def _described(kind: type) -> inspect.Type:
    # takes 3 ms, and anybody can cause it with a wrong word
    return inspect.type_info(kind)


def _structs(types: Sequence[inspect.Type]) -> Iterator[inspect.StructType]:
    return (item for item in types if isinstance(item, inspect.StructType))


def _children(item: inspect.Type, name: str | None) -> Iterator[inspect.Type]:
    found: list[inspect.Type] = []
    if isinstance(item, inspect.StructType):
        found = [field.type for field in item.fields if field.encode_name == name]
    elif name is None and isinstance(item, inspect.ListType):
        found = [item.item_type]
    elif name is None and isinstance(item, inspect.DictType):
        found = [item.value_type]
    for child in found:
        yield from _alternatives(child)


def _alternatives(item: inspect.Type) -> Iterator[inspect.Type]:
    # constraints and unions are around what is meant
    if isinstance(item, inspect.Metadata):
        yield from _alternatives(item.type)
    elif isinstance(item, inspect.UnionType):
        for one in item.types:
            yield from _alternatives(one)
    else:
        yield item


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()
