"""Issuers: keys are fetched in time, from where the policy says, and old ones count until others have come."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.access.jwks import SET_BYTES_MAX
from palladion.access.tokens import RefusedTokenError
from palladion.errors import FormatError, KeysError, PalladionError, PolicyError, StorageError
from palladion.gate.issuers import DISCOVERY, REFRESH_SECONDS, RETRY_SECONDS, Issuers, examine_token, fetch_keys
from palladion.policy import IssuerPolicy
from tests.access.issuing import CLIENT, NOW, POLICY, URL, jwk, jwks, token


class Desk:
    """Issuers whose keys are what a test says, at a time that it says."""

    def __init__(self, *policies: IssuerPolicy) -> None:
        self.now = 1000.0
        self.sets: dict[str, bytes | PalladionError] = {policy.url: jwks() for policy in policies}
        self.asked: list[str] = []
        self.issuers = Issuers(policies, Path(), fetch=self._fetch, seconds=lambda: self.now)

    def _fetch(self, policy: IssuerPolicy, _: Path) -> bytes:
        self.asked.append(policy.url)
        found = self.sets[policy.url]
        if isinstance(found, PalladionError):
            raise found
        return found

    def refresh(self, after: float = 0.0) -> None:
        self.now += after
        asyncio.run(self.issuers.refresh())

    def accepts(self, text: bytes) -> bool:
        assert self.issuers.tokens is not None
        try:
            return self.issuers.tokens.verify(text, NOW).client == CLIENT
        except RefusedTokenError:
            return False


def test_keys_come_at_the_first_look_and_then_every_few_minutes() -> None:
    desk = Desk(POLICY)
    assert not desk.accepts(token())
    desk.refresh()
    assert desk.accepts(token())
    for _ in range(100):
        desk.refresh(after=REFRESH_SECONDS / 101)
    assert desk.asked == [URL]
    desk.refresh(after=REFRESH_SECONDS)
    assert desk.asked == [URL, URL]


def test_a_key_that_is_new_is_fetched_soon_and_made_up_ones_gain_nothing() -> None:
    desk = Desk(POLICY)
    desk.refresh()
    desk.sets[URL] = jwks(jwk(), jwk(number=1))
    assert not desk.accepts(token(number=1))
    desk.refresh(after=RETRY_SECONDS - 0.1)
    assert desk.asked == [URL]
    desk.refresh(after=0.2)
    assert desk.accepts(token(number=1))
    for number in range(1000):
        assert not desk.accepts(token(header={"kid": f"made-up-{number}"}))
        desk.refresh(after=0.01)
    assert len(desk.asked) == 2


def test_a_withdrawn_key_counts_no_more() -> None:
    desk = Desk(POLICY)
    desk.refresh()
    assert desk.accepts(token())
    desk.sets[URL] = jwks(jwk(number=1))
    desk.refresh(after=REFRESH_SECONDS)
    assert not desk.accepts(token())
    assert desk.accepts(token(number=1))


@pytest.mark.parametrize("broken", [StorageError("no answer"), b"<html>", b'{"keys":[]}', jwks(jwk(d="x"))])
def test_old_keys_count_until_others_have_come_and_the_operator_is_told_once(
    broken: bytes | PalladionError, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(POLICY)
    desk.refresh()
    desk.sets[URL] = broken
    with caplog.at_level(logging.WARNING, "palladion.gate"):
        desk.refresh(after=REFRESH_SECONDS)
        desk.refresh(after=RETRY_SECONDS)
        assert desk.accepts(token())
        assert len(desk.asked) == 3
        assert len(caplog.records) == 1
        desk.sets[URL] = jwks()
        desk.refresh(after=RETRY_SECONDS)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_an_issuer_that_does_not_answer_keeps_no_other_waiting() -> None:
    other = msgspec.structs.replace(POLICY, url="https://other.example")
    desk = Desk(POLICY, other)
    desk.sets[other.url] = StorageError("no answer")
    desk.refresh()
    assert desk.accepts(token())
    assert sorted(desk.asked) == sorted([URL, other.url])


def test_without_issuers_there_are_no_tokens() -> None:
    desk = Desk()
    desk.refresh()
    assert desk.issuers.tokens is None


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": "http://login.example.com/keys"},
        {"keys": "https://me:secret@login.example.com/keys"},
        {"keys": "", "url": "http://login.example.com"},
        {"keys": "http://127.0.0.1.evil.example/keys"},
    ],
)
def test_keys_over_a_way_that_others_can_change_are_a_mistake_in_the_policy(changes: dict[str, str]) -> None:
    with pytest.raises(PolicyError, match=r"issuer\.keys"):
        Issuers([msgspec.structs.replace(POLICY, **changes)], Path())


def test_an_issuer_stands_in_the_policy_once() -> None:
    with pytest.raises(PolicyError, match="stands in two"):
        Issuers([POLICY, POLICY], Path())


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    pages: Mapping[str, tuple[int, dict[str, str], bytes]]
    asked: list[str]


class _Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, _Server)
        self.server.asked.append(self.path)
        status, headers, body = self.server.pages.get(self.path, (404, {}, b""))
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Callable[..., _Server]]:
    running: list[_Server] = []

    def start(pages: Callable[[str], Mapping[str, tuple[int, dict[str, str], bytes]]]) -> _Server:
        made = _Server(("127.0.0.1", 0), _Handler)
        made.asked = []
        made.pages = pages(f"http://127.0.0.1:{made.server_port}")
        threading.Thread(target=made.serve_forever, args=(0.02,), daemon=True).start()
        running.append(made)
        return made

    yield start
    for made in running:
        made.shutdown()
        made.server_close()


def _at(server: _Server, **changes: str) -> IssuerPolicy:
    base = f"http://127.0.0.1:{server.server_port}"
    return IssuerPolicy(url=changes.get("url", base), audience="gate", keys=changes.get("keys", "").format(base))


def test_keys_are_found_by_the_issuers_own_configuration(server: Callable[..., _Server]) -> None:
    running = server(
        lambda base: {
            DISCOVERY: (200, {}, json.dumps({"issuer": base, "jwks_uri": f"{base}/keys"}).encode()),
            "/keys": (200, {}, jwks()),
        }
    )
    assert fetch_keys(_at(running), Path()) == jwks()
    assert running.asked == [DISCOVERY, "/keys"]


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example", "jwks_uri": "BASE/keys"},
        {"jwks_uri": "BASE/keys"},
        {"issuer": "BASE"},
        {"issuer": "BASE", "jwks_uri": 7},
        {"issuer": "BASE", "jwks_uri": "http://login.example.com/keys"},
        {"issuer": "BASE", "jwks_uri": "file:///etc/passwd"},
    ],
)
def test_a_configuration_that_leads_elsewhere_is_refused(
    server: Callable[..., _Server], document: dict[str, Any]
) -> None:
    running = server(
        lambda base: {
            DISCOVERY: (200, {}, json.dumps(document).replace("BASE", base).encode()),
            "/keys": (200, {}, jwks()),
        }
    )
    with pytest.raises(FormatError, match="its configuration"):
        fetch_keys(_at(running), Path())
    assert running.asked == [DISCOVERY]


@pytest.mark.parametrize(
    "page",
    [
        pytest.param((404, {}, b""), id="not found"),
        pytest.param((302, {"Location": "/keys"}, b""), id="a redirect"),
        pytest.param((200, {}, b" " * (SET_BYTES_MAX + 1)), id="too long"),
        pytest.param((200, {"Content-Length": "9999"}, b"{}"), id="cut"),
    ],
)
def test_an_answer_that_is_no_set_of_keys_is_an_error(
    server: Callable[..., _Server], page: tuple[int, dict[str, str], bytes]
) -> None:
    running = server(lambda _: {"/there": page, "/keys": (200, {}, jwks())})
    with pytest.raises((StorageError, FormatError)):
        fetch_keys(_at(running, keys="{}/there"), Path())
    assert running.asked == ["/there"]


def test_an_issuer_elsewhere_cannot_make_this_machine_ask_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def get(place: str) -> bytes:
        asked.append(place)
        return json.dumps({"issuer": URL, "jwks_uri": "https://127.0.0.1/keys"}).encode()

    monkeypatch.setattr("palladion.gate.issuers._get", get)
    with pytest.raises(FormatError, match="no https address"):
        fetch_keys(POLICY, Path())
    assert asked == [URL + DISCOVERY]


def test_keys_can_lie_in_a_file_beside_the_policy(tmp_path: Path) -> None:
    (tmp_path / "keys.json").write_bytes(jwks())
    policy = msgspec.structs.replace(POLICY, keys="keys.json")
    assert fetch_keys(policy, tmp_path) == jwks()
    with pytest.raises(PalladionError):
        fetch_keys(policy, tmp_path / "elsewhere")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"iss": "https://evil.example"}, "an issuer that the policy does not name"),
        ({"aud": "https://other.example"}, "another audience"),
        ({"exp": int(NOW) - 100}, "over, or too old"),
        ({"sub": None}, "names no client"),
    ],
)
def test_an_operator_is_told_why_a_token_is_refused(tmp_path: Path, changes: dict[str, Any], why: str) -> None:
    (tmp_path / "keys.json").write_bytes(jwks())
    policies = [msgspec.structs.replace(POLICY, keys="keys.json")]
    assert examine_token(policies, tmp_path, token(), NOW).client == CLIENT
    with pytest.raises(KeysError, match=why):
        examine_token(policies, tmp_path, token(claims=changes), NOW)
