"""Suspects behind an API: a real server on the loopback that answers as a test says."""

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from palladion.transit.connection import Limits
from palladion.transit.url import Url, parse_url

# nothing in these tests is slow on purpose but what has to be cut off
LIMITS = Limits(attempts=1, redirects=0, idle_seconds=0.3)


@dataclass(frozen=True)
class Reply:
    """What the server answers; `stall` leaves the connection open without a word after the head."""

    body: bytes = b"{}"
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    stall: bool = False


Answering = Callable[[Any], Any]


@dataclass
class Suspect:
    """A running server: its address, and the documents and headers that it got."""

    url: Url
    asked: list[Any] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    @property
    def rows(self) -> int:
        """Rows that it was asked, in a Palladion gate's format."""
        return sum(len(document["inputs"]) for document in self.asked)


@contextmanager
def suspect(answer: Answering, *, path: str = "/v1/models/theirs/predict") -> Iterator[Suspect]:
    """A server that answers each document with a `Reply`, or with whatever is to be its JSON."""
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            document = json.loads(self.rfile.read(int(self.headers["content-length"])))
            running.asked.append(document)
            running.headers.append({name.lower(): value for name, value in self.headers.items()})
            said = answer(document)
            reply = said if isinstance(said, Reply) else Reply(json.dumps(said).encode())
            self.send_response(reply.status)
            for name, value in {"content-length": str(len(reply.body)), **reply.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if reply.stall:
                ended.wait(30)
                return
            self.wfile.write(reply.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    running = Suspect(parse_url(f"http://127.0.0.1:{server.server_address[1]}{path}"))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield running
    finally:
        ended.set()
        server.shutdown()
        thread.join()
        server.server_close()
