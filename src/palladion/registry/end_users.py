"""Clients that resell, and their end users: registered when they ask, and dropped when there is no room for them.

An end user has no key here and no name: its id is made from that by whoever lets it in (`access.users`). Whatever else
is kept of clients is kept of it. What was decided about one stays, so that nobody gets rid of a standing by waiting.
"""

from collections.abc import Iterable, Sequence

from sqlalchemy import ColumnElement, delete, func, insert, select

from palladion.errors import ConflictError, PalladionError
from palladion.registry import names, tables
from palladion.registry.clients import Clients
from palladion.registry.end_user_tables import end_user, reseller
from palladion.registry.rows import END_USER, Client
from palladion.registry.transaction import Transaction

RESELLER_NAME_MAX = 47  # with a mark and an id after it, it is a name of 64 characters
DROPPED_PART = 16  # where there is no room, so many-th part of it is made: looking for whom to drop takes 0.3 s
AT_ONCE = 1000  # in one statement: SQLite takes 32,766 variables

_CLIENT = tables.client.c
_STATE = tables.gate_state.c


class EndUsers:
    """The resellers and end users of one transaction."""

    def __init__(self, transaction: Transaction, clients: Clients) -> None:
        self._transaction = transaction
        self._clients = clients

    def declare(self, client: str) -> Client:
        """Let a client ask for end users from now on. Raises NotFoundError, ConflictError if it does, or is one.

        Raises PalladionError where its name is too long for theirs.
        """
        found = self._clients.get(client)
        if found.reseller:
            raise ConflictError(f"client {found.organisation}/{found.name} is a reseller already")
        if found.parent is not None:
            raise ConflictError(f"client {found.organisation}/{found.name} is an end user, who has none itself")
        if len(found.name) > RESELLER_NAME_MAX:
            raise PalladionError(
                f"the name of a reseller has at most {RESELLER_NAME_MAX} characters, since its end users' begin with "
                f"it, got {len(found.name)}"
            )
        self._transaction.change(insert(reseller).values(client=client, at=self._transaction.now()))
        return self._clients.get(client)

    def withdraw(self, client: str) -> Client:
        """Judge a client alone again. Its end users stay as they are. Raises NotFoundError, ConflictError."""
        found = self._clients.get(client)
        if not found.reseller:
            raise ConflictError(f"client {found.organisation}/{found.name} is no reseller")
        self._transaction.change(delete(reseller).where(reseller.c.client == client))
        return self._clients.get(client)

    def of(self, client: str, *, most: int) -> list[Client]:
        """The end users of a client, whoever first asked last first; at most so many."""
        return self._clients.of_reseller(client, most=most)

    def count(self, client: str) -> int:
        """How many end users of a client are kept."""
        query = select(func.count()).select_from(end_user).where(end_user.c.reseller == client)
        return int(self._transaction.all(query)[0][0])

    def enrol(self, clients: Iterable[Client], *, most: int) -> list[str]:
        """Register end users, as far as they are not yet; at most so many of one reseller.

        Returns the ids of those that were dropped for them: who asked longest ago, and was never in another standing.
        Those of a client that does not resell, or is revoked, are left out.
        """
        every = {item.id: item for item in clients}
        known = self._known(list(every))
        new = [item for item in every.values() if item.id not in known and item.parent is not None]
        parents = {parent: self._clients.find_id(parent) for parent in {item.parent for item in new} if parent}
        rows = [
            item
            for item in new
            if (parent := parents.get(item.parent or "")) is not None and parent.reseller and parent.revoked_at is None
        ]
        for item in rows:
            if not item.name.endswith(f"{END_USER}{item.id}"):
                raise ValueError(f"an end user is called by its id, got {item.name!r}")
            names.token(item.id, what="the id of a client", characters_max=16)
        self._transaction.change(
            insert(tables.client),
            [
                {
                    "id": item.id,
                    "organisation": item.organisation,
                    "name": item.name,
                    "scopes": [],
                    "created": item.created,
                    "revoked_at": None,
                }
                for item in rows
            ],
        )
        self._transaction.change(insert(end_user), [{"client": item.id, "reseller": item.parent} for item in rows])
        dropped: list[str] = []
        for parent_id in dict.fromkeys(item.parent for item in rows if item.parent is not None):
            dropped += self._make_room(parent_id, most)
        return dropped

    def forget(self, client: str) -> list[str]:
        """Delete the end users of a client, or one by its own id, as far as nothing was ever decided about them.

        Returns their ids. What is saved of them has to be gone, or goes with `GateStates.forget`.
        """
        found = select(end_user.c.client).where((end_user.c.reseller == client) | (end_user.c.client == client))
        undecided = found.where(~_decided())
        clients = [row.client for row in self._transaction.all(undecided)]
        self._delete(clients)
        return clients

    def _known(self, clients: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(clients), AT_ONCE):
            query = select(_CLIENT.id).where(_CLIENT.id.in_(clients[start : start + AT_ONCE]))
            found.update(row.id for row in self._transaction.all(query))
        return found

    def _make_room(self, client: str, most: int) -> list[str]:
        beyond = self.count(client) - most
        if beyond <= 0:
            return []
        query = (
            select(end_user.c.client)
            .join(tables.client, _CLIENT.id == end_user.c.client)
            .outerjoin(tables.gate_state, _STATE.client == end_user.c.client)
            .where(end_user.c.reseller == client, ~_decided())
            .group_by(end_user.c.client)
            # saved about when it last asked; where nothing is, it is known since it first did
            .order_by(func.coalesce(func.max(_STATE.at), _CLIENT.created), end_user.c.client)
            .limit(beyond + most // DROPPED_PART)
        )
        dropped = [row.client for row in self._transaction.all(query)]
        self._delete(dropped)
        return dropped

    def _delete(self, clients: Sequence[str]) -> None:
        for start in range(0, len(clients), AT_ONCE):
            some = clients[start : start + AT_ONCE]
            self._transaction.change(delete(tables.gate_state).where(_STATE.client.in_(some)))
            self._transaction.change(delete(end_user).where(end_user.c.client.in_(some)))
            self._transaction.change(delete(tables.client).where(_CLIENT.id.in_(some)))


def _decided() -> ColumnElement[bool]:
    return select(tables.standing_change.c.id).where(tables.standing_change.c.client == end_user.c.client).exists()
