"""Single rows of a registry that a gate asks for in the middle of a request: a few microseconds each, nothing held.

A connection of its own that only reads, past SQLAlchemy, which takes ten times as long. In WAL mode nobody who writes
keeps it waiting. What it finds is as of now; standings are as of a mark, which whoever asks moves on.
"""

import sqlite3
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from palladion import canonical
from palladion.errors import FormatError
from palladion.registry.rows import END_USER, Client, ClientKey, Standing, StandingChange
from palladion.registry.sqlite import database_errors
from palladion.registry.tables import JSON_BYTES_MAX, RESTORE

BUSY_TIMEOUT_MS = 200  # a reader waits for nobody but a recovery; the event loop must not wait for long
CACHE_KIB = 8192
CALLERS_AT_ONCE = 500
TIMESTAMP_CHARACTERS = len("2026-01-01T00:00:00.000000Z")

_CALLER = """
SELECT c.id, c.organisation, c.name, c.scopes, c.created, coalesce(s.standing, 'trusted'), coalesce(s.at, c.created),
  coalesce(s.actor, 'watch'), coalesce(s.reason, 'first asked'), r.client IS NOT NULL, e.reseller, x.secret
FROM client c LEFT JOIN reseller r ON r.client = c.id LEFT JOIN end_user e ON e.client = c.id
  LEFT JOIN reseller_secret x ON x.client = c.id LEFT JOIN standing_change s
  ON s.id = (SELECT max(t.id) FROM standing_change t WHERE t.client = c.id AND t.id <= :mark)
WHERE c.revoked_at IS NULL AND (s.id IS NOT NULL OR e.client IS NOT NULL) AND """
_KEY = """
SELECT k.prefix, k.client, k.created, k.expires FROM client_key k JOIN client c ON c.id = k.client
WHERE k.hash = ? AND k.revoked_at IS NULL AND c.revoked_at IS NULL"""
_IDENTITY = """
SELECT i.client FROM client_identity i JOIN client c ON c.id = i.client
WHERE i.kind = ? AND i.value = ? AND i.revoked_at IS NULL AND c.revoked_at IS NULL"""
# An end user is judged alone, and stands as its reseller found it until something is decided (`Client.judged_with`).
_ORGANISATION = """
SELECT CASE WHEN e.client IS NULL THEN c.organisation ELSE '~' || c.id END
FROM client c LEFT JOIN end_user e ON e.client = c.id WHERE c.id = ?"""
_STATE = """
SELECT CASE WHEN e.client IS NULL THEN c.organisation ELSE '~' || c.id END, s.data
FROM gate_state s JOIN client c ON c.id = s.client LEFT JOIN end_user e ON e.client = c.id
WHERE s.client = ? AND s.purpose = ?"""
_STATES = """
SELECT s.client, s.data FROM client c CROSS JOIN gate_state s ON s.client = c.id AND s.purpose = ?
WHERE c.organisation = ? AND c.revoked_at IS NULL AND NOT EXISTS (SELECT 1 FROM end_user e WHERE e.client = c.id)"""
_COUNTS = """
SELECT coalesce(s.standing, 'trusted'), count(*) FROM client c LEFT JOIN end_user e ON e.client = c.id
  LEFT JOIN standing_change s
  ON s.id = (SELECT max(t.id) FROM standing_change t WHERE t.client = c.id AND t.id <= :mark)
WHERE c.revoked_at IS NULL AND (s.id IS NOT NULL OR e.client IS NOT NULL) GROUP BY 1"""
# Clients that stood somehow at the first mark and were changed until the second.
_RESTOOD = """
SELECT DISTINCT n.client, o.standing FROM standing_change n JOIN standing_change o
  ON o.id = (SELECT max(t.id) FROM standing_change t WHERE t.client = n.client AND t.id <= :before)
WHERE n.id > :before AND n.id <= :mark"""


class Marked(NamedTuple):
    """How everybody stands as of a mark: how many clients by standing, and who stood how at the mark before."""

    mark: int
    counts: dict[Standing, int]
    restood: dict[str, Standing]


class Lookup:
    """For one thread at a time. Close it."""

    def __init__(self, path: Path) -> None:
        """`path` is that of an open registry, whose schema is as it should be."""
        self._path = path
        with database_errors(path):
            self._connection = sqlite3.connect(
                f"file:{quote(str(path.absolute()))}?mode=ro", uri=True, isolation_level=None, check_same_thread=False
            )
            for pragma in (
                f"busy_timeout = {BUSY_TIMEOUT_MS}",
                f"cache_size = -{CACHE_KIB}",
                "trusted_schema = OFF",
                "query_only = ON",
            ):
                self._connection.execute(f"PRAGMA {pragma}")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def state(self, purpose: str, client: str) -> tuple[str, bytes] | None:
        """With whom the watch judges a client (`Client.judged_with`), and what is saved of it for a purpose."""
        found = self._first(_STATE, (client, purpose))
        return None if found is None else (found[0], found[1])

    def organisation(self, client: str) -> str | None:
        """With whom the watch judges a client: its organisation, or as an end user itself alone."""
        found = self._first(_ORGANISATION, (client,))
        return None if found is None else str(found[0])

    def saved(self, purpose: str) -> Iterator[tuple[str, bytes]]:
        """What is saved for a purpose, by client; reads some, hands them out, and goes on. Cost: every saved row."""
        query = "SELECT client, data FROM gate_state WHERE client > ? AND purpose = ? ORDER BY client LIMIT ?"
        last = ""
        while rows := self._all(query, (last, purpose, CALLERS_AT_ONCE)):
            yield from rows
            last = rows[-1][0]

    def states(self, purpose: str, organisation: str) -> list[tuple[str, bytes]]:
        """What is saved for a purpose of those who are judged together and not revoked, by client."""
        if organisation.startswith(END_USER):
            client = organisation.removeprefix(END_USER)
            found = self._first(_STATE, (client, purpose))
            return [] if found is None or found[0] != organisation else [(client, found[1])]
        return self._all(_STATES, (purpose, organisation))

    def key(self, digest: bytes) -> ClientKey | None:
        """The live key with this keyed hash, of a client that is not revoked."""
        found = self._first(_KEY, (digest,))
        if found is None:
            return None
        prefix, client, created, expires = found
        return ClientKey(prefix, client, _moment(created), None if expires is None else _moment(expires), None)

    def identity(self, kind: str, value: str) -> str | None:
        """The id of the client, not revoked, that has this live identity."""
        found = self._first(_IDENTITY, (kind, value))
        return None if found is None else str(found[0])

    def caller(self, client: str, mark: int) -> tuple[Client, StandingChange] | None:
        """The client of that id, if it is not revoked, and how it stood at the mark."""
        found = self._first(_CALLER + "c.id = :client", {"client": client, "mark": mark})
        return None if found is None else _caller(found)

    def named(self, organisation: str, name: str, mark: int) -> tuple[Client, StandingChange] | None:
        """The same by its name."""
        values = {"organisation": organisation, "name": name, "mark": mark}
        found = self._first(_CALLER + "c.organisation = :organisation AND c.name = :name", values)
        return None if found is None else _caller(found)

    def is_organisation(self, organisation: str) -> bool:
        """Whether a client that is not revoked belongs to it."""
        query = "SELECT 1 FROM client WHERE organisation = ? AND revoked_at IS NULL LIMIT 1"
        return self._first(query, (organisation,)) is not None

    def callers(self, mark: int) -> Iterator[tuple[Client, StandingChange]]:
        """Every client that is not revoked and was there at the mark; reads some, hands them out, and goes on."""
        last = ""
        while True:
            query = _CALLER + "c.id > :last ORDER BY c.id LIMIT :limit"
            rows = self._all(query, {"last": last, "limit": CALLERS_AT_ONCE, "mark": mark})
            yield from map(_caller, rows)
            if len(rows) < CALLERS_AT_ONCE:
                return
            last = rows[-1][0]

    def mark(self, before: int | None = None) -> Marked:
        """How everybody stands now, and who stood how `before`. Cost: every client, some 3 µs each."""
        with database_errors(self._path):
            self._connection.execute("BEGIN")
            try:
                ((mark,),) = self._all("SELECT coalesce(max(id), 0) FROM standing_change")
                counts = dict(self._all(_COUNTS, {"mark": mark}))
                restood = {} if before is None else dict(self._all(_RESTOOD, {"before": before, "mark": mark}))
            finally:
                self._connection.execute("COMMIT")
        return Marked(mark, counts, restood)

    def _first(self, query: str, values: Any) -> Any:
        try:
            return self._connection.execute(query, values).fetchone()
        except sqlite3.Error:
            # entered only now, which saves a tenth of the time
            with database_errors(self._path):
                raise

    def _all(self, query: str, values: Any = ()) -> list[Any]:
        try:
            return self._connection.execute(query, values).fetchall()
        except sqlite3.Error:
            with database_errors(self._path):
                raise


def _caller(row: Any) -> tuple[Client, StandingChange]:
    client, organisation, name, scopes, created, standing, at, actor, reason, reseller, parent, secret = row
    listed = canonical.decode(scopes.encode(), size_max=JSON_BYTES_MAX, what="a value in the registry")
    return (
        Client(
            *(client, organisation, name, tuple(listed), standing, _moment(created), None),
            reseller=bool(reseller),
            parent=parent,
            secret=secret or b"",
        ),
        StandingChange(client, standing, reason, actor, _moment(at)),
    )


def _moment(text: Any) -> datetime:
    """An instant of a row, in a twentieth of the time that `parse_timestamp` takes."""
    try:
        if len(text) == TIMESTAMP_CHARACTERS and text[-1] == "Z":
            return datetime.fromisoformat(text)
    except (ValueError, TypeError):
        pass
    raise FormatError(f"the registry holds {text!r} where a timestamp was expected", RESTORE)
