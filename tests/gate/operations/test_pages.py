"""The pages of the second port: what they say, and to whom."""

import asyncio
from collections.abc import MutableMapping
from typing import Any

import msgspec
import pytest

from palladion.gate.operations.pages import make_pages
from tests.gate.gates import House, open_gate

from .watched import Watched, watched

TOKEN = b"t" * 40


@pytest.fixture
def item(house: House) -> Watched:
    return watched(open_gate(house))


def _get(
    item: Watched, path: str, *, token: bytes | None = None, host: str = "127.0.0.1:1", **changes: Any
) -> tuple[int, bytes]:
    app = make_pages(item.figures, item.health, token=token)
    shown = changes.get("shown")
    headers = [(b"host", host.encode()), *([(b"authorization", shown)] if shown else [])]
    scope: dict[str, Any] = {
        "type": "http", "http_version": "1.1", "method": changes.get("method", "GET"), "scheme": "http",
        "path": path, "raw_path": path.encode(), "root_path": "", "query_string": b"", "headers": headers,
        "client": ("127.0.0.1", 2), "server": ("127.0.0.1", 1),
    }  # fmt: skip
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    return int(sent[0]["status"]), b"".join(message.get("body", b"") for message in sent)


def test_metrics_are_told_in_prometheus_text(item: Watched) -> None:
    status, body = _get(item, "/metrics")
    assert status == 200
    assert b'palladion_clients{standing="trusted"} 4.0' in body


@pytest.mark.parametrize("shown", [b"", b"Bearer wrong", b"Basic " + TOKEN, b"Bearer " + TOKEN + b"x", b"Bearer \xff"])
def test_who_does_not_show_the_token_gets_no_figures(item: Watched, shown: bytes) -> None:
    assert _get(item, "/metrics", token=TOKEN, shown=shown) == (401, b"")


def test_who_shows_the_token_gets_them_from_anywhere(item: Watched) -> None:
    assert _get(item, "/metrics", token=TOKEN, shown=b"Bearer " + TOKEN, host="gate.example")[0] == 200


@pytest.mark.parametrize("host", ["attacker.example", "", "10.0.0.1:8711", "localhost.attacker.example"])
@pytest.mark.parametrize("path", ["/metrics", "/health/ready", "/health/live"])
def test_without_a_token_no_other_name_than_the_loopbacks_is_answered_to(item: Watched, path: str, host: str) -> None:
    assert _get(item, path, host=host) == (421, b"")


@pytest.mark.parametrize("host", ["localhost:8711", "127.0.0.1:8711", "[::1]:8711"])
def test_names_of_the_loopback_are(item: Watched, host: str) -> None:
    assert _get(item, "/health/live", host=host)[0] == 200


def test_what_is_wrong_is_told_to_those_who_may_read_figures(item: Watched) -> None:
    item.recorder.sound = False
    status, body = _get(item, "/health/ready")
    assert (status, msgspec.json.decode(body)) == (503, {"ok": False, "faults": ["the ledger takes nothing more"]})
    status, body = _get(item, "/health/ready", token=TOKEN)
    assert (status, msgspec.json.decode(body)) == (503, {"ok": False})


@pytest.mark.parametrize(
    ("path", "method", "status"), [("/", "GET", 404), ("/metrics", "POST", 405), ("/docs", "GET", 404)]
)
def test_there_is_nothing_else(item: Watched, path: str, method: str, status: int) -> None:
    assert _get(item, path, method=method)[0] == status
