"""Views for tests: everything that can be on is, and each test takes one thing away."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import msgspec

from palladion.incident.measures import Measure
from palladion.incident.posture.view import KINDS, Seen, View
from palladion.ledger.record import Record
from palladion.policy import Policy
from palladion.registry import SealedFile, SignedPrivacy, Version
from tests.private.dp.statements import statement

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
VERSION = Version(
    "fraud",
    1,
    None,
    "00",
    None,
    "onnx",
    "key",
    ({"kind": "weights-2"},),
    "",
    NOW,
    SealedFile("s", "00", "00"),
    None,
    SignedPrivacy({"by": "ada", "content": "00", "statement": msgspec.to_builtins(statement())}, "ab"),
)
_POLICY = {
    "gate": {"listen": "0.0.0.0:443", "tls_certificate": "a.pem", "tls_key": "a.key"},
    "limits": {"queries_per_second": 50.0, "information_per_day": 100},
    "access": {"policies": "access.cedar"},
    "ledger": {"witnesses": ["w.example+00000000+" + "A" * 44 + " https://w.example"]},
    "oncall": {"levels": [{"channels": ["mail"]}]},
    "alert": [{"name": "mail", "kind": "webhook", "url": "https://alerts.example", "secret": "hmac"}],
    "attestation": [{"name": "enclave", "tee": "nitro", "measurements": ["pcr0=" + "ab" * 48]}],
    "broker": {"release": [{"model": "fraud", "attestation": ["enclave"]}]},
    "encrypted": [{"model": "churn", "program": "churn.he"}],
    "feed": [{"name": "tor", "url": "https://feeds.example/tor"}],
    "route": [{"model": "fraud", "mode": "enforce", "decimals": 2, "flipped": 0.03}],
}


def policy(**changed: Any) -> Policy:
    """A policy with everything on; sections are replaced whole."""
    return msgspec.convert(_POLICY | changed, Policy)


def seen(kind: str, *, at: datetime = NOW, subject: str = "fraud@1", **details: Any) -> Seen:
    """An entry that shows something."""
    return Seen(7, Record(kind, at, "user:test", subject, details))


def measure(category: str, *, expires: date | None = None) -> Measure:
    """A control that a person recorded."""
    return Measure(
        "3f2a0000", f"{category} done", category, "legal", "folder 12", None, date(2026, 1, 1), expires, NOW, 9
    )


def audit(*, at: datetime = NOW, verdict: str = "pass") -> Seen:
    """An audit of the served version with all stages."""
    stages = dict.fromkeys(("extraction", "membership", "inversion", "reverse-engineering"), "done")
    return seen("redteam.run", at=at, verdict=verdict, stages=stages)


def hardening(*, made: str = "00", outcome: str = "benefit") -> Seen:
    """A hardening of the served version's model, of which the version came unless `made` says otherwise."""
    return seen("redteam.run", subject="fraud", stage="harden", hardened=made, outcome=outcome, method="nasty")


def view(**changed: Any) -> View:
    """Everything on that can be."""
    newest = {kind: seen(kind) for kind in KINDS} | {
        "model.delivered": seen("model.delivered", fingerprinted=True),
        "approvals.changed": seen("approvals.changed", statement={"needed": 2, "approvers": ["a", "b", "c"]}),
    }
    made = View(
        policy(),
        NOW,
        (VERSION,),
        versions=1,
        operators=2,
        decoys=1,
        wraps=frozenset({"pkcs11"}),
        newest=newest,
        audits={"fraud@1": audit()},
        calibrated={"fraud@1": True},
        hardened={"fraud@1": hardening()},
        measures=tuple(map(measure, ("agreement", "legal", "physical", "technical", "training"))),
    )
    return replace(made, **changed)


def later(days: int) -> datetime:
    """A moment so many days after."""
    return NOW + timedelta(days=days)
