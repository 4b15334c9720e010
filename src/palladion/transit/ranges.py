"""A file on a web server, read by ranges: each answer is the range that was asked for, of one and the same file.

Object stores are read this way too, by presigned addresses, so that one set of limits holds for all.
"""

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from palladion.errors import FormatError
from palladion.seal.layout import DIGEST_BYTES, PARAMETERS, SEGMENTS_MAX, TRAILER_BYTES_MAX
from palladion.seal.source import Source
from palladion.transit.connection import Deadline
from palladion.transit.url import Url
from palladion.transit.web import Answer, InterruptedTransferError, Web, attempt_pauses, refusal

HEAD_BYTES = 64 * 1024  # asked for first: prefix, header and FLOE header have some 600 bytes, and it tells the size
# the largest sealed file there can be: with a header and a footer of a mebibyte each, to be generous
FILE_BYTES_MAX = SEGMENTS_MAX * (PARAMETERS.segment_bytes + DIGEST_BYTES) + TRAILER_BYTES_MAX + 2 * 1024 * 1024
_CONTENT_RANGE = re.compile(r"bytes ([0-9]{1,15})-([0-9]{1,15})/([0-9]{1,15})")
_PERHAPS_EXPIRED = frozenset({401, 403, 404, 410})

Headers = Mapping[str, str]
Locate = Callable[[bool], tuple[Url, Headers]]  # address and credentials; True: those from before were refused


class Remote(Source, Protocol):
    """A source elsewhere; `head` are its first bytes, which came with the size."""

    @property
    def head(self) -> bytes:
        """The first bytes, as many as the first answer brought."""
        ...


class NoRangesError(FormatError):
    """The server sends whole files only."""

    def __init__(self, what: str) -> None:
        super().__init__(
            f"{what} cannot be read by ranges: the server sends whole files only",
            "palladion pull gets a copy all the same",
        )


@dataclass(frozen=True)
class _Version:
    """What tells an object from the one that replaces it."""

    etag: str
    modified: str
    size: int

    @property
    def condition(self) -> dict[str, str]:
        """What makes the server refuse if it has another object by then (RFC 9110 §13.1)."""
        if self.etag.startswith('"'):
            return {"If-Match": self.etag}
        # a weak tag does not identify bytes, and If-Match with one never holds
        return {"If-Unmodified-Since": self.modified} if self.modified else {}


class WebSource:
    """A file on a web server; reads from several threads, as far as the connections go."""

    def __init__(self, web: Web, locate: Locate, what: str) -> None:
        """Ask for the first bytes, and with them for the size.

        Raises NotFoundError, NoRangesError, StorageError, or FormatError if the server contradicts itself.
        """
        self.what = what
        self._web = web
        self._locate = locate
        self._lock = threading.Lock()
        self._place, self._headers = locate(False)
        self._version: _Version | None = None
        self.head = self._first()

    def __repr__(self) -> str:
        return f"<WebSource {self.what}>"

    @property
    def size(self) -> int:
        """Bytes of the whole object."""
        return 0 if self._version is None else self._version.size

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on; what broke off goes on where it did.

        Raises FormatError if the object is another one by now or the answer is not what was asked for, StorageError.
        """
        if offset + len(buffer) > self.size:
            raise FormatError(f"{self.what} has {self.size} bytes, fewer than are needed")
        if not buffer:
            return
        deadline = self._web.limits.deadline(len(buffer))
        done = 0

        def attempt() -> None:
            nonlocal done
            with self._asked(offset + done, offset + len(buffer) - 1, deadline) as answer:
                while done < len(buffer):
                    count = answer.read_into(buffer[done:])
                    if count == 0:
                        raise InterruptedTransferError(f"{self.what} broke off in the middle of a range")
                    done += count
                answer.end()

        persist(self._web, attempt)

    def close(self) -> None:
        """Close the connections, also under a read in another thread."""
        self._web.close()

    def _first(self) -> bytes:
        head = bytearray()

        def attempt() -> None:
            with self._asked(0, HEAD_BYTES - 1, self._web.limits.deadline(HEAD_BYTES)) as answer:
                head[:] = answer.read(HEAD_BYTES)

        persist(self._web, attempt)
        return bytes(head)

    @contextmanager
    def _asked(self, first: int, last: int, deadline: Deadline) -> Iterator[Answer]:
        """The answer that holds the bytes `first` to `last`, checked as far as its headers go."""
        with self._lock:
            place, headers = self._place, self._headers
        condition = self._version.condition if self._version else {}
        asked = {**headers, **condition, "Range": f"bytes={first}-{last}"}
        with self._web.ask("GET", place, asked, deadline=deadline) as answer:
            if answer.status not in _PERHAPS_EXPIRED or self._version is None:
                self._check(answer, first, last)
                self._remember(answer, place, headers)
                yield answer
                return
            error = refusal(answer, self.what)
        # presigned addresses and tokens end while a large file is read: ask for new ones, and try again. Not before the
        # answer is done with: this may need a connection too
        with self._lock:
            self._place, self._headers = self._locate(True)
        raise InterruptedTransferError(error.message, *error.hints)

    def _remember(self, answer: Answer, place: Url, headers: Headers) -> None:
        """Go straight to where the redirects led."""
        if answer.url != place:
            with self._lock:
                # the credentials stay with the origin that they are for
                self._place, self._headers = answer.url, headers if answer.url.origin == place.origin else {}

    def _check(self, answer: Answer, first: int, last: int) -> None:
        if answer.status == HTTPStatus.OK and self._version is None:
            raise NoRangesError(self.what)
        if answer.status == HTTPStatus.OK:
            raise FormatError(f"{self.what} was replaced by another file meanwhile, or its server gave up on ranges")
        if answer.status == HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE and self._version is None:
            raise FormatError(f"{self.what} is empty")
        if answer.status != HTTPStatus.PARTIAL_CONTENT:
            raise refusal(answer, self.what)
        if answer.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise FormatError(f"{self.what} comes compressed, which nobody asked for")
        match = _CONTENT_RANGE.fullmatch(answer.headers.get("Content-Range", "").strip())
        if match is None:
            raise FormatError(f"{self.what}: the server does not say which bytes it sends")
        begin, end, size = (int(text) for text in match.groups())
        version = _Version(answer.headers.get("ETag", ""), answer.headers.get("Last-Modified", ""), size)
        if self._version is None:
            if not 0 < size <= FILE_BYTES_MAX:
                raise FormatError(f"{self.what} is said to have {size} bytes, at most {FILE_BYTES_MAX} are allowed")
        elif not _same(version, self._version):
            raise FormatError(f"{self.what} was replaced by another file meanwhile", "run it again")
        last = min(last, size - 1)
        if (begin, end) != (first, last):
            raise FormatError(f"{self.what}: the server sends bytes {begin} to {end}, asked for were {first} to {last}")
        length = answer.length()
        if length is not None and length != end - begin + 1:
            raise FormatError(f"{self.what}: the server announces {length} bytes for a range of {end - begin + 1}")
        self._version = self._version or version


def persist(web: Web, attempt: Callable[[], None]) -> None:
    """Call `attempt` until it does not raise InterruptedTransferError, a few times at most, with pauses between."""
    for pause in attempt_pauses(web.limits):
        try:
            return attempt()
        except InterruptedTransferError as error:
            web.limits.wait(max(pause, error.wait_seconds))
    return attempt()


def _same(now: _Version, before: _Version) -> bool:
    tags = now.etag == before.etag or not now.etag
    times = before.etag != "" or now.modified == before.modified or not now.modified
    return now.size == before.size and tags and times
