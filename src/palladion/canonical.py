"""Canonical JSON: RFC 8785 for the values we sign and hash (strings, booleans, null, integers, lists, objects).

Floats are left out on purpose: their text form is where canonical encodings go wrong. Decimal figures are written
as strings. Keys are ASCII, so sorting by code point and by UTF-16 unit agree (RFC 8785 §3.2.3).
"""

from collections.abc import Collection
from typing import Any

import msgspec

from palladion.errors import FormatError

INTEGER_MAX = 2**53 - 1  # RFC 8785 §3.2.2.3: beyond this, readers that use doubles disagree
DEPTH_MAX = 32  # our documents nest four deep; a hostile one must not exhaust the stack
_write = msgspec.json.Encoder(order="sorted").encode
_read = msgspec.json.Decoder().decode


def encode(value: Any) -> bytes:
    """The one canonical encoding of `value`. Raises ValueError on what cannot be canonical (floats, huge integers).

    TypeError on texts and numbers of a type of their own.
    """
    _check(value, 0)
    # what is no UTF-8, lone surrogates, raises UnicodeEncodeError here: looking at each text before would take as long
    return _write(value)


def check(value: Any, *, depth: int) -> None:
    """Raise ValueError unless `value` could stand `depth` levels deep in what `encode` takes, lone surrogates aside."""
    _check(value, depth)


def unsafe_encode(value: Any) -> bytes:
    """As `encode`, of a value whose every member the caller has checked; a time in UTC is written as RFC 3339.

    Raises ValueError on lone surrogates alone: whatever else has no canonical form is written all the same.
    """
    return _write(value)


def decode(data: bytes, *, size_max: int, what: str) -> Any:
    """The value of `data`, accepted only if it is at most `size_max` bytes and exactly canonical.

    Raises FormatError, naming `what`, on anything else; so parsing and encoding again always give the same bytes.
    """
    if len(data) > size_max:
        raise FormatError(f"{what} has {len(data)} bytes, more than the {size_max} allowed")
    try:
        value = _read(data)
        canonical = encode(value)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not canonical JSON: {error}") from None
    if canonical != data:
        raise FormatError(f"{what} is not canonical JSON: key order, spacing or escapes differ")
    return value


def _check(value: Any, depth: int) -> None:
    """Raise ValueError unless a value has one canonical form; of texts, `_write` says whether they have."""
    items: Collection[Any]
    if isinstance(value, dict):
        try:
            plain = "".join(value).isascii()
        except TypeError:
            plain = False
        if not plain:
            key = next(key for key in value if not isinstance(key, str) or not key.isascii())
            raise ValueError(f"key {key!r} is not an ASCII string")
        items = value.values()
    elif isinstance(value, list | tuple):
        items = value
    else:
        _check_single(value)
        return
    if items and depth == DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX}")
    for item in items:
        # nearly all of them: each answer has a record, and a call for each of its members is half of what one costs
        kind = type(item)
        if kind is str or (kind is int and -INTEGER_MAX <= item <= INTEGER_MAX):
            continue
        _check(item, depth + 1)


def _check_single(value: Any) -> None:
    if value is None or isinstance(value, bool | str):
        return
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise ValueError(f"integer {value} is beyond ±(2^53 - 1)")
        return
    raise ValueError(f"{type(value).__name__} has no canonical form")
