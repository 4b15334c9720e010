"""Asks a suspect's API: within a budget of queries, no faster than it may, and everything captured as it happens.

Owns the request's JSON, the exchange and the way to the answer in the JSON that comes back. What is asked, and what
answers prove, is decided elsewhere. TLS is verified, redirects are not followed, nothing is asked twice in silence.
"""

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion import canonical
from palladion.errors import FormatError, InconclusiveError, KeysError, PalladionError
from palladion.lifecycle.capture import Capture, body_of, headers_of
from palladion.lifecycle.servers import server_of
from palladion.transit.connection import Deadline
from palladion.transit.url import Url
from palladion.transit.web import Web

ANSWER_BYTES_MAX = 4 * 1024 * 1024  # scores of a thousand classes for 64 rows are one
SECONDS_MAX = 60.0  # for one request, from connecting to the last byte
WAIT_SECONDS_MAX = 30.0  # however long the server asks us to wait
WAITS_MAX = 3  # in all: a suspect must not keep us for ever
REQUESTS_PER_SECOND = 5.0
ROWS_MAX = 1024
NUMBER_BITS_MAX = 63  # of an integer in an answer: what 64-bit floats and text conversions take
KEY_CHARACTERS_MAX = 4096
DESCRIPTION_BYTES_MAX = 64 * 1024
_NOT_TAKEN = {400, 413, 415, 422}  # these rows, or their form: others may be taken
_STEP = re.compile(r"[^.\x00-\x1f]{1,200}")
_HEADER = re.compile(r"[A-Za-z][A-Za-z0-9-]{0,63}")
_KEY = re.compile(r"[!-~]+")

Answers = Literal["labels", "scores"]


class _Description(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An API as its user writes it down, in JSON."""

    request: Any
    answer: str
    rows: int = 1
    header: str = "authorization"
    labels: list[str] = []


@dataclass(frozen=True)
class Api:
    """How a suspect is asked.

    In `request`, the text "$inputs" stands for the rows (an object by name if there are several inputs),
    "$inputs.NAME" for those of one input, "$row" for the first row alone, "$flat" for all numbers in one list and
    "$shape" for their shape. `answer` leads to the labels or scores through keys and places of lists; `*` is every row
    of a list. Without a path, the outputs of a Palladion gate are looked through. `labels` are the suspect's words for
    our classes, in order.
    """

    url: Url
    key: str | None = field(default=None, repr=False)
    request: Any = None
    answer: tuple[str, ...] = ()
    rows: int = 1
    header: str = "authorization"
    labels: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.rows <= ROWS_MAX:
            raise ValueError(f"got {self.rows} rows for a request, expected 1 to {ROWS_MAX}")
        if self.answer.count("*") > 1 or (self.answer and self.rows > 1 and "*" not in self.answer):
            raise ValueError("the path to the answer needs one *, for the rows of a request")
        if not _HEADER.fullmatch(self.header):
            raise ValueError(f"{self.header!r} is no name of a header for the key")
        # a line break would begin a header of somebody else's choice
        if self.key is not None and not (len(self.key) <= KEY_CHARACTERS_MAX and _KEY.fullmatch(self.key)):
            raise KeysError("the API key is empty, too long, or holds blanks or other characters that no header takes")


@dataclass(frozen=True)
class Probed:
    """What came back: for each row a label, a list of scores, or None; the queries spent; and why it ended early."""

    answers: list[Any]
    queries: int
    error: PalladionError | None


def parse_api(data: bytes, url: Url, key: str | None) -> Api:
    """The API that a JSON file describes. Raises FormatError."""
    if len(data) > DESCRIPTION_BYTES_MAX:
        raise FormatError(f"the description of the API has {len(data)} bytes, at most {DESCRIPTION_BYTES_MAX} allowed")
    try:
        found = msgspec.json.decode(data, type=_Description)
        steps = tuple(found.answer.split("."))
        if not all(_STEP.fullmatch(step) for step in steps):
            raise ValueError("the path to the answer has an empty step")
        return Api(url, key, found.request, steps, found.rows, found.header, tuple(found.labels))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        hint = '{"request": {"instances": "$inputs"}, "answer": "predictions.*.label"}'
        raise FormatError(f"the API is not described as it has to be: {error}", f"for example {hint}") from None


def probe(
    api: Api,
    feeds: Mapping[str, NDArray[Any]],
    capture: Capture,
    *,
    budget: int,
    web: Web,
    wait: Callable[[float], None],
    per_second: float = REQUESTS_PER_SECOND,
) -> Probed:
    """Ask for all rows of `feeds` (rows, …); a row that is sent is a query, also when it is sent again.

    Never sends more than `budget` of them. What goes wrong on the other side ends it, and is returned with the answers
    so far: the capture holds both.
    """
    rows = len(next(iter(feeds.values())))
    answers: list[Any] = []
    spending = Spending(budget, wait, per_second)
    error = None
    try:
        for some in answers_of(api, feeds, capture, spending=spending, web=web):
            answers += some
    except PalladionError as found:
        error = found
    return Probed(answers + [None] * (rows - len(answers)), spending.spent, error)


class Spending:
    """What is left of budget and patience, for all requests of a test together."""

    def __init__(self, budget: int, wait: Callable[[float], None], per_second: float = REQUESTS_PER_SECOND) -> None:
        self.budget, self.spent, self._waits = budget, 0, WAITS_MAX
        self._pause, self._wait, self._begun = 1 / per_second, wait, False

    @property
    def left(self) -> int:
        """Queries that may still be sent."""
        return self.budget - self.spent

    def spend(self, rows: int) -> None:
        """Wait until the next request may be sent, and count its rows. Raises InconclusiveError beyond the budget."""
        if rows > self.left:
            raise InconclusiveError(f"the budget of {self.budget} queries is spent", "--budget allows more")
        if self._begun:
            self._wait(self._pause)
        self._begun = True
        self.spent += rows

    def be_patient(self, seconds: float) -> bool:
        """Wait as a server asks, or say that there is no patience for it."""
        if not self._waits or seconds > WAIT_SECONDS_MAX:
            return False
        self._waits -= 1
        self._wait(seconds)
        return True


def answers_of(
    api: Api, feeds: Mapping[str, NDArray[Any]], capture: Capture, *, spending: Spending, web: Web
) -> Iterator[list[Any]]:
    """The answers to the rows of `feeds` (rows, …), request by request, each a list with one for each row of it.

    Raises what goes wrong on the other side: FormatError where it does not take these rows or answers none of them.
    """
    rows = len(next(iter(feeds.values())))
    for first in range(0, rows, api.rows):
        part = {name: array[first : first + api.rows] for name, array in feeds.items()}
        body, size = request_body(api, part), min(api.rows, rows - first)
        yield _ask(api, body, size, capture=capture, web=web, spending=spending)


def request_body(api: Api, feeds: Mapping[str, NDArray[Any]]) -> bytes:
    """The JSON that asks for these rows."""
    named = {name: array.tolist() for name, array in feeds.items()}
    arrays = list(feeds.values())
    only = next(iter(named.values())) if len(named) == 1 else named
    if api.request is None:
        return msgspec.json.encode({"inputs": only})
    values = {
        "$inputs": only,
        "$row": only[0] if isinstance(only, list) else {name: rows[0] for name, rows in named.items()},
        "$flat": arrays[0].reshape(-1).tolist(),
        "$shape": list(arrays[0].shape),
        **{f"$inputs.{name}": rows for name, rows in named.items()},
    }
    return msgspec.json.encode(_filled(api.request, values))


def read_answers(api: Api, body: bytes, rows: int) -> list[Any]:
    """The label (text or number) or the scores (a list) of each row in an answer's JSON. Raises FormatError."""
    try:
        return _read(api, body, rows)
    except (ArithmeticError, LookupError, RecursionError, TypeError, ValueError) as error:
        # the suspect chose every byte: what nobody thought of is a broken answer, and must not cost the ones before
        raise FormatError(f"the suspect's answer cannot be read: {type(error).__name__}") from error


def answered(found: object) -> str | int | None:
    """What an answer says: its label as it is, or of scores the place of the highest."""
    if isinstance(found, list):
        return int(np.argmax(np.array(found, np.float64))) if found else None
    return found if isinstance(found, str | int) else None


def _ask(api: Api, body: bytes, rows: int, *, capture: Capture, web: Web, spending: Spending) -> list[Any]:
    asked = {"url": str(api.url), "request": body_of(body)}
    # as text an answer takes at most twice its bytes; what was sent has to be captured, so room comes first
    line_bytes = len(canonical.encode(asked)) + 2 * ANSWER_BYTES_MAX
    while True:
        capture.require_room(line_bytes)
        spending.spend(rows)
        status, retry_seconds, data = _exchange(api, body, asked, capture, web)
        if 200 <= status < 300:
            return read_answers(api, data, rows)
        if status not in {429, 503} or retry_seconds is None or not spending.be_patient(retry_seconds):
            raise _refusal(api, status)


def _exchange(
    api: Api, body: bytes, asked: Mapping[str, Any], capture: Capture, web: Web
) -> tuple[int, float | None, bytes]:
    """One request and its whole answer: status, seconds to wait if it says so, and body. Captured, whatever comes."""
    headers = {"content-type": "application/json", "accept": "application/json"}
    if api.key is not None:
        headers[api.header] = f"Bearer {api.key}" if api.header.lower() == "authorization" else api.key
    content = dict(asked)
    deadline = Deadline(SECONDS_MAX)
    try:
        with web.ask("POST", api.url, headers, body=[body], body_bytes=len(body), deadline=deadline) as answer:
            if answer.tls is not None:
                capture.note_server(server_of(answer.tls))
            kept = headers_of(dict(answer.headers.items()))
            content |= {"status": answer.status, "headers": kept}
            data = answer.read(ANSWER_BYTES_MAX)
    except PalladionError as error:
        capture.write("exchange", content | {"error": error.message})
        raise
    capture.write("exchange", content | {"answer": body_of(data)})
    text = kept.get("retry-after", "")
    seconds = float(text) if text.isascii() and text.isdecimal() and len(text) < 6 else None
    return int(content["status"]), seconds, data


def _read(api: Api, body: bytes, rows: int) -> list[Any]:
    try:
        document = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        raise FormatError("the suspect's answer is not JSON", "the capture holds it as it came") from None
    found = _of_gate(document) if not api.answer else _along(document, api.answer)
    answers = found if "*" in api.answer or not api.answer else [found]
    if not isinstance(answers, list) or len(answers) != rows:
        count = len(answers) if isinstance(answers, list) else "no"
        raise FormatError(f"the suspect answers {count} rows, expected {rows}", "does the path lead to the answer?")
    return [_one(item) for item in answers]


def _refusal(api: Api, status: int) -> PalladionError:
    if status in {401, 403}:
        return KeysError(f"{api.url} refuses us: {status}", "--key-file names a file with the API key")
    if 300 <= status < 400:
        return InconclusiveError(f"{api.url} redirects ({status}), which is not followed", "give the address it names")
    if status in {429, 503}:
        return InconclusiveError(f"{api.url} wants to be asked less ({status})", "try again later")
    if status in _NOT_TAKEN:
        return FormatError(f"{api.url} does not take what it is asked ({status})", "the capture holds what it said")
    return InconclusiveError(f"{api.url} answers {status}", "the capture holds what it said")


def _filled(template: Any, values: Mapping[str, Any]) -> Any:
    if isinstance(template, str):
        return values.get(template, template)
    if isinstance(template, list):
        return [_filled(item, values) for item in template]
    if isinstance(template, dict):
        return {name: _filled(item, values) for name, item in template.items()}
    return template


def _along(document: Any, steps: tuple[str, ...]) -> Any:
    for index, step in enumerate(steps):
        if step == "*":
            if not isinstance(document, list):
                raise FormatError("the suspect's answer has no list where the path has *")
            return [_along(item, steps[index + 1 :]) for item in document]
        if isinstance(document, dict) and step in document:
            document = document[step]
        elif isinstance(document, list) and step.isascii() and step.isdecimal() and int(step) < len(document):
            document = document[int(step)]
        else:
            raise FormatError(f"the suspect's answer has nothing at {step!r} of the path")
    return document


def _of_gate(document: Any) -> Any:
    """Of the outputs of a Palladion gate the labels, or else the scores."""
    outputs = document.get("outputs") if isinstance(document, dict) else None
    lists = [item for item in outputs.values() if isinstance(item, list) and item] if isinstance(outputs, dict) else []
    flat = [[row[0] if isinstance(row, list) and len(row) == 1 else row for row in item] for item in lists]
    for wanted in ((str, int), (list,)):
        for rows in flat:
            if all(isinstance(row, wanted) for row in rows):
                return rows
    raise FormatError("the suspect's answer has no outputs with a label or scores", "--api describes another format")


def _one(item: Any) -> Any:
    while isinstance(item, list) and len(item) == 1:
        item = item[0]
    if isinstance(item, list) and all(isinstance(value, int | float) for value in item):
        return [_checked(value) for value in item]
    if isinstance(item, float) and item.is_integer():
        item = int(item)
    if isinstance(item, str):
        return item
    if isinstance(item, int) and not isinstance(item, bool):
        return _checked(item)
    raise FormatError(f"the suspect answers with {type(item).__name__}, expected a label or a list of scores")


def _checked(value: float) -> float:
    """A number that floats and text conversions take. Raises FormatError."""
    fits = value.bit_length() <= NUMBER_BITS_MAX if isinstance(value, int) else math.isfinite(value)
    if not fits:
        raise FormatError(
            f"the suspect answers with a number beyond {NUMBER_BITS_MAX} bits, expected a class or a score"
        )
    return value
