"""What a feed keeps between its runs: clients, what was proposed of them, how far its log was read; one SQLite file.

Apart from the registry, which holds states of registered clients alone; clients of a log need not be. All that belongs
together is written together. One feed of a model at a time.
"""

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from palladion import files
from palladion.errors import FormatError, StorageError
from palladion.registry.rows import Standing
from palladion.watch.feed import Known
from palladion.watch.follow import Position
from palladion.watch.residents import Kept as State

FOLDER = "feeds"
_FORMAT = "palladion-feed-1"
_TABLES = """
CREATE TABLE IF NOT EXISTS about (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS client (
    name TEXT PRIMARY KEY, organisation TEXT NOT NULL, proposed TEXT NOT NULL, state BLOB NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS client_organisation ON client (organisation);
CREATE TABLE IF NOT EXISTS log (
    path TEXT PRIMARY KEY, device INTEGER NOT NULL, inode INTEGER NOT NULL, position INTEGER NOT NULL
) STRICT;
"""


@dataclass(frozen=True)
class Kept:
    """What was kept: clients by name, and the time of the last request."""

    known: Mapping[str, Known]
    latest: float


class FeedStore:
    """The file of one model's feed, open and locked. Satisfies `residents.Shelf`."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = connection
        self._path = path

    def load(self, calibration: str) -> Kept:
        """What was kept, for a feed under a calibration, by digest: states under another mean nothing, and go."""
        with _sqlite_errors(self._path), self._connection as transaction:
            about = dict(transaction.execute("SELECT name, value FROM about"))
            if about.get("calibration") != calibration:
                transaction.execute("UPDATE client SET state = x''")
                transaction.executemany(
                    "INSERT OR REPLACE INTO about VALUES (?, ?)", [("format", _FORMAT), ("calibration", calibration)]
                )
            known = {}
            for name, organisation, proposed in transaction.execute("SELECT name, organisation, proposed FROM client"):
                if proposed not in get_args(Standing):
                    raise FormatError(f"{self._path} holds a client that no feed wrote")
                known[name] = Known(organisation, proposed)
        return Kept(known, float(about.get("latest", 0)))

    def get(self, client: str) -> State | None:
        """The state of a client, as `residents.Shelf` says."""
        with _sqlite_errors(self._path):
            row = self._connection.execute(
                "SELECT organisation, state FROM client WHERE name = ? AND length(state)", (client,)
            ).fetchone()
        return None if row is None else State(row[0], row[1])

    def of(self, organisation: str) -> Iterable[tuple[str, bytes]]:
        """The states of an organisation, likewise."""
        with _sqlite_errors(self._path):
            return self._connection.execute(
                "SELECT name, state FROM client WHERE organisation = ? AND length(state) ORDER BY name", (organisation,)
            ).fetchall()

    def pending(self) -> Collection[str]:
        """Nobody: what the feed hands out is here before it asks again."""
        return ()

    def position(self, log: Path) -> Position | None:
        """How far a log was read; None where it never was."""
        with _sqlite_errors(self._path):
            row = self._connection.execute(
                "SELECT device, inode, position FROM log WHERE path = ?", (str(log),)
            ).fetchone()
        return None if row is None else Position(*row)

    def save(
        self,
        changes: Mapping[str, Known],
        *,
        latest: float,
        log: Path | None = None,
        position: Position | None = None,
    ) -> None:
        """Keep what changed and how far the log was read: all of it, or nothing. Raises StorageError."""
        with _sqlite_errors(self._path), self._connection as transaction:
            transaction.execute("INSERT OR REPLACE INTO about VALUES ('latest', ?)", (repr(latest),))
            transaction.executemany(
                # a client of which only what was proposed changed keeps its state
                "INSERT INTO client VALUES (?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET "
                "organisation = excluded.organisation, proposed = excluded.proposed, "
                "state = CASE WHEN length(excluded.state) THEN excluded.state ELSE state END",
                [(name, item.organisation, item.proposed, item.state) for name, item in changes.items()],
            )
            if log is not None and position is not None:
                row = (str(log), position.device, position.inode, position.offset)
                transaction.execute("INSERT OR REPLACE INTO log VALUES (?, ?, ?, ?)", row)


@contextmanager
def open_store(directory: Path, model: str) -> Iterator[FeedStore]:
    """The store of a model's feed in an installation's folder, made if it is not there.

    Raises BusyError while another feed of the model runs, FormatError on a file that is none.
    """
    folder = directory / FOLDER
    files.make_private_directory(folder)
    path = folder / f"{model}.sqlite"
    with files.exclusive_lock(folder / f"{model}.lock", what=f"the feed of {model}"):
        connection = _open(path)
        try:
            yield FeedStore(connection, path)
        finally:
            connection.close()


def _open(path: Path) -> sqlite3.Connection:
    with files.storage_errors(path):
        path.touch(mode=0o600)
    with _sqlite_errors(path):
        connection = sqlite3.connect(path)
        try:
            connection.executescript(_TABLES)
            found = connection.execute("SELECT value FROM about WHERE name = 'format'").fetchone()
            if found is not None and found[0] != _FORMAT:
                raise FormatError(f"{path} is of the format {str(found[0])[:40]!r}, expected {_FORMAT}")
        except BaseException:
            connection.close()
            raise
        return connection


@contextmanager
def _sqlite_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):
            raise StorageError(f"{path} cannot be read or written: {error}") from error
        raise FormatError(f"{path} holds no feed: {error}", "move it away: the feed begins anew") from None
