"""What is special to SQLite: how a file is made, opened, locked and copied, and what its errors mean.

With the triggers in `migrations`, this is the only place that another database would need a counterpart of.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, nullcontext, suppress
from pathlib import Path
from typing import Any
from urllib.parse import quote

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from palladion import files
from palladion.errors import BusyError, ConflictError, FormatError, PalladionError, StorageError
from palladion.registry.tables import RESTORE

BUSY_TIMEOUT_MS = 5_000  # our transactions take milliseconds; one that waits longer waits for something that hangs
FAULTS_SHOWN_MAX = 3
WRITES = "palladion_writes"  # execution option of a connection that is going to write


def make_engine(path: Path, *, busy_timeout_ms: int) -> Engine:
    """An engine for the existing file `path`; connections are opened when they are needed."""
    # hide_parameters: an exception must not carry hashes and names into a log
    # mode=rw: a file that vanished is an error, never silently a new and empty one
    url = URL.create("sqlite", database=f"file:{quote(str(path.absolute()))}", query={"mode": "rw", "uri": "true"})
    engine = create_engine(url, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin where `begin` below says so, not where Python guesses
        connection.execute(f"PRAGMA busy_timeout = {busy_timeout_ms:d}")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA trusted_schema = OFF")  # a planted view or trigger must not call functions
        connection.execute("PRAGMA secure_delete = ON")  # what was erased is overwritten, not only out of sight
        connection.execute("PRAGMA journal_mode = WAL")  # readers go on while somebody writes
        connection.execute("PRAGMA synchronous = FULL")  # in WAL mode anything less loses commits at a power cut

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # a writer takes the lock at once: two that read first and write later could only end in a refusal
        writes = connection.get_execution_options().get(WRITES, False)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


@contextmanager
def new_file(path: Path, *, keep_existing: bool) -> Iterator[Path]:
    """A private, empty file that becomes `path` when the block ends well, and leaves nothing when it raises.

    If `path` is there by then, it stays; that is a StorageError unless `keep_existing`.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}.tmp")
    with files.storage_errors(path):
        # SQLite gives its journals the mode of the file
        os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, files.PRIVATE_FILE))
        try:
            yield temporary
            with suppress(FileExistsError) if keep_existing else nullcontext():
                os.link(temporary, path)
        finally:
            for suffix in ("", "-wal", "-shm", "-journal"):
                temporary.with_name(temporary.name + suffix).unlink(missing_ok=True)
        files.sync_directory(path.parent)


def copy(connection: Connection, target: Path) -> None:
    """Write what `connection` sees to the new file `target`, also while others write."""
    source = connection.connection.driver_connection
    if not isinstance(source, sqlite3.Connection):
        raise TypeError(f"a SQLite connection was expected, got {type(source).__name__}")
    with new_file(target, keep_existing=False) as temporary, closing(sqlite3.connect(temporary)) as copied:
        source.backup(copied)


def check_integrity(connection: Connection, what: str) -> None:
    """Read every page and every reference. Raises FormatError with the first faults. Cost: the whole file."""
    faults = [str(row[0]) for row in connection.exec_driver_sql(f"PRAGMA integrity_check({FAULTS_SHOWN_MAX})")]
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchmany(FAULTS_SHOWN_MAX)
    faults = [fault for fault in faults if fault != "ok"] + [f"{row[0]} refers to a missing {row[2]}" for row in broken]
    if faults:
        raise FormatError(f"{what} is damaged: {'; '.join(faults)}", RESTORE)


@contextmanager
def database_errors(path: Path) -> Iterator[None]:
    """Turn what SQLite refuses into our tree; a mistake in our own SQL calls stays what it is."""
    try:
        yield
    except DBAPIError as error:
        if isinstance(error.orig, sqlite3.Error) and hasattr(error.orig, "sqlite_errorcode"):
            raise _refusal(error.orig, path) from error.orig
        raise
    except sqlite3.Error as error:
        if hasattr(error, "sqlite_errorcode"):
            raise _refusal(error, path) from error
        raise


def _refusal(error: sqlite3.Error, path: Path) -> PalladionError:
    code = error.sqlite_errorcode
    if code == sqlite3.SQLITE_CONSTRAINT_TRIGGER:
        return ConflictError(str(error))
    match code & 0xFF:  # the low byte is the kind, the rest says which (sqlite.org/rescode.html)
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return BusyError(f"{path} is being written by another process", "wait for it to end, or stop it")
        case sqlite3.SQLITE_FULL:
            return StorageError(f"{path}: no space left on device", "free some space and run it again")
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return StorageError(f"{path}: {error}", "check the owner and the mode of the file and its folders")
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB | sqlite3.SQLITE_FORMAT:
            return FormatError(f"{path} is damaged, a SQLite database was expected: {error}", RESTORE)
        case sqlite3.SQLITE_ERROR:
            return FormatError(f"{path} has other tables than its schema revision says: {error}", RESTORE)
        case sqlite3.SQLITE_CONSTRAINT:
            return ConflictError(f"the registry refuses what contradicts it: {str(error).lower()}")
        case _:
            return StorageError(f"{path}: {error}")
