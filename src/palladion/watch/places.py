"""Places in a JSON document: `$.body.instances`, `$['user-id']`, `$.items[0]`. One place each; pure.

The gate's own paths (`gate.protocols.json_tree`) also write, and count rows; logs need no more than to be read.
"""

import re
from typing import Any

import msgspec

SEGMENTS_MAX = 16
SHOWN_CHARACTERS_MAX = 60
_SEGMENT = re.compile(r"\.?([A-Za-z_@][A-Za-z0-9_@-]{0,99})|\['([^'\\\x00-\x1f\x7f]{1,100})'\]|\[([0-9]{1,4})\]")

Place = tuple[str | int, ...]


def parse_place(text: str) -> Place:
    """The place that a path names; `$.` at its beginning may be left out. Raises ValueError."""
    found: list[str | int] = []
    at = 1 if text.startswith("$") else 0
    while at < len(text) and len(found) < SEGMENTS_MAX:
        segment = _SEGMENT.match(text, at)
        if segment is None or (segment[1] and segment[0][0] != "." and at > 0):
            break
        plain, quoted, index = segment.groups()
        found.append(int(index) if index else plain or quoted)
        at = segment.end()
    if not found or at != len(text):
        raise ValueError(f"{text[:SHOWN_CHARACTERS_MAX]!r} is no path of names and indexes, such as $.body.instances")
    return tuple(found)


def find(document: Any, place: Place) -> Any:
    """What stands at a place; None where nothing does.

    A text on the way that holds JSON is looked into: proxies log a body as a text.
    """
    for segment in place:
        if isinstance(document, str):
            try:
                document = msgspec.json.decode(document)
            except (msgspec.DecodeError, UnicodeError, RecursionError):
                return None
        if isinstance(segment, str):
            document = document.get(segment) if isinstance(document, dict) else None
        elif isinstance(document, list) and segment < len(document):
            document = document[segment]
        else:
            return None
    return document


def shown(place: Place) -> str:
    """A place as people write it."""
    return "$" + "".join(
        f"[{item}]" if isinstance(item, int) else f".{item}" if re.fullmatch(r"[\w-]+", item) else f"['{item}']"
        for item in place
    )
