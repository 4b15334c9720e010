"""From a record of the ledger to what it means for alerts. Pure, so that nothing is alerted that is not on record.

What people wrote (a reason, a note, a finding) is left out: it may name clients, and an alert leaves the house. So are
addresses and programs of strangers; both stand in the ledger and in the case.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from palladion.incident.alerts.alert import Alert, Ended, Event, Opened, Taken, alert_id, case_thread, shortened
from palladion.incident.links import links_said
from palladion.ledger.record import Record
from palladion.policy.alerting import AlertKind, Severity
from palladion.watch import why
from palladion.watch.taxonomy import cause_of

WATCH = "watch"  # the actor of changes that no person decided
GATE = "gate"
_LOOK = "palladion incident list --open shows the cases; palladion incident take CASE says that you are at it"
_DONE: Mapping[str, str] = MappingProxyType(
    {"suspended": "its requests are refused", "degraded": "its answers disclose the least that the policy knows"}
)
_CASE = "incident:"


def event_of(record: Record, entry: int) -> Event | None:
    """What the record of entry `entry` means for alerts; None for nothing."""
    read = _READERS.get(record.kind)
    return None if read is None else read(record, entry)


def _standing_changed(record: Record, entry: int) -> Event:
    thread, to = f"standing:{record.subject}", str(record.details.get("to"))
    if to not in _DONE:
        return Ended(thread)
    by_watch = record.actor == WATCH
    severity: Severity = "info" if not by_watch else "critical" if to == "suspended" else "warning"
    reason = f": {record.details.get('reason')}" if by_watch else " by a person"
    return _alert(
        record,
        entry,
        kind="suspension",
        severity=severity,
        thread=thread,
        subject=record.subject,
        sentence=f"{record.subject} was {to}{reason}",
        done=_DONE[to],
        next_step=_LOOK,
        figures={name: str(record.details[name]) for name in ("from", "to", "route") if name in record.details}
        | _unlike(record),
    )


def _incident_opened(record: Record, entry: int) -> Event:
    case, clients = record.subject.removeprefix(_CASE), _count(record, "clients")
    kind: AlertKind = "campaign" if clients > 1 else "suspension" if clients else "decoy"
    about = f" about {clients} client{'s' if clients > 1 else ''}" if clients else ""
    by_person = record.actor != GATE
    alert = _alert(
        record,
        entry,
        kind=kind,
        severity="info" if by_person else "critical",
        thread=case_thread(case),
        subject=record.subject,
        sentence=f"a case was opened{about}{' by a person' if by_person else ''}{_linked(record)}",
        next_step=f"palladion incident take {case[:8]} says that you are at it",
        figures={"clients": clients, **_unlike(record)},
        case=case,
    )
    return Opened(alert)


def _incident_acted(record: Record, entry: int) -> Event | None:
    if record.actor != GATE or record.details.get("change") != "join":
        return None
    case, joined = record.subject.removeprefix(_CASE), record.details.get("clients")
    clients = len(joined) if isinstance(joined, list) else 0
    return _alert(
        record,
        entry,
        kind="campaign",
        severity="critical",
        thread=case_thread(case),
        subject=record.subject,
        sentence=f"a case took in {clients} more client{'s' if clients != 1 else ''}{_linked(record)}",
        next_step=f"palladion incident show {case[:8]}",
        figures={"joined": clients},
        case=case,
    )


def _incident_acknowledged(record: Record, _entry: int) -> Event:
    return Taken(record.subject.removeprefix(_CASE))


def _incident_closed(record: Record, _entry: int) -> Event:
    return Ended(case_thread(record.subject.removeprefix(_CASE)))


def _decoy_touched(record: Record, entry: int) -> Event:
    touches, by = _count(record, "touches"), record.details.get("by")
    told = [who for who in by if isinstance(who, dict)] if isinstance(by, list) else []
    clients = [str(who["client"]) for who in told if "client" in who]
    who = f"client{'s' if len(clients) > 1 else ''} {', '.join(clients[:3])}" if clients else "nobody who is known"
    return _alert(
        record,
        entry,
        kind="decoy",
        severity="critical",
        thread=record.subject,
        subject=record.subject,
        sentence=f"a decoy was touched {touches} time{'s' if touches != 1 else ''}, by {who}",
        next_step=f"palladion decoy show {record.subject.removeprefix('decoy:')} says where it was planted",
        figures={"touches": touches, "clients": len(clients), "strangers": len(told) - len(clients)},
        concerns=tuple(clients),
    )


def _watch_newcomers(record: Record, entry: int) -> Event:
    moved, named = record.details.get("moved"), record.details.get("named")
    what = "; ".join(str(item) for item in moved[:3]) if isinstance(moved, list) else ""
    who = ", ".join(str(item) for item in named[:10]) if isinstance(named, list) else ""
    return _alert(
        record,
        entry,
        kind="campaign",
        severity="warning",
        thread=f"newcomers:{record.subject}",
        subject=record.subject,
        sentence=f"newcomers to {record.subject} are unlike honest ones together, as a ring of accounts that nothing "
        f"links would be{f'. {what}' if what else ''}",
        done="nobody stands worse for it",
        next_step=f"look at those who contribute most{f' ({who})' if who else ''}: palladion watch explain CLIENT",
        figures={"newcomers": _count(record, "newcomers")},
    )


def _watch_drifted(record: Record, entry: int) -> Event:
    moved = record.details.get("moved")
    what = "; ".join(str(item) for item in moved[:3]) if isinstance(moved, list) else ""
    return _alert(
        record,
        entry,
        kind="drift",
        severity="warning",
        thread=f"drift:{record.subject}",
        subject=record.subject,
        sentence=f"traffic has left the calibration of {record.subject}: no rate of false alarms is promised"
        f"{f'. {what}' if what else ''}",
        done="the watch goes on as it was",
        next_step="palladion watch calibrate makes a calibration from the traffic of now",
        figures={"clients": _count(record, "clients")},
    )


def _clock_set(record: Record, entry: int) -> Event:
    seconds = _count(record, "seconds")
    return _alert(
        record,
        entry,
        kind="operational",
        severity="warning",
        thread="clock",
        subject=record.subject,
        sentence=f"the machine's clock jumped by {seconds} s, or is so far behind the ledger",
        done="times of the ledger are what the clock said; its order holds",
        next_step="find out who set it, and whether time is synchronised",
        figures={"seconds": seconds},
    )


def _rolled_back(record: Record, entry: int) -> Event | None:
    if record.actor != GATE:
        return None  # whoever did it by hand knows
    return _alert(
        record,
        entry,
        kind="operational",
        severity="warning",
        thread=f"rollback:{record.subject.partition('@')[0]}",
        subject=record.subject,
        sentence=f"a version on trial failed and was ended; {record.subject} answers everybody",
        done="it is served no more",
        next_step="palladion model show says why",
    )


def _refused(record: Record, entry: int) -> Event | None:
    if record.details.get("reason") != "budget-spent":
        return None
    requests = _count(record, "requests")
    return _alert(
        record,
        entry,
        kind="budget",
        severity="info",
        thread=f"budget:{record.subject}",
        subject=record.subject,
        sentence=f"{record.subject} has spent a budget of the day: {requests} requests were refused",
        done="what is beyond the budget is refused until it is refilled",
        next_step="a contract in the policy gives a client more",
        figures={"requests": requests},
    )


def _reexecuted(record: Record, entry: int) -> Event | None:
    thread, verdict = f"reexecution:{record.subject.partition('@')[0]}", record.details.get("verdict")
    differing, all_ = _count(record, "deviating"), _count(record, "computed_again")
    if not differing:
        return Ended(thread) if verdict == "same" else None
    return _alert(
        record,
        entry,
        kind="operational",
        severity="critical",
        thread=thread,
        subject=record.subject,
        sentence=f"{differing} of {all_} answers are not what {record.subject} computes: another model answers, or the "
        "server was tampered with",
        next_step="palladion ledger query --kind answers.reexecuted says which; ask the server nothing before you know",
        figures={"deviating": differing, "computed_again": all_, "verdict": str(verdict)},
    )


def _broken_glass(record: Record, entry: int) -> Event:
    purpose, what = str(record.details.get("purpose")), str(record.details.get("what"))
    return _alert(
        record,
        entry,
        kind="operational",
        severity="critical",
        thread=record.subject,
        subject=record.subject,
        sentence=f"the glass was broken to {purpose} {what}: nobody else agreed to it",
        done="a case was opened",
        next_step=f"palladion approval review {record.subject.removeprefix('approval:')}, by who did not do it",
    )


def _reviewed(record: Record, _entry: int) -> Event:
    return Ended(record.subject)


def _contradicted(record: Record, entry: int) -> Event:
    return _alert(
        record,
        entry,
        kind="ledger",
        severity="critical",
        thread="ledger",
        subject=record.subject,
        sentence="a witness has seen another history of the ledger: it was cut or rewritten, or restored from a backup",
        next_step="palladion ledger witness says which; do not restart before you have a copy of the folder",
    )


def _unlike(record: Record) -> dict[str, str]:
    """What was most unlike honest clients, in words."""
    words = why.said({"why": record.details.get("why")})
    return {"why": words} if words else {}


def _linked(record: Record) -> str:
    words = links_said(record.details)
    return f"; {words}" if words else ""


def _count(record: Record, name: str) -> int:
    value = record.details.get(name)
    return value if isinstance(value, int) else 0


def _alert(
    record: Record,
    entry: int,
    *,
    kind: AlertKind,
    severity: Severity,
    thread: str,
    subject: str,
    sentence: str,
    done: str = "",
    next_step: str = "",
    figures: Mapping[str, Any] = MappingProxyType({}),
    case: str | None = None,
    concerns: tuple[str, ...] = (),
) -> Alert:
    return Alert(
        id=alert_id(thread, kind, entry),
        kind=kind,
        severity=severity,
        thread=shortened(thread),
        subject=shortened(subject),
        sentence=shortened(sentence),
        time=record.time,
        done=done,
        next=shortened(next_step),
        figures=dict(figures),
        case=case,
        concerns=concerns,
        cause=cause_of(record.kind, record.details),
    )


_READERS: Mapping[str, Callable[[Record, int], Event | None]] = MappingProxyType(
    {
        "answer.refused": _refused,
        "answers.reexecuted": _reexecuted,
        "approval.broken-glass": _broken_glass,
        "approval.reviewed": _reviewed,
        "clock.set": _clock_set,
        "decoy.touched": _decoy_touched,
        "incident.acted": _incident_acted,
        "incident.acknowledged": _incident_acknowledged,
        "incident.closed": _incident_closed,
        "incident.opened": _incident_opened,
        "ledger.contradicted": _contradicted,
        "model.rolled-back": _rolled_back,
        "standing.changed": _standing_changed,
        "watch.drifted": _watch_drifted,
        "watch.newcomers": _watch_newcomers,
    }
)
HEARD = frozenset(_READERS)  # kinds of records that can mean something
