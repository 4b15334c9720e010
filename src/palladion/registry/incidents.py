"""Incidents from open to closed, with their timelines. What was seen and done is in the ledger; this is the case."""

import secrets
from collections.abc import Sequence
from typing import Any, Literal

from sqlalchemy import insert, select, update

from palladion.errors import ConflictError, NotFoundError
from palladion.registry import names, tables
from palladion.registry.clients import ID_BYTES, Clients
from palladion.registry.rows import Incident, IncidentEvent, IncidentEventKind, IncidentState
from palladion.registry.transaction import Transaction

_INCIDENT = tables.incident.c
_EVENT = tables.incident_event.c
_CONCERNED = tables.incident_client.c


class Incidents:
    """The incidents of one transaction."""

    def __init__(self, transaction: Transaction, clients: Clients) -> None:
        self._transaction = transaction
        self._clients = clients

    def open(self, title: str, *, actor: str, clients: Sequence[str] = (), text: str = "") -> Incident:
        """Open a case about these clients, by id. Raises NotFoundError if one does not exist."""
        names.label(title, what="the title of an incident")
        incident, now = secrets.token_hex(ID_BYTES), self._transaction.now()
        self._transaction.change(insert(tables.incident).values(id=incident, title=title, state="open", opened_at=now))
        concerned = sorted({self._clients.get(client).id for client in clients})
        self._transaction.change(
            insert(tables.incident_client), [{"incident": incident, "client": client} for client in concerned]
        )
        self._add_event(incident, "opened", text, actor)
        return self.get(incident)

    def get(self, incident: str) -> Incident:
        """The case of that id. Raises NotFoundError."""
        found = self._select(_INCIDENT.id == incident)
        if not found:
            raise NotFoundError(f"no incident with the id {incident!r}")
        return found[0]

    def all(self, *, state: IncidentState | None = None) -> list[Incident]:
        """Every case, or those in one state, oldest first."""
        return self._select() if state is None else self._select(_INCIDENT.state == state)

    def of_client(self, client: str) -> list[Incident]:
        """The cases that concern a client, oldest first."""
        return self._select(_INCIDENT.id.in_(select(_CONCERNED.incident).where(_CONCERNED.client == client)))

    def timeline(self, incident: str) -> list[IncidentEvent]:
        """What happened in a case, oldest first. Raises NotFoundError."""
        self.get(incident)
        columns = (_EVENT.incident, _EVENT.kind, _EVENT.text, _EVENT.actor, _EVENT.at)
        query = select(*columns).where(_EVENT.incident == incident).order_by(_EVENT.id)
        return [IncidentEvent(*row) for row in self._transaction.all(query)]

    def acknowledge(self, incident: str, *, actor: str, text: str = "") -> Incident:
        """Somebody takes the case on. Raises NotFoundError, ConflictError unless it is open."""
        state = self.get(incident).state
        if state != "open":
            raise ConflictError(f"incident {incident} is {state} already")
        self._update(incident, state="acknowledged")
        self._add_event(incident, "acknowledged", text, actor)
        return self.get(incident)

    def record(self, incident: str, kind: Literal["noted", "acted"], text: str, *, actor: str) -> IncidentEvent:
        """Add what was noticed or done to a case that is not closed. Raises NotFoundError, ConflictError."""
        self._refuse_closed(incident)
        names.one_of(kind, ("noted", "acted"), what="the kind of an entry")
        self._add_event(incident, kind, text, actor)
        return self.timeline(incident)[-1]

    def close(self, incident: str, *, actor: str, finding: str) -> Incident:
        """End a case for good, with what was found. Raises NotFoundError, ConflictError if it is closed."""
        self._refuse_closed(incident)
        names.note(finding, what="the finding of an incident")
        self._update(incident, state="closed", closed_at=self._transaction.now(), finding=finding)
        self._add_event(incident, "closed", finding, actor)
        return self.get(incident)

    def _refuse_closed(self, incident: str) -> None:
        if self.get(incident).state == "closed":
            raise ConflictError(f"incident {incident} is closed", "open a new one that names it")

    def _update(self, incident: str, **values: Any) -> None:
        self._transaction.change(update(tables.incident).where(_INCIDENT.id == incident).values(**values))

    def _add_event(self, incident: str, kind: IncidentEventKind, text: str, actor: str) -> None:
        names.note(text, what="the text of an entry")
        names.label(actor, what="the actor")
        self._transaction.change(
            insert(tables.incident_event).values(
                incident=incident, kind=kind, text=text, actor=actor, at=self._transaction.now()
            )
        )

    def _select(self, *conditions: Any) -> list[Incident]:
        query = select(tables.incident).where(*conditions).order_by(_INCIDENT.opened_at, _INCIDENT.id)
        found = self._transaction.all(query)
        pairs = select(tables.incident_client).where(_CONCERNED.incident.in_(select(_INCIDENT.id).where(*conditions)))
        concerned: dict[str, list[str]] = {}
        for pair in self._transaction.all(pairs.order_by(_CONCERNED.client)):
            concerned.setdefault(pair.incident, []).append(pair.client)
        return [
            Incident(
                row.id,
                row.title,
                row.state,
                tuple(concerned.get(row.id, [])),
                row.opened_at,
                row.closed_at,
                row.finding,
            )
            for row in found
        ]
