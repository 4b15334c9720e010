"""The surface, as a stage: what a service shows beside its answers, and what the file of a model here tells.

Of a service: other ways that answer, errors that name files or versions, headers, and whether it asks for a key at
all. The lists are short on purpose: this is no scanner of the web, and each request counts as a query.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any

import msgspec

from palladion.errors import FormatError
from palladion.lifecycle.probe import request_body
from palladion.redteam.audit.accounts import EndedError
from palladion.redteam.audit.remote import Fetched, Remote
from palladion.redteam.audit.result import Figure, Observation, StageResult
from palladion.redteam.audit.stage import Allowance, Plan, Stage
from palladion.redteam.audit.subject import Subject
from palladion.transit.url import Url
from palladion.transit.web import InterruptedTransferError

BODY_BYTES_MAX = 256 * 1024
QUOTED_MAX = 80  # characters of what a service said
HARMLESS = frozenset({"/healthz", "/readyz", "/livez", "/v2/health/live", "/v2/health/ready"})
PATHS = (
    *("/", "/docs", "/redoc", "/openapi.json", "/swagger.json", "/metrics", "/health", "/healthz", "/ping", "/status"),
    *("/version", "/v1/models", "/v2", "/v2/models", "/v2/repository/index", "/models", "/invocations", "/score"),
    *("/predict", "/debug", "/debug/pprof", "/admin", "/config", "/env", "/api", "/graphql", "/.env", "/.git/HEAD"),
)
_TELLS_NOTHING = frozenset({"/ping", "/health", *HARMLESS})
_VERSION = re.compile(r"[A-Za-z][\w.+-]*/v?\d+(\.\d+)*")
_TRACE = re.compile(r"Traceback \(most recent call last\)|^\s+at [\w.$]+\(.*:\d+\)|goroutine \d+ \[", re.M)
_FILE = re.compile(r"(?<![\w/])/(?:usr|home|opt|app|srv|var|root|tmp|etc)/[\w./-]+|\b[A-Z]:\\+\w[\w\\]*|\w+\.py\b")
_LIBRARY = re.compile(
    r"\b(onnxruntime|tensorflow|pytorch|torch|numpy|sklearn|scikit-learn|xgboost|lightgbm|pydantic|fastapi|starlette|"
    r"uvicorn|gunicorn|flask|django|werkzeug|tritonserver|mlserver|ONNXRuntimeError)\b",
    re.I,
)
_LEAKS = (
    ("a stack trace", _TRACE),
    ("a path of its files", _FILE),
    ("a library by name", _LIBRARY),
    ("a version", re.compile(r"\bv?\d+\.\d+\.\d+\b")),
)
_HEADERS = ("server", "via", "x-powered-by", "x-aspnet-version", "x-runtime")


def _missing(subject: Subject) -> str | None:
    if not isinstance(subject.service, Remote) and subject.exhibit is None:
        return "there is neither a service nor the file of a model to look at"
    return None


def _run(subject: Subject, plan: Plan, allowance: Allowance) -> StageResult:
    shown = () if subject.exhibit is None else subject.exhibit.observations
    # what a scan finds is told by the stage of its own
    found = [seen for seen in shown if seen.rule != "supply-chain"]
    reasons: tuple[str, ...] = ()
    before = 0
    if isinstance(subject.service, Remote):
        before = subject.service.journal.sent()
        try:
            found.extend(_looked_at(subject.service, subject))
        except EndedError as error:
            reasons = (error.message,)
    sent = 0 if subject.service is None else subject.service.journal.sent() - before
    count = sum(seen.level != "note" for seen in found)
    words = "things that are shown beside answers"
    figure = Figure(f"surface.exposed.{subject.deployed}", words, count, None, None, "things")
    return StageResult("surface", "done", reasons, (figure,), tuple(found), sent)


def _looked_at(service: Remote, subject: Subject) -> Iterator[Observation]:
    yield from _without_key(service, subject)
    yield from _routes(service)
    yield from _errors(service, subject)


def _without_key(service: Remote, subject: Subject) -> Iterator[Observation]:
    body = _question(service, subject)
    asked = _fetched(service, "POST", service.api.url, body, key=False)
    if service.api.key is not None and asked is not None and 200 <= asked.status < 300:
        yield _seen("error", "the service answers without a key", service.api.url.path)
    elif service.api.key is None:
        yield _seen("warning", "the service asks for no key", service.api.url.path)
    if asked is not None:
        yield from _headers(asked, service.api.url.path)


def _headers(answer: Fetched, where: str) -> Iterator[Observation]:
    for name in _HEADERS:
        value = answer.headers.get(name, "")
        if _VERSION.search(value) or (name.startswith("x-") and value):
            yield _seen("warning", f"the header {name} says {_quoted(value)}", f"{where} {name}")


def _routes(service: Remote) -> Iterator[Observation]:
    """Without a key: what answers is open to everybody."""
    own = service.api.url
    known = _fetched(service, "GET", _at(own, "/palladion-no-such-route"), None, key=False)
    for path in (*PATHS, *_of_model(own)):
        if path == own.path:
            continue
        answer = _fetched(service, "GET", _at(own, path), None, key=False)
        if answer is None or not 200 <= answer.status < 300 or path in _TELLS_NOTHING:
            continue
        # a service that says the same to every path has no route there
        if known is not None and known.status == answer.status and known.body == answer.body:
            continue
        yield _seen("warning", f"GET {path} answers without a key, {len(answer.body)} bytes", path)


def _errors(service: Remote, subject: Subject) -> Iterator[Observation]:
    for name, body in _malformed(service, subject):
        answer = _fetched(service, "POST", service.api.url, body, key=True)
        if answer is None:
            continue
        text = answer.body.decode("utf-8", "replace")
        where = f"{service.api.url.path} {name}"
        if answer.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            yield _seen("warning", f"it breaks with {answer.status} on {name}", where)
        if answer.status < HTTPStatus.BAD_REQUEST:
            continue
        for what, pattern in _LEAKS:
            match = pattern.search(text)
            if match:
                # the first of these says the most
                yield _seen("warning", f"its error on {name} names {what}: {_quoted(match.group())}", f"{where} {what}")
                break


def _malformed(service: Remote, subject: Subject) -> Iterator[tuple[str, bytes]]:
    whole = _question(service, subject)
    yield "no JSON", whole[: len(whole) // 2]
    yield "deep JSON", b"[" * 2000 + b"]" * 2000
    yield "an empty object", b"{}"
    for name, replaced in (("words for numbers", "abc"), ("a huge number", 10**400), ("null", None)):
        yield name, _with_first_number(whole, replaced)
    yield "a wrong shape", request_body(service.api, service.feeds(subject.rows[:1], short=True))


def _with_first_number(body: bytes, value: Any) -> bytes:
    """The question with another value in place of the first number that is in a list."""
    text = body.decode()
    shown = str(value) if isinstance(value, int) else msgspec.json.encode(value).decode()
    return re.sub(r"(?<=\[)-?[\d.][\d.eE+-]*", lambda _: shown, text, count=1).encode()


def _fetched(service: Remote, method: str, url: Url, body: bytes | None, *, key: bool) -> Fetched | None:
    try:
        return service.fetch(method, url, body, key=key, size_max=BODY_BYTES_MAX)
    except (FormatError, InterruptedTransferError):
        # a redirect, a broken line, or more than is read: nothing that could be looked at; the capture holds it
        return None


def _question(service: Remote, subject: Subject) -> bytes:
    return request_body(service.api, service.feeds(subject.rows[:1]))


def _of_model(url: Url) -> tuple[str, ...]:
    """Ways of other protocols to a model of the same name, where the address tells the name."""
    match = re.match(r"/v\d+/models/([^/]+)", url.path)
    return () if match is None else (f"/v2/models/{match.group(1)}", f"/v1/models/{match.group(1)}")


def _at(url: Url, path: str) -> Url:
    return replace(url, path=path, query="")


def _seen(level: Any, text: str, where: str) -> Observation:
    return Observation("exposed-surface", level, text, where)


def _quoted(text: str) -> str:
    shown = "".join(letter if letter.isprintable() else " " for letter in text)
    return repr(shown if len(shown) <= QUOTED_MAX else f"{shown[:QUOTED_MAX]}…")


SURFACE = Stage("surface", 2, "surface: what is shown beside answers", 0.01, _missing, _run)
