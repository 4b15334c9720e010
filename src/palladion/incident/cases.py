"""What can be done with a case, by the gate when somebody is suspended and by people afterwards; all of it recorded."""

from collections.abc import Sequence
from datetime import datetime
from typing import Literal

from palladion.errors import NotFoundError, PalladionError
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import Incident, Records, names

OPEN_STATES = ("open", "acknowledged")
NAMED_MAX = 3  # clients in a title; the case itself lists all of them

Action = Literal["acknowledge", "note", "act", "close"]


def suspend_case(records: Records, clients: Sequence[str], *, reason: str, actor: str) -> tuple[Incident, bool]:
    """The case of a suspension of `clients` (by id), and whether it is new.

    A client that is in an open case already adds to that one: a campaign is one case, however it comes to light.
    """
    known = [case for client in clients for case in records.incidents.of_client(client) if case.state in OPEN_STATES]
    named = _names(records, clients)
    if known:
        text = _shortened(f"suspended {named}: {reason}", names.NOTE_CHARACTERS_MAX)
        records.incidents.record(known[0].id, "acted", text, actor=actor)
        return known[0], False
    title = _shortened(f"suspended: {named}", names.LABEL_CHARACTERS_MAX)
    text = _shortened(reason, names.NOTE_CHARACTERS_MAX)
    return records.incidents.open(title, actor=actor, clients=clients, text=text), True


def opened_record(case: Incident) -> Record:
    """The ledger record of a case that was opened; clients are counted, not named."""
    return Record("incident.opened", case.opened_at, "gate", f"incident:{case.id}", {"clients": len(case.clients)})


def act(
    installation: Installation, incident: str, action: Action, text: str, *, actor: str
) -> tuple[Incident, Receipt]:
    """Take a case on, add to it, or close it with what was found. `incident` is an id or its beginning.

    Raises NotFoundError, ConflictError if the case is in a state that does not allow it.
    """
    _require_text(action, text)
    with installation.recording(installation.open_gate_root()) as (ledger, records):
        case, record = take_step(
            records, find_case(records, incident), action, text, actor=actor, now=installation.clock.now()
        )
        return case, ledger.append([record])[0]


def take_step(
    records: Records, case: Incident, action: Action, text: str, *, actor: str, now: datetime
) -> tuple[Incident, Record]:
    """Do one thing with a case in an open transaction; the record has to be in the ledger before that commits."""
    _require_text(action, text)
    match action:
        case "acknowledge":
            case = records.incidents.acknowledge(case.id, actor=actor, text=text)
        case "close":
            case = records.incidents.close(case.id, actor=actor, finding=text)
        case _:
            records.incidents.record(case.id, "noted" if action == "note" else "acted", text, actor=actor)
    return case, Record(_KINDS[action], now, actor, f"incident:{case.id}", {"text": text})


def find_case(records: Records, incident: str) -> Incident:
    """The case whose id is `incident`, or the only one whose id begins with it. Raises NotFoundError."""
    matching = [case for case in records.incidents.all() if incident and case.id.startswith(incident)]
    if len(matching) > 1:
        raise NotFoundError(f"{len(matching)} incidents have an id that begins with {incident!r}", "give more of it")
    return matching[0] if matching else records.incidents.get(incident)


_KINDS = {
    "acknowledge": "incident.acknowledged",
    "note": "incident.noted",
    "act": "incident.acted",
    "close": "incident.closed",
}


def _require_text(action: Action, text: str) -> None:
    if action in {"note", "act", "close"} and not text.strip():
        raise PalladionError("a sentence is needed: what was noticed, done or found")


def _names(records: Records, clients: Sequence[str]) -> str:
    found = [f"{client.organisation}/{client.name}" for client in map(records.clients.get, dict.fromkeys(clients))]
    more = f" and {len(found) - NAMED_MAX} more" if len(found) > NAMED_MAX else ""
    return f"{', '.join(found[:NAMED_MAX])}{more}"


def _shortened(text: str, characters_max: int) -> str:
    # a case must not fail to open because names or evidence are long
    return text if len(text) <= characters_max else f"{text[: characters_max - 1]}…"
