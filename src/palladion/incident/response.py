"""What people do to the clients of a case: another standing, other keys, somebody else who decides. All of it recorded.

Commands of the gate's account do it at once. Operators at a port need a second person wherever a client is to stand
worse (docs/operators.md); what they agree on is recorded as their proposal and not here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from palladion.access.pseudonyms import pseudonym
from palladion.errors import ConflictError, NotFoundError
from palladion.incident.cases import (
    CLIENTS_MAX,
    acted_record,
    clients_named,
    find_case,
    label,
    named,
    require_open,
    require_text,
    shortened,
)
from palladion.ledger.writer import Receipt
from palladion.lifecycle.clients import revoke_key, standing_record
from palladion.lifecycle.installation import Installation
from palladion.registry import Client, ClientKey, Incident, Records, StandingChange, names
from palladion.registry.rows import Standing
from palladion.watch.response import rank

Change = Literal["throttle", "degrade", "suspend", "restore", "reinstate"]

STANDINGS: dict[Change, Standing] = {
    "throttle": "throttled",
    "degrade": "degraded",
    "suspend": "suspended",
    "restore": "trusted",
    "reinstate": "trusted",
}
_DECIDING = ("approver", "admin")
_RAISING: tuple[Change, ...] = ("restore", "reinstate")
_DONE: dict[Change, str] = {
    "throttle": "throttled",
    "degrade": "degraded",
    "suspend": "suspended",
    "restore": "restored",
    "reinstate": "reinstated",
}


@dataclass(frozen=True)
class Responded:
    """What came of a step: the case, changes of standing by the client's name, who was left alone, and its receipt.

    `left` stand so already, or worse than a step that only lowers asks for; or they are revoked.
    """

    case: Incident
    changes: dict[str, StandingChange]
    left: tuple[str, ...]
    receipt: Receipt


def respond(
    installation: Installation,
    incident: str,
    change: Change,
    clients: Sequence[str],
    *,
    every: bool = False,
    reason: str,
    actor: str,
) -> Responded:
    """Put clients of a case into another standing: those named, `every` one, or the only one.

    Throttling, degrading and suspending only lower; restoring and reinstating only raise, and the watch begins anew
    with whom they raise. Raises NotFoundError; ConflictError if the case is closed, or if nobody's standing changes.
    """
    require_text(reason)
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        case, key = find_case(records, incident), gate.derive("pseudonyms")
        chosen = chosen_clients(records, case, clients, every=every)
        moving = [client for client in chosen if _moves(client, change)]
        if not moving:
            raise ConflictError(
                f"nobody's standing changes: {named(records, [client.id for client in chosen])} "
                f"cannot be {_DONE[change]}",
                "palladion incident show says how each stands",
            )
        made, lines = {}, []
        for client in moving:
            done = records.standings.change(client.id, STANDINGS[change], reason=reason, actor=actor)
            made[label(client)] = done
            lines.append(standing_record(done, before=client.standing, subject=pseudonym(key, client.id)))
        said = f"{_DONE[change]} {named(records, [client.id for client in moving])}: {reason}"
        _note(records, case, said, actor=actor)
        accounts, now = [pseudonym(key, client.id) for client in moving], installation.clock.now()
        lines.append(
            acted_record(case, change, accounts, actor=actor, now=now, text=reason, standing=STANDINGS[change])
        )
        receipt = ledger.append(lines)[-1]
        left = tuple(label(client) for client in chosen if client not in moving)
        return Responded(records.incidents.get(case.id), made, left, receipt)


def escalate(
    installation: Installation, incident: str, to: str, *, reason: str, actor: str
) -> tuple[Incident, Receipt]:
    """Say that somebody else decides from here on, and why. Raises NotFoundError, ConflictError."""
    require_text(reason)
    names.label(to, what="to whom a case is escalated")
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        case, now = find_case(records, incident), installation.clock.now()
        _note(records, case, f"escalated to {to}: {reason}", actor=actor)
        record = acted_record(case, "escalate", (), actor=actor, now=now, text=reason, to=to)
        return case, ledger.append([record])[0]


def revoke_keys(
    installation: Installation,
    incident: str,
    clients: Sequence[str],
    *,
    every: bool = False,
    reason: str,
    actor: str,
) -> tuple[Incident, list[ClientKey], Receipt]:
    """Accept no key of clients of a case any more; each is revoked and recorded by itself, then the step.

    Should this break off, what was revoked stays so, and the rest is revoked when it is run again. Raises
    NotFoundError; ConflictError if the case is closed, or if there is no live key.
    """
    require_text(reason)
    case, live = _live_keys(installation, incident, clients, every=every)
    if not live:
        raise ConflictError("there is no live key to be revoked")
    revoked = [revoke_key(installation, row.prefix, actor=actor)[0] for row in live]
    prefixes = [row.prefix for row in revoked]
    owners = list(dict.fromkeys(row.client for row in revoked))
    return case, revoked, note_keys(installation, case, "revoke-keys", owners, prefixes, reason=reason, actor=actor)


def check_rotation(installation: Installation, incident: str, clients: Sequence[str]) -> tuple[Incident, Client]:
    """The case and the one client of it whose keys are to be rotated. Raises NotFoundError, ConflictError."""
    with installation.open_registry() as registry, registry.read() as records:
        case = find_case(records, incident)
        require_open(case)
        chosen = chosen_clients(records, case, clients, every=False)
        if len(chosen) != 1:
            raise ConflictError("keys are rotated for one client at a time: each new one is shown once")
        return case, chosen[0]


def note_keys(
    installation: Installation,
    case: Incident,
    change: Literal["revoke-keys", "rotate-keys"],
    clients: Sequence[str],
    prefixes: Sequence[str],
    *,
    reason: str,
    actor: str,
) -> Receipt:
    """Record in a case what was done with keys of its clients, by id; the keys have records of their own."""
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        key, now = gate.derive("pseudonyms"), installation.clock.now()
        verb = "revoked" if change == "revoke-keys" else "rotated"
        said = f"{verb} keys of {named(records, clients)}: {reason}"
        _note(records, case, said, actor=actor)
        accounts = [pseudonym(key, client) for client in clients]
        record = acted_record(case, change, accounts, actor=actor, now=now, text=reason, prefixes=list(prefixes))
        return ledger.append([record])[0]


def two_persons_elsewhere(records: Records) -> bool:
    """Whether this gate has operators who could ask and agree: then a command that does it alone should say so."""
    deciding = [item for item in records.operators.all() if item.revoked_at is None and item.role in _DECIDING]
    return len(deciding) > 1


def chosen_clients(records: Records, case: Incident, clients: Sequence[str], *, every: bool) -> list[Client]:
    """Which clients of a case are meant: those that are named, `every` one, or the only one.

    Raises NotFoundError where one is not of the case, ConflictError where it is not said which.
    """
    if clients and every:
        raise ConflictError("either clients are named, or all of them are meant")
    if clients:
        found = clients_named(records, clients)
        strangers = [label(client) for client in found if client.id not in case.clients]
        if strangers:
            raise NotFoundError(
                f"incident {case.id} does not concern {strangers[0]}",
                f"palladion incident join {case.id[:8]} --client {strangers[0]} --reason TEXT lets it",
            )
        return found
    if not case.clients:
        raise ConflictError(f"incident {case.id} concerns no client", "palladion incident join lets it concern one")
    if len(case.clients) > 1 and not every:
        raise ConflictError(
            f"incident {case.id} concerns {len(case.clients)} clients", "name some with --client, or all with --all"
        )
    if len(case.clients) > CLIENTS_MAX:
        raise ConflictError(
            f"{len(case.clients)} clients are more than {CLIENTS_MAX} at once", "name some with --client"
        )
    return [records.clients.get(client) for client in case.clients]


def _moves(client: Client, change: Change) -> bool:
    """Whether a step changes how a client stands; whoever is revoked is let in no more, however it stands."""
    if client.revoked_at is not None:
        return False
    difference = rank(STANDINGS[change]) - rank(client.standing)
    return difference < 0 if change in _RAISING else difference > 0


def _live_keys(
    installation: Installation, incident: str, clients: Sequence[str], *, every: bool
) -> tuple[Incident, list[ClientKey]]:
    now = installation.clock.now()
    with installation.open_registry() as registry, registry.read() as records:
        case = find_case(records, incident)
        require_open(case)
        keys = [
            row
            for client in chosen_clients(records, case, clients, every=every)
            for row in records.clients.keys(client.id)
        ]
    return case, [row for row in keys if row.revoked_at is None and (row.expires is None or row.expires > now)]


def _note(records: Records, case: Incident, text: str, *, actor: str) -> None:
    records.incidents.record(case.id, "acted", shortened(text, names.NOTE_CHARACTERS_MAX), actor=actor)
