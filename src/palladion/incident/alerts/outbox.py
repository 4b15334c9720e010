"""What is to be sent, in a file that survives a crash: topics, how far the ledger was read, and who is to be told.

A SQLite database beside the registry (`alerts.sqlite`), and not a table of it: it holds no fact that the ledger does
not have, a backup must not bring back pages of last month, and a registry that is busy must not hold up a page. What is
read from the ledger and how far it was read are written in one step, so an alert on record is sent at least once.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Self

import msgspec

from palladion import files
from palladion.clock import timestamp
from palladion.errors import BusyError, FormatError, NotFoundError, StorageError
from palladion.incident.alerts.alert import Alert, Event, alert_id, rank
from palladion.incident.alerts.planning import Action, Telling, plan
from palladion.incident.alerts.routing import Routing
from palladion.incident.alerts.topics import Heard, OpenCase, Topic, hear

FILE = "alerts.sqlite"
TOPICS_MAX = 10_000  # some 10 MiB; who has so many open has no use for one more
KEPT = timedelta(days=30)  # of what is over, for `palladion alert list`
BACKOFF_SECONDS, BACKOFF_SECONDS_MAX = 5.0, 900.0
GIVEN_UP = timedelta(days=3)  # a channel that took nothing for so long is not there any more
ERROR_CHARACTERS_MAX = 300
_BUSY_SECONDS = 5.0
_VERSION = 1
_HINT = "remove it: what was not sent yet is lost, and stands in the ledger"
_DROPPED = "outbox"
_COLUMNS = ("id", "topic", "channel", "action", "number", "since", "due", "attempts", "error", "done")
_SCHEMA = """
CREATE TABLE place (one INTEGER PRIMARY KEY CHECK (one = 1), origin TEXT NOT NULL, entry INTEGER NOT NULL) STRICT;
CREATE TABLE topic (id TEXT PRIMARY KEY, document BLOB NOT NULL) STRICT;
CREATE TABLE delivery (
  id INTEGER PRIMARY KEY, topic TEXT NOT NULL REFERENCES topic (id) ON DELETE CASCADE, channel TEXT NOT NULL,
  action TEXT NOT NULL, number INTEGER NOT NULL, since TEXT NOT NULL, due TEXT NOT NULL,
  attempts INTEGER NOT NULL DEFAULT 0, error TEXT NOT NULL DEFAULT '', done TEXT
) STRICT;
CREATE INDEX waiting ON delivery (channel, due) WHERE done IS NULL;
CREATE INDEX of_topic ON delivery (topic);
"""


@dataclass(frozen=True)
class Delivery:
    """One telling on its way to one channel: when it is due, how often it was tried, and why it is not there yet."""

    id: int
    topic: str
    channel: str
    action: Action
    number: int
    since: datetime
    due: datetime
    attempts: int
    error: str
    done: datetime | None


class Outbox:
    """An open outbox. Threads may share it. One process reads the ledger into it; others may look, and send."""

    def __init__(self, path: Path, connection: sqlite3.Connection) -> None:
        self.path = path
        self._connection = connection
        self._lock = threading.Lock()
        with self._database(write=False) as database:
            rows = database.execute("SELECT id, document FROM topic")
            self._topics = {topic: _decoded(document, path) for topic, document in rows}
            self._reached: dict[str, frozenset[str]] = {}
            for topic, channel in database.execute("SELECT DISTINCT topic, channel FROM delivery"):
                self._reached[topic] = self._reached.get(topic, frozenset()) | {channel}

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open the outbox, or make one. Raises FormatError on a file that is none, StorageError, BusyError."""
        with files.storage_errors(path):
            # SQLite gives its journals the mode of the file
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, files.PRIVATE_FILE))
        with _errors(path):
            connection = sqlite3.connect(path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False)
        try:
            with _errors(path):
                for pragma in ("trusted_schema = OFF", "journal_mode = WAL", "synchronous = FULL", "foreign_keys = ON"):
                    connection.execute(f"PRAGMA {pragma}")
                _make(connection, path)
            return cls(path, connection)
        except BaseException:
            connection.close()
            raise

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # what was heard

    def place(self, origin: str) -> int | None:
        """The next entry to be read of the ledger of that name; None where none of it was."""
        with self._database(write=False) as database:
            row = database.execute("SELECT entry FROM place WHERE origin = ?", (origin,)).fetchone()
        return None if row is None else int(row[0])

    def take_in(
        self,
        events: Sequence[Event],
        cases: Mapping[str, OpenCase],
        *,
        place: tuple[str, int] | None,
        now: datetime,
        repeat: timedelta,
    ) -> None:
        """Hear events, oldest first, and keep the `place` (a ledger's name, the next entry), in one step."""
        with self._database() as database:
            topics = dict(self._topics)
            for event in events:
                _apply(database, topics, hear(topics.values(), event, cases, now=now, repeat=repeat))
            if events:
                _make_room(database, topics, now=now, repeat=repeat)
            if place is not None:
                database.execute("INSERT OR REPLACE INTO place VALUES (1, ?, ?)", place)
            database.execute("COMMIT")
            self._topics = topics
            self._reached = {topic: told for topic, told in self._reached.items() if topic in topics}

    def topics(self) -> list[Topic]:
        """All there are, what is over too, oldest first."""
        return sorted(self._topics.values(), key=lambda topic: (topic.since, topic.id))

    def find(self, topic: str) -> Topic:
        """The only topic whose id begins so. Raises NotFoundError."""
        matching = [item for item in self._topics.values() if topic and item.id.startswith(topic)]
        if len(matching) != 1:
            count = len(matching) or "no"
            raise NotFoundError(f"{count} alerts have an id that begins with {topic!r}", "see palladion alert list")
        return matching[0]

    # what is due

    def plan(self, routing: Routing, now: datetime) -> list[Topic]:
        """Put down what is due now; returns the topics whose levels the ledger does not know of yet."""
        plans = [
            planned
            for topic in self._topics.values()
            if not topic.over
            and (planned := plan(topic, self._reached.get(topic.id, frozenset()), routing, now)).topic != topic
        ]
        if plans:
            with self._database() as database:
                for item in plans:
                    _put(database, item.topic)
                    for telling in item.tellings:
                        _tell(database, item.topic.id, telling, now)
                database.execute("COMMIT")
                for item in plans:
                    self._topics[item.topic.id] = item.topic
                    told = frozenset(telling.channel for telling in item.tellings)
                    self._reached[item.topic.id] = self._reached.get(item.topic.id, frozenset()) | told
        return [topic for topic in self._topics.values() if topic.unrecorded]

    def recorded(self, topic: str, levels: Sequence[int]) -> None:
        """The ledger knows of these levels of a topic now."""
        known = self._topics[topic]
        known = replace(known, unrecorded=tuple(level for level in known.unrecorded if level not in levels))
        with self._database() as database:
            _put(database, known)
            database.execute("COMMIT")
            self._topics[topic] = known

    def due(self, channel: str, now: datetime, *, topic: str | None = None) -> tuple[Topic, Delivery] | None:
        """What the channel is to be sent next, of one `topic` or of all. What came earlier of a topic goes first."""
        query = (
            "SELECT * FROM delivery AS this WHERE channel = ? AND done IS NULL AND due <= ? "
            "AND topic = ifnull(?, topic) AND NOT EXISTS (SELECT 1 FROM delivery AS earlier WHERE "
            "earlier.topic = this.topic AND earlier.channel = this.channel AND earlier.done IS NULL "
            "AND earlier.id < this.id) ORDER BY due, id LIMIT 1"
        )
        with self._database(write=False) as database:
            row = database.execute(query, (channel, timestamp(now), topic)).fetchone()
            if row is None:
                return None
            delivery = _delivery(row)
            found = database.execute("SELECT document FROM topic WHERE id = ?", (delivery.topic,)).fetchone()
            return _decoded(found[0], self.path), delivery

    def deliveries(self, topic: str) -> list[Delivery]:
        """All tellings of a topic, oldest first."""
        with self._database(write=False) as database:
            rows = database.execute("SELECT * FROM delivery WHERE topic = ? ORDER BY id", (topic,)).fetchall()
        return [_delivery(row) for row in rows]

    def sent(self, delivery: Delivery, now: datetime) -> None:
        """The channel has it."""
        change = "UPDATE delivery SET done = ?, attempts = attempts + 1, error = '' WHERE id = ?"
        self._change(change, timestamp(now), delivery.id)

    def failed(self, delivery: Delivery, error: str, now: datetime) -> bool:
        """It did not go: it is due again later, or was given up after days, of which the answer tells."""
        pause = min(BACKOFF_SECONDS * 2 ** min(delivery.attempts, 30), BACKOFF_SECONDS_MAX)
        lost = now >= delivery.since + GIVEN_UP
        self._change(
            "UPDATE delivery SET attempts = attempts + 1, error = ?, due = ?, done = ? WHERE id = ?",
            error[:ERROR_CHARACTERS_MAX],
            timestamp(now + timedelta(seconds=pause)),
            timestamp(now) if lost else None,
            delivery.id,
        )
        return lost

    def again(self, topic: str, now: datetime) -> list[str]:
        """Have the last telling of each channel due once more; returns the channels."""
        change = (
            "UPDATE delivery SET done = NULL, attempts = 0, error = '', since = ?1, due = ?1 WHERE id IN "
            "(SELECT max(id) FROM delivery WHERE topic = ?2 AND action <> 'refresh' GROUP BY channel)"
        )
        self._change(change, timestamp(now), topic)
        return sorted({item.channel for item in self.deliveries(topic) if item.done is None})

    def _change(self, change: str, *values: object) -> None:
        with self._database() as database:
            database.execute(change, values)
            database.execute("COMMIT")

    @contextmanager
    def _database(self, *, write: bool = True) -> Iterator[sqlite3.Connection]:
        """The database for one thread; what is written and not committed within the block is undone."""
        with self._lock, _errors(self.path):
            if write:
                self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")


def _make(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute("BEGIN IMMEDIATE")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == 0:
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {_VERSION}")
    connection.execute("COMMIT")
    if version not in (0, _VERSION):
        raise FormatError(f"{path} is of another release: version {version}, expected {_VERSION}", _HINT)


def _apply(database: sqlite3.Connection, topics: dict[str, Topic], heard: Heard) -> None:
    for topic in heard.absorbed:
        database.execute("DELETE FROM topic WHERE id = ?", (topic,))
        topics.pop(topic, None)
    for changed in heard.changed:
        _put(database, changed)
        topics[changed.id] = changed


def _make_room(database: sqlite3.Connection, topics: dict[str, Topic], *, now: datetime, repeat: timedelta) -> None:
    """Forget what is over for long; and where there is too much even so, the oldest of what is least severe."""
    old = [topic.id for topic in topics.values() if topic.over and now >= topic.news_at + max(KEPT, repeat)]
    _apply(database, topics, Heard(absorbed=tuple(old)))
    if len(topics) <= TOPICS_MAX:
        return
    # a tenth at once, so that this is not done for every alert
    count = len(topics) - TOPICS_MAX + TOPICS_MAX // 10
    least = sorted(topics.values(), key=lambda item: (not item.over, rank(item.alert.severity), item.since))[:count]
    _apply(database, topics, Heard(absorbed=tuple(topic.id for topic in least)))
    _apply(database, topics, hear(topics.values(), _dropped(least, now), {}, now=now, repeat=repeat))


def _dropped(topics: Sequence[Topic], now: datetime) -> Alert:
    untold = sum(topic.told_at is None for topic in topics)
    return Alert(
        id=alert_id(_DROPPED, "operational", int(now.timestamp())),
        kind="operational",
        severity="warning",
        thread=_DROPPED,
        subject=_DROPPED,
        sentence=f"too many alerts: {len(topics)} were let go, the oldest of what is least severe first",
        time=now,
        done="the ledger has all of them",
        next="palladion incident list --open shows the cases",
        figures={"dropped": len(topics), "untold": untold},
    )


def _put(database: sqlite3.Connection, topic: Topic) -> None:
    database.execute(
        "INSERT INTO topic VALUES (?1, ?2) ON CONFLICT (id) DO UPDATE SET document = ?2",
        (topic.id, msgspec.json.encode(topic)),
    )


def _tell(database: sqlite3.Connection, topic: str, telling: Telling, now: datetime) -> None:
    # what is said is what is so when it goes: an update that waits behind another has nothing to add
    waits = "SELECT 1 FROM delivery WHERE topic = ? AND channel = ? AND done IS NULL AND action IN ('alert', 'update')"
    updates = telling.action in {"update", "refresh"}
    if updates and database.execute(waits, (topic, telling.channel)).fetchone() is not None:
        return
    if telling.action == "refresh":
        old = "DELETE FROM delivery WHERE topic = ? AND channel = ? AND action = 'refresh'"
        database.execute(old, (topic, telling.channel))
    moment = timestamp(now)
    database.execute(
        "INSERT INTO delivery (topic, channel, action, number, since, due) VALUES (?, ?, ?, ?, ?, ?)",
        (topic, telling.channel, telling.action, telling.number, moment, moment),
    )


def _delivery(row: Sequence[object]) -> Delivery:
    return msgspec.convert(dict(zip(_COLUMNS, row, strict=True)), Delivery, strict=True)


def _decoded(document: bytes, path: Path) -> Topic:
    try:
        return msgspec.json.decode(document, type=Topic)
    except msgspec.DecodeError as error:
        raise FormatError(f"{path} holds an alert that was not written here: {error}", _HINT) from None


@contextmanager
def _errors(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the kind (sqlite.org/rescode.html)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise BusyError(f"{path} is being written by another process", "wait for it to end, or stop it") from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_ERROR):
            raise FormatError(f"{path} is damaged: {error}", _HINT) from error
        raise StorageError(f"{path}: {error}", "check its folder, and whether the disk is full") from error
