"""Room on the disk for what a process has to find again while it runs, and nobody after it: a SQLite file, unlinked.

Who is linked with whom, and groups of which nobody asked lately, would take up a gigabyte of memory for a million
clients. Nothing here is durable, and nothing has to be: a restart begins without it (docs/watch.md).
"""

import os
import sqlite3
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Any

from palladion import files

CACHE_KIB = 4096
# Holders are looked for by token and account, counted by account, and told by organisation; `shown` is their order.
# A token that is a `crowd` links nobody any more, and has no holders. A `tie` is a link whose token was forgotten.
_TABLES = """
CREATE TABLE team (model TEXT, root TEXT, data BLOB, PRIMARY KEY (model, root));
CREATE TABLE holder (
  token TEXT, client TEXT, organisation TEXT, shown INTEGER, PRIMARY KEY (token, client)
) WITHOUT ROWID;
CREATE INDEX holder_client ON holder (client, token);
CREATE INDEX holder_organisation ON holder (organisation, token);
CREATE TABLE crowd (token TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE tie (organisation TEXT, other TEXT, PRIMARY KEY (organisation, other)) WITHOUT ROWID;
"""


class Scratch:
    """Opened when it is first used. Not to be used from several threads at once."""

    def __init__(self, path: Path | None = None) -> None:
        """`path` is for a file that is unlinked at once, in a folder with room; else SQLite finds a place."""
        self._path = path

    def all(self, query: str, values: Iterable[Any] = ()) -> list[Any]:
        """The rows of a query."""
        return self._connection.execute(query, tuple(values)).fetchall()

    def put_group(self, model: str, root: str, data: bytes) -> None:
        """Keep a group of a model by the name of its root."""
        self._connection.execute("INSERT OR REPLACE INTO team VALUES (?, ?, ?)", (model, root, data))

    def take_group(self, model: str, root: str) -> bytes | None:
        """What was kept of a group, which is not kept any more."""
        if "_connection" not in self.__dict__:
            return None
        found = self._connection.execute("SELECT data FROM team WHERE model = ? AND root = ?", (model, root)).fetchone()
        if found is None:
            return None
        self._connection.execute("DELETE FROM team WHERE model = ? AND root = ?", (model, root))
        return bytes(found[0])

    def forget_groups(self, model: str) -> None:
        """Keep no group of a model any more."""
        if "_connection" in self.__dict__:
            self._connection.execute("DELETE FROM team WHERE model = ?", (model,))

    @cached_property
    def _connection(self) -> sqlite3.Connection:
        path = self._path
        if path is not None:
            with files.storage_errors(path):
                path.unlink(missing_ok=True)
                os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, files.PRIVATE_FILE))
        connection = sqlite3.connect("" if path is None else path, isolation_level=None, check_same_thread=False)
        # no journal and no waiting for the disk: whatever happens to it, it is begun anew
        for pragma in ("journal_mode = OFF", "synchronous = OFF", "locking_mode = EXCLUSIVE", "temp_store = MEMORY"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        connection.executescript(_TABLES)
        # one transaction that never ends: pages go to the file when the cache is full, and not with every statement
        connection.execute("BEGIN EXCLUSIVE")
        if path is not None:
            # nobody else has to see it, and nothing of it is left whichever way the process ends
            path.unlink(missing_ok=True)
        return connection
