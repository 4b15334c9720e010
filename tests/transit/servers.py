"""Web servers on loopback: one that does all by the book, and hooks by which it lies, stalls and breaks off instead."""

import re
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Hook = Callable[["Handler"], bool]  # whether it has answered


@dataclass
class Shelf:
    """What a server holds and was asked."""

    files: dict[str, bytes] = field(default_factory=dict)
    hooks: list[Hook] = field(default_factory=list)
    ranges: bool = True
    etags: bool = True
    base: str = ""
    asked: list[tuple[str, str, str]] = field(default_factory=list)  # method, path, range
    headers: list[dict[str, str]] = field(default_factory=list)
    sent_bytes: int = 0
    connections: set[tuple[str, int]] = field(default_factory=set)
    over: threading.Event = field(default_factory=threading.Event)  # set when the test ends

    def url(self, path: str) -> str:
        return self.base + path

    def gets(self, path: str | None = None) -> list[str]:
        """The ranges that were asked for."""
        return [asked[2] for asked in self.asked if asked[0] == "GET" and path in (None, asked[1])]

    def etag(self, path: str) -> str:
        return f'"{sha256(self.files[path]).hexdigest()[:16]}"'


class Handler(BaseHTTPRequestHandler):
    """By the book: ranges, conditions, uploads."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body go in two writes: the second must not wait for an ACK
    shelf: Shelf

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass

    @property
    def place(self) -> str:
        return self.path.partition("?")[0]

    def do_GET(self) -> None:
        self._begin()
        if any(hook(self) for hook in self.shelf.hooks):
            return
        if self.place not in self.shelf.files:
            self.answer(404, {}, b"no such thing")
            return
        data, etag = self.shelf.files[self.place], self.shelf.etag(self.place)
        headers = {"ETag": etag} if self.shelf.etags else {}
        if self.headers.get("If-Match", etag) != etag:
            self.answer(412, headers, b"")
            return
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if wanted is None or not self.shelf.ranges:
            self.answer(200, headers, data)
            return
        first, last = int(wanted.group(1)), min(int(wanted.group(2)), len(data) - 1)
        if first >= len(data):
            self.answer(416, headers, b"")
            return
        self.answer(206, {**headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}, data[first : last + 1])

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self._begin()
        if any(hook(self) for hook in self.shelf.hooks):
            return
        data = self.body()
        if self.headers.get("If-None-Match") == "*" and self.place in self.shelf.files:
            self.answer(412, {}, b"")
            return
        self.shelf.files[self.place] = data
        self.answer(201, {}, b"")

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", "0")))

    def answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.send(body)

    def send(self, data: bytes) -> None:
        try:
            self.wfile.write(data)
            self.shelf.sent_bytes += len(data)
        except OSError:
            self.close_connection = True

    def _begin(self) -> None:
        self.shelf.asked.append((self.command, self.place, self.headers.get("Range", "").removeprefix("bytes=")))
        self.shelf.headers.append(dict(self.headers))
        self.shelf.connections.add(self.client_address)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is no news."""


@contextmanager
def serving(
    files: dict[str, bytes] | None = None,
    *hooks: Hook,
    handler: type[Handler] = Handler,
    tls: ssl.SSLContext | None = None,
    shelf: Shelf | None = None,
) -> Iterator[Shelf]:
    """A server for the length of the block."""
    shelf = shelf or Shelf()
    shelf.files.update(files or {})
    shelf.hooks.extend(hooks)
    server = _Server(("127.0.0.1", 0), type("Bound", (handler,), {"shelf": shelf}))
    if tls is not None:
        server.socket = tls.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    shelf.base = f"{'https' if tls else 'http'}://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield shelf
    finally:
        shelf.over.set()
        server.shutdown()
        server.server_close()


def only(method: str, number: int, hook: Hook, *, path: str | None = None) -> Hook:
    """`hook` for the n-th request of that method alone, counted from 0."""
    seen = [0]

    def chosen(handler: Handler) -> bool:
        if handler.command != method or path not in (None, handler.place):
            return False
        seen[0] += 1
        return seen[0] == number + 1 and hook(handler)

    return chosen


def after(method: str, number: int, hook: Hook) -> Hook:
    """`hook` for all requests of that method but the first ones."""
    seen = [0]

    def chosen(handler: Handler) -> bool:
        if handler.command != method:
            return False
        seen[0] += 1
        return seen[0] > number and hook(handler)

    return chosen


def hang_up(handler: Handler) -> bool:
    """Close without a word."""
    handler.close_connection = True
    return True


def answering(status: int, headers: dict[str, str] | None = None, body: bytes = b"") -> Hook:
    """One fixed answer."""

    def hook(handler: Handler) -> bool:
        handler.answer(status, headers or {}, body)
        return True

    return hook
