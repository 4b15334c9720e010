"""Requests to a model server, as bytes: written by the gate alone, so that nothing a client sent frames them. Pure.

RFC 9112 §3 and §5. Every name and value is checked before it is written.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

Headers = Sequence[tuple[bytes, bytes]]

METHODS = frozenset({b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"})
_WITH_BODY = frozenset({b"POST", b"PUT", b"PATCH"})
HEADS_MAX = 64  # that are kept; up to 32 KiB each, and usually 300 bytes
TARGET_BYTES_MAX = 8 * 1024  # what RFC 9112 §3 asks servers to take at least
# What frames a message or belongs to a connection: from a caller, it would say something else than is true.
RESERVED = frozenset(
    {
        b"accept-encoding",
        b"connection",
        b"content-length",
        b"expect",
        b"host",
        b"http2-settings",
        b"keep-alive",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_VALUE = re.compile(rb"(?:[!-~](?:[\t -~]*[!-~])?)?")
_TARGET = re.compile(rb"/[!\"$-~]*")  # origin form: no blank, no fragment


class Request(NamedTuple):
    """A request: `head` ends with the empty line. Its `repr` shows nothing of it, since keys are in there."""

    head: bytes
    body: bytes
    head_only: bool  # HEAD: the answer has no body, whatever it announces

    def __repr__(self) -> str:
        return f"<Request of {len(self.head)} + {len(self.body)} bytes>"


class RequestWriter:
    """Writes the requests to one server."""

    def __init__(self, authority: str, headers: Headers, *, head_bytes_max: int) -> None:
        """`headers` go with every request. Raises ValueError for those that cannot be sent."""
        fixed = [(b"host", authority.encode("ascii")), (b"accept-encoding", b"identity")]
        self._taken = frozenset(_name(name) for name, _ in headers)
        self._head_bytes_max = head_bytes_max
        lines = [part for name, value in fixed for part in (name, b": ", value, b"\r\n")]
        self._after_target = b" HTTP/1.1\r\n" + b"".join(lines + _lines(headers, frozenset()))
        self._begun = lru_cache(HEADS_MAX)(self._begin)  # the same ones come again and again

    def write(self, method: bytes, target: bytes, headers: Headers, body: bytes) -> Request:
        """A request. Raises ValueError for one that must not be sent: a caller checks what a client may choose."""
        head = self._begun(method, target, tuple(headers))
        if method in _WITH_BODY:
            head += b"content-length: %d\r\n\r\n" % len(body)
        elif body:
            raise ValueError(f"a body does not go with {method.decode()}")
        else:
            head += b"\r\n"
        if len(head) > self._head_bytes_max:
            raise ValueError(f"a head has at most {self._head_bytes_max} bytes, not {len(head)}")
        return Request(head, body, method == b"HEAD")

    def _begin(self, method: bytes, target: bytes, headers: Headers) -> bytes:
        """A head up to its length."""
        return b"".join([_start(method, target), self._after_target, *_lines(headers, self._taken)])


@lru_cache(maxsize=64)  # routes are few
def _start(method: bytes, target: bytes) -> bytes:
    if method not in METHODS:
        raise ValueError("the method is none that a model server is asked with")
    if len(target) > TARGET_BYTES_MAX or not _TARGET.fullmatch(target):
        raise ValueError(f"a target begins with / and has at most {TARGET_BYTES_MAX} printable characters")
    return method + b" " + target


def _lines(headers: Headers, taken: frozenset[bytes]) -> list[bytes]:
    lines: list[bytes] = []
    for name, value in headers:
        if _name(name) in taken:
            # a client's key beside ours: who knows which of them the server takes
            raise ValueError(f"the header {name.decode('ascii')} goes with every request already")
        if not _VALUE.fullmatch(value):
            # the value may be a key: it is not shown
            raise ValueError(f"the value of {name.decode('ascii')} is not printable ASCII without blanks around")
        lines += (name, b": ", value, b"\r\n")
    return lines


@lru_cache(maxsize=256)  # names are few, and seldom new
def _name(name: bytes) -> bytes:
    """`name` in lower case."""
    if not _TOKEN.fullmatch(name):
        raise ValueError("the name of a header is not one (RFC 9110 §5.6.2)")
    lower = name.lower()
    if lower in RESERVED:
        raise ValueError(f"the header {lower.decode()} is written by us")
    return lower
