"""What a service was asked and answered, on disk: a run that goes on asks nothing twice, and counts what was sent.

Lines of JSON, one for each request, appended as they happen. The last line may be half of one after a crash, and is
cut off. Holds rows and prompts as digests alone.
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
FIRST_ACCOUNT = 1
# a class, scores, an answer with text, or None: it was not taken
Said = int | list[float] | None
Kept = Said | dict[str, Any]


class Journal:
    """A file that grows; a context manager. `answers` are by the digest of a row."""

    def __init__(self, path: Path) -> None:
        """Read what is there. Raises FormatError if that is no such journal."""
        self.answers: dict[str, Any] = {}  # `Kept`, as those who asked it know
        self.notes: dict[str, Any] = {}
        self._sent: Counter[str] = Counter()
        self._failed: Counter[str] = Counter()
        self._by_account: Counter[int] = Counter()
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

    def sent_by(self, account: int) -> int:
        """Queries that were sent by one account."""
        return self._by_account[account]

    @property
    def failed(self) -> int:
        """Queries that were sent and not answered."""
        return self._failed.total()

    def add(
        self, stage: str, queries: int, answers: Mapping[str, Kept], *, failed: int = 0, account: int = FIRST_ACCOUNT
    ) -> None:
        """One request: its queries, how many of them failed, who sent it, and answers that are to be kept."""
        document: dict[str, Any] = {"stage": stage, "sent": queries, "failed": failed, "answers": dict(answers)}
        if account != FIRST_ACCOUNT:
            document["account"] = account
        self._write(document)
        self._take(document)

    def note(self, name: str, value: Any) -> None:
        """Keep a value under a name; a later one replaces it."""
        self._write({"note": name, "value": value})
        self.notes[name] = value

    def missing(self, digests: Sequence[str]) -> list[int]:
        """Places of rows that were not answered so far, each row once."""
        first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        return sorted(place for digest, place in first.items() if digest not in self.answers)

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
            return
        stage, sent = str(document["stage"]), int(document["sent"])
        self._sent[stage] += sent
        self._failed[stage] += int(document["failed"])
        self._by_account[int(document.get("account", FIRST_ACCOUNT))] += sent
        self.answers.update(document["answers"])
