"""The settings of arrays in the JSON of others: where each stands, of what type and shape (docs/protocols.md, json)."""

from typing import Annotated, Literal

from msgspec import Meta

from palladion.policy.section import Section

# Names, indexes and [*] of RFC 9535, and nothing that searches: each path leads to one place.
_PATH = r"^\$(\.[A-Za-z_][A-Za-z0-9_-]{0,99}|\['[^'\\\x00-\x1f\x7f]{1,100}'\]|\[(\*|[0-9]|[1-5][0-9]|6[0-3])\]){0,16}$"

_Path = Annotated[str, Meta(pattern=_PATH)]


class TensorPolicy(Section, frozen=True):
    """An input or an output: `shape` is that of one row, where -1 stands for any size."""

    name: Annotated[str, Meta(min_length=1, max_length=512)]
    type: Literal[
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
        "float16", "float32", "float64", "string",
    ]  # fmt: skip
    path: _Path
    shape: Annotated[tuple[Annotated[int, Meta(ge=-1, le=2**31)], ...], Meta(max_length=15)] = ()


class FixedPolicy(Section, frozen=True):
    """A value that every request to the server has; a client may send the same, or leave it out."""

    path: _Path
    value: Annotated[str, Meta(max_length=1000)] | bool | int | float
