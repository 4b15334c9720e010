"""Connecting within a time that covers all of it: the name, each address, TLS, a proxy's consent, and what follows.

The standard library's timeouts are those of a single wait: a name with ten addresses waits ten times, and a peer that
sends a byte now and then for ever.
"""

import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from http.client import HTTPConnection
from ipaddress import ip_address
from typing import Any, cast

TOO_SLOW = "it is too slow"

_Addresses = Sequence[tuple[int, int, int, str, Any]]  # as getaddrinfo says them


class Watchdog:
    """Breaks a connection off when its time is up, whatever its thread waits for. Time begins when it is made."""

    def __init__(self, seconds: float) -> None:
        self.bit = False
        self._due = time.monotonic() + seconds
        self._guarded: socket.socket | None = None
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def left(self) -> float:
        """Seconds until it bites. Raises TimeoutError when they are over."""
        seconds = self._due - time.monotonic()
        if self.bit or seconds <= 0:
            self.bit = True
            raise TimeoutError(TOO_SLOW)
        return seconds

    def prolong(self, seconds: float) -> None:
        """Give so much more time."""
        self._due += seconds

    def connect(self, http: HTTPConnection) -> None:
        """Connect `http`, TLS and proxy included. Raises OSError, TimeoutError when the time is up."""
        # it is what connects to the proxy or the server, and there is no public name for it; TLS and the proxy's
        # consent come afterwards in the same call, on a socket that is guarded by then
        cast(Any, http)._create_connection = self._dial
        try:
            http.connect()
            # what was broken off after a proxy's consent is no TLS connection, and the standard library calls it one
            self.left()
        except BaseException as error:
            http.close()
            if self.bit and isinstance(error, OSError | ValueError):
                # a handshake that was broken off looks like a mistake of the peer
                raise TimeoutError(TOO_SLOW) from None
            raise

    def stop(self) -> None:
        """Bite no more."""
        self._ended.set()
        with self._lock:
            guarded, self._guarded = self._guarded, None
        if guarded is not None:
            guarded.close()

    def _dial(self, address: tuple[str, int], seconds: object, _source: object = None) -> socket.socket:
        failure: OSError = OSError("the name has no address")
        found = self._resolved(*address)
        for number, (family, kind, protocol, _, place) in enumerate(found):
            connected = socket.socket(family, kind, protocol)
            try:
                # its share of what is left: one that swallows everything must not use up the time of the others
                connected.settimeout(self.left() / (len(found) - number))
                connected.connect(place)
                connected.settimeout(seconds if isinstance(seconds, int | float) else None)
                self._guard(connected)
            except OSError as error:
                connected.close()
                failure = error
                continue
            return connected
        self.left()
        raise failure

    def _resolved(self, host: str, port: int) -> _Addresses:
        """The addresses of a host. A resolver that hangs is left to itself: nothing ends it."""
        with suppress(ValueError):
            ip_address(host)
            return socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
        found: list[_Addresses] = []
        failed: list[OSError] = []

        def resolve() -> None:
            try:
                found.append(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
            except OSError as error:
                failed.append(error)
            except UnicodeError:
                failed.append(OSError("this is no name of a host"))

        thread = threading.Thread(target=resolve, daemon=True)
        thread.start()
        thread.join(self.left())
        if failed:
            raise failed[0]
        if not found:
            self.bit = True
            raise TimeoutError(TOO_SLOW)
        return found[0]

    def _guard(self, connected: socket.socket) -> None:
        # a second handle of the same connection: TLS takes the first one over, and its own shutdown would let a
        # reader take what is left of the ciphertext for the answer
        with self._lock:
            self._guarded = connected.dup()
        threading.Thread(target=self._watch, daemon=True).start()

    def _watch(self) -> None:
        while (left := self._due - time.monotonic()) > 0:
            if self._ended.wait(left):
                return
        with self._lock:
            if self._guarded is None:
                return
            self.bit = True
            with suppress(OSError):  # closed by the peer meanwhile
                self._guarded.shutdown(socket.SHUT_RDWR)
