"""The record of an audit."""

from hashlib import sha256
from pathlib import Path

from palladion.ledger.record import decode_record
from palladion.redteam.audit.document import encode_document
from palladion.redteam.audit.record import record_audit, record_removal
from palladion.redteam.audit.removal import result_of
from tests.lifecycle.installations import ACTOR, make
from tests.redteam.audit.test_document import report
from tests.redteam.audit.test_removal import FOUND
from tests.registry.factories import add_model


def test_it_states_the_report_and_the_verdict(tmp_path: Path) -> None:
    installation = make(tmp_path).installation
    with installation.open_registry() as registry, registry.write() as records:
        add_model(records, "fraud", "first")
        version = records.versions.get("fraud", 1)
    document = report()
    data = encode_document(document)
    record_audit(installation, version, data, document, actor=ACTOR)
    record = [decode_record(entry, what="it") for _, entry in installation.read_ledger().entries()][-1]
    assert (record.kind, record.actor, record.subject) == ("redteam.run", ACTOR, "fraud@1")
    assert record.details["report"] == sha256(data).hexdigest()
    assert (record.details["content"], record.details["verdict"]) == (version.content_digest, "fail")
    assert record.details["stages"] == {"extraction": "done"}


def test_an_attack_on_the_mark_is_no_audit_and_states_what_was_left(tmp_path: Path) -> None:
    installation = make(tmp_path).installation
    with installation.open_registry() as registry, registry.write() as records:
        add_model(records, "fraud", "first")
        version = records.versions.get("fraud", 1)
    record_removal(installation, version, result_of(FOUND, None), actor=ACTOR, recipient="acme", seed=3)
    record = [decode_record(entry, what="it") for _, entry in installation.read_ledger().entries()][-1]
    assert (record.kind, record.subject, record.details["stage"]) == ("redteam.run", "fraud@1", "removal")
    # only a verdict makes an audit less overdue (palladion doctor)
    assert "verdict" not in record.details
    assert (record.details["weakest_log10_p"], record.details["recipient"]) == ("-20.0", "acme")
    assert record.details["removed"] == ["a part, int4, a quarter"]
