"""What was asked of a suspect's API and what it answered, as evidence: lines of canonical JSON, each with the hash of
the line before it. The last hash, in the ledger, pins all of it.

Owns writing and checking the file. It holds no credentials: only headers named here are kept.
"""

import base64
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO

from palladion import canonical, files
from palladion.clock import Clock, timestamp
from palladion.errors import FormatError, TamperError

FIRST_PREVIOUS = "0" * 64
LINE_BYTES_MAX = 16 * 1024 * 1024  # twice the largest answer, and then some: escapes make text longer
FILE_BYTES_MAX = 1024 * 1024 * 1024
HEADERS = ("content-length", "content-type", "date", "retry-after", "server", "via", "x-request-id")
HEADER_CHARACTERS_MAX = 500


class Capture:
    """A file that grows line by line; `digest` is the hash of the last one."""

    def __init__(self, stream: BinaryIO, path: Path, clock: Clock) -> None:
        self._stream = stream
        self.path = path
        self._clock = clock
        self._number = 0
        self.digest = FIRST_PREVIOUS

    def write(self, kind: str, content: Mapping[str, Any]) -> None:
        """Append a line; it is on the disk when this returns."""
        line = canonical.encode(
            {
                "number": self._number,
                "previous": self.digest,
                "time": timestamp(self._clock.now()),
                "kind": kind,
                **content,
            }
        )
        with files.storage_errors(self.path):
            self._stream.write(line + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        self.digest = sha256(line).hexdigest()
        self._number += 1


@contextmanager
def new_capture(path: Path, clock: Clock) -> Iterator[Capture]:
    """A capture at `path`, which must be free. Whatever happens in the block, what was written stays."""
    with files.storage_errors(path):
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, files.PRIVATE_FILE)
    with os.fdopen(descriptor, "wb") as stream:
        files.sync_directory(path.parent)
        yield Capture(stream, path, clock)


def body_of(data: bytes) -> dict[str, str]:
    """A body as a line holds it: its hash, and itself as text, or in base64 where it is none."""
    digest = sha256(data).hexdigest()
    try:
        return {"sha256": digest, "text": data.decode()}
    except UnicodeDecodeError:
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
    if len(data) > FILE_BYTES_MAX:
        raise FormatError(f"the capture has {len(data)} bytes, more than the {FILE_BYTES_MAX} allowed")
    previous, lines = FIRST_PREVIOUS, []
    for number, line in enumerate(data.splitlines()):
        document = canonical.decode(line, size_max=LINE_BYTES_MAX, what=f"line {number + 1} of the capture")
        found = (document.get("number"), document.get("previous")) if isinstance(document, dict) else None
        if found != (number, previous):
            raise TamperError(f"line {number + 1} of the capture does not follow from the one before it")
        previous = sha256(line).hexdigest()
        lines.append(document)
    if previous != digest:
        raise TamperError("the capture does not end as was recorded: lines are missing, or were changed")
    return lines
