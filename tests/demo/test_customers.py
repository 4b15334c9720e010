"""Accounts over HTTP, against a server that answers a few queries and then refuses."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from palladion.demo.customers import Account, ask_all

KEYS = {"k-full": "probabilities", "k-label": "label"}
ANSWERED = 3  # requests of the second account before it is suspended


class _Api(BaseHTTPRequestHandler):
    """Class = first input; scores are certain. Strict: the wrong key, path or body is a 400."""

    protocol_version = "HTTP/1.1"
    seen: list[tuple[str, str]]

    def do_POST(self) -> None:
        key = (self.headers["Authorization"] or "").removeprefix("Bearer ")
        rows = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        type(self).seen.append((key, self.client_address[0]))
        asked = sum(who == key for who, _ in type(self).seen)
        status = 200 if key in KEYS and self.path == "/predict" else 400
        if key == "k-label" and asked > ANSWERED:
            status = 403
        labels = [int(row[0]) for row in rows]
        outputs: dict[str, Any] = {"label": labels}
        if KEYS.get(key) == "probabilities":
            outputs["probabilities"] = np.eye(4)[labels].tolist()
        body = json.dumps({"outputs": outputs} if status == 200 else {"status": status}).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


@pytest.fixture
def url() -> Iterator[str]:
    _Api.seen = []
    with ThreadingHTTPServer(("127.0.0.1", 0), _Api) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def account(key: str, address: str, batch: int) -> Account:
    rows = (np.arange(20).reshape(10, 2) % 4).astype(np.float32)
    return Account(key, key, address, "/predict", rows, batch)


@pytest.mark.slow
def test_every_account_asks_from_its_own_address_until_it_is_done_or_refused(url: str) -> None:
    full, cut = ask_all(url, [account("k-full", "127.0.0.3", 1), account("k-label", "127.0.0.4", 2)], classes=4)
    assert (full.answered, full.refused_with) == (10, None)
    assert (cut.answered, cut.refused_with) == (2 * ANSWERED, 403)
    assert set(_Api.seen) == {("k-full", "127.0.0.3"), ("k-label", "127.0.0.4")}


def test_scores_are_kept_and_labels_stand_in_where_there_are_none(url: str) -> None:
    harvests = ask_all(url, [account("k-full", "127.0.0.3", 5), account("k-label", "127.0.0.4", 5)], classes=4)
    for harvest in harvests:
        expected = (np.arange(0, 20, 2) % 4)[: harvest.answered]
        assert harvest.labels.tolist() == expected.tolist()
        assert (harvest.scores.argmax(axis=1) == expected).all()


def test_an_account_that_is_not_let_in_gets_nothing(url: str) -> None:
    (nothing,) = ask_all(url, [account("k-wrong", "127.0.0.3", 1)], classes=4)
    assert (nothing.answered, nothing.refused_with, nothing.scores.shape) == (0, 400, (0, 4))
