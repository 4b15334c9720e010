"""Recorded traffic, a request a line: lines of JSON → typed requests, each at its place in time (docs/traffic.md).

Owns the format, the limits of what one line may hold, and the order. Where lines come from, which model answers them
and what is made of it are the callers' affair.
"""

import heapq
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from functools import cache
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.watch.places import Place, find, parse_place, shown

LINE_BYTES_MAX = 4 * 1024 * 1024  # four times the largest body that a gate takes by default
ROWS_MAX = 4096  # queries of one line: as many as gate.rows_max can ever allow
VALUES_MAX = 1024 * 1024  # numbers of one line
NAME_CHARACTERS_MAX = 256  # of a client, an organisation, a route: they are held for each client, and printed
DIMENSIONS_MAX = 5  # rows of colour pictures in time; what nests deeper is no array
SECONDS_MAX = 4_102_444_800  # the year 2100: larger numbers are milliseconds
# Logs are written when requests end, so neighbours are out of order by what a request takes. These wait to be sorted.
WAITING_MAX = 1024
WAITING_VALUES_MAX = 4 * 1024 * 1024  # 32 MiB

Numbers = NDArray[np.float64]

_EPOCH = re.compile(r"\d{1,12}(\.\d{1,9})?")
# What proves who somebody is has no place in reports: API keys of this house and of others, and whole headers.
_CREDENTIAL = re.compile(
    r"(?i)^\s*(bearer|basic|apikey) |\b(pall|sk|pk|ak|ghp|xox[a-z])[_-][A-Za-z0-9_-]{12,}"
    r"|\bAIza[\w-]{12,}|\beyJ[\w-]+\."
)


@dataclass(frozen=True)
class Layout:
    """Where in a line each thing stands. `foreign` lines without inputs are not meant for the model: they are passed.

    The places are as `parse_place` reads them; None for what such lines do not say.
    """

    time: Place = ("time",)
    client: Place = ("client",)
    inputs: Place = ("inputs",)
    scores: Place | None = ("scores",)
    outputs: Place | None = ("outputs",)
    organisation: Place | None = ("organisation",)
    address: Place | None = ("address",)
    payment: Place | None = ("payment",)
    device: Place | None = ("device",)
    tls: Place | None = ("tls",)
    user: Place | None = ("user",)
    model: Place | None = ("model",)
    route: Place | None = ("route",)
    foreign: bool = False


NATIVE = Layout()
_KNOWN = frozenset(NATIVE.__dataclass_fields__) - {"foreign"}


@dataclass(frozen=True, eq=False, slots=True)
class Recorded:
    """One request: when (seconds since 1970) and by whom, and its queries as they were sent.

    `inputs` (queries, …) or, of a single query, without that axis; `scores` are class scores, by the name of the output
    where the line says one, and empty where it holds none: then a version has to answer. `line` is its number.
    """

    line: int
    at: float
    client: str
    inputs: Numbers
    scores: dict[str, Numbers] = field(default_factory=dict)
    organisation: str = ""
    address: str | None = None
    payment: str | None = None
    user: str | None = None
    model: str = ""
    route: str = ""
    device: str | None = None
    tls: str | None = None

    @property
    def values(self) -> int:
        """How many numbers it holds."""
        return self.inputs.size + sum(array.size for array in self.scores.values())


def layout_of(**paths: str | None) -> Layout:
    """The layout of foreign lines, by the places that are named; of the others nothing is known. Raises ValueError."""
    named = {name: parse_place(path) for name, path in paths.items() if path}
    missing = sorted({"time", "client", "inputs"} - named.keys())
    if missing:
        raise ValueError(f"lines of another format need the place of {missing[0]}")
    nowhere: dict[str, Place | None] = dict.fromkeys(_KNOWN)
    return Layout(**{**nowhere, **named}, foreign=True)  # type: ignore[arg-type]


def parse_line(line: bytes, number: int, layout: Layout = NATIVE) -> Recorded | None:
    """The request of a line; None for an empty one, and for a foreign one that asks nothing.

    Raises FormatError, with the number of the line, on anything else.
    """
    if not line.strip():
        return None
    if len(line) > LINE_BYTES_MAX:
        raise _wrong(number, f"it has {len(line)} bytes, at most {LINE_BYTES_MAX} are taken")
    try:
        document = msgspec.json.decode(line)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _wrong(number, f"it is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise _wrong(number, "an object was expected")
    if not layout.foreign and (unknown := sorted(document.keys() - _KNOWN)):
        # a slip in a name would leave links or answers out, and nobody would see it
        raise _wrong(number, f"{unknown[0][:60]!r} is none of {', '.join(sorted(_KNOWN))}")
    return _request(document, number, layout)


def in_order(requests: Iterable[Recorded], *, strict: bool = True) -> Iterator[Recorded]:
    """The requests by time; those of one moment as they came.

    At most `WAITING_MAX` wait to be sorted. One that comes later than these is refused with FormatError, or without
    `strict` handed out after its time.
    """
    waiting: list[tuple[float, int, int, Recorded]] = []
    values, latest = 0, -math.inf
    for count, request in enumerate(requests):
        if strict and request.at < latest:
            raise FormatError(
                f"line {request.line} is of an earlier time than one {WAITING_MAX} lines before it",
                "sort the lines by time first",
            )
        heapq.heappush(waiting, (request.at, request.line, count, request))
        values += request.values
        while len(waiting) > WAITING_MAX or values > WAITING_VALUES_MAX:
            ready = heapq.heappop(waiting)[-1]
            values -= ready.values
            latest = ready.at
            yield ready
    while waiting:
        yield heapq.heappop(waiting)[-1]


def _request(document: dict[str, Any], number: int, layout: Layout) -> Recorded | None:
    inputs = find(document, layout.inputs)
    if inputs is None:
        if layout.foreign:
            return None
        raise _wrong(number, "it has no inputs")
    queries = _array(inputs, number, shown(layout.inputs))
    if not queries.ndim or not queries.size or len(queries) > ROWS_MAX:
        raise _wrong(number, f"{shown(layout.inputs)} holds {len(queries) if queries.ndim else 0} rows")
    return Recorded(
        number,
        _seconds(find(document, layout.time), number, shown(layout.time)),
        _client(document, number, layout.client),
        queries,
        _scores(document, number, layout),
        _text(document, number, layout.organisation) or "",
        _text(document, number, layout.address),
        _text(document, number, layout.payment),
        _text(document, number, layout.user),
        _text(document, number, layout.model) or "",
        _text(document, number, layout.route) or "",
        _text(document, number, layout.device),
        _text(document, number, layout.tls),
    )


def _scores(document: dict[str, Any], number: int, layout: Layout) -> dict[str, Numbers]:
    """What was answered, by name of the output; the empty name for scores that stand alone."""
    found: dict[str, Numbers] = {}
    for place in (layout.scores, layout.outputs):
        value = None if place is None else find(document, place)
        if value is None or place is None:
            continue
        if not isinstance(value, dict):
            found[""] = _array(value, number, shown(place))
            continue
        for name, item in value.items():
            # labels, texts and boxes are answers too, which the watch does not look at
            if isinstance(item, list) and _holds_numbers(item):
                found[name] = _array(item, number, f"{shown(place)}.{name[:60]}")
    return found


def _holds_numbers(value: Any) -> bool:
    for _ in range(DIMENSIONS_MAX):
        if not isinstance(value, list) or not value:
            break
        value = value[0]
    return isinstance(value, float | int) and not isinstance(value, bool)


def _array(value: Any, number: int, what: str) -> Numbers:
    """The numbers of lists in lists, finite as in all JSON. NumPy alone would take texts and truth values for them."""
    if isinstance(value, str):
        try:
            value = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            raise _wrong(number, f"{what} is a text that is not JSON") from None
    rank, inner = 0, value
    while isinstance(inner, list):
        rank, inner = rank + 1, inner[0] if inner else None
        if rank > DIMENSIONS_MAX:
            raise _wrong(number, f"{what} nests more than {DIMENSIONS_MAX} lists")
    try:
        array = np.array(msgspec.convert(value, _nested(rank)), np.float64)
    except msgspec.ValidationError as error:
        raise _wrong(number, f"{what} holds something else than numbers: {error}") from None
    except (ValueError, OverflowError):
        raise _wrong(number, f"{what} has rows of several shapes, or a number that is too large") from None
    if array.size > VALUES_MAX:
        raise _wrong(number, f"{what} holds {array.size} numbers, at most {VALUES_MAX} are taken")
    return array


@cache
def _nested(rank: int) -> Any:
    kind: Any = float
    for _ in range(rank):
        kind = list[kind]
    return kind


def _seconds(value: Any, number: int, what: str) -> float:
    """Seconds since 1970 of a number, of its text, or of an RFC 3339 time with an offset."""
    seconds = math.nan
    if isinstance(value, str):
        seconds = float(value) if _EPOCH.fullmatch(value) else _moment(value, number, what)
    elif isinstance(value, float | int) and not isinstance(value, bool) and 0 <= value <= SECONDS_MAX:
        seconds = float(value)
    if not 0 <= seconds <= SECONDS_MAX:
        raise _wrong(number, f"{what} is no time between 1970 and 2100 in RFC 3339 or seconds")
    return seconds


def _moment(text: str, number: int, what: str) -> float:
    try:
        moment = datetime.fromisoformat(text[:64])
    except ValueError:
        raise _wrong(number, f"{what} is {text[:40]!r}, RFC 3339 or seconds since 1970 were expected") from None
    if moment.tzinfo is None:
        raise _wrong(number, f"{what} is {text[:40]!r}, without the offset from UTC")
    return moment.timestamp()


def _client(document: dict[str, Any], number: int, place: Place) -> str:
    text = _text(document, number, place)
    if not text:
        raise _wrong(number, f"{shown(place)} names nobody")
    return text


def _text(document: dict[str, Any], number: int, place: Place | None) -> str | None:
    value = None if place is None else find(document, place)
    if value is None or place is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    if not isinstance(value, str) or len(value) > NAME_CHARACTERS_MAX:
        raise _wrong(number, f"{shown(place)} is no text of at most {NAME_CHARACTERS_MAX} characters")
    return f"credential:{sha256(value.encode()).hexdigest()[:16]}" if _CREDENTIAL.search(value) else value


def _wrong(number: int, what: str) -> FormatError:
    return FormatError(f"line {number} is no recorded request: {what}", "docs/traffic.md says how one looks")
