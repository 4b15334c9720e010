"""What the gate has to find again after a restart: bytes for each client and purpose, which only it understands."""

from collections.abc import Mapping

from sqlalchemy import delete, insert, select

from palladion.registry import names, tables
from palladion.registry.end_user_tables import end_user
from palladion.registry.transaction import Transaction

DATA_BYTES_MAX = 16 * 1024  # one client of a million must not fill the disk
PURPOSE_CHARACTERS_MAX = 128

_STATE = tables.gate_state.c


class GateStates:
    """The saved states of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def save(self, purpose: str, states: Mapping[str, bytes]) -> None:
        """Replace what is saved of these clients (by id) for a purpose. Raises ValueError on more than fits.

        Of clients that are gone nothing is saved: one whose row was deleted must not keep all others from being. Nor of
        those that are revoked: they ask nothing, and what a gate still holds of one must not undo a `forget`.
        """
        names.token(purpose, what="the purpose of a state", characters_max=PURPOSE_CHARACTERS_MAX)
        large = [client for client, data in states.items() if len(data) > DATA_BYTES_MAX]
        if large:
            raise ValueError(f"the state of client {large[0]} has more than {DATA_BYTES_MAX} bytes")
        now = self._transaction.now()
        self._transaction.change(
            delete(tables.gate_state).where(_STATE.purpose == purpose, _STATE.client.in_(list(states)))
        )
        let_in = tables.client.c.revoked_at.is_(None)
        query = select(tables.client.c.id).where(tables.client.c.id.in_(list(states)), let_in)
        known = {row.id for row in self._transaction.all(query)}
        rows = [
            {"client": client, "purpose": purpose, "data": data, "at": now}
            for client, data in states.items()
            if client in known
        ]
        if rows:
            self._transaction.change(insert(tables.gate_state), rows)

    def load(self, purpose: str) -> dict[str, bytes]:
        """What was saved last for a purpose, by client id."""
        query = select(_STATE.client, _STATE.data).where(_STATE.purpose == purpose)
        return {client: bytes(data) for client, data in self._transaction.all(query)}

    def forget(self, client: str) -> int:
        """Delete all that is saved of a client and of its end users, for whatever purpose; returns how much it was."""
        whose = (_STATE.client == client) | _STATE.client.in_(
            select(end_user.c.client).where(end_user.c.reseller == client)
        )
        found = len(self._transaction.all(select(_STATE.purpose).where(whose)))
        self._transaction.change(delete(tables.gate_state).where(whose))
        return found
