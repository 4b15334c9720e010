"""What was asked of a suspect's API and what it answered, as evidence: lines of canonical JSON, each with the hash of
the line before it. The last hash, in the ledger, pins all of it.

Owns writing and checking the file. It holds no credentials: only headers named here are kept.
"""

import base64
import io
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from palladion import canonical, files
from palladion.clock import Clock, timestamp
from palladion.errors import FormatError, InconclusiveError, TamperError
from palladion.lifecycle.servers import Server

FIRST_PREVIOUS = "0" * 64
LINE_BYTES_MAX = 64 * 1024 * 1024  # twice the largest answer, which escapes make longer, and a request of pictures
LINE_REST_BYTES_MAX = 128 * 1024  # of a line beside bodies: headers in escapes, and an address twice
FILE_BYTES_MAX = 1024 * 1024 * 1024
HEADERS = ("content-length", "content-type", "date", "retry-after", "server", "via", "x-request-id")
HEADER_CHARACTERS_MAX = 500


class Capture:
    """A file that grows line by line, as far as `verify_capture` reads; `digest` is the hash of the last line."""

    def __init__(self, stream: io.FileIO, path: Path, clock: Clock) -> None:
        self._stream = stream
        self.path = path
        self._clock = clock
        self._number = 0
        self._bytes = 0
        self.digest = FIRST_PREVIOUS
        self._server: Server | None = None

    def note_server(self, server: Server) -> None:
        """Write a line that says who answers from here on, unless that is who answered before."""
        if server != self._server:
            self.write("server", server.document())
            self._server = server

    def require_room(self, content_bytes: int) -> None:
        """Raise InconclusiveError unless a line with this much content, in canonical JSON, still fits."""
        self._require_room(content_bytes + LINE_REST_BYTES_MAX)

    def write(self, kind: str, content: Mapping[str, Any]) -> None:
        """Append a line; it is on the disk when this returns. Raises InconclusiveError where it does not fit.

        A StorageError leaves the lines before as they were.
        """
        line = canonical.encode(
            {
                "number": self._number,
                "previous": self.digest,
                "time": timestamp(self._clock.now()),
                "kind": kind,
                **content,
            }
        )
        self._require_room(len(line) + 1)
        with files.storage_errors(self.path):
            self._append(line + b"\n")
        self.digest = sha256(line).hexdigest()
        self._number += 1
        self._bytes += len(line) + 1

    def _append(self, data: bytes) -> None:
        left = memoryview(data)
        try:
            while left:
                left = left[self._stream.write(left) :]
            os.fsync(self._stream.fileno())
        except OSError:
            # half a line at the end would be taken for a change
            with suppress(OSError):
                os.ftruncate(self._stream.fileno(), self._bytes)
            raise

    def _require_room(self, line_bytes: int) -> None:
        if line_bytes > LINE_BYTES_MAX:
            raise InconclusiveError(
                f"a request and its answer may take {line_bytes} bytes of the capture, at most {LINE_BYTES_MAX} fit",
                'a smaller "rows" in the file that --api names makes requests smaller',
            )
        if self._bytes + line_bytes > FILE_BYTES_MAX:
            raise InconclusiveError(
                f"the capture is full: it has {self._bytes} bytes, and at most {FILE_BYTES_MAX} with the next answer",
                "run it again with another --capture: it asks for the next triggers",
            )


@dataclass(frozen=True)
class Summary:
    """What a capture is about: the suspect's address as the plan names it, how many lines, how many requests."""

    suspect: str
    lines: int
    exchanges: int


@contextmanager
def new_capture(path: Path, clock: Clock) -> Iterator[Capture]:
    """A capture at `path`, which must be free. Whatever happens in the block, what was written stays."""
    with files.storage_errors(path):
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, files.PRIVATE_FILE)
    # unbuffered: what could not be written must not be tried again when it is closed
    with os.fdopen(descriptor, "wb", buffering=0) as stream:
        files.sync_directory(path.parent)
        yield Capture(stream, path, clock)


def body_of(data: bytes) -> dict[str, str]:
    """A body as a line holds it: its hash, and itself as text, or in base64 where it is none.

    Also where escapes would make it longer than twice its bytes: a NUL takes six.
    """
    digest = sha256(data).hexdigest()
    with suppress(UnicodeDecodeError):
        text = data.decode()
        if len(canonical.encode(text)) - len('""') <= 2 * len(data):
            return {"sha256": digest, "text": text}
    return {"sha256": digest, "base64": base64.b64encode(data).decode()}


def headers_of(headers: Mapping[str, str]) -> dict[str, str]:
    """Of an answer's headers those that say something, and are no secret."""
    lower = {name.lower(): value for name, value in headers.items()}
    return {
        name: lower[name][:HEADER_CHARACTERS_MAX].encode("ascii", "replace").decode()
        for name in HEADERS
        if name in lower
    }


def verify_capture(data: bytes, digest: str) -> list[dict[str, Any]]:
    """The lines of a capture. Raises TamperError unless each follows from the one before, and the last is `digest`."""
    return list(_verified(data, digest))


def summarise_capture(data: bytes, digest: str) -> Summary:
    """What a capture holds, line by line, so that a large one fits. Raises TamperError as `verify_capture` does."""
    lines, exchanges, suspect = 0, 0, ""
    for document in _verified(data, digest):
        lines += 1
        exchanges += document.get("kind") == "exchange"
        if document.get("kind") == "plan":
            suspect = str(document.get("suspect", ""))
    return Summary(suspect, lines, exchanges)


def _verified(data: bytes, digest: str) -> Iterator[dict[str, Any]]:
    """To be read to its end, where it raises what the last line says."""
    if len(data) > FILE_BYTES_MAX:
        raise FormatError(f"the capture has {len(data)} bytes, more than the {FILE_BYTES_MAX} allowed")
    previous = FIRST_PREVIOUS
    for number, ended in enumerate(io.BytesIO(data)):
        line = ended.removesuffix(b"\n")
        document = canonical.decode(line, size_max=LINE_BYTES_MAX, what=f"line {number + 1} of the capture")
        found = (document.get("number"), document.get("previous")) if isinstance(document, dict) else None
        if found != (number, previous):
            raise TamperError(f"line {number + 1} of the capture does not follow from the one before it")
        previous = sha256(line).hexdigest()
        yield document
    if previous != digest:
        raise TamperError("the capture does not end as was recorded: lines are missing, or were changed")
