"""Real receivers on the loopback: webhooks, Alertmanager and PagerDuty, each as strict as its specification."""

import base64
import hashlib
import hmac
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY = b"k" * 32
KEY_TEXT = f"whsec_{base64.b64encode(KEY).decode()}"
ROUTING_KEY = "r" * 32
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z")


@dataclass(frozen=True)
class Got:
    """One request."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Its document."""
        return json.loads(self.body)


@dataclass
class Receiver:
    """A server that keeps what it took; `answers` are the statuses of the next requests, then 202."""

    url: str = ""
    got: list[Got] = field(default_factory=list)
    refused: list[Got] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)

    def answer(self, got: Got) -> tuple[int, bytes]:
        """Status and body for a request."""
        status = self.answers.pop(0) if self.answers else 202
        (self.got if status < 300 else self.refused).append(got)
        return status, b"{}"


@contextmanager
def receiver() -> Iterator[Receiver]:
    """Takes whatever comes, on a free port."""
    kept = Receiver()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            status, answer = kept.answer(Got(self.path, headers, body))
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", f"{kept.url}/elsewhere")
            self.send_header("content-length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    kept.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield kept
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def require_signed(got: Got, key: bytes = KEY) -> None:
    """As a receiver checks a webhook (Standard Webhooks 1.0), written apart from what signs."""
    content = f"{got.headers['webhook-id']}.{got.headers['webhook-timestamp']}.".encode() + got.body
    expected = base64.b64encode(hmac.new(key, content, hashlib.sha256).digest()).decode()
    versions = dict(part.split(",", 1) for part in got.headers["webhook-signature"].split(" "))
    assert versions == {"v1": expected}
    assert got.headers["webhook-timestamp"].isdecimal()


def require_alertmanager(got: Got) -> dict[str, Any]:
    """As Alertmanager's OpenAPI v2 has it: postableAlerts. Returns the one alert."""
    assert got.path.endswith("/api/v2/alerts")
    assert got.headers["content-type"] == "application/json"
    (item,) = got.json
    assert set(item) <= {"labels", "annotations", "startsAt", "endsAt", "generatorURL"}
    for name in ("labels", "annotations"):
        assert all(re.fullmatch(r"[a-zA-Z_][a-zA-Z0-9_]*", key) for key in item[name])
        assert all(isinstance(value, str) for value in item[name].values())
    assert item["labels"]["alertname"]
    assert all(_TIME.fullmatch(item[name]) for name in ("startsAt", "endsAt"))
    assert item["startsAt"] <= item["endsAt"]
    found: dict[str, Any] = item
    return found


def require_pagerduty(got: Got) -> dict[str, Any]:
    """As the Events API v2 has it. Returns the event."""
    event: dict[str, Any] = got.json
    assert event["routing_key"] == ROUTING_KEY
    assert event["event_action"] in {"trigger", "acknowledge", "resolve"}
    assert 1 <= len(event["dedup_key"]) <= 255
    if event["event_action"] == "trigger":
        payload = event["payload"]
        assert payload["severity"] in {"critical", "error", "warning", "info"}
        assert payload["source"]
        assert 1 <= len(payload["summary"]) <= 1024
        assert _TIME.fullmatch(payload["timestamp"])
    return event
