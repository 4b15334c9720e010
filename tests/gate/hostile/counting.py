"""A plain JSON model server on the loopback that counts what reaches it, and the route that leads there."""

import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec

from palladion.policy import RoutePolicy
from palladion.policy.tensors import FixedPolicy, TensorPolicy

DIGITS = "digits"
JSON_PATH = f"/v1/models/{DIGITS}/predict"
CLASSES = 3


class Counting(ThreadingHTTPServer):
    """A model that says something of each row; `asked` are the documents that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[Any] = []
        self.address = f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Counting

    def do_POST(self) -> None:
        document = msgspec.json.decode(self.rfile.read(int(self.headers["content-length"])))
        self.server.asked.append(document)
        rows = [
            {"scores": [math.tanh(sum(row)) + number for number in range(CLASSES)], "debug": 1}
            for row in document["rows"]
        ]
        body = msgspec.json.encode({"answers": rows, "took": 0.1})
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def counting() -> Iterator[Counting]:
    """The server for the length of the block."""
    server = Counting()
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def json_route(address: str, **changes: Any) -> RoutePolicy:
    """The route of this model."""
    return RoutePolicy(
        model=DIGITS,
        protocol="json",
        mode="enforce",
        upstream=address,
        upstream_path="/predict",
        inputs=(TensorPolicy(name="x", type="float32", shape=(2,), path="$.rows[*]"),),
        outputs=(TensorPolicy(name="scores", type="float32", shape=(CLASSES,), path="$.answers[*].scores"),),
        fixed=(FixedPolicy(path="$.verbose", value=False),),
        **changes,
    )
