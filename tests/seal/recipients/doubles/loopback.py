"""The HTTP side of a double: requests as JSON, answers as JSON, and answers that go wrong on purpose."""

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

GARBAGE = ("garbage", "list", "empty", "nonsense", "truncated", "list-error", "odd-codes", "html-error", "busy")
STALL_SECONDS = 20


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    status: int
    body: Any
    headers: dict[str, str] = field(default_factory=dict)


class Loopback:
    """Serves `respond` on a port of its own. `faults` are used up one a request before `respond` is asked."""

    def __init__(self, respond: Callable[[Request], Answer]) -> None:
        self.respond = respond
        self.faults: list[str] = []
        self.requests: list[Request] = []
        self.other_url = ""  # where a redirect leads, if not here
        self._released = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})

    @property
    def port(self) -> int:
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        loopback = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                loopback._serve(self)

            def do_POST(self) -> None:
                loopback._serve(self)

        return Handler

    def _serve(self, handler: BaseHTTPRequestHandler) -> None:
        request = self._read(handler)
        self.requests.append(request)
        fault = self.faults.pop(0) if self.faults else ""
        if fault == "stalled":
            self._released.wait(STALL_SECONDS)
            return
        if fault:
            self._send_fault(handler, fault)
            return
        answer = self.respond(request)
        self._send(handler, answer.status, json.dumps(answer.body).encode(), answer.headers)

    @staticmethod
    def _read(handler: BaseHTTPRequestHandler) -> Request:
        data = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        parts = urlsplit(handler.path)
        return Request(
            handler.command,
            parts.path,
            dict(parse_qsl(parts.query, keep_blank_values=True)),
            {name.lower(): value for name, value in handler.headers.items()},
            json.loads(data) if data else {},
        )

    def _send_fault(self, handler: BaseHTTPRequestHandler, fault: str) -> None:
        status, body, headers = {
            "garbage": (200, b"<html>Sign in to the guest network</html>", {}),
            "list": (200, b"[1, 2]", {}),
            "empty": (200, b"{}", {}),
            # every field that one of the services answers with, none of a type that it should have
            "nonsense": (200, json.dumps(dict.fromkeys(NONSENSE_FIELDS, 7)).encode(), {}),
            "truncated": (200, b'{"data": {"ciph', {"Content-Length": "400"}),
            "list-error": (400, b"[1, 2]", {}),
            "odd-codes": (400, b'{"__type": [1], "code": {}, "error": {"code": [1], "status": {}}, "errors": 7}', {}),
            "html-error": (502, b"<html>Bad gateway</html>", {}),
            "redirect": (307, b"{}", {"Location": f"{self.other_url or self.url}/elsewhere"}),
            "busy": (503, b"{}", {}),
        }[fault]
        self._send(handler, status, body, headers)

    @staticmethod
    def _send(handler: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str]) -> None:
        handler.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": str(len(body)), **headers}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)


NONSENSE_FIELDS = (
    "CiphertextBlob",
    "Plaintext",
    "KeyId",
    "name",
    "ciphertext",
    "plaintext",
    "data",
    "value",
    "kid",
    "key",
)
