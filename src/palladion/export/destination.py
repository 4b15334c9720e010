"""Where lines go: a stream, a file that grows, or a receiver over TCP or TLS that is dialled again when it goes away.

TCP says when the other machine has the bytes, not when its program has read them: what a receiver's kernel holds when
it crashes is lost to it, and no syslog transport can tell (RFC 5425 §4.4). Everything before that is sent again.
"""

import fcntl
import os
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol
from urllib.parse import urlsplit

from palladion import files
from palladion.errors import StorageError

CONNECT_SECONDS = 10.0
SETTLE_SECONDS = (
    0.5  # that a new connection has to stay open: TLS 1.3 refuses a client's certificate after its first data
)
SEND_SECONDS = 30.0  # for one batch to be taken by the other machine; one that does not read for so long is gone
WAITS = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)  # before dialling again; the last one from then on
TRIES_MAX = 4  # of a command that is not asked to go on for ever
TAIL_BYTES = 1024 * 1024  # of a file's end that is searched for its last whole line; no line is so long


class Destination(Protocol):
    """Takes lines or messages, in order."""

    def send(self, pieces: Sequence[bytes]) -> None:
        """Hand over; returns when they are where they belong. Raises StorageError."""
        ...

    def close(self) -> None:
        """Let go."""
        ...


@dataclass(frozen=True)
class Address:
    """Where a receiver listens, and whether it speaks TLS."""

    host: str
    port: int
    tls: bool

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls' if self.tls else 'tcp'}://{host}:{self.port}"


def parse_address(text: str) -> Address:
    """The address of `tcp://host:port` or `tls://host:port`. Raises ValueError on anything else."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if host is None or port is None or not 0 < port < 65536:
        raise ValueError("tcp://host:port or tls://host:port was expected")
    found = Address(host, port, parts.scheme == "tls")
    if parts.scheme not in {"tcp", "tls"} or text.lower() != str(found):
        raise ValueError("tcp://host:port or tls://host:port was expected, and nothing more")
    return found


def tls_context(authorities: Path | None, certificate: Path | None, key: Path | None) -> ssl.SSLContext:
    """Who may vouch for the receiver, the system's authorities without; and who we are. Raises StorageError."""
    try:
        context = ssl.create_default_context(cafile=authorities)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if certificate is not None:
            # no passphrase is asked for on a terminal that nobody may be at
            context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError) as error:
        raise StorageError(f"the certificates for TLS cannot be used: {error}", "PEM files are expected") from None
    return context


class Stream:
    """An open stream, such as standard output."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def send(self, pieces: Sequence[bytes]) -> None:
        """See `Destination`."""
        self._stream.writelines(pieces)
        self._stream.flush()

    def close(self) -> None:
        """See `Destination`; the stream stays open."""


class File:
    """The end of a private file, durable when `send` returns; a line that a crash left unfinished is cut off first."""

    def __init__(self, path: Path) -> None:
        """Open or begin the file. Raises StorageError."""
        self._path = path
        with files.storage_errors(path):
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_APPEND
            self._stream = os.fdopen(os.open(path, flags, files.PRIVATE_FILE), "r+b", buffering=0)
            size = self._stream.seek(0, os.SEEK_END)
            start = max(0, size - TAIL_BYTES)
            self._stream.seek(start)
            tail = self._stream.read(TAIL_BYTES)
            whole = tail.rfind(b"\n") + 1
            if whole == 0 and start > 0:
                raise StorageError(f"{path} does not end in lines", "name a file that only this export writes")
            self._stream.truncate(start + whole)

    def send(self, pieces: Sequence[bytes]) -> None:
        """See `Destination`."""
        with files.storage_errors(self._path):
            data = memoryview(b"".join(pieces))
            while data:
                data = data[self._stream.write(data) :]
            os.fsync(self._stream.fileno())

    def close(self) -> None:
        """See `Destination`."""
        self._stream.close()


class Receiver:
    """A receiver over TCP or TLS. What it may not have got is sent again, all of the batch, on a new connection."""

    def __init__(
        self,
        address: Address,
        *,
        context: ssl.SSLContext | None = None,
        tries_max: int | None = TRIES_MAX,
        settle_seconds: float = SETTLE_SECONDS,
        sleep: Callable[[float], None] = time.sleep,
        told: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`tries_max` of None never gives up; `told` hears of each failure."""
        self._address, self._context = address, context
        self._tries_max, self._settle_seconds = tries_max, settle_seconds
        self._sleep, self._told = sleep, told
        self._socket: socket.socket | None = None

    def send(self, pieces: Sequence[bytes]) -> None:
        """See `Destination`. Raises StorageError when it has given up."""
        data, failures = b"".join(pieces), 0
        while True:
            try:
                self._send(data)
            except OSError as error:  # TLS errors are of this kind too
                self.close()
                failures += 1
                reason = f"{self._address}: {str(error.strerror or error).lower()}"
                if self._tries_max is not None and failures >= self._tries_max:
                    raise StorageError(reason, "check that the receiver listens there, and runs") from None
                wait = WAITS[min(failures, len(WAITS)) - 1]
                self._told(f"{reason}; trying again in {wait:.0f} s")
                self._sleep(wait)
            else:
                return

    def close(self) -> None:
        """See `Destination`."""
        found, self._socket = self._socket, None
        if found is not None:
            with suppress(OSError):  # it may be closed from the other side
                found.shutdown(socket.SHUT_WR)
            found.close()

    def _send(self, data: bytes) -> None:
        fresh = self._socket is None
        if self._socket is None:
            self._socket = self._dial()
        self._socket.sendall(data)
        _wait_until_taken(self._socket)
        if fresh and _closes_within(self._socket, self._settle_seconds):
            raise ConnectionError("it accepts a connection, and closes it")

    def _dial(self) -> socket.socket:
        found = socket.create_connection((self._address.host, self._address.port), CONNECT_SECONDS)
        try:
            if self._context is not None:
                found = self._context.wrap_socket(found, server_hostname=self._address.host)
            found.settimeout(SEND_SECONDS)
        except BaseException:
            found.close()
            raise
        return found


def _gone(connection: socket.socket) -> bool:
    """Whether the other side has closed."""
    connection.setblocking(False)
    try:
        while connection.recv(4096):
            pass  # a receiver has nothing to say; TLS has tickets
    except (BlockingIOError, ssl.SSLWantReadError):
        return False
    except OSError:
        return True
    finally:
        connection.settimeout(SEND_SECONDS)
    return True


def _wait_until_taken(connection: socket.socket) -> None:
    """Return when the other machine has acknowledged every byte. Raises TimeoutError, ConnectionError."""
    deadline, wait = time.monotonic() + SEND_SECONDS, 1
    errors = select.poll()
    errors.register(connection, 0)
    while struct.unpack("i", fcntl.ioctl(connection, termios.TIOCOUTQ, bytes(4)))[0]:  # SIOCOUTQ of tcp(7)
        if time.monotonic() > deadline:
            raise TimeoutError("it takes nothing more")
        if errors.poll(wait):
            error = connection.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            raise ConnectionError(os.strerror(error) if error else "the connection was closed")
        wait = min(2 * wait, 50)  # milliseconds


def _closes_within(connection: socket.socket, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    events = select.poll()
    events.register(connection, select.POLLIN)
    while (left := deadline - time.monotonic()) > 0:
        if events.poll(1000 * left) and _gone(connection):
            return True
    return False
