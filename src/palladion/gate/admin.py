"""The admin socket: through it commands write to the ledger that this process holds, and ask how it is.

Answers the messages of `palladion.ledger.messages`. Owns who may connect and who may write when; the ledger, the view
of the registry and the figures come in as parameters.
"""

import asyncio
import os
import socket
import stat
import struct
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from palladion import files
from palladion.errors import BusyError, FormatError, InstallationError, PalladionError
from palladion.ledger import messages, remote
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt

CONNECTIONS_MAX = 16  # one writes at a time, the rest ask for the status: more than that is a mistake or an attack
IDLE_SECONDS_MAX = 30.0  # without the write session there is one thing to ask, and it is asked at once
SESSION_SECONDS_MAX = 6 * 3600.0  # terabytes are sealed and copied inside a session; one that died is noticed at once
FRAME_SECONDS_MAX = 30.0  # from a frame's first byte to its last, between processes of one machine
STOP_SECONDS_MAX = 30.0  # for the requests that are being answered; then they are cut off
REQUEST_BYTES_MAX = 1024  # without the write session: no such request has more than 20 bytes
_CREDENTIALS = struct.Struct("3i")  # struct ucred of unix(7): process, user, group


class LedgerPort(Protocol):
    """What the process that holds the ledger offers to commands; called by one write session at a time."""

    @property
    def origin(self) -> str:
        """The log's name."""
        ...

    @property
    def size(self) -> int:
        """How many entries are acknowledged."""
        ...

    async def append(self, records: Sequence[Record]) -> list[Receipt]:
        """Append `records`, which are valid; all are on the disk when this returns. Raises StorageError."""
        ...

    async def checkpoint(self) -> bytes:
        """Publish everything acknowledged so far; returns the signed note. Raises StorageError."""
        ...

    async def freeze(self) -> None:
        """Publish nothing once this has returned, until `thaw` or until it cannot be put off any longer; appends go on.

        Has to end by itself after a minute or so: a command that hangs must not hold the ledger's checkpoints back.
        """
        ...

    async def thaw(self) -> bool:
        """Publish again; returns whether nothing was published since `freeze`."""
        ...


class PolicyPort(Protocol):
    """What the process that serves tells of its policy, and does with another one."""

    def settings(self) -> dict[str, Any]:
        """All settings of the policy in force."""
        ...

    async def take_over(self, actor: str) -> messages.PolicyReloaded:
        """Go by what the policy file says now. Raises PalladionError, and then nothing has changed."""
        ...


class AdminServer:
    """Answers on the socket at `path`, as long as it is started; its caller holds the ledger's lock."""

    def __init__(
        self,
        path: Path,
        ledger: LedgerPort,
        *,
        reload: Callable[[], Awaitable[None]],
        status: Callable[[], Awaitable[dict[str, Any]]],
        policy: PolicyPort | None = None,
    ) -> None:
        """`reload` reads the registry again: a command is told that it is done when this has returned.

        `status` gives a JSON object. Without a `policy`, nothing is told of one.
        """
        self._path = path
        self._ledger = ledger
        self._reload = reload
        self._status = status
        self._policy = policy
        self._reloading = asyncio.Lock()
        self._connections: set[_Connection] = set()
        self._writer: _Connection | None = None
        self._stopping = False
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen. Replaces the socket that a crash left; raises BusyError if somebody answers there."""
        self._server = await asyncio.start_unix_server(self._accept, sock=_listen(self._path))

    async def stop(self) -> None:
        """Take no more connections, answer the requests that are being answered, and close what is open."""
        if self._server is None:
            return
        self._server.close()
        self._stopping = True
        with files.storage_errors(self._path):
            self._path.unlink(missing_ok=True)
        tasks = [connection.task for connection in self._connections]
        for connection in self._connections:
            if not connection.answering:
                connection.task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=STOP_SECONDS_MAX)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        self._server = None

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if peer_uid(writer) not in (0, os.geteuid()):
            # told nothing, not even that the ledger is in use
            writer.transport.abort()
            return
        if self._stopping or len(self._connections) >= CONNECTIONS_MAX:
            error = BusyError("too many commands at once", "run it again when some of them have ended")
            writer.write(messages.encode_frame(messages.encode_failure(error)))
            writer.close()
            return
        connection = _Connection(reader, writer)
        connection.task = asyncio.get_running_loop().create_task(self._serve(connection))
        self._connections.add(connection)
        connection.task.add_done_callback(lambda task: self._ended(connection, task))

    def _ended(self, connection: "_Connection", task: asyncio.Task[None]) -> None:
        self._connections.discard(connection)
        connection.writer.close()
        if not task.cancelled() and (error := task.exception()) is not None:
            # of this connection alone; the loop's handler writes it to the log
            asyncio.get_running_loop().call_exception_handler(
                {"message": "a connection to the admin socket failed", "exception": error, "task": task}
            )

    async def _serve(self, connection: "_Connection") -> None:
        try:
            while not self._stopping and (request := await self._next(connection)) is not None:
                connection.answering = True
                await connection.write(await self._answer(connection, request))
                connection.answering = False
        finally:
            await self._abandon(connection)

    async def _next(self, connection: "_Connection") -> messages.Request | None:
        """The next request; None when the connection ended, said nothing for too long, or sent what is no request."""
        writes = connection is self._writer
        try:
            return await connection.read(
                idle_seconds=SESSION_SECONDS_MAX if writes else IDLE_SECONDS_MAX,
                bytes_max=messages.FRAME_BYTES_MAX if writes else REQUEST_BYTES_MAX,
            )
        except (asyncio.IncompleteReadError, OSError, FormatError):
            return None

    async def _answer(self, connection: "_Connection", request: messages.Request) -> messages.Reply:
        try:
            return await self._act(connection, request)
        except (PalladionError, ValueError) as error:
            return messages.encode_failure(error)

    async def _tell(self, request: messages.AskStatus | messages.AskPolicy | messages.ReloadPolicy) -> messages.Reply:
        """What needs no write session."""
        if isinstance(request, messages.AskStatus):
            return messages.Status(await self._status())
        if self._policy is None:
            raise ValueError("there is no policy here")
        if isinstance(request, messages.AskPolicy):
            return messages.PolicyInForce(self._policy.settings())
        return await self._policy.take_over(request.actor)

    async def _act(self, connection: "_Connection", request: messages.Request) -> messages.Reply:
        match request:
            case messages.AskStatus() | messages.AskPolicy() | messages.ReloadPolicy():
                return await self._tell(request)
            case messages.Write():
                if self._writer is not None:
                    raise BusyError("the ledger is being written by another command", "wait for it to end, or stop it")
                self._writer = connection
                return messages.Opened(self._ledger.origin, self._ledger.size)
            case _ if connection is not self._writer:
                raise ValueError("this needs the write session, which the connection has not taken")
            case messages.Append():
                receipts = await self._ledger.append(messages.decode_records(request))
                return messages.Receipts([messages.ReceiptRow(item.index, item.leaf_hash) for item in receipts])
            case messages.PublishCheckpoint():
                return messages.Published(await self._ledger.checkpoint())
            case messages.Freeze():
                connection.frozen = True
                await self._ledger.freeze()
                return messages.Acknowledged()
            case messages.Thaw():
                if not connection.frozen:
                    raise ValueError("there is no freeze to end")
                connection.frozen = False
                return messages.Thawed(await self._ledger.thaw())
            case messages.Done():
                # released before it is acknowledged: the next command may come as soon as this one has returned
                try:
                    await self._reload_once()
                finally:
                    await self._release(connection)
                return messages.Acknowledged()

    async def _abandon(self, connection: "_Connection") -> None:
        """End the session of a connection that did not say `done`: its command may have changed the registry."""
        if connection is self._writer:
            await self._release(connection)
            if not self._stopping:
                await self._reload_once()

    async def _release(self, connection: "_Connection") -> None:
        try:
            if connection.frozen:
                connection.frozen = False
                await self._ledger.thaw()
        finally:
            self._writer = None

    async def _reload_once(self) -> None:
        """One after the other: an abandoned session's reload may still run when the next one is done."""
        async with self._reloading:
            await self._reload()


@dataclass(eq=False)
class _Connection:
    """One peer that was let in."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    answering: bool = False
    frozen: bool = False
    task: asyncio.Task[None] = field(init=False)

    async def read(self, *, idle_seconds: float, bytes_max: int) -> messages.Request:
        async with asyncio.timeout(idle_seconds):
            header = await self.reader.readexactly(1)
        async with asyncio.timeout(FRAME_SECONDS_MAX):
            header += await self.reader.readexactly(messages.FRAME_HEADER_BYTES - 1)
            body = await self.reader.readexactly(messages.frame_length(header, bytes_max=bytes_max))
        return messages.decode_request(body)

    async def write(self, reply: messages.Reply) -> None:
        # whoever does not take its answer is cut off; what was done for it stays done
        try:
            self.writer.write(messages.encode_frame(reply))
            async with asyncio.timeout(FRAME_SECONDS_MAX):
                await self.writer.drain()
        except OSError:
            self.writer.transport.abort()


def peer_uid(peer: asyncio.StreamWriter | asyncio.BaseTransport) -> int:
    """The user of the process at the other end, as the kernel saw it connect (SO_PEERCRED)."""
    data = peer.get_extra_info("socket").getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    _, uid, _ = _CREDENTIALS.unpack(data)
    return int(uid)


def _listen(path: Path) -> socket.socket:
    probe = remote.dial(path)
    if probe is not None:
        probe.close()
        raise BusyError(f"another process answers at {path}", "stop it first")
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with files.storage_errors(path):
            with suppress(FileNotFoundError):
                if not stat.S_ISSOCK(path.lstat().st_mode):
                    raise InstallationError(f"{path} is not a socket", "move it away: the admin socket belongs there")
                path.unlink()
            # before bind, so that there is no moment in which the name has a wider mode (Linux takes it over)
            os.fchmod(listener.fileno(), files.PRIVATE_FILE)
            with remote.socket_address(path) as address:
                listener.bind(address)
            listener.listen(CONNECTIONS_MAX)
    except BaseException:
        listener.close()
        raise
    return listener
