"""What a service was asked and answered, on disk: a run that goes on asks nothing twice, and counts what was sent.

Lines of JSON, one for each request, appended as they happen. The last line may be half of one after a crash, and is
cut off. Holds rows as digests alone.
"""

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

from palladion import files
from palladion.errors import FormatError

JOURNAL_BYTES_MAX = 1024**3
Said = int | list[float] | None  # a class, scores, or None: the row was not taken


class Journal:
    """A file that grows; a context manager. `answers` are by the digest of a row."""

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises FormatError if that is no such journal."""
        self.answers: dict[str, Said] = {}
        self.notes: dict[str, Any] = {}
        self._sent: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        whole = self._read(path)
        with files.storage_errors(path):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, files.PRIVATE_FILE)
            os.ftruncate(descriptor, whole)
            os.lseek(descriptor, 0, os.SEEK_END)
            self._stream = os.fdopen(descriptor, "wb", buffering=0)
        self._path, self._bytes = path, whole

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def sent(self, stage: str | None = None) -> int:
        """Queries that were sent, of one stage or of all."""
        return self._sent.total() if stage is None else self._sent[stage]

    @property
    def failed(self) -> int:
        """Queries that were sent and not answered."""
        return self._failed.total()

    def add(self, stage: str, queries: int, answers: Mapping[str, Said], *, failed: int = 0) -> None:
        """One request: its queries, how many of them failed, and answers that are to be kept."""
        self._write({"stage": stage, "sent": queries, "failed": failed, "answers": dict(answers)})
        self._count(stage, queries, failed, answers)

    def note(self, name: str, value: Any) -> None:
        """Keep a value under a name; a later one replaces it."""
        self._write({"note": name, "value": value})
        self.notes[name] = value

    def missing(self, digests: Sequence[str]) -> list[int]:
        """Places of rows that were not answered so far, each row once."""
        first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        return sorted(place for digest, place in first.items() if digest not in self.answers)

    def _count(self, stage: str, queries: int, failed: int, answers: Mapping[str, Said]) -> None:
        self._sent[stage] += queries
        self._failed[stage] += failed
        self.answers.update(answers)

    def _write(self, document: dict[str, Any]) -> None:
        line = msgspec.json.encode(document) + b"\n"
        if self._bytes + len(line) > JOURNAL_BYTES_MAX:
            raise FormatError(
                f"{self._path} would grow beyond {JOURNAL_BYTES_MAX} bytes", "run it with a smaller budget"
            )
        with files.storage_errors(self._path):
            left = memoryview(line)
            while left:
                left = left[self._stream.write(left) :]
        self._bytes += len(line)

    def _read(self, path: Path) -> int:
        """Bytes up to the last line that is whole."""
        if not path.exists():
            return 0
        data = files.read_limited(path, size_max=JOURNAL_BYTES_MAX, what="the answers so far")
        whole = data.rfind(b"\n") + 1
        for number, line in enumerate(data[:whole].splitlines(), 1):
            try:
                self._take(msgspec.json.decode(line))
            except (msgspec.DecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
                raise FormatError(
                    f"line {number} of {path} is broken: {error}", "remove the file to ask everything anew"
                ) from None
        return whole

    def _take(self, document: dict[str, Any]) -> None:
        if "note" in document:
            self.notes[str(document["note"])] = document["value"]
        else:
            self._count(str(document["stage"]), int(document["sent"]), int(document["failed"]), document["answers"])
