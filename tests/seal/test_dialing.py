"""One time for all of connecting: whatever hangs, the name, an address, TLS or a proxy, ends with it."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection, HTTPSConnection
from typing import Any

import pytest

from palladion.errors import StorageError
from palladion.seal.dialing import Watchdog
from palladion.seal.http import exchange

LONG_SECONDS = 20.0  # of a wait that a test must not reach
SOON_SECONDS = 0.3


@contextmanager
def _peer(serve: Callable[[socket.socket], object]) -> Iterator[int]:
    """A server that does with its one connection what `serve` says: its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def run() -> None:
            with suppress(OSError):
                connection, _ = listener.accept()
                with connection:
                    connection.settimeout(LONG_SECONDS)
                    serve(connection)

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            thread.join()


@contextmanager
def _swallowing() -> Iterator[int]:
    """A port of which nothing comes back: its queue is full, as of an address behind a firewall."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        waiting = []
        for _ in range(8):
            one = socket.socket()
            one.setblocking(False)
            with suppress(BlockingIOError):
                one.connect(listener.getsockname())
            waiting.append(one)
        try:
            yield listener.getsockname()[1]
        finally:
            for one in waiting:
                one.close()


def _hung_up(connection: socket.socket) -> bool:
    connection.settimeout(0.05)
    try:
        return connection.recv(4096) == b""
    except TimeoutError:
        return False


def _trickle(head: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(65536)
        connection.sendall(head)
        with suppress(OSError):
            while not _hung_up(connection):
                connection.send(b"x")

    return serve


def _resolves(monkeypatch: pytest.MonkeyPatch, *ports: int) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port)) for port in ports]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: found)


@pytest.mark.slow
def test_a_name_that_nobody_resolves_in_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    done = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_options: done.wait(LONG_SECONDS))
    try:
        with (
            pytest.raises(StorageError, match="it is too slow"),
            exchange("http://there.example/", seconds=SOON_SECONDS),
        ):
            pass
    finally:
        done.set()


@pytest.mark.parametrize("error", [socket.gaierror(-2, "unknown"), UnicodeError("label too long")])
def test_a_name_that_does_not_exist_is_said_at_once(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def fail(*_args: Any, **_options: Any) -> None:
        raise error

    monkeypatch.setattr(socket, "getaddrinfo", fail)
    with pytest.raises(OSError, match=r"unknown|no name of a host"):
        Watchdog(LONG_SECONDS).connect(HTTPConnection("there.example"))


@pytest.mark.slow
def test_addresses_that_swallow_everything_share_one_time(monkeypatch: pytest.MonkeyPatch) -> None:
    with _swallowing() as port:
        _resolves(monkeypatch, *[port] * 50)
        watchdog = Watchdog(SOON_SECONDS)
        with pytest.raises(TimeoutError, match="it is too slow"):
            watchdog.connect(HTTPConnection("there.example"))
        assert watchdog.bit


@pytest.mark.slow
def test_an_address_behind_one_that_swallows_everything_has_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with _swallowing() as port, _peer(lambda connection: connection.recv(1)) as good:
        _resolves(monkeypatch, port, good)
        watchdog, http = Watchdog(1.0), HTTPConnection("there.example")
        watchdog.connect(http)
        assert http.sock.getpeername() == ("127.0.0.1", good)
        http.close()
        watchdog.stop()


@pytest.mark.slow
def test_a_handshake_that_trickles_is_left_when_the_time_is_up() -> None:
    # the head of a record of 16,384 bytes, which comes byte by byte
    with (
        _peer(_trickle(b"\x16\x03\x03\x40\x00")) as port,
        pytest.raises(StorageError, match="it is too slow"),
        exchange(f"https://127.0.0.1:{port}/", seconds=SOON_SECONDS),
    ):
        pass


@pytest.mark.slow
def test_a_proxy_that_trickles_is_left_when_the_time_is_up() -> None:
    with _peer(_trickle(b"HTTP/1.1 200 OK\r\nX: ")) as port:
        http = HTTPSConnection("127.0.0.1", port, timeout=LONG_SECONDS, context=ssl.create_default_context())
        http.set_tunnel("there.example", 443)
        with pytest.raises(TimeoutError, match="it is too slow"):
            Watchdog(SOON_SECONDS).connect(http)


def test_it_bites_no_more_once_it_is_stopped() -> None:
    def late(connection: socket.socket) -> None:
        connection.recv(65536)
        _hung_up(connection)  # waits 50 ms
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")

    with _peer(late) as port:
        watchdog, http = Watchdog(0.04), HTTPConnection("127.0.0.1", port, timeout=LONG_SECONDS)
        watchdog.connect(http)
        watchdog.stop()
        http.request("GET", "/")
        assert http.getresponse().read() == b"ok"
        assert not watchdog.bit
        http.close()


def test_what_goes_wrong_by_itself_is_no_matter_of_time() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    watchdog = Watchdog(LONG_SECONDS)
    with pytest.raises(ConnectionRefusedError):
        watchdog.connect(HTTPConnection("127.0.0.1", port))
    assert not watchdog.bit
