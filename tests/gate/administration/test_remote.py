"""An operator's own side: which gates are asked, what is made of their answers, and who can read a session."""

import json
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from palladion.errors import BusyError, ConflictError, FormatError, KeysError, NotFoundError, PalladionError
from palladion.errors import StorageError as Unreachable
from palladion.gate.administration import remote as module
from palladion.gate.administration.remote import Remote, SecondPersonError, Session, Sessions
from tests.lifecycle.installations import NOW

URL = "https://gate.example.com:8711"
SESSION = Session(URL, "pallop_secret", int(NOW.timestamp()) + 60, "user:ada", "admin")


@contextmanager
def _gate(status: int, data: bytes) -> Iterator[tuple[str, list[tuple[str, str, str | None]]]]:
    asked: list[tuple[str, str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            asked.append((self.command, self.path, self.headers["Authorization"]))
            self.send_response(status)
            self.send_header("Location", "http://127.0.0.1:1/")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_DELETE = _answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", asked
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_gate_is_asked_with_the_token_of_the_session() -> None:
    with _gate(200, b'{"ok": true}') as (url, asked):
        remote = Remote(url, "pallop_x")
        assert remote.get("proposals", all="1") == {"ok": True}
        remote.post("changes", {})
        remote.delete("session")
    assert asked == [
        ("GET", "/v1/proposals?all=1", "Bearer pallop_x"),
        ("POST", "/v1/changes", "Bearer pallop_x"),
        ("DELETE", "/v1/session", "Bearer pallop_x"),
    ]


@pytest.mark.parametrize(
    ("status", "kind", "expected"),
    [
        (401, "unauthenticated", KeysError),
        (403, "not-for-this-role", PalladionError),
        (403, "second-person", SecondPersonError),
        (404, "not-found", NotFoundError),
        (409, "conflict", ConflictError),
        (503, "busy", BusyError),
        (418, "other", PalladionError),
    ],
)
def test_a_problem_becomes_an_error_of_ours(status: int, kind: str, expected: type[PalladionError]) -> None:
    problem = {"type": f"urn:palladion:problem:{kind}", "detail": "why", "hints": ["what next"]}
    with _gate(status, json.dumps(problem).encode()) as (url, _), pytest.raises(expected, match="why") as caught:
        Remote(url).get("whoami")
    assert type(caught.value) is expected
    assert caught.value.hints[0] == "what next"


@pytest.mark.parametrize(("status", "data"), [(200, b"<html>"), (302, b""), (200, b"[]"), (500, b"oh")])
def test_what_no_gate_says_is_refused_and_no_redirect_is_followed(status: int, data: bytes) -> None:
    with _gate(status, data) as (url, asked), pytest.raises(FormatError, match=f"HTTP status {status}"):
        Remote(url, "pallop_x").get("whoami")
    assert len(asked) == 1


def test_an_answer_without_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ANSWER_BYTES_MAX", 10)
    with _gate(200, b'{"a": "aaaaaaaaaa"}') as (url, _), pytest.raises(FormatError, match="more than 10 bytes"):
        Remote(url).get("whoami")


def test_a_gate_that_is_not_there_is_told() -> None:
    with _gate(200, b"{}") as (url, _):
        pass
    with pytest.raises(Unreachable, match="cannot be asked: connection refused"):
        Remote(url).get("whoami")


@pytest.mark.parametrize(
    "url", ["http://gate.example.com", "gate.example.com", "ftp://a", "https://u:p@a", "https://a/v1", "https://a?b"]
)
def test_a_gate_is_asked_over_tls_or_on_the_loopback(url: str) -> None:
    with pytest.raises(PalladionError):
        Remote(url)


def test_addresses_of_one_gate_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Remote("https://gate.example.com/").url == Remote("https://GATE.example.com:443").url
    monkeypatch.chdir(tmp_path)
    assert Remote("unix:o.sock").url == f"unix:{tmp_path / 'o.sock'}"


def test_a_session_is_read_by_its_owner_alone(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path / "operators")
    sessions.save(SESSION)
    assert sessions.find(URL, NOW) == SESSION
    (path,) = (tmp_path / "operators").iterdir()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    path.chmod(0o640)
    with pytest.raises(KeysError, match="others can read"):
        sessions.find(URL, NOW)


def test_a_session_that_is_over_or_none_asks_to_sign_in(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    with pytest.raises(KeysError, match="nobody is signed in") as caught:
        sessions.find(URL, NOW)
    assert caught.value.hints == (f"palladion operator sign-in {URL}",)
    sessions.save(SESSION)
    with pytest.raises(KeysError, match="is over"):
        sessions.find(URL, NOW + timedelta(seconds=60))
    next(tmp_path.iterdir()).write_text("{}")
    with pytest.raises(KeysError, match="holds no session"):
        sessions.find(URL, NOW)
    sessions.forget(URL)
    sessions.forget(URL)
    assert list(tmp_path.iterdir()) == []


def test_a_session_is_not_shown_by_accident() -> None:
    assert "secret" not in repr(SESSION)


def test_sessions_lie_with_the_users_configuration(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    Sessions.of_user().save(SESSION)
    assert (tmp_path / "palladion" / "operators").is_dir()


def test_another_gates_session_is_not_taken(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path)
    sessions.save(SESSION)
    (path,) = tmp_path.iterdir()
    path.rename(sessions._path("https://other.example.com"))
    with pytest.raises(KeysError, match="is over"):
        sessions.find("https://other.example.com", NOW)
