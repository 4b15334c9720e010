"""Writing through the process that holds the ledger: the same promises as with the lock, or an error that says so."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from palladion import files
from palladion.errors import BusyError, FormatError, NotFoundError, PolicyError, StorageError, TamperError
from palladion.ledger import merkle, remote
from palladion.ledger.audit import verify_ledger
from palladion.ledger.messages import Acknowledged, Opened, ReceiptRow, Receipts, Thawed, encode_frame
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import encode_record
from palladion.ledger.remote import LedgerWriter, RemoteLedger, dial, read_settings, read_status, reload_policy
from palladion.ledger.writer import BATCH_MAX, Ledger
from tests.gate.serving import WAIT_SECONDS_MAX, Serving, serving

from .ledgers import JOURNAL_KEY, KEY, ORIGIN, SIGNER, make, record

SOCKET = "admin.sock"


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Serving]:
    """A server over a ledger of three records."""
    make(tmp_path / "ledger", 3)
    with (
        Ledger(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger,
        serving(tmp_path / SOCKET, ledger) as served,
    ):
        yield served


def _connect(path: Path) -> RemoteLedger:
    ledger = RemoteLedger.connect(path)
    assert ledger is not None
    return ledger


def _answered(*replies: Any) -> RemoteLedger:
    """A remote ledger whose server says this, whatever it is asked."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"".join(reply if isinstance(reply, bytes) else encode_frame(reply) for reply in replies))
        theirs.shutdown(socket.SHUT_WR)
        return RemoteLedger(remote._Channel(ours))


def test_where_nobody_listens_there_is_no_remote_ledger(tmp_path: Path) -> None:
    assert RemoteLedger.connect(tmp_path / SOCKET) is None
    assert RemoteLedger.connect(tmp_path / "no" / "folder" / SOCKET) is None
    assert read_status(tmp_path / SOCKET) is None
    with socket.socket(socket.AF_UNIX) as crashed:
        crashed.bind(str(tmp_path / SOCKET))
    assert RemoteLedger.connect(tmp_path / SOCKET) is None
    assert read_status(tmp_path / SOCKET) is None


def test_records_go_on_with_the_same_ledger_and_are_published_at_the_end(tmp_path: Path, served: Serving) -> None:
    with _connect(served.path) as ledger:
        assert (ledger.origin, ledger.size) == (ORIGIN, 3)
        receipts = [*ledger.append([record(3), record(4)]), *ledger.append([record(5)]), *ledger.append([])]
        assert ledger.size == 6
    assert [str(receipt) for receipt in receipts] == [f"{ORIGIN}/{index}" for index in (3, 4, 5)]
    assert [receipt.leaf_hash for receipt in receipts] == [
        merkle.leaf_hash(encode_record(record(index))) for index in (3, 4, 5)
    ]
    entries = [entry for _, entry in LedgerReader(tmp_path / "ledger", KEY).entries()]
    assert entries == [encode_record(record(index)) for index in range(6)]


def test_local_and_remote_ledgers_are_used_the_same_way(tmp_path: Path, served: Serving) -> None:
    def use(ledger: LedgerWriter, start: int) -> bytes:
        with ledger:
            assert ledger.append([record(start)])[0].index == start
            with ledger.frozen():
                pass
            return ledger.checkpoint()

    assert use(_connect(served.path), 3).startswith(f"{ORIGIN}\n4\n".encode())
    make(tmp_path / "other", 3)
    assert use(Ledger(tmp_path / "other", ORIGIN, SIGNER, JOURNAL_KEY), 3).startswith(f"{ORIGIN}\n4\n".encode())


def test_records_of_the_server_itself_may_come_between(served: Serving) -> None:
    with _connect(served.path) as ledger:
        served.port.ledger.append([record(3)])
        assert ledger.append([record(4)])[0].index == 4


def test_one_command_writes_at_a_time_and_the_next_one_after_it(served: Serving) -> None:
    with _connect(served.path), pytest.raises(BusyError, match="written by another command") as caught:
        RemoteLedger.connect(served.path)
    assert caught.value.hints == ("wait for it to end, or stop it",)
    for _ in range(20):
        _connect(served.path).close()


def test_the_status_needs_no_write_session(served: Serving) -> None:
    with _connect(served.path):
        assert read_status(served.path) == {"routes": 2}


def test_a_bad_record_is_a_mistake_of_the_caller_and_the_session_goes_on(served: Serving) -> None:
    with _connect(served.path) as ledger:
        with pytest.raises(ValueError, match="at most 1024"):
            ledger.append([record(0)] * (BATCH_MAX + 1))
        with pytest.raises(ValueError, match="at most 65535"):
            ledger.append([record(0), record(1, "x" * 66_000)])
        assert ledger.append([record(3)])[0].index == 3


def test_a_ledger_that_cannot_be_written_is_told_as_it_would_be_here(
    served: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> None:
        raise StorageError("the disk is full", "free some space")

    with _connect(served.path) as ledger:
        monkeypatch.setattr(served.port.ledger._journal, "append", fail)
        with pytest.raises(StorageError, match="the disk is full") as caught:
            ledger.append([record(3)])
        assert caught.value.hints == ("free some space",)
        with pytest.raises(StorageError, match="refuses to go on after a failed write"):
            ledger.append([record(3)])


def test_when_the_server_dies_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    make(tmp_path / "ledger", 3)
    held = Ledger(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY)
    with serving(tmp_path / SOCKET, held) as served, _connect(served.path) as ledger:
        ledger.append([record(3)])
        served.stop()
        held._lock.close()  # no checkpoint, as when the process is killed
        with pytest.raises(StorageError, match="did not answer") as caught:
            ledger.append([record(4)])
    assert "palladion ledger tail" in caught.value.hints[0]
    with Ledger(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as recovered:
        assert recovered.size == 4
    assert verify_ledger(tmp_path / "ledger", KEY).size == 4


def test_when_the_server_dies_before_the_end_of_the_session_its_effect_is_said_to_be_open(served: Serving) -> None:
    ledger = _connect(served.path)
    ledger.append([record(3)])
    served.stop()
    with pytest.raises(StorageError, match=r"is recorded, but may not be in effect yet: .* did not answer") as caught:
        ledger.close()
    assert "start it again" in caught.value.hints[0]
    ledger.close()
    with pytest.raises(StorageError, match="is closed"):
        ledger.append([record(4)])


def test_what_the_server_cannot_act_on_is_told_and_the_session_ends(served: Serving) -> None:
    def fail() -> None:
        raise TamperError("version 2 was changed", "restore it")

    served.on_reload = fail
    ledger = _connect(served.path)
    with pytest.raises(TamperError, match="is recorded, but may not be in effect yet: version 2 was changed") as caught:
        ledger.close()
    assert caught.value.hints == ("restore it",)
    served.on_reload = lambda: None
    _connect(served.path).close()


def test_the_error_of_a_command_is_not_hidden_by_one_of_the_server(served: Serving) -> None:
    def fail() -> None:
        raise TamperError("version 2 was changed")

    served.on_reload = fail
    with pytest.raises(NotFoundError, match="no model"), _connect(served.path):
        raise NotFoundError("no model")
    served.on_reload = lambda: None
    _connect(served.path).close()


def test_a_server_that_does_not_answer_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote, "ANSWER_SECONDS_MAX", 0.01)
    monkeypatch.setattr(remote, "STATUS_SECONDS_MAX", 0.01)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / SOCKET))
        silent.listen()
        with pytest.raises(StorageError, match=r"did not answer within 0\.01 seconds"):
            RemoteLedger.connect(tmp_path / SOCKET)
        with pytest.raises(StorageError, match=r"did not answer within 0\.01 seconds"):
            read_status(tmp_path / SOCKET)


def test_a_full_queue_is_told_at_once(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as full, ExitStack() as waiting:
        full.bind(str(tmp_path / SOCKET))
        full.listen(0)

        def fill() -> None:
            for _ in range(100):
                connection = dial(tmp_path / SOCKET)
                assert connection is not None
                waiting.enter_context(connection)

        with pytest.raises(BusyError, match="too many commands wait at"):
            fill()


def test_a_folder_deeper_than_a_socket_address_works(tmp_path: Path) -> None:
    path = tmp_path.joinpath(*["a-long-name-of-a-folder"] * 10) / SOCKET
    assert len(str(path)) > 200
    files.make_private_directory(path.parent)
    make(tmp_path / "ledger", 3)
    with Ledger(tmp_path / "ledger", ORIGIN, SIGNER, JOURNAL_KEY) as ledger, serving(path, ledger):
        with _connect(path) as connected:
            assert connected.append([record(3)])[0].index == 3
        assert read_status(path) == {"routes": 2}


def _leaf(number: int) -> bytes:
    return merkle.leaf_hash(encode_record(record(number)))


@pytest.mark.parametrize(
    "receipts",
    [
        [],
        [ReceiptRow(3, _leaf(3))],
        [ReceiptRow(3, _leaf(3)), ReceiptRow(4, _leaf(9))],
        [ReceiptRow(3, _leaf(3)), ReceiptRow(5, _leaf(4))],
        [ReceiptRow(2, _leaf(3)), ReceiptRow(3, _leaf(4))],
    ],
    ids=["none", "one-of-two", "of-another-record", "with-a-gap", "of-older-entries"],
)
def test_receipts_for_anything_but_what_was_sent_are_refused(receipts: list[ReceiptRow]) -> None:
    ledger = _answered(Opened(ORIGIN, 3), Receipts(receipts))
    with pytest.raises(TamperError, match="acknowledged other entries"):
        ledger.append([record(3), record(4)])
    ledger._channel.close()


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (Acknowledged(), "answered Acknowledged, Receipts was expected"),
        (b"\x00\x00\x00\x02[]", "got no reply"),
        (b"\xff\xff\xff\xff", "a frame of 4294967295 bytes"),
    ],
    ids=["another-reply", "no-reply", "oversized"],
)
def test_a_reply_that_makes_no_sense_ends_the_connection(reply: Any, reason: str) -> None:
    ledger = _answered(Opened(ORIGIN, 3), reply)
    with pytest.raises(FormatError, match=reason):
        ledger.append([record(3)])
    with pytest.raises(StorageError, match="is closed"):
        ledger.append([record(3)])
    ledger.close()


def test_half_a_reply_is_none() -> None:
    ledger = _answered(Opened(ORIGIN, 3), encode_frame(Receipts([]))[:-1])
    with pytest.raises(StorageError, match="did not answer"):
        ledger.append([record(3)])
    ledger.close()


def test_a_freeze_lasts_for_the_block(served: Serving) -> None:
    with _connect(served.path) as ledger:
        with ledger.frozen():
            assert served.port.frozen
        assert not served.port.frozen


def test_a_freeze_that_did_not_hold_is_told() -> None:
    ledger = _answered(Opened(ORIGIN, 3), Acknowledged(), Thawed(held=False))
    with pytest.raises(BusyError, match="too busy to copy") as caught, ledger.frozen():
        pass
    assert caught.value.hints == ("run it again when there is less traffic",)
    ledger._channel.close()


def test_a_block_that_fails_while_frozen_leaves_nothing_frozen(served: Serving) -> None:
    with pytest.raises(NotFoundError), _connect(served.path) as ledger, ledger.frozen():
        raise NotFoundError("no such folder")
    assert not served.port.frozen


def test_a_command_that_is_killed_makes_room_for_the_next(served: Serving) -> None:
    ledger = _connect(served.path)
    assert not served.reloaded.is_set()
    ledger._channel.close()
    # it may have changed the registry before it was killed
    assert served.reloaded.wait(WAIT_SECONDS_MAX)
    _connect(served.path).close()


def test_the_session_is_free_when_the_command_before_has_returned(served: Serving) -> None:
    errors: list[BaseException] = []

    def command() -> None:
        try:
            for _ in range(50):
                _connect(served.path).close()
        except BaseException as error:  # noqa: BLE001 — reported in the test's own thread
            errors.append(error)

    thread = threading.Thread(target=command)
    thread.start()
    thread.join(WAIT_SECONDS_MAX)
    assert errors == []


def test_the_policy_is_told_and_taken_over_without_the_write_session(served: Serving) -> None:
    with _connect(served.path):
        assert read_settings(served.path) == {"gate": {"rows_max": 7}}
        assert reload_policy(served.path, "user:test") == ("1f", [{"setting": "gate.rows_max"}])
    assert served.policy.actors == ["user:test"]


def test_a_policy_that_is_refused_is_the_same_error_here(served: Serving) -> None:
    served.policy.refused = PolicyError("gate.threads cannot change", "restart it")
    with pytest.raises(PolicyError, match="cannot change") as caught:
        reload_policy(served.path, "user:test")
    assert caught.value.hints == ("restart it",)


def test_where_nobody_serves_there_is_no_policy_in_force(tmp_path: Path) -> None:
    assert read_settings(tmp_path / SOCKET) is None
    assert reload_policy(tmp_path / SOCKET, "user:test") is None
