"""Standings of clients: what each may get, since when, why and by whose decision. The last line counts."""

from typing import get_args

from sqlalchemy import func, insert, select

from palladion.errors import ConflictError
from palladion.registry import names, tables
from palladion.registry.clients import Clients
from palladion.registry.rows import Standing, StandingChange
from palladion.registry.transaction import Transaction

_STANDING = tables.standing_change.c
_COLUMNS = (_STANDING.client, _STANDING.standing, _STANDING.reason, _STANDING.actor, _STANDING.at)


class Standings:
    """The standings of one transaction; the current one is `Client.standing`."""

    def __init__(self, transaction: Transaction, clients: Clients) -> None:
        self._transaction = transaction
        self._clients = clients

    def change(self, client: str, standing: Standing, *, reason: str, actor: str) -> StandingChange:
        """Put a client into another standing. Raises NotFoundError, ConflictError if it has that one."""
        names.one_of(standing, get_args(Standing), what="the standing of a client")
        names.note(reason, what="the reason of a standing")
        names.label(actor, what="the actor")
        if self._clients.get(client).standing == standing:
            raise ConflictError(f"client {client} is {standing} already")
        event = StandingChange(client, standing, reason, actor, self._transaction.now())
        self._transaction.change(
            insert(tables.standing_change).values(
                client=client, standing=standing, reason=reason, actor=actor, at=event.at
            )
        )
        return event

    def current(self) -> dict[str, StandingChange]:
        """The last change of every client, by its id."""
        newest = select(func.max(_STANDING.id)).group_by(_STANDING.client)
        query = select(*_COLUMNS).where(_STANDING.id.in_(newest))
        return {row.client: StandingChange(*row) for row in self._transaction.all(query)}

    def history(self, client: str) -> list[StandingChange]:
        """Every standing a client had, oldest first. Raises NotFoundError."""
        self._clients.get(client)
        query = select(*_COLUMNS).where(_STANDING.client == client).order_by(_STANDING.id)
        return [StandingChange(*row) for row in self._transaction.all(query)]
