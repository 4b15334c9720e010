"""Where lines go: files after a crash, and receivers that go away, refuse and come back."""

import io
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from palladion.errors import StorageError
from palladion.export.destination import Address, File, Receiver, Stream, parse_address, tls_context
from tests.gate.certificates import Authority, address


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("tcp://siem.example:514", Address("siem.example", 514, False)),
        ("tls://siem.example:6514", Address("siem.example", 6514, True)),
        ("tcp://[::1]:514", Address("::1", 514, False)),
        ("tls://10.0.0.1:6514", Address("10.0.0.1", 6514, True)),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        *("", "siem.example:514", "udp://a:514", "tcp://a", "tcp://a:0", "tcp://a:65536", "tcp://:514", "tcp://a:x"),
        *("tcp://u:p@a:514", "tcp://a:514/", "tcp://a:514?x", "tcp://a:0514", "tcp://[a:514", "https://a:1"),
    ],
)
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="was expected"):
        parse_address(text)


def test_a_stream_gets_what_is_sent_and_stays_open() -> None:
    stream = io.BytesIO()
    sent = Stream(stream)
    sent.send([b"a\n", b"b\n"])
    sent.close()
    assert stream.getvalue() == b"a\nb\n"


@pytest.mark.parametrize(
    ("before", "after"), [(b"", b"b\n"), (b"a\n", b"a\nb\n"), (b"a\ntorn", b"a\nb\n"), (b"torn", b"b\n")]
)
def test_a_line_that_a_crash_left_unfinished_is_cut_off(before: bytes, after: bytes, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(before)
    found = File(path)
    found.send([b"b\n"])
    found.close()
    assert path.read_bytes() == after


def test_a_file_is_private_and_a_large_one_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "out"
    File(path).close()
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_bytes(b"x" * 1000 + b"\n" + (b"y" * 999 + b"\n") * 2000 + b"torn")
    File(path).close()
    assert path.stat().st_size == 1001 + 2_000_000


def test_a_file_of_no_lines_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"\0" * 2_000_000)
    with pytest.raises(StorageError, match="does not end in lines"):
        File(path)
    assert path.stat().st_size == 2_000_000


def test_a_planted_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "out").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        File(tmp_path / "out")
    assert not (tmp_path / "elsewhere").exists()


class Listening:
    """A receiver: each connection is handed to the next of `plays`; what they return is kept."""

    def __init__(self, *plays: Callable[[socket.socket], bytes], context: ssl.SSLContext | None = None) -> None:
        self.got: list[bytes] = []
        self._server = socket.create_server(("127.0.0.1", 0))
        self._context = context
        self.address = Address("127.0.0.1", self._server.getsockname()[1], context is not None)
        self._thread = threading.Thread(target=self._run, args=plays)
        self._thread.start()

    def _run(self, *plays: Callable[[socket.socket], bytes]) -> None:
        self._server.settimeout(20)
        for play in plays:
            accepted, _ = self._server.accept()
            accepted.settimeout(20)
            try:
                connection = self._context.wrap_socket(accepted, server_side=True) if self._context else accepted
            except OSError:
                accepted.close()
                self.got.append(b"")
                continue
            with connection:
                self.got.append(play(connection))

    def end(self) -> list[bytes]:
        """What each connection brought."""
        self._thread.join(20)
        self._server.close()
        return self.got


def everything(connection: socket.socket) -> bytes:
    """What comes until the other side closes."""
    found = b""
    try:
        while data := connection.recv(65536):
            found += data
    except OSError:
        pass
    return found


def one_batch(connection: socket.socket) -> bytes:
    """What comes first; then it closes."""
    return connection.recv(65536)


def nothing(_: socket.socket) -> bytes:
    """Closes at once."""
    return b""


def test_batches_arrive_in_order_on_one_connection() -> None:
    listening = Listening(everything)
    receiver = Receiver(listening.address, settle_seconds=0)
    receiver.send([b"1 a", b"1 b"])
    receiver.send([b"1 c" * 100_000])
    receiver.close()
    assert listening.end() == [b"1 a1 b" + b"1 c" * 100_000]


def test_a_receiver_that_closed_between_batches_is_dialled_again_and_nothing_is_lost() -> None:
    closed, waits = threading.Event(), list[float]()

    def then_tell(connection: socket.socket) -> bytes:
        found = one_batch(connection)
        connection.close()
        closed.set()
        return found

    listening = Listening(then_tell, everything)
    receiver = Receiver(listening.address, settle_seconds=0, sleep=waits.append)
    receiver.send([b"first"])
    assert closed.wait(20)
    receiver.send([b"second"])
    receiver.close()
    assert listening.end() == [b"first", b"second"]
    assert waits == [1.0]


@pytest.mark.slow
def test_a_batch_goes_again_where_a_new_connection_is_closed_at_once() -> None:
    waits, told = list[float](), list[str]()
    listening = Listening(nothing, nothing, everything)
    receiver = Receiver(
        listening.address, tries_max=None, settle_seconds=0.3, sleep=waits.append, told=told.append
    )  # fmt: skip
    receiver.send([b"batch"])
    receiver.close()
    assert listening.end()[-1] == b"batch"
    assert waits == [1.0, 2.0]
    assert len(told) == 2


def test_who_is_not_there_is_given_up_after_some_tries() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    waits, told = list[float](), list[str]()
    receiver = Receiver(Address("127.0.0.1", port, False), sleep=waits.append, told=told.append)
    with pytest.raises(
        StorageError, match=rf"tcp://127.0.0.1:{port}: connection refused".replace(".", r"\.")
    ) as caught:
        receiver.send([b"x"])
    assert waits == [1.0, 2.0, 5.0]
    assert len(told) == 3
    assert caught.value.hints


def test_the_wait_does_not_grow_for_ever() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    waits = list[float]()
    receiver = Receiver(Address("127.0.0.1", port, False), tries_max=10, sleep=waits.append)
    with pytest.raises(StorageError):
        receiver.send([b"x"])
    assert waits == [1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 60.0, 60.0, 60.0]


def server_context(authority: Authority, *, clients: bool = False) -> ssl.SSLContext:
    issued = authority.issue("server", [address("127.0.0.1")])
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=authority.path)
    context.load_cert_chain(issued.path, issued.key)
    context.verify_mode = ssl.CERT_REQUIRED if clients else ssl.CERT_NONE
    return context


def test_tls_reaches_whom_the_authority_vouches_for(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    listening = Listening(everything, context=server_context(authority))
    receiver = Receiver(
        listening.address, context=tls_context(authority.path, None, None), tries_max=1, settle_seconds=0.05
    )
    receiver.send([b"secret"])
    receiver.send([b" and more"])
    receiver.close()
    assert listening.end() == [b"secret and more"]


def test_tls_reaches_nobody_else(tmp_path: Path) -> None:
    authority, other = Authority(tmp_path), Authority(tmp_path, "other")
    listening = Listening(everything, context=server_context(authority))
    receiver = Receiver(listening.address, context=tls_context(other.path, None, None), tries_max=1)
    with pytest.raises(StorageError, match="certificate verify failed"):
        receiver.send([b"secret"])
    assert listening.end() == [b""]


def test_a_receiver_that_wants_a_certificate_gets_one(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    own = authority.issue("gate")
    listening = Listening(everything, context=server_context(authority, clients=True))
    context = tls_context(authority.path, own.path, own.key)
    receiver = Receiver(listening.address, context=context, tries_max=1, settle_seconds=0.05)
    receiver.send([b"secret"])
    receiver.close()
    assert listening.end() == [b"secret"]


def test_nothing_counts_as_sent_to_a_receiver_that_wants_a_certificate_and_got_none(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    listening = Listening(everything, context=server_context(authority, clients=True))
    receiver = Receiver(
        listening.address, context=tls_context(authority.path, None, None), tries_max=1, settle_seconds=10
    )
    # TLS 1.3: for us the handshake is over before the other side has looked
    with pytest.raises(StorageError):
        receiver.send([b"secret"])
    assert listening.end() == [b""]


def test_certificates_that_are_none_are_told(tmp_path: Path) -> None:
    (tmp_path / "pem").write_text("nonsense")
    with pytest.raises(StorageError, match="certificates for TLS cannot be used"):
        tls_context(tmp_path / "pem", None, None)
    with pytest.raises(StorageError, match="certificates for TLS cannot be used"):
        tls_context(None, tmp_path / "missing", None)
