"""Clients that resell, and their end users: registered when they ask, and dropped when there is no room for them.

An end user has no key here and no name: its id is made from that by whoever lets it in (`access.users`). Whatever else
is kept of clients is kept of it. What was decided about one stays, so that nobody gets rid of a standing by waiting;
and who is in a case stays with it.
"""

import secrets
from collections.abc import Collection, Iterable, MutableMapping, Sequence

from sqlalchemy import ColumnElement, delete, func, insert, or_, select

from palladion.errors import ConflictError, PalladionError
from palladion.registry import case_tables, names, tables
from palladion.registry.clients import Clients
from palladion.registry.end_user_tables import end_user, reseller, reseller_secret
from palladion.registry.rows import END_USER, Client
from palladion.registry.transaction import Transaction

SECRET_BYTES = 16  # as `access.users` makes ids with
RESELLER_NAME_MAX = 47  # with a mark and an id after it, it is a name of 64 characters
DROPPED_PART = 16  # where there is no room, so many-th part of it is made: looking for whom to drop takes 0.3 s
DECIDED_PART = 10  # so many times the maximum are kept who have a history; beyond, nobody new is taken
AT_ONCE = 1000  # in one statement: SQLite takes 32,766 variables
# Who is in one of these is never dropped: a row of theirs says what was done about whom.
KEPT = (tables.standing_change, tables.incident_client, case_tables.incident_cleared, tables.client_identity)

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
        if not found.secret:
            drawn = secrets.token_bytes(SECRET_BYTES)
            self._transaction.change(insert(reseller_secret).values(client=client, secret=drawn))
        return self._clients.get(client)

    def withdraw(self, client: str) -> Client:
        """Judge a client alone again. Its end users stay as they are. Raises NotFoundError, ConflictError."""
        found = self._clients.get(client)
        if not found.reseller:
            raise ConflictError(f"client {found.organisation}/{found.name} is no reseller")
        self._transaction.change(delete(reseller).where(reseller.c.client == client))
        return self._clients.get(client)

    def forget_secret(self, client: str) -> None:
        """Erase what the ids of a client's end users are made with: nobody can say any more whose they are.

        Raises NotFoundError, ConflictError if it is let in, since its end users would be others from then on.
        """
        if self._clients.get(client).revoked_at is None:
            raise ConflictError(f"client {client} is let in, and its end users are known by its secret")
        self._transaction.change(delete(reseller_secret).where(reseller_secret.c.client == client))

    def of(self, client: str, *, most: int) -> list[Client]:
        """The end users of a client, whoever first asked last first; at most so many."""
        return self._clients.of_reseller(client, most=most)

    def count(self, client: str) -> int:
        """How many end users of a client are kept."""
        query = select(func.count()).select_from(end_user).where(end_user.c.reseller == client)
        return int(self._transaction.all(query)[0][0])

    def enrol(
        self,
        clients: Iterable[Client],
        *,
        most: int,
        spare: Collection[str] = (),
        decided: MutableMapping[str, int] | None = None,
    ) -> list[str]:
        """Register end users, as far as they are not yet; at most so many of one reseller without a history.

        Returns the ids of those that are not here afterwards: who was dropped for them, which is who asked longest ago
        and has no history, and who was left out, since its client does not resell or is revoked, or since
        `DECIDED_PART` times as many of that client's have one. Those to `spare` have one soon: they are not dropped,
        and left out only with a client that is revoked. `decided` is how many of a client's were counted that have a
        history, which never get fewer: handed in again, it saves counting them.
        """
        decided = {} if decided is None else decided
        every = {item.id: item for item in clients}
        known = self._known(list(every))
        new = [item for item in every.values() if item.id not in known]
        parents = {parent: self._clients.find_id(parent) for parent in {item.parent for item in new} if parent}
        live = {key: item.reseller for key, item in parents.items() if item and item.revoked_at is None}
        takes = {key for key, resells in live.items() if resells and decided.get(key, 0) < DECIDED_PART * most}
        rows = [item for item in new if item.parent in takes or (item.id in spare and item.parent in live)]
        self._insert(rows)
        taken = {item.id for item in rows}
        gone = [item.id for item in new if item.id not in taken]
        for parent_id in dict.fromkeys(item.parent for item in rows if item.parent is not None):
            gone += self._make_room(parent_id, most, frozenset(spare), decided)
        return gone

    def forget(self, client: str) -> list[str]:
        """Delete the end users of a client, or one by its own id, as far as they have no history.

        Returns their ids. What is saved of them has to be gone, or goes with `GateStates.forget`.
        """
        found = select(end_user.c.client).where((end_user.c.reseller == client) | (end_user.c.client == client))
        without = found.where(~_has_history())
        clients = [row.client for row in self._transaction.all(without)]
        self._delete(clients)
        return clients

    def _known(self, clients: Sequence[str]) -> set[str]:
        found: set[str] = set()
        for start in range(0, len(clients), AT_ONCE):
            query = select(_CLIENT.id).where(_CLIENT.id.in_(clients[start : start + AT_ONCE]))
            found.update(row.id for row in self._transaction.all(query))
        return found

    def _insert(self, rows: Sequence[Client]) -> None:
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

    def _make_room(
        self, client: str, most: int, spare: Collection[str], decided: MutableMapping[str, int]
    ) -> list[str]:
        total = self.count(client)
        if total - decided.get(client, 0) <= most:
            return []
        # they are more now than when they were counted, or there are too many of the others
        query = select(func.count()).select_from(end_user).where(end_user.c.reseller == client, _has_history())
        decided[client] = int(self._transaction.all(query)[0][0])
        beyond = total - decided[client] - most
        if beyond <= 0:
            return []
        wanted = beyond + most // DROPPED_PART
        oldest = (
            select(end_user.c.client)
            .join(tables.client, _CLIENT.id == end_user.c.client)
            .outerjoin(tables.gate_state, _STATE.client == end_user.c.client)
            .where(end_user.c.reseller == client, ~_has_history())
            .group_by(end_user.c.client)
            # saved about when it last asked; where nothing is, it is known since it first did
            .order_by(func.coalesce(func.max(_STATE.at), _CLIENT.created), end_user.c.client)
            .limit(wanted + len(spare))
        )
        dropped = [row.client for row in self._transaction.all(oldest) if row.client not in spare][:wanted]
        self._delete(dropped)
        return dropped

    def _delete(self, clients: Sequence[str]) -> None:
        for start in range(0, len(clients), AT_ONCE):
            some = clients[start : start + AT_ONCE]
            self._transaction.change(delete(tables.gate_state).where(_STATE.client.in_(some)))
            self._transaction.change(delete(end_user).where(end_user.c.client.in_(some)))
            self._transaction.change(delete(tables.client).where(_CLIENT.id.in_(some)))


def _has_history() -> ColumnElement[bool]:
    return or_(*(select(table.c.client).where(table.c.client == end_user.c.client).exists() for table in KEPT))
