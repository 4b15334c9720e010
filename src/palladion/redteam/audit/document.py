"""The report of an audit as one document: what was attacked, how, what came of it, and the verdict.

Same subject, plan and versions give the same document but for `times`; every other form of a report is made from it.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

from palladion.clock import timestamp
from palladion.errors import FormatError
from palladion.policy import RedteamPolicy
from palladion.redteam.audit.bars import Bar, Judged, overall
from palladion.redteam.audit.result import StageResult
from palladion.redteam.audit.stage import Plan
from palladion.redteam.audit.subject import Subject

FORMAT = "palladion-audit-1"


def report_document(
    subject: Subject,
    plan: Plan,
    results: Sequence[StageResult],
    judged: Sequence[Judged],
    regressions: Sequence[Judged],
    *,
    started: datetime,
    seconds: float,
    program: str,
) -> dict[str, Any]:
    """The report. `program` is name and version of what made it."""
    # as they are written and read back, so that a report that went on from a folder says the same
    verdict = overall([*judged, *regressions], results)
    return {
        "format": FORMAT,
        "program": program,
        "subject": {
            "name": subject.name,
            "digest": subject.digest,
            "service": subject.service is not None,
            "doors": [{"name": door.name, "answers": door.answers} for door in subject.doors],
            "deployed": subject.deployed,
            "rows": len(subject.rows),
            "inputs": int(subject.rows.shape[1]),
            "classes": subject.classes,
            "labels": subject.labels is not None,
            "training": 0 if subject.training is None else int(subject.training.member.sum()),
        },
        "plan": {"profile": plan.profile, "seed": plan.seed, "queries": plan.queries},
        "queries": sum(result.queries for result in results),
        "stages": [result.document() for result in results],
        "bars": [item.document() for item in judged],
        "regressions": [item.document() for item in regressions if item.verdict != "pass"],
        "verdict": verdict,
        "times": {"started": timestamp(started), "seconds": round(seconds, 1)},
    }


def encode_document(document: dict[str, Any]) -> bytes:
    """Its one JSON form: members in order of their names, no spaces, numbers with six decimals at most."""
    return msgspec.json.encode(document, order="sorted")


def decode_document(data: bytes, *, what: str) -> dict[str, Any]:
    """A report that was written earlier. Raises FormatError."""
    try:
        document = msgspec.json.decode(data)
        known = isinstance(document, dict) and document.get("format") == FORMAT
    except msgspec.DecodeError as error:
        raise FormatError(f"{what} is no JSON: {error}") from None
    if not known:
        raise FormatError(f"{what} is no report of an audit in the format {FORMAT}")
    return dict(document)


def bars_of(policy: RedteamPolicy, subject: Subject) -> tuple[Bar, ...]:
    """The owner's bars, at the door that clients get; what is 1 sets none."""
    limits = {
        f"extraction.fidelity.{policy.extraction_queries}": policy.extraction_fidelity,
        # of a language model alone, which takes no rows: of others it could never hold
        f"distillation.gain.{policy.distillation_queries}": 1.0 if len(subject.rows) else policy.distillation_gain,
        "membership.tpr_at_01_percent": policy.membership_tpr,
        "membership.auc": policy.membership_auc,
    }
    return tuple(Bar(f"{key}.{subject.deployed}", limit) for key, limit in limits.items() if limit < 1)
