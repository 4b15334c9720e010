"""Finds entries by kind, actor, subject and time, in millions of them: a SQLite file beside the ledger, made from it.

The index is a cache and proves nothing. What it names is read from the ledger and proved before it is shown; what it
left out is not noticed, so `scan` reads every entry instead. It is made anew where it does not fit the ledger.

It names bundles of entries, not entries: proving one entry means to read its bundle, so finding the bundle is enough.
Of each bundle it has who did or suffered what kinds of thing in it, once each, and from when to when. Texts stand there
as numbers of 47 bits that are made from them: two with one number cost a bundle that is read in vain, and nobody reads
names there.
"""

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from hashlib import blake2b
from operator import attrgetter
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
_VERSION = 3
BUSY_SECONDS = 30.0  # that another command may take to bring it up to date
_OF_THE_DISK = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
}
_BATCH = 160 * TILE_WIDTH  # entries in one transaction: what is alike in them is written side by side
_CACHE_KIB = 64 * 1024  # of SQLite's memory while it writes: a million clients are spread over as much
_BITS = 47  # of the number of a text, which SQLite keeps in six bytes; no log has as many bundles
_MASK = (1 << _BITS) - 1
_NUMBERS_CACHED = 65_536  # some 10 MB; making one takes 1 µs

_SCHEMA = """
CREATE TABLE state (version INTEGER, origin TEXT, size INTEGER, root BLOB);
CREATE TABLE bundle (number INTEGER PRIMARY KEY, first TEXT, last TEXT);
CREATE TABLE by_kind (kind INTEGER, bundle INTEGER, PRIMARY KEY (kind, bundle)) WITHOUT ROWID;
CREATE TABLE by_actor (actor INTEGER, kind INTEGER, bundle INTEGER, PRIMARY KEY (actor, kind, bundle)) WITHOUT ROWID;
CREATE TABLE by_subject (subject INTEGER, kind INTEGER, bundle INTEGER, PRIMARY KEY (subject, kind, bundle))
    WITHOUT ROWID;
"""
_TABLES = ("by_kind", "by_actor", "by_subject")

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
        """Leave out what was pruned. Raises StorageError."""
        if reader.pruned is None:
            return
        kinds = sorted(map(_number_of, PRUNABLE))
        marks = ", ".join("?" for _ in kinds)
        try:
            self.update(reader)
            with self._database:
                for table in _TABLES:
                    statement = f"DELETE FROM {table} WHERE bundle < ? AND kind IN ({marks})"  # noqa: S608  # constants
                    self._database.execute(statement, (reader.pruned.until // TILE_WIDTH, *kinds))
            self._database.execute("VACUUM")
        except sqlite3.DatabaseError as error:
            raise self._unwritable(error) from None

    def find(
        self, reader: LedgerReader, question: Question, *, newest_first: bool = False
    ) -> Iterator[tuple[int, Record]]:
        """Number and record of the entries that fit, in order, each proved. Raises TamperError at what cannot be."""
        selected, values = _bundles(question)
        order = "DESC" if newest_first else "ASC"
        for bundle in self._numbers(f"{selected} ORDER BY 1 {order}", values):
            if not isinstance(bundle, int) or not 0 <= bundle * TILE_WIDTH < reader.size:
                continue
            # the entries decide, not what the index says of them
            found = list(_fitting(question, bundle, reader.bundle(bundle)))
            yield from reversed(found) if newest_first else found

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
        self._database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
        known = begun = self._known(reader)
        while known < reader.size:
            end = min(reader.size, (known + _BATCH) // TILE_WIDTH * TILE_WIDTH)
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                self._take_in(reader, known, end)
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

    def _take_in(self, reader: LedgerReader, start: int, end: int) -> None:
        """Take in the bundles of these entries; of the first, which may be known in part, all of it again."""
        spans, kinds = [], []
        # each row as one number: so many tuples would be looked through by the collector of garbage, again and again
        actors, subjects = list[int](), list[int]()
        for bundle in range(start // TILE_WIDTH, -(-end // TILE_WIDTH)):
            headers = _headers(reader.bundle(bundle), bundle)
            if not headers:
                continue
            times = list(map(_TIME, headers))
            spans.append((bundle, min(times), max(times)))
            kinds += [(_number_of(kind), bundle) for kind in set(map(_KIND, headers))]
            for rows, pairs in ((actors, set(map(_ACTOR_KIND, headers))), (subjects, set(map(_SUBJECT_KIND, headers)))):
                rows += [(_number_of(text) << _BITS | _number_of(kind)) << _BITS | bundle for text, kind in pairs]
        self._database.executemany("INSERT OR REPLACE INTO bundle VALUES (?, ?, ?)", spans)
        self._database.executemany("INSERT OR IGNORE INTO by_kind VALUES (?, ?)", kinds)
        for table, rows in (("by_actor", actors), ("by_subject", subjects)):
            rows.sort()  # neighbours are written together
            parted = ((row >> 2 * _BITS, row >> _BITS & _MASK, row & _MASK) for row in rows)
            self._database.executemany(f"INSERT OR IGNORE INTO {table} VALUES (?, ?, ?)", parted)  # noqa: S608  # constants


def scan(reader: LedgerReader, question: Question) -> Iterator[tuple[int, Record]]:
    """As `Index.find`, without an index: every entry is read and proved."""
    for bundle in range(-(-reader.size // TILE_WIDTH)):
        yield from _fitting(question, bundle, reader.bundle(bundle))


def _fitting(question: Question, bundle: int, entries: Mapping[int, bytes]) -> Iterator[tuple[int, Record]]:
    """Number and record of the entries of a bundle that fit."""
    # most are not meant, and reading a record whole takes twenty times as long
    for (place, data), header in zip(entries.items(), _headers(entries, bundle), strict=True):
        if question.may_fit(header.kind, header.actor, header.subject):
            number = bundle * TILE_WIDTH + place
            record = decode_record(data, what=f"entry {number}")
            if question.fits(record):
                yield number, record


def _connect(path: Path) -> sqlite3.Connection:
    with files.storage_errors(path):
        return sqlite3.connect(path, timeout=BUSY_SECONDS)


def _bundles(question: Question) -> tuple[str, list[Any]]:
    """The statement that selects the bundles in which entries may fit, each once, and its values."""
    kinds = [_number_of(kind) for kind in question.kinds]
    of_kinds = f" AND kind IN ({', '.join('?' for _ in kinds)})" if kinds else ""
    parts, values = list[str](), list[Any]()

    def named(text: str, columns: Sequence[str]) -> str:
        values.extend([_number_of(text), *kinds] * len(columns))
        each = (f"SELECT bundle FROM by_{column} WHERE {column} = ?{of_kinds}" for column in columns)  # noqa: S608  # constants
        return f"SELECT bundle FROM ({' UNION '.join(each)})"  # noqa: S608  # the same

    for text, columns in (
        (question.actor, ("actor",)),
        (question.subject, ("subject",)),
        (question.party, ("actor", "subject")),
    ):
        if text is not None:
            parts.append(named(text, columns))
    if kinds and not parts:
        parts.append(f"SELECT bundle FROM by_kind WHERE TRUE{of_kinds}")  # noqa: S608  # the same
        values += kinds
    span = []
    for condition, moment in (("last >= ?", question.since), ("first < ?", question.until)):
        if moment is not None:
            span.append(condition)
            values.append(timestamp(moment))
    if span or not parts:
        parts.append(f"SELECT number AS bundle FROM bundle WHERE {' AND '.join(span) or 'TRUE'}")  # noqa: S608  # the same
    return f"SELECT DISTINCT bundle FROM ({' INTERSECT '.join(parts)})", values  # noqa: S608  # the same


def _headers(entries: Mapping[int, bytes], bundle: int) -> "list[_Header]":
    """Time, kind, actor and subject of the entries of a bundle. Raises FormatError on what is no record."""
    found = []
    for place, data in entries.items():
        try:
            found.append(_DECODER.decode(data))
        except msgspec.DecodeError:
            raise FormatError(f"entry {bundle * TILE_WIDTH + place} is not a record") from None
    return found


class _Header(msgspec.Struct, gc=False):
    time: str
    kind: str
    actor: str
    subject: str


_DECODER = msgspec.json.Decoder(_Header)
_TIME, _KIND = attrgetter("time"), attrgetter("kind")
_ACTOR_KIND, _SUBJECT_KIND = attrgetter("actor", "kind"), attrgetter("subject", "kind")


@lru_cache(_NUMBERS_CACHED)
def _number_of(text: str) -> int:
    """The number that a text has in every index."""
    return int.from_bytes(blake2b(text.encode(), digest_size=6).digest(), "big") & _MASK


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
