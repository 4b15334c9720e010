"""What a change of operators does in the registry, and the ledger records that say so; and what it would concern.

For a transaction that is open: nothing here commits, and whoever commits has the records in the ledger first.
"""

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError
from palladion.gate.administration.changes import (
    CLIENTS_MAX,
    Appoint,
    Change,
    Facts,
    RevokeClient,
    RevokeKey,
    Stand,
    change_document,
    client_name,
    contracts_among,
    lowered,
)
from palladion.ledger.record import Record
from palladion.lifecycle.clients import standing_record
from palladion.lifecycle.operators import appoint, check_identity, oidc_identity
from palladion.policy import Policy
from palladion.registry import Client, Records


def gather_facts(records: Records, change: Change, policy: Policy, now: datetime) -> Facts:
    """What is known about a change. Raises NotFoundError where it speaks of what does not exist."""
    contracts = {contract.organisation_and_name for contract in policy.contract}
    match change:
        case Stand():
            clients = _clients(records, change.clients)
            worse = lowered(((label(client), client.standing) for client in clients), change.standing)
            return Facts(lowered=worse, contracts=contracts_among(map(label, clients), contracts.__contains__))
        case RevokeClient():
            client = records.clients.named(*client_name(change.client))
            return Facts(contracts=contracts_among([label(client)], contracts.__contains__))
        case RevokeKey():
            return _facts_of_key(records, change.prefix, contracts, now)
        case Appoint():
            if change.identity and change.role is not None:
                identity = check_identity(change.identity)
                operators = policy.operators
                claimable = bool(operators.role_claim) and identity.startswith(oidc_identity(operators.issuer, ""))
                return Facts(identity=identity, claimable=claimable)
            before = records.operators.get(change.name)
            return Facts(identity=before.identity, role=before.role)


def apply_change(
    records: Records, change: Change, *, actor: str, reason: str, key: bytes, now: datetime
) -> list[Record]:
    """Make a change in an open transaction. Raises ConflictError, NotFoundError; `key` is that of pseudonyms."""
    match change:
        case Stand():
            return _stand(records, change, actor=actor, reason=reason, key=key)
        case RevokeClient():
            client = records.clients.revoke(records.clients.named(*client_name(change.client)).id)
            moment = client.revoked_at or now
            return [Record("client.revoked", moment, actor, pseudonym(key, client.id), {"reason": reason})]
        case RevokeKey():
            row = records.clients.revoke_key(change.prefix)
            details = {"prefix": row.prefix, "reason": reason}
            moment = row.revoked_at or now
            return [Record("client.key-revoked", moment, actor, pseudonym(key, row.client), details)]
        case Appoint():
            _, record = appoint(
                records, change.name, role=change.role, identity=change.identity, actor=actor, reason=reason
            )
            return [record]


def told(records: Records, change: Change, key: bytes) -> dict[str, Any]:
    """The document of a change as the ledger tells it: clients by pseudonym."""
    document = change_document(change)
    match change:
        case Stand():
            document["clients"] = [pseudonym(key, client.id) for client in _clients(records, change.clients)]
        case RevokeClient():
            document["client"] = pseudonym(key, records.clients.named(*client_name(change.client)).id)
        case _:
            pass
    return document


def told_about(records: Records, change: Change | None, client: str, key: bytes) -> dict[str, Any]:
    """What a record may say of a request that was refused: the kind of change, and those it names who are clients."""
    found: dict[str, Any] = {} if change is None else {"change": change_document(change)["kind"]}
    asked = [client] if client else []
    match change:
        case Stand():
            asked += change.clients
        case RevokeClient():
            asked.append(change.client)
        case _:
            pass
    # those who are none are not told of: what was sent may be anything
    rows = [records.clients.find(*client_name(name)) for name in asked[:CLIENTS_MAX]]
    clients = {row.id for row in rows if row is not None}
    if clients:
        found["clients"] = sorted(pseudonym(key, client) for client in clients)
    return found


def label(client: Client) -> str:
    """A client as people name it."""
    return f"{client.organisation}/{client.name}"


def _stand(records: Records, change: Stand, *, actor: str, reason: str, key: bytes) -> list[Record]:
    made = []
    for client in _clients(records, change.clients):
        if client.revoked_at is not None:
            raise ConflictError(f"client {label(client)} is revoked")
        if client.standing != change.standing:
            done = records.standings.change(client.id, change.standing, reason=reason, actor=actor)
            made.append(standing_record(done, before=client.standing, subject=pseudonym(key, client.id)))
    if not made:
        raise ConflictError(f"there is no change: {', '.join(change.clients[:3])} {change.standing} already")
    return made


def _clients(records: Records, names: Iterable[str]) -> list[Client]:
    """Each once, however often and in whichever way it is named."""
    found: Mapping[str, Client] = {
        client.id: client for name in names for client in [records.clients.named(*client_name(name))]
    }
    return list(found.values())


def _facts_of_key(records: Records, prefix: str, contracts: set[tuple[str, str]], now: datetime) -> Facts:
    client = records.clients.get(records.clients.key(prefix).client)
    if (client.organisation, client.name) not in contracts:
        return Facts()
    keys = records.clients.keys(client.id)
    live = {key.prefix for key in keys if key.revoked_at is None and (key.expires is None or key.expires > now)}
    others = any(row.client == client.id for row in records.identities.live())
    return Facts(contracts=(label(client),), last_key=live <= {prefix} and not others)
