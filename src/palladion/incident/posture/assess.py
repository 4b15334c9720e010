"""Every control of the catalogue, judged on one view of the installation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any

from palladion.clock import timestamp
from palladion.incident.posture import models, services
from palladion.incident.posture.catalogue import CLAIM, CONTROLS, Control
from palladion.incident.posture.findings import STATES, Finding, State, judged, of_people, to_record
from palladion.incident.posture.view import View

DRILLED = "approval.drilled"
DRILL_AGE_MAX = timedelta(days=365)  # people come and go, and forget


@dataclass(frozen=True)
class Assessed:
    """A control and how it stands."""

    control: Control
    finding: Finding


def assess(view: View) -> list[Assessed]:
    """All controls, in the order of the catalogue."""
    return [Assessed(control, CHECKS[control.id](view)) for control in CONTROLS]


def document_of(view: View, assessed: list[Assessed]) -> dict[str, Any]:
    """The posture as JSON."""
    counts = {state: sum(item.finding.state == state for item in assessed) for state in STATES}
    return {
        "at": timestamp(view.moment),
        "claim": CLAIM,
        "counts": counts,
        "controls": [
            {
                "id": item.control.id,
                "title": item.control.title,
                "kind": item.control.kind,
                "ids": list(item.control.ids),
                "state": item.finding.state,
                "evidence": list(item.finding.evidence),
                "open": item.finding.open,
                "close": item.finding.close,
            }
            for item in assessed
        ],
    }


def _extraction(view: View) -> Finding:
    return _together(view, services.usage_analysis, services.automatic_response, services.limits, stage="extraction")


def _tried(stage: str) -> Callable[[View], Finding]:
    return lambda view: models.attacked(view, stage)


def _insiders(view: View) -> Finding:
    agreements = view.in_force("agreement", "organisational")
    gap = "nobody recorded agreements or rules for staff"
    return judged(
        [
            (view.versions > 0, "models open to named recipients alone", "no model is protected", "palladion protect"),
            (bool(agreements), of_people(agreements), gap, to_record("agreement")),
            _approvals(view),
            _broken_glass(view),
        ]
    )


def _approvals(view: View) -> tuple[bool, str, str, str]:
    """Whether several people have to agree before a model leaves, by the newest statement that the owner signed."""
    gap, close = "no approval of several people before a model is opened", "docs/approvals.md says how to begin"
    seen = view.newest.get("approvals.changed")
    if seen is None:
        return (False, "", gap, close)
    statement = seen.record.details.get("statement") or {}
    needed, approvers = int(statement.get("needed", 0)), len(statement.get("approvers", ()))
    return (1 <= needed <= approvers, f"{needed} of {approvers} approvers have to agree: {seen}", gap, close)


def _broken_glass(view: View) -> tuple[bool, str, str, str]:
    """Whether what was done without approvals was looked at since."""
    if "approval.broken-glass" not in view.newest:
        return (True, "nothing was done without the approvals that are needed", "", "")
    if not view.unreviewed:
        return (True, f"all broken glass was reviewed: {view.newest.get('approval.reviewed')}", "", "")
    first = view.unreviewed[0]
    close = f"palladion approval review {first.record.subject.removeprefix('approval:')}"
    return (False, "", f"broken glass that nobody has reviewed: {', '.join(map(str, view.unreviewed))}", close)


def _social_engineering(view: View) -> Finding:
    trained, seen = _of_people(view, "training", "nobody recorded that staff was trained"), view.newest.get(DRILLED)
    if seen is None or view.moment - seen.record.time > DRILL_AGE_MAX or trained.state != "on":
        return trained
    fell = seen.record.details.get("granted") or ()
    gap, close = f"{len(fell)} approved a drill: {seen}", "train them, and try again: palladion approval drill"
    return judged([(True, trained.evidence[0], "", ""), (not fell, f"nobody approved a drill: {seen}", gap, close)])


def _legal(view: View) -> Finding:
    return _of_people(view, "legal", "nobody recorded what is registered, filed or declared secret")


def _of_people(view: View, category: str, gap: str) -> Finding:
    if found := view.in_force(category):
        return Finding("on", (of_people(found),))
    if over := view.over(category):
        return Finding("expired", (of_people(over),), "what was recorded has expired", to_record(category))
    return Finding("needs a person", (), gap, to_record(category))


def _together(view: View, *checks: Callable[[View], Finding], stage: str) -> Finding:
    """A threat is answered where each of the measures against it is on, and an attack was tried."""
    found = [check(view) for check in (*checks, _tried(stage))]
    gaps = [item for item in found if item.open]
    evidence = tuple(text for item in found for text in item.evidence)
    if not gaps:
        return Finding("on", evidence)
    state: State = "off" if all(item.state == "off" for item in found) else "partly"
    return Finding(state, evidence, "; ".join(dict.fromkeys(item.open for item in gaps)), gaps[0].close)


CHECKS: Mapping[str, Callable[[View], Finding]] = MappingProxyType(
    {
        "extraction": _extraction,
        "inversion": _tried("inversion"),
        "membership": _tried("membership"),
        "reverse-engineering": _tried("reverse-engineering"),
        "insiders": _insiders,
        "supply-chain": models.supply_chain,
        "stolen-hardware": models.stolen_hardware,
        "social-engineering": _social_engineering,
        "storage": models.storage,
        "encryption-at-rest": models.encryption_at_rest,
        "encryption-in-transit": services.encryption_in_transit,
        "hardware-keys": models.hardware_keys,
        "trusted-execution": models.trusted_execution,
        "homomorphic": models.homomorphic,
        "watermarks": models.watermarks,
        "tracing": models.tracing,
        "answer-marks": services.answer_marks,
        "identity": services.identity,
        "operators": services.operators,
        "limits": services.limits,
        "disclosure": services.disclosure,
        "usage-analysis": services.usage_analysis,
        "automatic-response": services.automatic_response,
        "alerts": services.alerts,
        "decoys": services.decoys,
        "forensic-logs": services.forensic_logs,
        "witnesses": services.witnesses,
        "versions": models.versions,
        "audits": models.audits,
        "threat-intelligence": services.threat_intelligence,
        "containers": services.containers,
        "differential-privacy": models.differential_privacy,
        "federated-learning": models.federated_learning,
        "hardening": models.hardening,
        "recovery": models.recovery,
        "legal": _legal,
    }
)
