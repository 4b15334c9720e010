"""That a version or a service was audited, in the ledger: the digest of the report, the verdict, what was spent.

And that a version's own mark was attacked, with the owner's keys, and how much of it was left.
"""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.audits import AUDITED
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.verdicts import SUBJECT_CHARACTERS_MAX
from palladion.redteam.audit.result import StageResult
from palladion.registry import Version

REMOVED_MAX = 50  # attacks that a record names: an entry has 64 KiB


def record_audit(
    installation: Installation, version: Version, report: bytes, document: dict[str, Any], *, actor: str
) -> Receipt:
    """Write it down. `report` is the file whose digest is stated."""
    details = _details(report, document) | {"content": version.content_digest}
    return _recorded(installation, f"{version.model}@{version.number}", details, actor)


def record_planned(installation: Installation, url: str, *, actor: str, queries: int) -> Receipt:
    """Before a service is asked: that it is, by whom, and that he stated to be authorised."""
    details = {"stage": "planned", "authorised": f"stated by {actor}", "queries": queries}
    return _recorded(installation, url[:SUBJECT_CHARACTERS_MAX], details, actor)


def record_remote(
    installation: Installation, url: str, report: bytes, document: dict[str, Any], *, actor: str, capture: str
) -> Receipt:
    """After it was asked. `capture` is the digest of the last line of what was captured."""
    details = _details(report, document)
    details |= {"stage": "answered", "authorised": f"stated by {actor}", "capture": capture}
    return _recorded(installation, url[:SUBJECT_CHARACTERS_MAX], details, actor)


def record_removal(
    installation: Installation, version: Version, result: StageResult, *, actor: str, recipient: str, seed: int
) -> Receipt:
    """After the mark of a version, or of `recipient`'s copy of it ("": of what is served), was attacked."""
    attacks = result.details["attacks"]
    removed = [f"{item['kind']}, {item['strength']}" for item in attacks if item["useful"] and not item["found"]]
    weakest = [item["log10_p"] for item in attacks if item["useful"] and item["whole"]]
    # without a verdict: an attack on the mark alone is no audit, and none becomes less overdue by it
    details = {
        "stage": "removal",
        "content": version.content_digest,
        "recipient": recipient,
        "seed": seed,
        "attacks": len(attacks),
        "usefulness": result.details["usefulness"],
        "weakest_log10_p": f"{max(weakest):.1f}" if weakest else "",
        "removed": removed[:REMOVED_MAX],
    }
    return _recorded(installation, f"{version.model}@{version.number}", details, actor)


def _details(report: bytes, document: dict[str, Any]) -> dict[str, Any]:
    return {
        "report": sha256(report).hexdigest(),
        "verdict": document["verdict"],
        "profile": document["plan"]["profile"],
        "seed": document["plan"]["seed"],
        "queries": document["queries"],
        "stages": {stage["stage"]: stage["outcome"] for stage in document["stages"]},
    }


def _recorded(installation: Installation, subject: str, details: Mapping[str, Any], actor: str) -> Receipt:
    record = Record(AUDITED, installation.clock.now(), actor, subject, dict(details))
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        return ledger.append([record])[0]
