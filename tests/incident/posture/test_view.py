"""What is read of a real installation: its newest entries, proved, and nothing that is not there."""

from datetime import date, timedelta
from pathlib import Path

import msgspec
import pytest

from palladion.errors import TamperError
from palladion.incident.measures import record_measure
from palladion.incident.posture.assess import assess
from palladion.incident.posture.view import look_over
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.protect import protect
from palladion.policy import RoutePolicy
from tests.lifecycle.installations import ACTOR, Made, make
from tests.models import onnx_bytes, write


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = make(tmp_path)
    protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    policy = msgspec.structs.replace(made.installation.policy, route=(RoutePolicy(model="fraud"),))
    return Made(Installation(made.installation.paths, policy, made.clock), made.owner, made.clock)


def _record(made: Made, kind: str, subject: str, **details: object) -> None:
    with made.installation.open_ledger(made.installation.open_gate_root()) as ledger:
        ledger.append([Record(kind, made.clock.now(), ACTOR, subject, details)])


def test_it_reads_what_is_there(made: Made) -> None:
    view = look_over(made.installation)
    assert [f"{item.model}@{item.number}" for item in view.served] == ["fraud@1"]
    assert (view.versions, view.operators, view.decoys) == (1, 0, 0)
    assert view.newest["model.protected"].record.subject == "fraud@1"
    assert "x25519" in view.wraps
    assert "pkcs11" not in view.wraps
    assert (view.audits, view.calibrated, view.measures) == ({}, {}, ())
    assert not {"backup.made", "client.added", "gate.started"} & set(view.newest)


def test_the_newest_entry_counts_and_an_audit_without_a_verdict_is_none(made: Made) -> None:
    _record(made, "redteam.run", "fraud@1", verdict="fail", stages={"extraction": "done"})
    made.clock.advance(timedelta(days=1))
    _record(made, "redteam.run", "fraud@1", verdict="pass", stages={"extraction": "done"})
    _record(made, "redteam.run", "fraud@1", verdict="fail", stages={"surface": "done"})
    _record(made, "redteam.run", "fraud@1", stage="planned")
    _record(made, "redteam.run", "other@1", verdict="fail")
    audit = look_over(made.installation).audits["fraud@1"]
    assert audit.record.details["verdict"] == "pass"
    assert audit.record.time == made.clock.now()


def test_a_hardening_is_found_by_the_digest_that_the_version_states(made: Made) -> None:
    with made.installation.open_registry() as registry, registry.read() as records:
        digest = records.versions.get("fraud", 1).content_digest
    _record(made, "redteam.run", "fraud", stage="harden", hardened=digest, outcome="benefit")
    _record(made, "redteam.run", "fraud", stage="harden", hardened="00", outcome="no benefit")
    assert look_over(made.installation).hardened["fraud@1"].record.details["outcome"] == "benefit"


def test_without_one_the_last_hardening_that_was_tried_is_named(made: Made) -> None:
    _record(made, "redteam.run", "fraud", stage="harden", hardened="11", outcome="too dear")
    _record(made, "redteam.run", "fraud", stage="harden", hardened="00", outcome="no benefit")
    _record(made, "redteam.run", "fraud", stage="planned")
    assert look_over(made.installation).hardened["fraud@1"].record.details["outcome"] == "no benefit"


def test_what_people_recorded_is_evidence(made: Made) -> None:
    identifier, receipt = record_measure(
        made.installation,
        "course on phishing",
        category="training",
        owner="people",
        evidence="list of who was there",
        since=date(2026, 1, 1),
        expires=date(2027, 1, 1),
        file=None,
        actor=ACTOR,
    )
    view = look_over(made.installation)
    assert [item.entry for item in view.measures] == [receipt.index]
    (finding,) = [item.finding for item in assess(view) if item.control.id == "social-engineering"]
    assert (finding.state, finding.evidence) == ("on", (f"course on phishing (measure {identifier}, people)",))


def test_an_entry_that_was_changed_is_no_evidence(made: Made) -> None:
    bundles = [path for path in (made.installation.paths.ledger / "tile" / "entries").rglob("*") if path.is_file()]
    bundle = max(bundles, key=lambda path: path.stat().st_size)
    data = bytearray(bundle.read_bytes())
    position = data.index(b"fraud@1")
    data[position] ^= 1
    bundle.chmod(0o600)
    bundle.write_bytes(data)
    with pytest.raises(TamperError):
        look_over(made.installation)


def test_all_broken_glass_without_a_review_is_open(made: Made) -> None:
    for name in ("a1", "b2"):
        _record(made, "approval.broken-glass", f"approval:{name}")
    _record(made, "approval.reviewed", "approval:b2")
    assert [seen.record.subject for seen in look_over(made.installation).unreviewed] == ["approval:a1"]
