"""Issuers: keys are fetched in time, from where the policy says, and old ones count until others have come."""

import asyncio
import json
import logging
import re
import ssl
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509

from palladion.access.jwks import SET_BYTES_MAX
from palladion.access.tokens import RefusedTokenError
from palladion.errors import FormatError, KeysError, PalladionError, PolicyError, StorageError
from palladion.gate.issuers import (
    BROKEN_SECONDS_MAX,
    CLIENTS,
    DISCOVERY,
    OPERATORS,
    REFRESH_SECONDS,
    RETRY_SECONDS,
    Issuers,
    examine_token,
    fetch_keys,
)
from palladion.policy import IssuerPolicy
from tests.access.issuing import CLIENT, NOW, POLICY, URL, jwk, jwks, token
from tests.gate.certificates import Authority


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


@pytest.mark.slow
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


@pytest.mark.parametrize("broken", [StorageError("no answer"), b"<html>", jwks(jwk(d="x"))])
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


@pytest.mark.parametrize(
    "left", [b'{"keys":[]}', jwks(jwk(alg="RS256"))], ids=["nothing", "a key for another algorithm"]
)
def test_an_issuer_that_takes_its_last_key_away_is_believed_at_once_and_the_operator_told_once(
    left: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    desk = Desk(POLICY)
    desk.refresh()
    desk.sets[URL] = left
    with caplog.at_level(logging.WARNING, "palladion.gate"):
        desk.refresh(after=REFRESH_SECONDS)
        assert not desk.accepts(token())
        desk.refresh(after=RETRY_SECONDS)
        desk.sets[URL] = jwks()
        desk.refresh(after=RETRY_SECONDS)
        assert desk.accepts(token())
        desk.sets[URL] = left
        desk.refresh(after=REFRESH_SECONDS)
    assert not desk.accepts(token())
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING", "ERROR"]


def test_keys_do_not_outlive_a_set_that_stays_broken_for_an_hour(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(POLICY)
    desk.refresh()
    desk.sets[URL] = b"<html>"
    with caplog.at_level(logging.WARNING, "palladion.gate"):
        desk.refresh(after=REFRESH_SECONDS)
        desk.refresh(after=BROKEN_SECONDS_MAX - 1)
        assert desk.accepts(token())
        desk.refresh(after=RETRY_SECONDS)
        assert not desk.accepts(token())
        desk.refresh(after=RETRY_SECONDS)
    assert ["from before go on" in record.message for record in caplog.records] == [True, False]
    desk.sets[URL] = jwks()
    desk.refresh(after=RETRY_SECONDS)
    assert desk.accepts(token())


def test_an_hour_of_broken_sets_begins_anew_after_a_good_one() -> None:
    desk = Desk(POLICY)
    for _ in range(3):
        desk.sets[URL] = jwks()
        desk.refresh(after=REFRESH_SECONDS)
        desk.sets[URL] = b"<html>"
        desk.refresh(after=REFRESH_SECONDS)
        desk.refresh(after=BROKEN_SECONDS_MAX - 1)
    assert desk.accepts(token())


def test_keys_outlive_an_issuer_that_cannot_be_reached() -> None:
    desk = Desk(POLICY)
    desk.refresh()
    desk.sets[URL] = StorageError("no answer")
    for _ in range(5):
        desk.refresh(after=BROKEN_SECONDS_MAX)
    assert desk.accepts(token())


def test_an_issuer_that_does_not_answer_keeps_no_other_waiting() -> None:
    other = msgspec.structs.replace(POLICY, url="https://other.example")
    desk = Desk(POLICY, other)
    desk.sets[other.url] = StorageError("no answer")
    desk.refresh()
    assert desk.accepts(token())
    assert sorted(desk.asked) == sorted([URL, other.url])


def test_an_issuer_that_is_slow_holds_up_no_other_and_not_the_start() -> None:
    slow, asked, answers = (
        msgspec.structs.replace(POLICY, url="https://slow.example"),
        Counter[str](),
        threading.Event(),
    )
    now = [1000.0]

    def fetch(policy: IssuerPolicy, _: Path) -> bytes:
        asked[policy.url] += 1
        if policy.url == slow.url:
            answers.wait()
        return jwks()

    issuers = Issuers([slow, POLICY], Path(), fetch=fetch, seconds=lambda: now[0])

    async def look(times: int) -> None:
        await issuers.refresh(seconds_max=0.0)
        while asked[URL] < times or asked[slow.url] < 1 or URL in issuers._asking:
            await asyncio.sleep(0)

    async def begin() -> None:
        try:
            for times in (1, 2, 3):
                async with asyncio.timeout(30):  # only a failure takes so long
                    await look(times)
                assert issuers.tokens is not None
                assert issuers.tokens.verify(token(), NOW).client == CLIENT
                now[0] += REFRESH_SECONDS
            # one request at a time, however long it takes
            assert asked == {slow.url: 1, URL: 3}
        finally:
            answers.set()
        await issuers.refresh()
        assert asked[slow.url] == 1
        await issuers.refresh()
        assert asked[slow.url] == 2

    asyncio.run(begin())


def test_a_bug_of_ours_is_told_and_the_issuer_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(POLICY)
    desk.sets[URL] = None  # type: ignore[assignment]
    desk.refresh()
    assert "asking it failed" in caplog.text
    desk.sets[URL] = jwks()
    desk.refresh(after=RETRY_SECONDS)
    assert desk.accepts(token())


def test_no_answer_is_waited_for_when_the_gate_stops() -> None:
    asked, answers = threading.Event(), threading.Event()

    def fetch(_: IssuerPolicy, __: Path) -> bytes:
        asked.set()
        answers.wait()
        return jwks()

    issuers = Issuers([POLICY], Path(), fetch=fetch)

    async def stop() -> None:
        running = asyncio.create_task(issuers.run())
        await issuers.refresh(seconds_max=0.0)
        await asyncio.to_thread(asked.wait)
        running.cancel()
        await asyncio.wait([running, *issuers._asking.values()])

    try:
        asyncio.run(stop())
        assert issuers._asking == {}
    finally:
        answers.set()


def test_without_issuers_there_are_no_tokens() -> None:
    desk = Desk()
    desk.refresh()
    assert desk.issuers.tokens is None


@pytest.mark.parametrize(
    "changes",
    [
        {"keys": "http://login.example.com/keys"},
        {"keys": "https://me:secret@login.example.com/keys"},
        {"keys": "http://127.0.0.1.evil.example/keys"},
    ],
)
def test_keys_over_a_way_that_others_can_change_are_a_mistake_in_the_policy(changes: dict[str, str]) -> None:
    with pytest.raises(PolicyError, match=r"issuer\.keys"):
        Issuers([msgspec.structs.replace(POLICY, **changes)], Path())


@pytest.mark.parametrize(
    ("section", "changes", "message"),
    [
        (CLIENTS, {"keys": "", "url": "http://login.example.com"}, "issuer.url: http://login.example.com is not"),
        (OPERATORS, {"keys": "", "url": "http://login.example.com"}, "operators.issuer: http://login.example.com is"),
        (OPERATORS, {"keys": "http://login.example.com/keys"}, "operators.keys: http://login.example.com/keys is not"),
        (OPERATORS, {"ca": "ca.pem", "keys": "keys.json"}, "operators.ca: the keys are not fetched over https"),
    ],
)
def test_a_mistake_is_told_by_the_name_of_its_setting(section: str, changes: dict[str, str], message: str) -> None:
    with pytest.raises(PolicyError, match=re.escape(message)):
        Issuers([msgspec.structs.replace(POLICY, **changes)], Path(), section=section)


def test_authorities_of_operators_that_are_none_are_told_by_their_name(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing\n")
    policy = msgspec.structs.replace(POLICY, ca="ca.pem")
    with pytest.raises(PolicyError, match=r"operators\.ca: .* holds no certificates"):
        Issuers([policy], tmp_path, section=OPERATORS)
    with pytest.raises(PolicyError, match=r"operators\.ca"):
        fetch_keys(policy, tmp_path, section=OPERATORS)


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

    def start(
        pages: Callable[[str], Mapping[str, tuple[int, dict[str, str], bytes]]], tls: ssl.SSLContext | None = None
    ) -> _Server:
        made = _Server(("127.0.0.1", 0), _Handler)
        if tls is not None:
            made.socket = tls.wrap_socket(made.socket, server_side=True)
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

    def get(place: str, _: ssl.SSLContext | None) -> bytes:
        asked.append(place)
        return json.dumps({"issuer": URL, "jwks_uri": "https://127.0.0.1/keys"}).encode()

    monkeypatch.setattr("palladion.gate.issuers._get", get)
    with pytest.raises(FormatError, match="no https address"):
        fetch_keys(POLICY, Path())
    assert asked == [URL + DISCOVERY]


def test_keys_are_fetched_from_a_server_that_the_named_authority_vouches_for_and_from_no_other(
    server: Callable[..., _Server], tmp_path: Path
) -> None:
    own, other = Authority(tmp_path), Authority(tmp_path, "other")
    issued = own.issue("server", [x509.IPAddress(ip_address("127.0.0.1"))])
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(issued.path, issued.key)
    running = server(lambda _: {"/keys": (200, {}, jwks())}, tls)
    policy = msgspec.structs.replace(POLICY, keys=f"https://127.0.0.1:{running.server_port}/keys")
    own.path.write_text(f"# our own, für uns\n{own.path.read_text()}")
    assert fetch_keys(msgspec.structs.replace(policy, ca=own.path.name), tmp_path) == jwks()
    for ca in ("", other.path.name):
        with pytest.raises(StorageError, match="certificate verify failed"):
            fetch_keys(msgspec.structs.replace(policy, ca=ca), tmp_path)
    assert running.asked == ["/keys"]


def test_authorities_take_the_place_of_the_systems(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked: list[ssl.SSLContext | None] = []

    def get(_: str, context: ssl.SSLContext | None) -> bytes:
        asked.append(context)
        return json.dumps({"issuer": URL, "jwks_uri": URL}).encode()

    monkeypatch.setattr("palladion.gate.issuers._get", get)
    ca = Authority(tmp_path).path.name
    fetch_keys(msgspec.structs.replace(POLICY, ca=ca), tmp_path)
    assert [context and len(context.get_ca_certs()) for context in asked] == [1, 1]


@pytest.mark.parametrize("changes", [{"keys": "keys.json"}, {"keys": "http://127.0.0.1/keys"}], ids=["file", "http"])
def test_authorities_that_nothing_is_checked_by_are_a_mistake_in_the_policy(changes: dict[str, str]) -> None:
    with pytest.raises(PolicyError, match=r"issuer\.ca"):
        Issuers([msgspec.structs.replace(POLICY, ca="ca.pem", **changes)], Path())


def test_a_file_without_authorities_is_found_at_the_start(tmp_path: Path) -> None:
    policy = msgspec.structs.replace(POLICY, ca="ca.pem")
    with pytest.raises(StorageError, match=r"ca\.pem"):
        Issuers([policy], tmp_path)
    for text in ("", "nothing\n", jwks().decode()):
        (tmp_path / "ca.pem").write_text(text)
        with pytest.raises(PolicyError, match="no certificates in PEM"):
            Issuers([policy], tmp_path)


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
