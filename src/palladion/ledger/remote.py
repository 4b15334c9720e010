"""Appends to a ledger that another process holds, through its admin socket. The messages are in `messages`.

Owns the connection and its time limits; the other end is `palladion.gate.admin`.
"""

import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from palladion import files
from palladion.errors import BusyError, FormatError, PalladionError, StorageError, TamperError
from palladion.ledger import merkle
from palladion.ledger.messages import (
    FRAME_HEADER_BYTES,
    Acknowledged,
    Append,
    AskPolicy,
    AskStatus,
    Done,
    Failed,
    Freeze,
    Opened,
    PolicyInForce,
    PolicyReloaded,
    PublishCheckpoint,
    Published,
    Receipts,
    ReloadPolicy,
    Reply,
    Request,
    Status,
    Thaw,
    Thawed,
    Write,
    decode_failure,
    decode_reply,
    encode_frame,
    encode_records,
    frame_length,
)
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt, encode_batch

ANSWER_SECONDS_MAX = 60.0  # a sync behind everything else that a slow disk has to write
EFFECT_SECONDS_MAX = 600.0  # a promoted version is opened before `done` is answered: 100 GB from a slow disk
STATUS_SECONDS_MAX = 10.0  # costs the server nothing, and a person waits for it

_Expected = TypeVar("_Expected", bound=Reply)


class LedgerWriter(Protocol):
    """What records: a `Ledger` that this process holds, or a `RemoteLedger` that asks the process that does."""

    @property
    def origin(self) -> str:
        """The log's name."""
        ...

    @property
    def size(self) -> int:
        """How many entries are known to be acknowledged; others may have appended more."""
        ...

    def append(self, records: Sequence[Record]) -> list[Receipt]:
        """Append `records`; all are on the disk when this returns. Raises StorageError, and ValueError on a bad one."""
        ...

    def checkpoint(self) -> bytes:
        """Publish everything acknowledged so far; returns the signed note. Raises StorageError."""
        ...

    def frozen(self) -> AbstractContextManager[None]:
        """A block in which nobody publishes, so that the folder can be copied; appends go on.

        Raises BusyError at its end if publication could not be held back all the time: then throw the copy away.
        """
        ...

    def close(self) -> None:
        """Publish what was appended, and let the next writer come."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """A name of `path`, valid inside the block, that fits into a socket's address whatever the folder's depth.

    An address has at most 107 bytes (unix(7)); this one leads through a descriptor of the folder.
    """
    descriptor = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{descriptor}/{path.name}"
    finally:
        os.close(descriptor)


def dial(path: Path) -> socket.socket | None:
    """A connection to whoever listens at `path`; None if nobody does: no such file, or one left by a crash.

    Raises BusyError if too many are waiting to be let in, StorageError if the socket may not be reached.
    """
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected = False
    try:
        # with a time limit set, a full queue is an error at once instead of a wait without end
        connection.settimeout(ANSWER_SECONDS_MAX)
        nobody = suppress(FileNotFoundError, ConnectionRefusedError)
        with files.storage_errors(path), nobody, socket_address(path) as address:
            connection.connect(address)
            connected = True
    except StorageError as error:
        if isinstance(error.__cause__, BlockingIOError):
            raise BusyError(f"too many commands wait at {path}", "run it again when they have ended") from None
        raise
    finally:
        if not connected:
            connection.close()
    return connection if connected else None


def read_status(path: Path) -> dict[str, Any] | None:
    """What the server at `path` says of itself, whoever has its write session; None if there is no server."""
    connection = dial(path)
    if connection is None:
        return None
    channel = _Channel(connection)
    try:
        return channel.ask(AskStatus(), Status, seconds=STATUS_SECONDS_MAX).status
    finally:
        channel.close()


def read_settings(path: Path) -> dict[str, Any] | None:
    """The settings that the server at `path` goes by; None if there is no server."""
    connection = dial(path)
    if connection is None:
        return None
    channel = _Channel(connection)
    try:
        return channel.ask(AskPolicy(), PolicyInForce, seconds=STATUS_SECONDS_MAX).settings
    finally:
        channel.close()


def reload_policy(path: Path, actor: str) -> tuple[str, list[dict[str, Any]]] | None:
    """Make the server at `path` take over what its policy file says; None if there is no server.

    Returns the digest of the policy in force, and what changed. Raises PolicyError where it cannot be taken over.
    """
    connection = dial(path)
    if connection is None:
        return None
    channel = _Channel(connection)
    try:
        reply = channel.ask(ReloadPolicy(actor), PolicyReloaded, seconds=EFFECT_SECONDS_MAX)
        return reply.digest, reply.changes
    finally:
        channel.close()


class RemoteLedger:
    """The write session of a ledger that another process holds; ended by `close`, or by the end of this process."""

    def __init__(self, channel: "_Channel") -> None:
        """Take the session. Raises BusyError while another command has it."""
        self._channel = channel
        opened = channel.ask(Write(), Opened, seconds=ANSWER_SECONDS_MAX)
        self.origin = opened.origin
        self._size = opened.size
        self._unpublished = False

    @classmethod
    def connect(cls, path: Path) -> "RemoteLedger | None":
        """The session of the server at `path`; None if nobody listens there. Raises BusyError, StorageError."""
        connection = dial(path)
        if connection is None:
            return None
        channel = _Channel(connection)
        try:
            return cls(channel)
        except BaseException:
            channel.close()
            raise

    @property
    def size(self) -> int:
        """How many entries are known to be acknowledged; the process that holds the ledger appends its own too."""
        return self._size

    def append(self, records: Sequence[Record]) -> list[Receipt]:
        """Append `records`, at most `BATCH_MAX`; they are on the disk when this returns, all of them.

        Raises StorageError if they cannot be written, or if the process that holds the ledger ends meanwhile: then a
        later look at the ledger may find them.
        """
        entries = encode_batch(records)
        if not entries:
            return []
        reply = self._channel.ask(encode_records(records), Receipts, seconds=ANSWER_SECONDS_MAX)
        receipts = [Receipt(self.origin, row.index, row.leaf_hash) for row in reply.receipts]
        first = max(self._size, receipts[0].index) if receipts else self._size
        leaves = [merkle.leaf_hash(entry) for entry in entries]
        # an acknowledgement of anything else is none
        if receipts != [Receipt(self.origin, first + place, leaf) for place, leaf in enumerate(leaves)]:
            raise TamperError("the process that holds the ledger acknowledged other entries than those it was sent")
        self._size = first + len(receipts)
        self._unpublished = True
        return receipts

    def checkpoint(self) -> bytes:
        """Publish everything acknowledged so far; returns the signed note. Raises StorageError if that fails."""
        note = self._channel.ask(PublishCheckpoint(), Published, seconds=ANSWER_SECONDS_MAX).note
        self._unpublished = False
        return note

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """A block in which nothing is published, so that the ledger's folder can be copied; appends go on.

        Raises BusyError at its end if publication could not be held back all the time: then throw the copy away. A
        block that raises leaves the end of the freeze to `close`.
        """
        self._channel.ask(Freeze(), Acknowledged, seconds=ANSWER_SECONDS_MAX)
        yield
        if not self._channel.ask(Thaw(), Thawed, seconds=ANSWER_SECONDS_MAX).held:
            raise BusyError(
                "the ledger was too busy to copy: it had to publish a checkpoint meanwhile",
                "run it again when there is less traffic",
            )

    def close(self) -> None:
        """Publish what was appended, wait until the server acts on what the registry says now, and end the session.

        Raises what went wrong there; what was recorded stays recorded. Closing twice is harmless.
        """
        try:
            if self._channel.usable:
                if self._unpublished:
                    self.checkpoint()
                self._channel.ask(Done(), Acknowledged, seconds=EFFECT_SECONDS_MAX)
        except PalladionError as error:
            raise type(error)(
                f"what was done is recorded, but may not be in effect yet: {error.message}", *error.hints
            ) from error
        finally:
            self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        # the error of the block is the one that its caller has to see
        with suppress(PalladionError, ValueError):
            self.close()


class _Channel:
    """Requests and replies on one connection. After one that did not complete it must not be used again."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._stream = connection.makefile("rb")
        self.usable = True

    def ask(self, request: Request, expected: type[_Expected], *, seconds: float) -> _Expected:
        """Send `request` and wait for its reply. Raises the error it carries, StorageError if there is none."""
        if not self.usable:
            raise StorageError("the connection to the process that holds the ledger is closed", _RESTART)
        frame = encode_frame(request)
        hints = [_UNKNOWN, _RESTART] if isinstance(request, Append) else [_RESTART]
        self.usable = False  # unless the exchange below completes
        try:
            self._connection.settimeout(seconds)
            # who is turned away at the door finds it closed for writing, and the reason waiting to be read
            with suppress(ConnectionError):
                self._connection.sendall(frame)
            reply = decode_reply(self._read(frame_length(self._read(FRAME_HEADER_BYTES))))
        except TimeoutError:
            raise StorageError(
                f"the process that holds the ledger did not answer within {seconds:g} seconds", *hints
            ) from None
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise StorageError(f"the process that holds the ledger did not answer: {reason}", *hints) from error
        if isinstance(reply, Failed):
            self.usable = True
            raise decode_failure(reply)
        if not isinstance(reply, expected):
            raise FormatError(f"the admin socket answered {type(reply).__name__}, {expected.__name__} was expected")
        self.usable = True
        return reply

    def close(self) -> None:
        self.usable = False
        self._stream.close()
        self._connection.close()

    def _read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if len(data) < count:
            raise ConnectionError("it ended, or closed the connection")
        return data


_RESTART = "look at its log, and start it again if it ended: nothing that was acknowledged is lost"
_UNKNOWN = "whether the last record was written is not known: palladion ledger tail shows it"
