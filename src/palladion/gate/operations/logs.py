"""What a running gate writes to standard error: sentences or JSON lines, without secrets, and never a flood.

The text of an exception that is not ours can quote a body, a header or a key; of such a one its type and its place are
written. Lines of the same place are counted beyond a few a minute.
"""

import logging
import time
import traceback
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Literal

import msgspec

from palladion.errors import PalladionError
from palladion.gate.operations.meter import Sample

LINES_A_MINUTE = 10  # from one place in the code: enough to see that it goes on
PLACES_MAX = 256  # remembered; there are fewer calls of a log than that
MESSAGE_CHARACTERS_MAX = 2000  # messages quote what an upstream said
FRAMES_MAX = 20  # the innermost ones

_TOLD = (PalladionError, AttributeError, ImportError, NameError)

requests_log = logging.getLogger("palladion.requests")
announcements_log = logging.getLogger("palladion.serve")

Show = Callable[[str], str]


def start_logs(form: Literal["text", "json"], *, show: Show) -> logging.Handler:
    """Write what is logged to standard error from now on; `show` makes text harmless for a terminal.

    Returns the handler, to be removed by whoever started it.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(JsonLines() if form == "json" else Sentences(show))
    handler.addFilter(Sparse())
    root = logging.getLogger()
    root.addHandler(handler)
    root.setLevel(logging.WARNING)
    requests_log.setLevel(logging.INFO)
    announcements_log.setLevel(logging.INFO)
    return handler


def announcer(form: Literal["text", "json"], *, say: Callable[[str], None]) -> Callable[[str], None]:
    """What takes each thing of note: `say`, or the log, so that all that a gate writes is JSON where that is."""
    return say if form == "text" else lambda line: announcements_log.info("%s", line)


def log_requests(samples: Iterable[Sample]) -> None:
    """Write a line for each of these requests."""
    for sample in samples:
        requests_log.info("request", extra={"request": sample})


class Sentences(logging.Formatter):
    """`palladion: error: what happened`."""

    def __init__(self, show: Show) -> None:
        super().__init__()
        self._show = show

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record, with the places of an exception below it."""
        text = f"palladion: {record.levelname.lower()}: {_message(record)}"
        sample = getattr(record, "request", None)
        if isinstance(sample, Sample):
            outcome = f"{sample.status} {sample.problem}".rstrip()
            text += f" {sample.route}: {outcome} in {1000 * sample.seconds:.1f} ms {sample.request}".rstrip()
        lines = [self._show(text)]
        if record.exc_info and record.exc_info[1] is not None:
            lines += [self._show(f"  {line}") for line in [raised(record.exc_info[1]), *places(record.exc_info[2])]]
        return "\n".join(lines)


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, and what belongs to it."""

    def format(self, record: logging.LogRecord) -> str:
        """The line of a record."""
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": _message(record),
        }
        sample = getattr(record, "request", None)
        if isinstance(sample, Sample):
            document |= {
                "route": sample.route,
                "status": sample.status,
                "problem": sample.problem or None,
                "milliseconds": round(1000 * sample.seconds, 3),
                "request": sample.request or None,
            }
        if record.exc_info and record.exc_info[1] is not None:
            document["exception"] = raised(record.exc_info[1])
            document["places"] = places(record.exc_info[2])
        return msgspec.json.encode(document).decode()


class Sparse(logging.Filter):
    """Lets so many lines of one place through in a minute, and then says how many it has left out."""

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._now = now
        self._places: dict[tuple[str, int], tuple[float, int]] = {}  # since when, and how many

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether a record is written."""
        if record.name in {requests_log.name, announcements_log.name}:
            return True  # sampled already, or one for each route and for each change that somebody made
        place, now = (record.pathname, record.lineno), self._now()
        since, count = self._places.get(place, (now, 0))
        left_out = 0
        if now - since >= 60:
            left_out = max(0, count - LINES_A_MINUTE)
            since, count = now, 0
        if len(self._places) >= PLACES_MAX and place not in self._places:
            self._places.clear()
        self._places[place] = since, count + 1
        if left_out:
            record.msg, record.args = f"{record.getMessage()} (and {left_out} more like it)", ()
        return count < LINES_A_MINUTE


def raised(error: BaseException) -> str:
    """An exception's type, and its text where that is ours, or speaks of names in the code: neither holds a secret."""
    return f"{type(error).__name__}: {error}" if isinstance(error, _TOLD) else type(error).__name__


def places(trace: TracebackType | None) -> list[str]:
    """Where an exception came from, innermost last; no line of code, no value."""
    return [f"{frame.filename}:{frame.lineno} in {frame.name}" for frame in traceback.extract_tb(trace)[-FRAMES_MAX:]]


def _message(record: logging.LogRecord) -> str:
    text = record.getMessage()
    if record.name == "asyncio":
        # what follows quotes tasks, with the exceptions that they ended by
        text = text.partition("\n")[0]
    return text if len(text) <= MESSAGE_CHARACTERS_MAX else f"{text[:MESSAGE_CHARACTERS_MAX]}…"
