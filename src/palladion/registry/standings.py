"""Standings of clients: what each may get, since when, why and by whose decision. The last line counts."""

from datetime import datetime
from typing import get_args

from sqlalchemy import func, insert, select

from palladion.errors import ConflictError
from palladion.registry import names, tables
from palladion.registry.clients import Clients
from palladion.registry.end_user_tables import end_user
from palladion.registry.rows import Standing, StandingChange
from palladion.registry.transaction import Transaction

FIRST_ASKED = "first asked"  # why an end user stands as it does at first; `lookup` says the same

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
        """The last change of every client, by its id; of an end user about whom nothing was decided, the first one."""
        newest = select(func.max(_STANDING.id)).group_by(_STANDING.client)
        query = select(*_COLUMNS).where(_STANDING.id.in_(newest))
        found = {row.client: StandingChange(*row) for row in self._transaction.all(query)}
        end_users = select(tables.client.c.id, tables.client.c.created).join(
            end_user, end_user.c.client == tables.client.c.id
        )
        for client, created in self._transaction.all(end_users):
            found.setdefault(client, _first(client, created))
        return found

    def history(self, client: str) -> list[StandingChange]:
        """Every standing a client had, oldest first. Raises NotFoundError."""
        known = self._clients.get(client)
        query = select(*_COLUMNS).where(_STANDING.client == client).order_by(_STANDING.id)
        changes = [StandingChange(*row) for row in self._transaction.all(query)]
        return changes if known.parent is None else [_first(client, known.created), *changes]


def _first(end_user: str, created: datetime) -> StandingChange:
    """How an end user stands when it first asks, for which there is no row: there are too many of them."""
    return StandingChange(end_user, "trusted", FIRST_ASKED, "watch", created)
