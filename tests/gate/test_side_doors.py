"""Model servers that answer around the gate: real ones on the loopback, open, shut and silent, and who reaches them."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from palladion.gate import side_doors
from palladion.gate.side_doors import Door, look, probe, probed_record
from palladion.policy import Policy, RoutePolicy
from tests.lifecycle.installations import NOW

from .certificates import Authority


class _Server(ThreadingHTTPServer):
    """Answers paths with statuses; others with `otherwise`. Keeps what it was asked with."""

    def __init__(self, statuses: dict[str, int], otherwise: int = 404) -> None:
        self.statuses, self.otherwise = statuses, otherwise
        self.asked: list[tuple[str, str, dict[str, str]]] = []
        super().__init__(("127.0.0.1", 0), _Handler)


class _Handler(BaseHTTPRequestHandler):
    server: _Server

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        self.send_response(self.server.statuses.get(self.path, self.server.otherwise))
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@contextmanager
def _serving(server: _Server) -> Iterator[int]:
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _policy(upstream: str, **settings: Any) -> Policy:
    return Policy(route=(RoutePolicy(model="fraud", upstream=upstream, **settings),))


def test_an_open_server_is_named_with_what_it_gives(tmp_path: Path) -> None:
    server = _Server({"/v2/models/inner": 200, "/invocations": 405, "/metrics": 302, "/v2/repository/index": 401})
    with _serving(server) as port:
        policy = _policy(f"http://127.0.0.1:{port}", upstream_model="inner")
        (found,) = probe(policy, listening=tmp_path)
    assert found.doors == (Door("/v2/models/inner", 200, "models"), Door("/invocations", 405, "answers"))
    assert (found.refused, found.silent, found.reach) == (1, "", "not known")
    (check,) = look([found])
    assert check.status == "problem"
    assert "models at /v2/models/inner (200), answers at /invocations (405)" in check.message
    assert {command for command, _, _ in server.asked} == {"GET"}
    assert not any(name.lower() == "authorization" for _, _, headers in server.asked for name in headers)


def test_a_server_that_asks_for_a_credential_is_shut(tmp_path: Path) -> None:
    with _serving(_Server({}, otherwise=401)) as port:
        (found,) = probe(_policy(f"http://127.0.0.1:{port}"), listening=tmp_path)
    assert (found.doors, found.silent) == ((), "")
    assert found.refused == len(side_doors.PATHS)
    (check,) = look([found])
    assert check.status == "ok"


def test_a_server_that_answers_everything_is_one_door(tmp_path: Path) -> None:
    server = _Server({}, otherwise=200)
    with _serving(server) as port:
        (found,) = probe(_policy(f"http://127.0.0.1:{port}"), listening=tmp_path)
    assert found.doors == (Door("any path", 200, "something"),)
    assert len(server.asked) == 1


def test_a_server_that_is_not_there_is_not_called_shut(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (found,) = probe(_policy(f"http://127.0.0.1:{port}"), listening=tmp_path)
    (check,) = look([found])
    assert check.status == "warning"
    assert "could not be asked: connection refused" in check.message
    assert probed_record([found], at=NOW, actor="ann").details["unasked"] == [f"http://127.0.0.1:{port}"]


def test_who_shows_no_certificate_is_refused_by_a_server_that_wants_one(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    issued = authority.issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.path, issued.key)
    for wanted, status in ((ssl.CERT_NONE, "problem"), (ssl.CERT_REQUIRED, "ok")):
        context.verify_mode = wanted
        if wanted is ssl.CERT_REQUIRED:
            context.load_verify_locations(authority.path)
        server = _Server({"/metrics": 200})
        server.socket = context.wrap_socket(server.socket, server_side=True)
        with _serving(server) as port:
            (check,) = look(probe(_policy(f"https://127.0.0.1:{port}"), listening=tmp_path))
        assert check.status == status, check


@pytest.mark.parametrize(
    ("listening", "reach", "status"),
    [
        ({"tcp": "0100007F:{port} 0 0A"}, "this machine", "warning"),
        ({"tcp": "00000000:{port} 0 0A"}, "other machines", "problem"),
        ({"tcp": "00000000:{port} 0 01"}, "not known", "problem"),  # a connection, not a listener
        ({"tcp": "0100007F:0001 0 0A"}, "not known", "problem"),  # another port
        ({"tcp6": "00000000000000000000000000000000:{port} 0 0A"}, "other machines", "problem"),
        ({"tcp6": "00000000000000000000000001000000:{port} 0 0A"}, "this machine", "warning"),
        ({"tcp": "0100007F:{port} 0 0A", "tcp6": "0" * 32 + ":{port} 0 0A"}, "other machines", "problem"),
    ],
)
def test_who_reaches_a_server_here_is_who_it_listens_for(
    tmp_path: Path, listening: dict[str, str], reach: str, status: str
) -> None:
    with _serving(_Server({"/metrics": 200})) as port:
        for name, line in listening.items():
            (tmp_path / name).write_text(f"header\n  0: {line.format(port=f'{port:04X}')} 00\n")
        (found,) = probe(_policy(f"http://127.0.0.1:{port}"), listening=tmp_path)
    assert found.reach == reach
    assert [check.status for check in look([found])] == [status]


def test_linux_says_what_listens() -> None:
    with _serving(_Server({"/metrics": 200})) as port:
        (found,) = probe(_policy(f"http://127.0.0.1:{port}"))
    assert found.reach == "this machine"


def test_one_server_of_two_routes_is_asked_once(tmp_path: Path) -> None:
    with _serving(server := _Server({"/metrics": 200})) as port:
        routes = tuple(RoutePolicy(model=name, upstream=f"http://127.0.0.1:{port}") for name in ("a", "b"))
        (found,) = probe(Policy(route=routes), listening=tmp_path)
    assert found.routes == ("/v1/models/a/predict", "/v1/models/b/predict")
    paths = [path for _, path, _ in server.asked]
    assert len(paths) == len(set(paths))
    record = probed_record([found], at=NOW, actor="ann")
    assert (record.kind, record.details["open"]) == ("upstreams.probed", [f"http://127.0.0.1:{port}"])


@contextmanager
def _raw(*pieces: bytes, endless: bytes = b"") -> Iterator[tuple[int, list[bytes]]]:
    """A server that says `pieces` to whoever asks, and then `endless` until the other side ends it."""
    asked: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def answer(connected: socket.socket) -> None:
        with connected:
            connected.settimeout(0.05)
            try:
                asked.append(connected.recv(65536))
                for piece in pieces:
                    connected.sendall(piece)
                while endless:
                    connected.sendall(endless)
                    try:
                        if not connected.recv(1):
                            return
                    except TimeoutError:
                        continue
            except OSError:
                return

    def serve() -> None:
        while True:
            try:
                connected, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=answer, args=(connected,), daemon=True).start()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1], asked
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join()


@pytest.mark.parametrize(
    ("pieces", "endless"),
    [
        ((b"HTTP/1.1 200 OK\r\n",), b"x"),  # a head that never ends, a byte at a time
        ((), b"HTTP/1.1 100 Continue\r\n\r\n"),  # and one that is always about to come
        ((b"HTTP/1.1 200 OK\r\n",), b"a: b\r\n"),
    ],
)
def test_a_server_that_never_ends_its_answer_holds_nobody_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: tuple[bytes, ...], endless: bytes
) -> None:
    monkeypatch.setattr(side_doors, "SECONDS_MAX", 0.2)
    monkeypatch.setattr(side_doors, "SECONDS_ALL_MAX", 0.3)
    with _raw(*pieces, endless=endless) as (port, asked):
        (found,) = probe(_policy(f"http://127.0.0.1:{port}"), listening=tmp_path)
    assert bool(found.silent) is not bool(found.doors)  # a status that was said counts
    assert bool(found.silent) is not bool(pieces)
    assert 1 <= len(asked) <= 3  # then its time was up


def test_a_body_that_never_ends_is_not_waited_for(tmp_path: Path) -> None:
    with _raw(b"HTTP/1.1 401 no\r\ntransfer-encoding: chunked\r\n\r\n", endless=b"1\r\nx\r\n") as (port, _):
        (found,) = probe(_policy(f"http://127.0.0.1:{port}"), listening=tmp_path)
    assert (found.doors, found.refused, found.silent) == ((), len(side_doors.PATHS), "")


def test_a_server_of_another_protocol_is_not_called_shut(tmp_path: Path) -> None:
    with _raw(b"\0\0\x06\x04\0\0\0\0\0\0\x03\0\0\0\x64\n") as (port, _):  # SETTINGS of HTTP/2
        (check,) = look(probe(_policy(f"http://127.0.0.1:{port}"), listening=tmp_path))
    assert check.status == "warning"
    assert "could not be asked: it answers, and not in HTTP/1.1" in check.message


class _Rude(_Handler):
    """Ends the connection at some paths, sends others on, and sets a cookie."""

    def do_GET(self) -> None:
        self.server.asked.append((self.command, self.path, dict(self.headers)))
        status = self.server.statuses.get(self.path, self.server.otherwise)
        if status == 0:
            self.close_connection = True
            return
        self.send_response(status)
        self.send_header("set-cookie", "session=1")
        self.send_header("location", {"/score": "/score/", "/metrics": "http://elsewhere.example/metrics/"}.get(
            self.path, "/login"
        ))  # fmt: skip
        self.send_header("content-length", "0")
        self.end_headers()


def test_paths_that_end_the_connection_hide_no_other(tmp_path: Path) -> None:
    server = _Server({side_doors._NOWHERE: 0, "/v2/models/fraud": 0, "/invocations": 405})
    server.RequestHandlerClass = _Rude
    with _serving(server) as port:
        (found,) = probe(_policy(f"http://127.0.0.1:{port}"), listening=tmp_path)
    assert (found.doors, found.silent, found.unheard) == ((Door("/invocations", 405, "answers"),), "", 2)


def test_a_path_that_is_sent_on_to_itself_with_a_slash_is_followed_and_nothing_else(tmp_path: Path) -> None:
    server = _Server({"/score": 307, "/score/": 405, "/metrics": 307, "/invocations": 302})
    server.RequestHandlerClass = _Rude
    with _serving(server) as port:
        (found,) = probe(_policy(f"http://127.0.0.1:{port}"), listening=tmp_path)
    assert found.doors == (Door("/score", 405, "answers"),)
    assert {"/login", "/metrics/"}.isdisjoint(path for _, path, _ in server.asked)
    told = {name.lower() for _, _, headers in server.asked for name in headers}
    assert told == {"host", "accept", "connection", "accept-encoding"}


def test_a_server_that_asks_nobody_for_a_credential_is_not_called_shut(tmp_path: Path) -> None:
    for otherwise in (404, 501):  # at paths that are not in the list, or to POST alone, it may answer everybody
        with _serving(_Server({}, otherwise=otherwise)) as port:
            (check,) = look(probe(_policy(f"http://127.0.0.1:{port}"), listening=tmp_path))
        assert check.status == "warning"
        assert "asks nobody for a credential" in check.message


def test_a_name_of_a_model_is_written_as_a_path_needs_it(tmp_path: Path) -> None:
    server = _Server({"/v2/models/my%20model": 200})
    with _serving(server) as port:
        (found,) = probe(_policy(f"http://127.0.0.1:{port}", upstream_model="my model"), listening=tmp_path)
    assert found.doors == (Door("/v2/models/my%20model", 200, "models"),)


def _tls(tmp_path: Path) -> ssl.SSLContext:
    issued = Authority(tmp_path).issue("server")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(issued.path, issued.key)
    return context


class _Page(_Handler):
    """Says 400 with a page, as nginx does to who shows no certificate."""

    page = b"<h1>400 No required SSL certificate was sent</h1>"

    def do_GET(self) -> None:
        self.send_response(400)
        self.end_headers()
        self.wfile.write(self.page)


def test_a_page_that_asks_for_a_certificate_is_no_door(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for page, status in ((_Page.page, "ok"), (b"a body was expected", "problem")):
        monkeypatch.setattr(_Page, "page", page)
        server = _Server({})
        server.RequestHandlerClass = _Page
        server.socket = _tls(tmp_path).wrap_socket(server.socket, server_side=True)
        with _serving(server) as port:
            (check,) = look(probe(_policy(f"https://127.0.0.1:{port}"), listening=tmp_path))
        assert check.status == status, check


def test_a_server_that_speaks_no_tls_is_not_said_to_want_a_certificate(tmp_path: Path) -> None:
    with _raw(b"HTTP/1.1 400 no\r\n\r\n") as (port, _):
        (check,) = look(probe(_policy(f"https://127.0.0.1:{port}"), listening=tmp_path))
    assert check.status == "warning"
    assert "TLS fails: WRONG_VERSION_NUMBER" in check.message
