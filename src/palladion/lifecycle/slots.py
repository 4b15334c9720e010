"""The file of lifetime budgets of encrypted queries, as a backup takes it along and a restore puts it back.

What is counted in it is the gate's affair. Without it, whoever had spent a budget would begin anew after a restore.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from palladion.errors import StorageError, TamperError
from palladion.files import storage_errors

SLOTS_FILE = "encrypted-slots.sqlite"  # in the installation folder; there once a program was served


def copy_slots(source: Path, target: Path) -> None:
    """Write a consistent copy to the new file `target`; the gate can go on counting meanwhile. Raises StorageError."""
    try:
        # closing: a connection's own context ends its transaction, and leaves it open
        with storage_errors(target), closing(sqlite3.connect(f"{source.as_uri()}?mode=rw", uri=True)) as database:
            database.execute("VACUUM INTO ?", (str(target),))
    except sqlite3.Error as error:
        raise StorageError(f"{source}: {error}", "restore it from a backup: without it, budgets begin anew") from None


def verify_slots(path: Path) -> None:
    """Raise TamperError unless the file is whole, and holds what a gate reads."""
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as database:
            whole = database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
            database.execute("SELECT model, client, slots FROM spent LIMIT 1").fetchall()
    except sqlite3.Error:
        whole = False
    if not whole:
        raise TamperError(f"{path.name} of the backup is damaged", "another backup may hold it")
