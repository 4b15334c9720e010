"""What a case turned out to be, and what follows for calibration: who was found to be honest counts as honest again.

A client that was disturbed is left out of calibrations, since it may be a thief. Where it was not, leaving it out hides
one of those honest clients who look odd, and makes a promised rate of false alarms too low. So the verdict of a person
brings it back, until something newer speaks against it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from palladion.access.pseudonyms import pseudonym
from palladion.incident.cases import OPEN_STATES, find_case, require_text
from palladion.incident.response import chosen_clients
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import Incident, Records
from palladion.registry.rows import CaseVerdict
from palladion.watch.response import rank

_WATCH = "watch"  # the actor of changes of standing that no person decided
_DISTURBED = rank("throttled")  # a watched client is answered as before


@dataclass(frozen=True)
class Cleared:
    """A client, by id, that was found to be honest: in which case, and when that was closed."""

    client: str
    incident: str
    closed_at: datetime


def close_case(
    installation: Installation,
    incident: str,
    finding: str,
    verdict: CaseVerdict,
    *,
    honest: Sequence[str] = (),
    actor: str,
) -> tuple[Incident, Receipt]:
    """Close a case with a verdict. With "false-alarm" all of its clients are cleared, else those named `honest`.

    Raises NotFoundError; ConflictError if it is closed already.
    """
    require_text(finding)
    gate = installation.open_gate_root()
    with installation.recording(gate) as (ledger, records):
        case, key = find_case(records, incident), gate.derive("pseudonyms")
        named = [client.id for client in chosen_clients(records, case, honest, every=False)] if honest else []
        cleared = case.clients if verdict == "false-alarm" else tuple(named)
        case = records.incidents.close(case.id, actor=actor, finding=finding, verdict=verdict, cleared=cleared)
        accounts = sorted(pseudonym(key, client) for client in cleared)
        details = {"text": finding, "verdict": verdict, "cleared": accounts}
        moment = case.closed_at or installation.clock.now()
        return case, ledger.append([Record("incident.closed", moment, actor, f"incident:{case.id}", details)])[0]


def honest_clients(records: Records) -> list[Cleared]:
    """Those whose newest verdict cleared them and against whom nothing has come since, the newest first.

    Against a client speak a newer case, open or closed otherwise, and a standing to which the watch has lowered it
    since.
    """
    newest: dict[str, Cleared | None] = {}
    cases = records.incidents.all()
    for case in sorted((case for case in cases if case.closed_at is not None), key=_closed):
        for client in case.clients:
            newest[client] = Cleared(client, case.id, _closed(case)) if client in case.cleared else None
    suspected = {client for case in cases if case.state in OPEN_STATES for client in case.clients}
    standings = records.standings.current()
    found = []
    for client, cleared in newest.items():
        if cleared is None or client in suspected:
            continue
        change = standings[client]
        lowered = change.actor == _WATCH and rank(change.standing) >= _DISTURBED and change.at > cleared.closed_at
        if not lowered:
            found.append(cleared)
    return sorted(found, key=lambda item: (item.closed_at, item.client), reverse=True)


def cleared_since(records: Records, moment: datetime) -> int:
    """How many clients were found to be honest in cases that were closed from `moment` on."""
    cases = records.incidents.all(state="closed")
    return len({client for case in cases if _closed(case) >= moment for client in case.cleared})


def _closed(case: Incident) -> datetime:
    return case.closed_at or case.opened_at
