"""Bytes of a feed become its content: lists, CSV and STIX 2.1 bundles. Pure; everything is checked here.

A malformed item refuses the whole feed: whoever could break one line could have changed others. What is well formed and
of no use here (a file's hash among networks) is counted and left out.
"""

import codecs
import csv
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from palladion.access.strict_json import decode_object
from palladion.errors import FormatError
from palladion.intel.indicators import Content
from palladion.intel.networks import NETWORKS_MAX, Networks, parse_network
from palladion.intel.sketch import NAME, Sketch, parse_sketch
from palladion.policy.intelligence import FeedFormat, FeedKind

FEED_BYTES_MAX = 64 * 1024 * 1024  # a million networks of both families are 30 MB as a list
ITEMS_MAX = NETWORKS_MAX
QUERIES_MAX = 1000  # signatures in one feed: each is compared with, one by one
LINE_CHARACTERS_MAX = 1000
SYSTEM_MAX = 2**32 - 1  # RFC 6793
NEVER = 253_402_300_799.0  # the end of year 9999: the feed's own expiry decides
EXTENSION = "extension-definition--8755d1e2-da4d-5dff-b30b-3608e2217d88"  # a signature of queries in an indicator
_COLUMNS = {"networks": "network", "tor": "network", "asn": "asn"}
# One comparison, or several joined by OR, in one observation: what feeds of addresses write (STIX 2.1 §9)
_COMPARISON = re.compile(
    r"\s*(ipv4-addr:value|ipv6-addr:value|autonomous-system:number)\s*(=|ISSUBSET)\s*(?:'([^'\\]{1,64})'|([0-9]{1,10}))\s*"
)
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?Z")


@dataclass
class _Found:
    kind: FeedKind
    networks: Networks = field(default_factory=Networks)
    systems: list[tuple[int, float, float]] = field(default_factory=list)
    queries: list[tuple[str, Sketch, float, float]] = field(default_factory=list)
    skipped: int = 0

    def add(self, text: str, expires: float = NEVER, share: float = 1.0) -> None:
        """Take in a network or a number as this kind of feed has it."""
        if len(self.networks) + len(self.systems) >= ITEMS_MAX:
            raise FormatError(f"there are more than {ITEMS_MAX} items")
        if self.kind == "asn":
            self.systems.append((_system(text), expires, share))
        else:
            self.networks.add(parse_network(text), expires, share)

    def content(self) -> Content:
        return Content(self.networks, tuple(self.systems), tuple(self.queries), self.skipped)


def read_content(data: bytes, form: FeedFormat, kind: FeedKind) -> Content:
    """What `data` says. Raises FormatError, with the line or object, on whatever is not as it should be, or nothing."""
    if len(data) > FEED_BYTES_MAX:
        raise FormatError(f"it has {len(data)} bytes, at most {FEED_BYTES_MAX} are allowed")
    found = _Found(kind)
    _READERS[form](data, found)
    content = found.content()
    if not content.items:
        raise FormatError(f"it lists no {_WORDS[kind]} ({content.skipped} items of other kinds)")
    return content


def _read_list(data: bytes, found: _Found) -> None:
    for number, line in _lines(data):
        # comments begin with # or ; as in most lists that are published, also behind an item
        item = re.split(r"[#;]", line, maxsplit=1)[0].strip()
        if item:
            _at(f"line {number}", found.add, item)


def _read_csv(data: bytes, found: _Found) -> None:
    rows = csv.reader(line for _, line in _lines(data) if line.strip() and not line.startswith("#"))
    header = [name.strip().lower() for name in _row(rows, 1) or []]
    column = _COLUMNS[found.kind]
    if column not in header or len(set(header)) != len(header):
        raise FormatError(f"its first line does not name the column {column}, each column once")
    number = 1
    while (row := _row(rows, number + 1)) is not None:
        number += 1
        where = f"row {number}"
        if len(row) != len(header):
            raise FormatError(f"{where} has {len(row)} columns, expected {len(header)}")
        cells = {name: cell.strip() for name, cell in zip(header, row, strict=True) if cell.strip()}
        if column not in cells:
            raise FormatError(f"{where} has no {column}")
        expires = _moment(cells["valid_until"], where) if "valid_until" in cells else NEVER
        share = _share(_digits(cells["confidence"], where) if "confidence" in cells else None, where)
        _at(where, found.add, cells[column], expires, share)


def _read_stix(data: bytes, found: _Found) -> None:
    document = decode_object(data, what="it")
    objects = document.get("objects")
    if document.get("type") not in {"bundle", None} or not isinstance(objects, list):
        raise FormatError("it is no STIX bundle with objects")
    if len(objects) > ITEMS_MAX:
        raise FormatError(f"there are more than {ITEMS_MAX} objects")
    # a collection holds all versions of an object; the last one counts
    latest: dict[str, tuple[float, dict[str, Any]]] = {}
    for place, item in enumerate(objects):
        where = f"object {place}"
        if not isinstance(item, dict) or not isinstance(item.get("type"), str):
            raise FormatError(f"{where} is no STIX object")
        if item["type"] != "indicator":
            continue
        if not isinstance(item.get("id"), str):
            raise FormatError(f"{where} has no id")
        modified = _moment(item.get("modified"), where)
        if item["id"] not in latest or latest[item["id"]][0] <= modified:
            latest[item["id"]] = modified, item
    for name, (_, item) in latest.items():
        _indicator(item, f"indicator {_writable(name[:80])}", found)


def _indicator(item: dict[str, Any], where: str, found: _Found) -> None:
    if item.get("revoked") is True:
        return
    _moment(item.get("valid_from"), where)
    expires = _moment(item["valid_until"], where) if "valid_until" in item else NEVER
    share = _share(item.get("confidence"), where)
    extensions = item.get("extensions")
    signature = extensions.get(EXTENSION) if isinstance(extensions, dict) else None
    if found.kind == "queries":
        if signature is None:
            found.skipped += 1
            return
        if len(found.queries) >= QUERIES_MAX:
            raise FormatError(f"there are more than {QUERIES_MAX} signatures")
        found.queries.append((_writable(str(item.get("name", ""))[:200]), _signature(signature, where), expires, share))
        return
    pattern = item.get("pattern")
    if not isinstance(pattern, str) or item.get("pattern_type") != "stix":
        found.skipped += 1
        return
    values = _values(pattern, asn=found.kind == "asn")
    found.skipped += not values
    for value in values:
        _at(where, found.add, value, expires, share)


def _values(pattern: str, *, asn: bool) -> list[str]:
    """What a pattern of one observation compares with, joined by OR; nothing where it says anything else."""
    inside = pattern.strip()
    if not (inside.startswith("[") and inside.endswith("]")):
        return []
    values = []
    for part in inside[1:-1].split(" OR "):
        match = _COMPARISON.fullmatch(part)
        if match is None:
            return []
        path, _, text, number = match.groups()
        if (path == "autonomous-system:number") != asn or (number is not None) != asn:
            return []
        values.append(number if asn else text)
    return values


def _signature(signature: Any, where: str) -> Sketch:
    if not isinstance(signature, dict) or signature.get("algorithm") != NAME:
        raise FormatError(f"{where} has a signature of queries that is not {NAME}")
    sketch, size, salt = signature.get("sketch"), signature.get("size"), signature.get("salt", "")
    if not isinstance(sketch, str) or type(size) is not int or not isinstance(salt, str):
        raise FormatError(f"{where} has a signature of queries without sketch and size")
    return parse_sketch(sketch, size, salt)


def _writable(text: str) -> str:
    """Without halves of characters, which JSON can name and nothing can write: names and ids end up in records."""
    return text.encode("utf-8", "backslashreplace").decode()


def _lines(data: bytes) -> Iterator[tuple[int, str]]:
    # each by itself: decoding and splitting all of them at once would keep a gate's requests from their turn for long
    number, start = 0, len(codecs.BOM_UTF8) if data.startswith(codecs.BOM_UTF8) else 0
    while start <= len(data):
        end = data.find(b"\n", start)
        end = len(data) if end < 0 else end
        number += 1
        try:
            line = data[start:end].decode("utf-8")
        except UnicodeDecodeError:
            raise FormatError("it is not UTF-8 text") from None
        if len(line) > LINE_CHARACTERS_MAX:
            raise FormatError(f"line {number} has {len(line)} characters, at most {LINE_CHARACTERS_MAX} are allowed")
        yield number, line
        start = end + 1


def _row(rows: Iterator[list[str]], number: int) -> list[str] | None:
    try:
        return next(rows, None)
    except csv.Error as error:
        raise FormatError(f"row {number} is no CSV: {error}") from None


def _at(where: str, add: Callable[..., None], *values: Any) -> None:
    try:
        add(*values)
    except FormatError as error:
        raise FormatError(f"{where}: {error.message}") from None


def _system(text: str) -> int:
    digits = text.upper().removeprefix("AS")
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 10 and 0 < int(digits) <= SYSTEM_MAX):
        raise FormatError(f"{text[:32]!r} is no number of an autonomous system such as AS64500")
    return int(digits)


def _moment(text: Any, where: str) -> float:
    if not isinstance(text, str) or not _TIME.fullmatch(text):
        raise FormatError(f"{where} has no time such as 2026-11-24T09:30:00Z where one is expected")
    try:
        # no more digits than microseconds have: which ones follow changes nothing
        return datetime.fromisoformat(re.sub(r"(\.[0-9]{6})[0-9]+Z", r"\1Z", text)).astimezone(UTC).timestamp()
    except ValueError:
        raise FormatError(f"{where} has a time that does not exist: {text!r}") from None


def _digits(text: str, where: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 3):
        raise FormatError(f"{where} has a confidence of {text[:32]!r}, expected 0 to 100")
    return int(text)


def _share(confidence: Any, where: str) -> float:
    if confidence is None:
        return 1.0
    if type(confidence) is not int or not 0 <= confidence <= 100:
        raise FormatError(f"{where} has a confidence of {confidence!r:.32}, expected 0 to 100")
    return float(confidence) / 100


_READERS: dict[FeedFormat, Callable[[bytes, _Found], None]] = {
    "list": _read_list,
    "csv": _read_csv,
    "stix": _read_stix,
    "taxii": _read_stix,  # what a collection holds is kept as one envelope of objects
}
_WORDS: dict[FeedKind, str] = {
    "networks": "networks",
    "tor": "networks",
    "asn": "autonomous systems",
    "queries": "signatures of queries",
}
