"""That a version or a service was audited, in the ledger: the digest of the report, the verdict, what was spent."""

from collections.abc import Mapping
from hashlib import sha256
from typing import Any

from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.verdicts import SUBJECT_CHARACTERS_MAX
from palladion.registry import Version

AUDITED = "redteam.run"


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
