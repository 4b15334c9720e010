"""Lines of the log: their form, what never gets into them, and that they are few."""

import io
import logging
from collections.abc import Iterator

import msgspec
import pytest

from palladion.errors import PolicyError
from palladion.gate.operations.logs import (
    LINES_A_MINUTE,
    JsonLines,
    Sentences,
    Sparse,
    announcer,
    log_requests,
    start_logs,
)
from palladion.gate.operations.meter import Sample

CANARY = "pk_live_canary_of_a_body"
SAMPLE = Sample("/a", 429, "rate-limited", 0.0125, 1_700_000_000.0, "1f")


@pytest.fixture
def log() -> Iterator[tuple[logging.Logger, io.StringIO, logging.StreamHandler[io.StringIO]]]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    logger = logging.getLogger("palladion.test-logs")
    logger.propagate, logger.handlers = False, [handler]
    yield logger, stream, handler
    logger.handlers.clear()


def _fail(text: str) -> None:
    raise KeyError(text)


@pytest.mark.parametrize("formatter", [JsonLines(), Sentences(str)], ids=["json", "text"])
def test_what_an_exception_quotes_is_not_written(
    log: tuple[logging.Logger, io.StringIO, logging.Handler], formatter: logging.Formatter
) -> None:
    logger, stream, handler = log
    handler.setFormatter(formatter)
    try:
        _fail(CANARY)
    except KeyError:
        logger.exception("a request failed")
    assert CANARY not in stream.getvalue()
    assert "KeyError" in stream.getvalue()
    assert "in _fail" in stream.getvalue()


@pytest.mark.parametrize("formatter", [JsonLines(), Sentences(str)], ids=["json", "text"])
def test_what_the_event_loop_quotes_of_a_task_is_not_written(formatter: logging.Formatter) -> None:
    message = f"Task exception was never retrieved\nfuture: <Task exception=KeyError('{CANARY}')>"
    record = logging.LogRecord("asyncio", logging.ERROR, "base_events.py", 1, message, (), None)
    line = formatter.format(record)
    assert CANARY not in line
    assert "never retrieved" in line


def test_our_own_errors_are_written_with_their_sentence(
    log: tuple[logging.Logger, io.StringIO, logging.Handler],
) -> None:
    logger, stream, handler = log
    handler.setFormatter(JsonLines())
    try:
        raise PolicyError("a file is missing")
    except PolicyError:
        logger.exception("it failed")
    assert msgspec.json.decode(stream.getvalue())["exception"] == "PolicyError: a file is missing"


def test_each_json_line_is_one_object_whatever_a_message_holds(
    log: tuple[logging.Logger, io.StringIO, logging.Handler],
) -> None:
    logger, stream, handler = log
    handler.setFormatter(JsonLines())
    logger.warning('one\n{"level": "%s"}\x1b[2J', "two")
    (line,) = stream.getvalue().splitlines()
    document = msgspec.json.decode(line)
    assert document.keys() == {"time", "level", "logger", "message"}
    assert (document["level"], document["logger"]) == ("warning", "palladion.test-logs")
    assert "\x1b" not in line


def test_long_messages_are_cut(log: tuple[logging.Logger, io.StringIO, logging.Handler]) -> None:
    logger, stream, handler = log
    handler.setFormatter(JsonLines())
    logger.error("x" * 10_000)
    assert len(stream.getvalue()) < 2500


def test_the_text_of_a_stranger_is_made_harmless() -> None:
    record = logging.LogRecord("a", logging.ERROR, "a.py", 1, "\x1b[2J", (), None)
    assert Sentences(lambda text: text.replace("\x1b", "?")).format(record) == "palladion: error: ?[2J"


def test_a_request_is_told_of_without_who_asked_or_what() -> None:
    record = logging.LogRecord("palladion.requests", logging.INFO, "a.py", 1, "request", (), None)
    record.request = SAMPLE
    document = msgspec.json.decode(JsonLines().format(record))
    del document["time"]
    assert document == {
        "level": "info", "logger": "palladion.requests", "message": "request", "route": "/a", "status": 429,
        "problem": "rate-limited", "milliseconds": 12.5, "request": "1f",
    }  # fmt: skip
    assert Sentences(str).format(record) == "palladion: info: request /a: 429 rate-limited in 12.5 ms 1f"


def test_a_flood_from_one_place_is_counted_and_others_are_heard(
    log: tuple[logging.Logger, io.StringIO, logging.Handler],
) -> None:
    logger, stream, handler = log
    now = [0.0]
    handler.addFilter(Sparse(now=lambda: now[0]))
    for number in range(LINES_A_MINUTE + 90):
        logger.error("flood %d", number)
    logger.error("something else")
    lines = stream.getvalue().splitlines()
    assert (len(lines), lines[-1]) == (LINES_A_MINUTE + 1, "something else")
    now[0] = 61.0
    for number in range(2):
        logger.error("flood %d", number)
    assert len(stream.getvalue().splitlines()) == LINES_A_MINUTE + 3


def test_what_was_left_out_is_told(log: tuple[logging.Logger, io.StringIO, logging.Handler]) -> None:
    logger, stream, handler = log
    now = [0.0]
    handler.addFilter(Sparse(now=lambda: now[0]))

    def flood() -> None:
        logger.error("flood")

    for _ in range(LINES_A_MINUTE + 90):
        flood()
    now[0] = 61.0
    flood()
    assert stream.getvalue().splitlines()[-1] == "flood (and 90 more like it)"


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A process in which nobody else has been logging: some libraries do from their import on."""
    root = logging.getLogger()
    level = root.level
    monkeypatch.setattr(root, "handlers", [])
    yield
    root.setLevel(level)


@pytest.mark.usefixtures("alone")
def test_what_a_gate_says_is_json_where_its_log_is(capsys: pytest.CaptureFixture[str]) -> None:
    said = list[str]()
    start_logs("json", show=str)
    for number in range(LINES_A_MINUTE + 1):
        announcer("json", say=said.append)(f"route {number}: 100 % of it")
    lines = [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines()]
    # none is left out: there may be more routes than lines in a minute
    assert [line["message"] for line in lines] == [f"route {n}: 100 % of it" for n in range(LINES_A_MINUTE + 1)]
    assert said == []
    announcer("text", say=said.append)("as it is")
    assert said == ["as it is"]


@pytest.mark.usefixtures("alone")
def test_starting_writes_warnings_and_sampled_requests_and_nothing_less(capsys: pytest.CaptureFixture[str]) -> None:
    start_logs("json", show=str)
    logging.getLogger("palladion.gate").info("nothing")
    logging.getLogger("palladion.gate").warning("something")
    log_requests([SAMPLE])
    lines = [msgspec.json.decode(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["message"] for line in lines] == ["something", "request"]
