"""Finds entries by kind, actor, subject and time, in millions of them: a SQLite file beside the ledger, made from it.

The index is a cache and proves nothing. What it names is read from the ledger and proved before it is shown; what it
left out is not noticed, so `scan` reads every entry instead. It is made anew where it does not fit the ledger.
"""

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from palladion import files
from palladion.clock import timestamp
from palladion.errors import FormatError, StorageError
from palladion.ledger.pruning import PRUNABLE
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record, decode_record
from palladion.ledger.tiles import TILE_WIDTH

INDEX_FILE = "index.sqlite"
_VERSION = 2
BUSY_SECONDS = 30.0  # that another command may take to bring it up to date
_OF_THE_DISK = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
}
_BATCH = 40 * TILE_WIDTH  # entries in one transaction
_WORDS_MAX = 100_000  # kept in memory between two of them, some 20 MB

# an index ends with the row's number by itself, so each of these finds in the order of entries
_SCHEMA = """
CREATE TABLE state (version INTEGER, origin TEXT, size INTEGER, root BLOB);
CREATE TABLE word (id INTEGER PRIMARY KEY, text TEXT UNIQUE);
CREATE TABLE entry (number INTEGER PRIMARY KEY, time TEXT, kind INTEGER, actor INTEGER, subject INTEGER);
CREATE INDEX by_subject ON entry (subject);
CREATE INDEX by_actor ON entry (actor);
CREATE INDEX by_kind ON entry (kind);
CREATE INDEX by_time ON entry (time);
"""

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Question:
    """Which entries are wanted: everything that is not None has to fit. `details` are members of details, as text."""

    kinds: tuple[str, ...] = ()
    actor: str | None = None
    subject: str | None = None
    party: str | None = None  # actor or subject
    since: datetime | None = None
    until: datetime | None = None  # exclusive
    details: tuple[tuple[str, str], ...] = ()

    def may_fit(self, kind: str, actor: str, subject: str) -> bool:
        """Whether a record that begins so can be one of those."""
        return (
            (not self.kinds or kind in self.kinds)
            and self.actor in {None, actor}
            and self.subject in {None, subject}
            and self.party in {None, actor, subject}
        )

    def fits(self, record: Record) -> bool:
        """Whether a record is one of those."""
        return (
            self.may_fit(record.kind, record.actor, record.subject)
            and (self.since is None or record.time >= self.since)
            and (self.until is None or record.time < self.until)
            and all(_member(record.details, path) == text for path, text in self.details)
        )


class Index:
    """The index of one ledger. For one thread; several processes may read and bring it up to date."""

    def __init__(self, path: Path) -> None:
        """Open or begin the index at `path`. Raises StorageError."""
        with files.storage_errors(path):
            path.touch(files.PRIVATE_FILE)
        self._path = path
        self._database = _connect(path)

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def update(self, reader: LedgerReader, progress: Progress | None = None) -> int:
        """Take in what the ledger has and the index has not; returns how many entries that were.

        Each is proved on the way. An index of another ledger, or of another history, is made anew.
        """
        try:
            return self._update(reader, progress)
        except sqlite3.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF in _OF_THE_DISK:
                raise self._unwritable(error) from None
        # not ours, or damaged: it is a cache
        self._database.close()
        self._path.unlink(missing_ok=True)
        with files.storage_errors(self._path):
            self._path.touch(files.PRIVATE_FILE)
        self._database = _connect(self._path)
        try:
            return self._update(reader, progress)
        except sqlite3.DatabaseError as error:
            raise self._unwritable(error) from None

    def forget(self, reader: LedgerReader) -> None:
        """Leave out what was pruned, and the names that nothing has any more. Raises StorageError."""
        if reader.pruned is None:
            return
        marks = ", ".join("?" for _ in PRUNABLE)
        kinds = f"SELECT id FROM word WHERE text IN ({marks})"  # noqa: S608  # question marks
        try:
            self.update(reader)
            with self._database:
                statement = f"DELETE FROM entry WHERE number < ? AND kind IN ({kinds})"  # noqa: S608  # the same
                self._database.execute(statement, (reader.pruned.until, *sorted(PRUNABLE)))
                used = "SELECT kind FROM entry UNION SELECT actor FROM entry UNION SELECT subject FROM entry"
                self._database.execute(f"DELETE FROM word WHERE id NOT IN ({used})")  # noqa: S608  # a constant
            self._database.execute("VACUUM")
        except sqlite3.DatabaseError as error:
            raise self._unwritable(error) from None

    def find(
        self, reader: LedgerReader, question: Question, *, newest_first: bool = False
    ) -> Iterator[tuple[int, Record]]:
        """Number and record of the entries that fit, in order, each proved. Raises TamperError at what cannot be."""
        where, values = _conditions(question)
        order = "DESC" if newest_first else "ASC"
        statement = f"SELECT number FROM entry {where} ORDER BY number {order}"  # noqa: S608  # made of constants alone
        held, entries = -1, dict[int, bytes]()
        for number in self._numbers(statement, values):
            if not isinstance(number, int) or not 0 <= number < reader.size:
                continue
            bundle = number // TILE_WIDTH
            if bundle != held:
                # neighbours are often asked for together, and proving one proves all
                found = reader.entries(bundle * TILE_WIDTH, (bundle + 1) * TILE_WIDTH)
                held, entries = bundle, dict(found)
            # what is not there was pruned
            data = entries.get(number)
            record = decode_record(data, what=f"entry {number}") if data is not None else None
            # the entry decides, not what the index says of it
            if record is not None and question.fits(record):
                yield number, record

    def _numbers(self, statement: str, values: Sequence[Any]) -> Iterator[Any]:
        try:
            for (number,) in self._database.execute(statement, values):
                yield number
        except sqlite3.DatabaseError as error:
            hint = f"--scan needs none; remove {self._path}, and it is made anew"
            raise StorageError(f"the ledger's index cannot be read: {error}", hint) from None

    def _unwritable(self, error: sqlite3.DatabaseError) -> StorageError:
        return StorageError(f"the ledger's index {self._path} cannot be written: {error}", "--scan needs none")

    def _update(self, reader: LedgerReader, progress: Progress | None) -> int:
        self._database.execute("PRAGMA trusted_schema = OFF")
        known = begun = self._known(reader)
        words = _Words(self._database)
        while known < reader.size:
            end = min(reader.size, known + _BATCH)
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                words.renew()
                self._take_in(reader, words, known, end)
                self._database.execute("UPDATE state SET size = ?, root = ?", (end, reader.root_at(end)))
            known = end
            if progress is not None:
                progress(known, reader.size)
        return known - begun

    def _known(self, reader: LedgerReader) -> int:
        """How many entries are indexed, of this very history."""
        row = None
        if self._database.execute("SELECT 1 FROM sqlite_master WHERE name = 'state'").fetchone():
            row = self._database.execute("SELECT version, origin, size, root FROM state").fetchone()
        if row is not None:
            version, origin, size, root = row
            same = (version, origin) == (_VERSION, reader.checkpoint.origin) and isinstance(size, int)
            if same and size > reader.size:
                return reader.size  # somebody with a later checkpoint was here
            if same and reader.root_at(size) == root:
                return int(size)
        with closing(self._database.cursor()) as cursor:
            for (name,) in cursor.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall():
                cursor.execute(f'DROP TABLE "{name}"')
            cursor.executescript(_SCHEMA)
            cursor.execute(
                "INSERT INTO state VALUES (?, ?, 0, ?)", (_VERSION, reader.checkpoint.origin, reader.root_at(0))
            )
        self._database.commit()
        return 0

    def _take_in(self, reader: LedgerReader, words: "_Words", start: int, end: int) -> None:
        rows = []
        for number, data in reader.entries(start, end):
            time, kind, actor, subject = _header(data, number)
            rows.append((number, time, words[kind], words[actor], words[subject]))
        self._database.executemany("INSERT OR REPLACE INTO entry VALUES (?, ?, ?, ?, ?)", rows)


class _Words(dict[str, int]):
    """Texts by number: there are few kinds, and an actor has thousands of entries."""

    def __init__(self, database: sqlite3.Connection) -> None:
        super().__init__()
        self._database = database
        self._seen = -1

    def renew(self) -> None:
        """At the beginning of a transaction: forget what another process may have numbered otherwise since the last."""
        (seen,) = self._database.execute("PRAGMA data_version").fetchone()
        if seen != self._seen or len(self) > _WORDS_MAX:
            self.clear()
        self._seen = seen

    def __missing__(self, text: str) -> int:
        self._database.execute("INSERT OR IGNORE INTO word (text) VALUES (?)", (text,))
        (found,) = self._database.execute("SELECT id FROM word WHERE text = ?", (text,)).fetchone()
        self[text] = number = int(found)
        return number


def scan(reader: LedgerReader, question: Question) -> Iterator[tuple[int, Record]]:
    """As `Index.find`, without an index: every entry is read and proved."""
    for number, data in reader.entries():
        # most are not meant, and reading a record whole takes twenty times as long
        _, kind, actor, subject = _header(data, number)
        if question.may_fit(kind, actor, subject):
            record = decode_record(data, what=f"entry {number}")
            if question.fits(record):
                yield number, record


def _connect(path: Path) -> sqlite3.Connection:
    with files.storage_errors(path):
        return sqlite3.connect(path, timeout=BUSY_SECONDS)


def _conditions(question: Question) -> tuple[str, list[Any]]:
    parts, values = [], list[Any]()
    for column, texts in (
        ("kind", question.kinds),
        ("actor", (question.actor,) if question.actor is not None else ()),
        ("subject", (question.subject,) if question.subject is not None else ()),
    ):
        if texts:
            marks = ", ".join("?" for _ in texts)
            parts.append(f"{column} IN (SELECT id FROM word WHERE text IN ({marks}))")  # noqa: S608  # question marks
            values += texts
    if question.party is not None:
        number = "(SELECT id FROM word WHERE text = ?)"
        parts.append(f"(actor = {number} OR subject = {number})")
        values += [question.party, question.party]
    for sign, moment in ((">=", question.since), ("<", question.until)):
        if moment is not None:
            parts.append(f"time {sign} ?")
            values.append(timestamp(moment))
    return (f"WHERE {' AND '.join(parts)}" if parts else ""), values


def _header(data: bytes, number: int) -> tuple[str, str, str, str]:
    """Time, kind, actor and subject of an entry. Raises FormatError on what is no record."""
    try:
        found = _DECODER.decode(data)
    except msgspec.DecodeError:
        raise FormatError(f"entry {number} is not a record") from None
    return found.time, found.kind, found.actor, found.subject


class _Header(msgspec.Struct):
    time: str
    kind: str
    actor: str
    subject: str


_DECODER = msgspec.json.Decoder(_Header)


def _member(details: Any, path: str) -> str | None:
    """A member of details by its path with dots, as text; None where there is none."""
    found = details
    for name in path.split("."):
        if not isinstance(found, dict) or name not in found:
            return None
        found = found[name]
    if isinstance(found, str):
        return found
    return msgspec.json.encode(found).decode()
