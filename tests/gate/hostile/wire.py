"""Raw bytes to a real gate, and what comes back: how many answers, which, and whether the connection ended."""

import re
import socket
from dataclasses import dataclass

from tests.gate.service import WAIT_SECONDS_MAX, Service

QUIET_SECONDS = 0.05  # after the answers that were expected: nothing more comes
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)\r\n")


@dataclass(frozen=True)
class Heard:
    """What a gate said on one connection."""

    data: bytes
    ended: bool

    @property
    def statuses(self) -> list[int]:
        """Of each answer, in order; an answer that is not whole is 0."""
        found, rest = [], self.data
        while rest:
            head, end, after = rest.partition(b"\r\n\r\n")
            length = _LENGTH.search(head + b"\r\n")
            size = 0 if head.startswith(b"HTTP/1.1 100") else int(length[1]) if length else len(after)
            found.append(int(head[9:12]) if end and head.startswith(b"HTTP/1.1 ") and len(after) >= size else 0)
            rest = after[size:]
        return found


def exchange(service: Service, *pieces: bytes, answers: int = 1, half_close: bool = False) -> Heard:
    """Send pieces, one packet each, and listen until the connection ends or nothing comes after so many answers."""
    with socket.create_connection((service.host, service.port), timeout=WAIT_SECONDS_MAX) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        try:
            for piece in pieces:
                peer.sendall(piece)
            if half_close:
                peer.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # it ended while we were talking
        return listen(peer, answers=answers)


def listen(peer: socket.socket, *, answers: int = 1) -> Heard:
    """Until the connection ends, or nothing comes after so many whole answers."""
    data = b""
    while True:
        statuses = Heard(data, ended=False).statuses
        try:
            peer.settimeout(QUIET_SECONDS if len(statuses) >= answers and 0 not in statuses else WAIT_SECONDS_MAX)
            part = peer.recv(65536)
        except TimeoutError:
            return Heard(data, ended=False)
        except OSError:
            return Heard(data, ended=True)
        if not part:
            return Heard(data, ended=True)
        data += part
