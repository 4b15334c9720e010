"""Canonical JSON: RFC 8785 for the values we sign and hash (strings, booleans, null, integers, lists, objects).

Floats are left out on purpose: their text form is where canonical encodings go wrong. Decimal figures are written
as strings. Keys are ASCII, so sorting by code point and by UTF-16 unit agree (RFC 8785 §3.2.3).
"""

from typing import Any

import msgspec

from palladion.errors import FormatError

INTEGER_MAX = 2**53 - 1  # RFC 8785 §3.2.2.3: beyond this, readers that use doubles disagree
DEPTH_MAX = 32  # our documents nest four deep; a hostile one must not exhaust the stack


def encode(value: Any) -> bytes:
    """The one canonical encoding of `value`. Raises ValueError on what cannot be canonical (floats, huge integers)."""
    _check(value, 0)
    return msgspec.json.encode(value, order="sorted")


def decode(data: bytes, *, size_max: int, what: str) -> Any:
    """The value of `data`, accepted only if it is at most `size_max` bytes and exactly canonical.

    Raises FormatError, naming `what`, on anything else; so parsing and encoding again always give the same bytes.
    """
    if len(data) > size_max:
        raise FormatError(f"{what} has {len(data)} bytes, more than the {size_max} allowed")
    try:
        value = msgspec.json.decode(data)
        canonical = encode(value)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise FormatError(f"{what} is not canonical JSON: {error}") from None
    if canonical != data:
        raise FormatError(f"{what} is not canonical JSON: key order, spacing or escapes differ")
    return value


def _check(value: Any, depth: int) -> None:
    if depth > DEPTH_MAX:
        raise ValueError(f"nested deeper than {DEPTH_MAX}")
    if value is None or isinstance(value, bool):
        return
    if isinstance(value, str):
        # msgspec would replace nothing and fail late on lone surrogates; say it plainly instead
        value.encode("utf-8")
        return
    if isinstance(value, int):
        if abs(value) > INTEGER_MAX:
            raise ValueError(f"integer {value} is beyond ±(2^53 - 1)")
        return
    if isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
        return
    if isinstance(value, dict):
        for key, item in value.items():
            if not isinstance(key, str) or not key.isascii():
                raise ValueError(f"key {key!r} is not an ASCII string")
            # nearly all of them: each answer has a record, and calling for each text is half of what one costs
            if type(item) is str and item.isascii() and depth < DEPTH_MAX:
                continue
            _check(item, depth + 1)
        return
    raise ValueError(f"{type(value).__name__} has no canonical form")
