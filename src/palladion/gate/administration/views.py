"""What operators are shown of the registry and the ledger, as documents. Pure, but for the transaction handed in."""

from collections.abc import Iterable
from typing import Any

import msgspec

from palladion.clock import timestamp
from palladion.gate.administration.changes import client_name
from palladion.gate.administration.effects import label
from palladion.incident.cases import find_case
from palladion.ledger.reader import LedgerReader
from palladion.registry import Incident, Operator, Proposal, Records

ENTRIES_MAX = 100  # of one page of the ledger: with 64 KiB each, 6 MiB


def client_document(records: Records, name: str) -> dict[str, Any]:
    """A client: its keys by their beginnings, and every standing it had. Raises NotFoundError."""
    row = records.clients.named(*client_name(name))
    return {
        "client": label(row),
        "id": row.id,
        "standing": row.standing,
        "may_ask": [scope.partition(":")[2] for scope in row.scopes],
        "revoked": timestamp(row.revoked_at) if row.revoked_at else None,
        "keys": [
            {
                "prefix": key.prefix,
                "created": timestamp(key.created),
                "expires": timestamp(key.expires) if key.expires else None,
                "revoked": timestamp(key.revoked_at) if key.revoked_at else None,
            }
            for key in records.clients.keys(row.id)
        ],
        "history": [
            {"at": timestamp(change.at), "standing": change.standing, "by": change.actor, "reason": change.reason}
            for change in records.standings.history(row.id)
        ],
    }


def incident_documents(records: Records) -> list[dict[str, Any]]:
    """Every case, oldest first."""
    return [_incident(records, case) for case in records.incidents.all()]


def incident_document(records: Records, incident: str) -> dict[str, Any]:
    """A case with its timeline, by its id or the beginning of it. Raises NotFoundError."""
    case = find_case(records, incident)
    timeline = [
        {"at": timestamp(event.at), "kind": event.kind, "by": event.actor, "text": event.text}
        for event in records.incidents.timeline(case.id)
    ]
    return {**_incident(records, case), "timeline": timeline}


def proposal_documents(records: Records, proposals: Iterable[Proposal]) -> list[dict[str, Any]]:
    """Proposals, with the identity of the operator that one concerns: whoever agrees should know who that is."""
    identities = {item.name: item.identity for item in records.operators.all()}
    return [
        {
            **proposal_document(item),
            "concerns": item.change.get("identity") or identities.get(str(item.change.get("name"))),
        }
        for item in proposals
    ]


def proposal_document(proposal: Proposal) -> dict[str, Any]:
    """One proposal."""
    return {
        "id": proposal.id,
        "change": proposal.change,
        "reason": proposal.reason,
        "by": proposal.proposer,
        "at": timestamp(proposal.at),
        "until": timestamp(proposal.expires),
        "verdict": proposal.verdict,
        "decision": proposal.decision,
        "decided_by": proposal.decided_by,
        "decided_at": timestamp(proposal.decided_at) if proposal.decided_at else None,
    }


def operator_documents(operators: Iterable[Operator]) -> list[dict[str, Any]]:
    """Operators of the registry."""
    return [
        {
            "operator": item.name,
            "role": item.role,
            "identity": item.identity,
            "created": timestamp(item.created),
            "revoked": timestamp(item.revoked_at) if item.revoked_at else None,
        }
        for item in operators
    ]


def ledger_document(reader: LedgerReader, start: int | None, count: int) -> dict[str, Any]:
    """Entries of the ledger from `start` on, or the last ones, as far as its last checkpoint covers them, proved."""
    first = max(0, reader.size - count) if start is None else start
    return {
        "size": reader.size,
        "entries": [
            {"index": index, "record": msgspec.json.decode(data)}
            for index, data in reader.entries(first, first + count)
        ],
    }


def _incident(records: Records, case: Incident) -> dict[str, Any]:
    return {
        "id": case.id,
        "state": case.state,
        "title": case.title,
        "clients": sorted(label(records.clients.get(client)) for client in case.clients),
        "opened": timestamp(case.opened_at),
        "closed": timestamp(case.closed_at) if case.closed_at else None,
        "finding": case.finding,
        "verdict": case.verdict,
    }
