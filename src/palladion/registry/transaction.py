"""One open transaction as the nouns see it: queries, changes, and the time."""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Delete, Insert, Row, Select, Update

from palladion.clock import Clock


class Transaction:
    """A connection inside a transaction. Not to be shared between threads."""

    def __init__(self, connection: Connection, clock: Clock, *, writable: bool) -> None:
        self._connection = connection
        self._clock = clock
        self._writable = writable

    def now(self) -> datetime:
        """The time that is written into rows."""
        return self._clock.now()

    def all(self, query: Select[*tuple[Any, ...]]) -> Sequence[Row[*tuple[Any, ...]]]:
        """Every row of `query`."""
        return self._connection.execute(query).all()

    def first(self, query: Select[*tuple[Any, ...]]) -> Row[*tuple[Any, ...]] | None:
        """The first row of `query`, or None."""
        return self._connection.execute(query.limit(1)).first()

    def change(self, statement: Insert | Update | Delete, values: Sequence[dict[str, Any]] | None = None) -> None:
        """Write. Raises ValueError in a transaction that was opened for reading."""
        if not self._writable:
            raise ValueError("this transaction only reads: open it with Registry.write()")
        if values is None:
            self._connection.execute(statement)
        elif values:
            self._connection.execute(statement, values)
