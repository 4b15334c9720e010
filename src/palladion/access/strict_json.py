"""JSON objects of strangers in which every reader has to find the same: no member twice, no number that is none. Pure.

Source: RFC 8259 §4 leaves open what a second member of one name means; RFC 7519 §4 lets a reader refuse it.
"""

import json
from typing import Any, NoReturn

from palladion.errors import FormatError


def decode_object(data: bytes, *, what: str) -> dict[str, Any]:
    """The object that `data` is. Raises FormatError, naming `what`. The caller limits the size."""
    try:
        document = json.loads(data.decode("utf-8"), object_pairs_hook=_no_twins, parse_constant=_no_number)
    except (ValueError, RecursionError):  # also UnicodeDecodeError, and digits without end
        raise FormatError(f"{what} is not JSON in UTF-8 with each member once") from None
    if not isinstance(document, dict):
        raise FormatError(f"{what} is not a JSON object")
    return document


def _no_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a member comes twice")
    return document


def _no_number(_: str) -> NoReturn:
    raise ValueError("NaN and Infinity are no numbers of JSON")
