"""Registers clients of the API, their keys and their standing, each recorded before it takes effect.

The ledger knows clients by pseudonym; the registry holds the names. A key is handed back once and kept nowhere.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from palladion.access.identity import ApiKey, hash_api_key, key_prefix, new_api_key
from palladion.access.pseudonyms import pseudonym
from palladion.clock import timestamp
from palladion.errors import ConflictError, NotFoundError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import Client, ClientKey, Records, StandingChange
from palladion.registry.rows import Standing

PREDICT = "predict"
ROUTE = "route"


def scope(model: str) -> str:
    """The scope that lets a client ask a model."""
    return f"{PREDICT}:{model}"


def route_scope(route: str) -> str:
    """The scope that lets a client ask on one route, by its name."""
    return f"{ROUTE}:{route}"


def add_client(
    installation: Installation,
    organisation: str,
    name: str,
    *,
    models: Sequence[str],
    routes: Sequence[str] = (),
    reseller: bool = False,
    environment: str,
    expires: datetime | None,
    actor: str,
) -> tuple[Client, ApiKey, Receipt]:
    """Register a client with its first key; it may ask `models`, and on `routes`, or everything if both are empty.

    A `reseller` asks for end users, who are judged as clients of their own.
    Raises ConflictError if the organisation has one of that name, NotFoundError for a model that does not exist: that
    is neither registered nor served by a route of the policy, or for a route that the policy does not name.
    """
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        scopes = [
            *(scope(_askable(installation, records, model)) for model in models),
            *(route_scope(_named(installation, route)) for route in routes),
        ]
        client = records.clients.add(name, organisation=organisation, actor=actor, scopes=scopes)
        details: dict[str, Any] = {"scopes": scopes}
        if reseller:
            client, details["resells"] = records.end_users.declare(client.id), True
        key, row = _new_key(records, gate, client, environment, expires)
        subject = pseudonym(gate.derive("pseudonyms"), client.id)
        receipt = ledger.append(
            [
                Record("client.added", client.created, actor, subject, details),
                _key_record("client.key-added", row, subject, actor, row.created),
            ]
        )[0]
        return client, key, receipt


def add_key(
    installation: Installation,
    organisation: str,
    name: str,
    *,
    environment: str,
    expires: datetime | None,
    actor: str,
) -> tuple[ClientKey, ApiKey, Receipt]:
    """Give a client a further key, for example to change keys without a gap."""
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        client = records.clients.named(organisation, name)
        key, row = _new_key(records, gate, client, environment, expires)
        subject = pseudonym(gate.derive("pseudonyms"), client.id)
        return row, key, ledger.append([_key_record("client.key-added", row, subject, actor, row.created)])[0]


def rotate_key(
    installation: Installation,
    organisation: str,
    name: str,
    *,
    overlap: timedelta,
    environment: str,
    expires: datetime | None,
    actor: str,
    prefix: str | None = None,
) -> tuple[ApiKey, list[ClientKey], Receipt]:
    """Give a client a new key, and its live ones, or the one called `prefix`, an end when the `overlap` is over.

    A key that ends earlier stays so. Raises NotFoundError; ConflictError where `prefix` is no live key of the client.
    """
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        client = records.clients.named(organisation, name)
        now = installation.clock.now()
        live = [
            row
            for row in records.clients.keys(client.id)
            if row.revoked_at is None and (row.expires is None or row.expires > now) and prefix in (None, row.prefix)
        ]
        if prefix is not None and not live:
            raise ConflictError(f"{organisation}/{name} has no live key that begins with {prefix}")
        key, row = _new_key(records, gate, client, environment, expires)
        ending = [records.clients.end_key(item.prefix, now + overlap) for item in live]
        subject = pseudonym(gate.derive("pseudonyms"), client.id)
        added = _key_record("client.key-added", row, subject, actor, row.created)
        receipt = ledger.append([added, *(_ending_record(item, subject, actor, row.created) for item in ending)])[0]
        return key, ending, receipt


def revoke_key(installation: Installation, prefix: str, *, actor: str) -> tuple[ClientKey, Receipt]:
    """Accept a key no more. Raises NotFoundError, ConflictError if that is so already."""
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        row = records.clients.revoke_key(prefix)
        subject = pseudonym(gate.derive("pseudonyms"), row.client)
        moment = row.revoked_at or installation.clock.now()
        return row, ledger.append([_key_record("client.key-revoked", row, subject, actor, moment)])[0]


def revoke_client(installation: Installation, organisation: str, name: str, *, actor: str) -> tuple[Client, Receipt]:
    """Let a client in no more, with whatever key. Raises NotFoundError, ConflictError if that is so already."""
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        client = records.clients.revoke(records.clients.named(organisation, name).id)
        subject = pseudonym(gate.derive("pseudonyms"), client.id)
        record = Record("client.revoked", client.revoked_at or installation.clock.now(), actor, subject)
        return client, ledger.append([record])[0]


def set_standing(
    installation: Installation, organisation: str, name: str, standing: Standing, *, reason: str, actor: str
) -> tuple[StandingChange, Receipt]:
    """Put a client into another standing, as a person decided. Raises NotFoundError, ConflictError if it has it."""
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        client = records.clients.named(organisation, name)
        change = records.standings.change(client.id, standing, reason=reason, actor=actor)
        subject = pseudonym(gate.derive("pseudonyms"), client.id)
        return change, ledger.append([standing_record(change, before=client.standing, subject=subject)])[0]


def standing_record(
    change: StandingChange,
    *,
    before: Standing,
    subject: str,
    route: str = "",
    why: Mapping[str, Any] = MappingProxyType({}),
) -> Record:
    """The ledger record of a change of standing; `subject` is the client's pseudonym, `route` what brought it.

    `why` are further details that say on what it rests (`watch.why`).
    """
    details = {"from": before, "to": change.standing, "reason": change.reason, **why}
    return Record(
        "standing.changed", change.at, change.actor, subject, {**details, "route": route} if route else details
    )


def _askable(installation: Installation, records: Records, model: str) -> str:
    # a model at an upstream need not be registered here
    if any(route.upstream and route.model == model for route in installation.policy.route):
        return model
    return records.models.get(model).name


def _named(installation: Installation, route: str) -> str:
    known = [item.route for item in installation.policy.route]
    if route not in known:
        hint = f"routes here: {', '.join(known)}" if known else "there is no [[route]] yet"
        raise NotFoundError(f"the policy has no route {route!r}", hint)
    return route


def _new_key(
    records: Records, gate: Root, client: Client, environment: str, expires: datetime | None
) -> tuple[ApiKey, ClientKey]:
    key = new_api_key(environment)
    hashed = hash_api_key(gate.derive("client-key-pepper"), key)
    return key, records.clients.add_key(client.id, prefix=key_prefix(key), key_hash=hashed, expires=expires)


def _ending_record(row: ClientKey, subject: str, actor: str, moment: datetime) -> Record:
    details = {"prefix": row.prefix, "expires": timestamp(row.expires or moment)}
    return Record("client.key-ending", moment, actor, subject, details)


def _key_record(kind: str, row: ClientKey, subject: str, actor: str, moment: datetime) -> Record:
    return Record(kind, moment, actor, subject, {"prefix": row.prefix})
