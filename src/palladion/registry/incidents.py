"""Incidents from open to closed, with their timelines. What was seen and done is in the ledger; this is the case."""

import secrets
from collections.abc import Sequence
from typing import Any, Literal, get_args

from sqlalchemy import func, insert, select, update

from palladion.errors import ConflictError, NotFoundError
from palladion.registry import case_tables, names, tables
from palladion.registry.clients import ID_BYTES, Clients
from palladion.registry.rows import CaseVerdict, Incident, IncidentEvent, IncidentEventKind, IncidentState
from palladion.registry.transaction import Transaction

_INCIDENT = tables.incident.c
_EVENT = tables.incident_event.c
_CONCERNED = tables.incident_client.c
_VERDICT = case_tables.incident_verdict.c
_EVENT_COLUMNS = (_EVENT.incident, _EVENT.kind, _EVENT.text, _EVENT.actor, _EVENT.at)


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
        self._concern(incident, sorted({self._clients.get(client).id for client in clients}))
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
        query = select(*_EVENT_COLUMNS).where(_EVENT.incident == incident).order_by(_EVENT.id)
        return [IncidentEvent(*row) for row in self._transaction.all(query)]

    def last_events(self) -> dict[str, IncidentEvent]:
        """The last thing that happened in each case, by its id."""
        newest = select(func.max(_EVENT.id)).group_by(_EVENT.incident)
        query = select(*_EVENT_COLUMNS).where(_EVENT.id.in_(newest))
        return {row.incident: IncidentEvent(*row) for row in self._transaction.all(query)}

    def add_clients(self, incident: str, clients: Sequence[str], *, title: str | None = None) -> tuple[str, ...]:
        """Let an open case concern these clients as well, by id, and take another `title`; returns those that are new.

        Raises NotFoundError, ConflictError if the case is closed.
        """
        self._refuse_closed(incident)
        known = self.get(incident).clients
        new = tuple(client for client in dict.fromkeys(clients) if self._clients.get(client).id not in known)
        self._concern(incident, sorted(new))
        if title is not None:
            names.label(title, what="the title of an incident")
            self._update(incident, title=title)
        return new

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

    def close(
        self,
        incident: str,
        *,
        actor: str,
        finding: str,
        verdict: CaseVerdict | None = None,
        cleared: Sequence[str] = (),
    ) -> Incident:
        """End a case for good, with what was found, and which of its clients were found to be honest, by id.

        Raises NotFoundError; ConflictError if it is closed, or does not concern a client that is cleared.
        """
        self._refuse_closed(incident)
        names.note(finding, what="the finding of an incident")
        if verdict is not None:
            names.one_of(verdict, get_args(CaseVerdict), what="the verdict")
        strangers = sorted(set(cleared) - set(self.get(incident).clients))
        if strangers:
            raise ConflictError(f"incident {incident} does not concern client {strangers[0]}")
        self._update(incident, state="closed", closed_at=self._transaction.now(), finding=finding)
        if verdict is not None:
            self._transaction.change(
                insert(case_tables.incident_verdict).values(incident=incident, verdict=verdict),
            )
        self._transaction.change(
            insert(case_tables.incident_cleared),
            [{"incident": incident, "client": client} for client in sorted(set(cleared))],
        )
        self._add_event(incident, "closed", finding, actor)
        return self.get(incident)

    def _refuse_closed(self, incident: str) -> None:
        if self.get(incident).state == "closed":
            raise ConflictError(f"incident {incident} is closed", "open a new one that names it")

    def _concern(self, incident: str, clients: Sequence[str]) -> None:
        self._transaction.change(
            insert(tables.incident_client), [{"incident": incident, "client": client} for client in clients]
        )

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
        ids = select(_INCIDENT.id).where(*conditions)
        concerned = self._clients_of(tables.incident_client, ids)
        cleared = self._clients_of(case_tables.incident_cleared, ids)
        given = select(_VERDICT.incident, _VERDICT.verdict).where(_VERDICT.incident.in_(ids))
        verdicts = {row.incident: row.verdict for row in self._transaction.all(given)}
        return [
            Incident(
                row.id,
                row.title,
                row.state,
                tuple(concerned.get(row.id, [])),
                row.opened_at,
                row.closed_at,
                row.finding,
                verdicts.get(row.id),
                tuple(cleared.get(row.id, [])),
            )
            for row in found
        ]

    def _clients_of(self, table: Any, incidents: Any) -> dict[str, list[str]]:
        """The clients that a table names, in order, by case."""
        found: dict[str, list[str]] = {}
        query = select(table).where(table.c.incident.in_(incidents)).order_by(table.c.client)
        for row in self._transaction.all(query):
            found.setdefault(row.incident, []).append(row.client)
        return found
