"""How far an export has come, in a file: which entry is next, of which log, and of which history of it."""

from contextlib import AbstractContextManager
from pathlib import Path

from palladion import canonical, files
from palladion.errors import FormatError, TamperError
from palladion.ledger.reader import LedgerReader

POSITION_BYTES_MAX = 4096  # an origin, a number and a hash
_FIELDS = {"v": int, "origin": str, "next": int, "root": str}


class Position:
    """The place that one export keeps. A crash after entries have gone and before `keep` makes them go again."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def held(self) -> AbstractContextManager[None]:
        """Keep others from it for a block. Raises BusyError while another process has it."""
        return files.exclusive_lock(self._path.with_name(f"{self._path.name}.lock"), what=f"{self._path}")

    def next(self, reader: LedgerReader) -> int | None:
        """The first entry that has not gone; None where nothing has yet.

        Raises FormatError where the file is no position of this log, TamperError where the log is not what it was: it
        was cut, or what has gone was rewritten.
        """
        if not self._path.exists():
            return None
        data = files.read_limited(self._path, size_max=POSITION_BYTES_MAX, what="the export's position")
        found = canonical.decode(data, size_max=POSITION_BYTES_MAX, what=f"the position {self._path}")
        if not isinstance(found, dict) or {name: type(value) for name, value in found.items()} != _FIELDS:
            raise FormatError(f"{self._path} is no position of an export", "--state names a file of its own")
        if found["v"] != 1 or found["next"] < 0:
            raise FormatError(f"{self._path} is no position of an export that this release knows")
        place: int = found["next"]
        if found["origin"] != reader.checkpoint.origin:
            raise FormatError(f"{self._path} is the position in another log: {found['origin'][:80]!r}")
        if place > reader.size:
            raise TamperError(
                f"the ledger's tail was cut: it has {reader.size} entries, and {place} have been exported",
                "palladion ledger verify says more",
            )
        if reader.root_at(place).hex() != found["root"]:
            raise TamperError(
                f"the ledger was rewritten: its first {place} entries are not those that have been exported",
                "palladion ledger verify says more",
            )
        return place

    def keep(self, reader: LedgerReader, place: int) -> None:
        """Everything before entry `place` has gone; durable when this returns. Raises StorageError."""
        document = {
            "v": 1,
            "origin": reader.checkpoint.origin,
            "next": place,
            "root": reader.root_at(place).hex(),
        }
        files.write_atomically(self._path, canonical.encode(document))
