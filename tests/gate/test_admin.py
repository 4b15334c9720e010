"""The admin socket against peers of every kind: who may connect, who may write, and that one of them harms no other."""

import asyncio
import os
import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.errors import BusyError, InstallationError, StorageError, TamperError
from palladion.gate import admin
from palladion.ledger.messages import (
    FRAME_BYTES_MAX,
    Acknowledged,
    Append,
    AskStatus,
    Done,
    Failed,
    Freeze,
    Opened,
    PublishCheckpoint,
    Published,
    Receipts,
    RecordRow,
    Reply,
    Request,
    Status,
    Thaw,
    Thawed,
    Write,
    decode_reply,
    encode_frame,
    encode_records,
)
from palladion.ledger.remote import RemoteLedger, read_status
from palladion.ledger.writer import Ledger
from tests.ledger.ledgers import JOURNAL_KEY, ORIGIN, SIGNER, make, record

from .serving import WAIT_SECONDS_MAX, Serving, serving

SOCKET = "admin.sock"
ROW = RecordRow("model.opened", "2026-05-01T00:00:00.000000Z", "user:test", "fraud@1", {})


class Peer:
    """A raw connection."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(WAIT_SECONDS_MAX)
        self.socket.connect(str(path))
        self.stream = self.socket.makefile("rb")

    def ask(self, request: Request) -> Reply:
        self.socket.sendall(encode_frame(request))
        return self.reply()

    def reply(self) -> Reply:
        return decode_reply(self.stream.read(int.from_bytes(self.stream.read(4), "big")))

    def is_closed(self) -> bool:
        """Whether the server says nothing more and closes the connection."""
        try:
            return self.stream.read(1) == b""
        except ConnectionResetError:  # it left what was sent unread
            return True

    def close(self) -> None:
        self.stream.close()
        self.socket.close()

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    """A server over a ledger of three records."""
    make(tmp_path / "ledger", 3)
    with (
        Ledger(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger,
        serving(tmp_path / SOCKET, ledger) as served,
    ):
        yield served


def _still_answers(served: Serving) -> bool:
    return read_status(served.path) == served.status


def test_the_socket_is_its_owners_alone(served: Serving) -> None:
    assert stat.S_ISSOCK(served.path.stat().st_mode)
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600


def test_another_user_is_refused_and_told_nothing(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(admin, "peer_uid", lambda _writer: 12346)
    with Peer(served.path) as stranger:
        assert stranger.is_closed()
    with pytest.raises(StorageError, match="did not answer"):
        read_status(served.path)


@pytest.mark.parametrize("uid", [0, 12345], ids=["root", "the-same-user"])
def test_root_and_the_same_user_are_let_in(served: Serving, monkeypatch: pytest.MonkeyPatch, uid: int) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr(admin, "peer_uid", lambda _writer: uid)
    assert _still_answers(served)


def test_the_user_is_the_one_that_the_kernel_saw(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    real = admin.peer_uid

    def watched(writer: asyncio.StreamWriter) -> int:
        seen.append(real(writer))
        return seen[-1]

    monkeypatch.setattr(admin, "peer_uid", watched)
    assert _still_answers(served)
    assert seen == [os.getuid()]


def test_a_write_session_from_its_beginning_to_its_end(served: Serving) -> None:
    with Peer(served.path) as peer:
        assert peer.ask(Write()) == Opened(ORIGIN, 3)
        receipts = peer.ask(encode_records([record(3), record(4)]))
        assert isinstance(receipts, Receipts)
        assert [row.index for row in receipts.receipts] == [3, 4]
        assert peer.ask(PublishCheckpoint()) == Published(served.port.ledger.checkpoint())
        assert peer.ask(Freeze()) == Acknowledged()
        assert peer.ask(Thaw()) == Thawed(held=True)
        assert peer.ask(Done()) == Acknowledged()
        # the connection may go on, without the session
        assert isinstance(peer.ask(PublishCheckpoint()), Failed)
        assert peer.ask(Write()) == Opened(ORIGIN, 5)


@pytest.mark.parametrize(
    "request_", [Append([ROW]), PublishCheckpoint(), Freeze(), Thaw(), Done()], ids=lambda value: type(value).__name__
)
def test_what_needs_the_write_session_is_refused_without_it(served: Serving, request_: Request) -> None:
    with Peer(served.path) as holder, Peer(served.path) as other:
        holder.ask(Write())
        refused = other.ask(request_)
        assert isinstance(refused, Failed)
        assert "needs the write session" in refused.message
        assert isinstance(other.ask(AskStatus()), Status)
    assert served.port.ledger.size == 3
    assert not served.port.frozen


def test_a_second_session_is_refused_to_the_holder_too(served: Serving) -> None:
    with Peer(served.path) as holder:
        holder.ask(Write())
        refused = holder.ask(Write())
        assert isinstance(refused, Failed)
        assert refused.kind == "BusyError"


@pytest.mark.parametrize(
    "row",
    [
        msgspec.structs.replace(ROW, kind="model.stolen"),
        msgspec.structs.replace(ROW, time="yesterday"),
        msgspec.structs.replace(ROW, details={"p": 0.5}),
        msgspec.structs.replace(ROW, subject="x" * 513),
    ],
    ids=["kind", "time", "float", "subject"],
)
def test_a_record_that_is_none_is_refused_with_all_that_came_with_it(served: Serving, row: RecordRow) -> None:
    with Peer(served.path) as peer:
        peer.ask(Write())
        refused = peer.ask(Append([ROW, row]))
        assert isinstance(refused, Failed)
        assert refused.kind == "ValueError"
        assert served.port.ledger.size == 3
        assert isinstance(peer.ask(Append([ROW])), Receipts)


BROKEN = {
    "garbage": b"\x00\x00\x00\x05hello",
    "empty": b"\x00\x00\x00\x00",
    "unknown-operation": b'\x00\x00\x00\x0e{"op":"shell"}',
    "oversized": (FRAME_BYTES_MAX + 1).to_bytes(4, "big") + b"x",
    "http": b"GET / HTTP/1.1\r\n\r\n",
}


@pytest.mark.slow
@pytest.mark.parametrize("broken", BROKEN.values(), ids=BROKEN)
@pytest.mark.parametrize("session", [False, True], ids=["stranger", "holder"])
def test_a_broken_frame_ends_its_connection_and_no_other(served: Serving, broken: bytes, session: bool) -> None:
    with Peer(served.path) as bystander, Peer(served.path) as peer:
        if session:
            peer.ask(Write())
        peer.socket.sendall(broken)
        assert peer.is_closed()
        assert isinstance(bystander.ask(AskStatus()), Status)
    served.reloaded.wait(WAIT_SECONDS_MAX if session else 0)
    assert isinstance(RemoteLedger.connect(served.path), RemoteLedger)
    assert served.failures == []


def test_long_frames_are_for_the_write_session(served: Serving) -> None:
    long = encode_records([record(number, "x" * 60_000) for number in range(3, 50)])
    with Peer(served.path) as peer:
        peer.socket.sendall(encode_frame(long)[:100])
        assert peer.is_closed()
    with Peer(served.path) as peer:
        peer.ask(Write())
        assert isinstance(peer.ask(long), Receipts)


def test_half_a_frame_is_not_waited_for_without_end(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "FRAME_SECONDS_MAX", 0)
    with Peer(served.path) as peer:
        peer.socket.sendall(encode_frame(AskStatus())[:-1])
        assert peer.is_closed()


def test_a_connection_that_says_nothing_is_closed(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "IDLE_SECONDS_MAX", 0)
    with Peer(served.path) as silent:
        assert silent.is_closed()


def test_who_writes_may_take_longer_but_not_for_ever(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    with Peer(served.path) as holder:
        holder.ask(Write())
        with monkeypatch.context() as patch:
            patch.setattr(admin, "IDLE_SECONDS_MAX", 0)
            assert isinstance(holder.ask(Append([ROW])), Receipts)
            assert isinstance(holder.ask(Done()), Acknowledged)
    monkeypatch.setattr(admin, "SESSION_SECONDS_MAX", 0)
    with Peer(served.path) as hung:
        assert isinstance(hung.ask(Write()), Opened)
        assert hung.is_closed()


def test_one_connection_too_many_is_told_to_come_again(served: Serving) -> None:
    with ExitStack() as stack:
        peers = [stack.enter_context(Peer(served.path)) for _ in range(admin.CONNECTIONS_MAX)]
        for peer in peers:
            peer.ask(AskStatus())
        with pytest.raises(BusyError, match="too many commands at once"):
            RemoteLedger.connect(served.path)
        with Peer(served.path) as late:
            assert isinstance(late.reply(), Failed)
            assert late.is_closed()
        assert isinstance(peers[0].ask(Write()), Opened)


def test_done_is_acknowledged_after_the_reload_and_not_before(served: Serving) -> None:
    with Peer(served.path) as peer:
        peer.ask(Write())
        peer.socket.setblocking(False)
        early: list[bytes] = []

        def look() -> None:
            # whatever was acknowledged before the reload ended lies in the socket now
            try:
                early.append(peer.socket.recv(100))
            except BlockingIOError:
                early.append(b"")
            finally:
                peer.socket.settimeout(WAIT_SECONDS_MAX)

        served.on_reload = look
        peer.socket.sendall(encode_frame(Done()))
        assert served.reloaded.wait(WAIT_SECONDS_MAX)
        assert peer.reply() == Acknowledged()
        assert early == [b""]


def test_a_reload_that_fails_is_told_and_ends_the_session(served: Serving) -> None:
    def fail() -> None:
        raise TamperError("version 2 was changed")

    served.on_reload = fail
    with Peer(served.path) as peer, Peer(served.path) as following:
        peer.ask(Write())
        assert peer.ask(Done()) == Failed("TamperError", "version 2 was changed", [])
        assert isinstance(following.ask(Write()), Opened)
        served.on_reload = lambda: None


def test_a_connection_that_ends_without_done_gives_all_back(served: Serving) -> None:
    with Peer(served.path) as peer:
        peer.ask(Write())
        peer.ask(Freeze())
    assert served.reloaded.wait(WAIT_SECONDS_MAX)
    assert not served.port.frozen
    with Peer(served.path) as peer:
        assert isinstance(peer.ask(Write()), Opened)


def test_a_thaw_without_a_freeze_is_refused(served: Serving) -> None:
    with Peer(served.path) as peer:
        peer.ask(Write())
        refused = peer.ask(Thaw())
        assert isinstance(refused, Failed)
        assert refused.message == "there is no freeze to end"


def test_an_unexpected_exception_ends_one_connection_and_is_reported(served: Serving) -> None:
    def fail() -> None:
        raise RuntimeError("a mistake of ours")

    served.on_reload = fail
    with Peer(served.path) as bystander:
        ledger = RemoteLedger.connect(served.path)
        assert ledger is not None
        with pytest.raises(StorageError, match="may not be in effect yet"):
            ledger.close()
        served.on_reload = lambda: None
        assert isinstance(bystander.ask(Write()), Opened)
    assert [type(failure["exception"]) for failure in served.failures] == [RuntimeError]


def test_a_failed_reload_of_a_killed_command_is_reported(served: Serving) -> None:
    reported = threading.Event()

    def fail() -> None:
        raise TamperError("version 2 was changed")

    def report(_loop: object, context: dict[str, Any]) -> None:
        served.failures.append(context)
        reported.set()

    served.on_reload = fail
    served.loop.set_exception_handler(report)
    with Peer(served.path) as peer:
        peer.ask(Write())
    assert reported.wait(WAIT_SECONDS_MAX)
    assert isinstance(served.failures[0]["exception"], TamperError)
    assert _still_answers(served)


def test_a_peer_that_leaves_before_its_answer_harms_nobody(served: Serving) -> None:
    with Peer(served.path) as peer:
        peer.ask(Write())
        peer.socket.sendall(encode_frame(Append([ROW])) + encode_frame(AskStatus()) * 10)
    assert served.reloaded.wait(WAIT_SECONDS_MAX)
    assert served.port.ledger.size == 4
    assert _still_answers(served)
    assert served.failures == []


def test_the_socket_that_a_crash_left_is_replaced(tmp_path: Path) -> None:
    make(tmp_path / "ledger", 3)
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(tmp_path / SOCKET))
    with (
        Ledger(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger,
        serving(tmp_path / SOCKET, ledger) as served,
    ):
        assert _still_answers(served)


def test_a_socket_on_which_somebody_answers_is_left_alone(tmp_path: Path, served: Serving) -> None:
    make(tmp_path / "other", 3)
    with (
        Ledger(tmp_path / "other", ORIGIN, SIGNER, JOURNAL_KEY) as ledger,
        pytest.raises(BusyError, match="another process answers at"),
        serving(served.path, ledger),
    ):
        pass
    assert _still_answers(served)


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    make(tmp_path / "ledger", 3)
    (tmp_path / SOCKET).write_text("mine")
    with (
        Ledger(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger,
        pytest.raises(InstallationError, match="is not a socket"),
        serving(tmp_path / SOCKET, ledger),
    ):
        pass
    assert (tmp_path / SOCKET).read_text() == "mine"


def test_stopping_closes_every_connection_and_leaves_no_socket(served: Serving) -> None:
    with Peer(served.path) as idle, Peer(served.path) as holder:
        idle.ask(AskStatus())
        holder.ask(Write())
        holder.ask(Freeze())
        served.stop()
        assert idle.is_closed()
        assert holder.is_closed()
    assert not served.path.exists()
    assert not served.port.frozen
    assert RemoteLedger.connect(served.path) is None
    served.stop()


def test_stopping_waits_for_what_is_being_written(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    begun, go_on = threading.Event(), asyncio.Event()
    append = served.port.append

    async def slow(records: Any) -> Any:
        begun.set()
        await go_on.wait()
        return await append(records)

    monkeypatch.setattr(served.port, "append", slow)
    with Peer(served.path) as peer:
        peer.ask(Write())
        peer.socket.sendall(encode_frame(Append([ROW])))
        assert begun.wait(WAIT_SECONDS_MAX)
        stopping = asyncio.run_coroutine_threadsafe(served.server.stop(), served.loop)
        served.loop.call_soon_threadsafe(go_on.set)
        assert isinstance(peer.reply(), Receipts)
        assert peer.is_closed()
        stopping.result(WAIT_SECONDS_MAX)


def test_stopping_does_not_wait_without_end(served: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    begun = threading.Event()

    async def hangs(_records: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(served.port, "append", hangs)
    monkeypatch.setattr(admin, "STOP_SECONDS_MAX", 0.01)
    with Peer(served.path) as peer:
        peer.ask(Write())
        peer.socket.sendall(encode_frame(Append([ROW])))
        assert begun.wait(WAIT_SECONDS_MAX)
        served.stop()
        assert peer.is_closed()
