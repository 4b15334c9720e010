"""The record of a hardening: what it states is what a version of it will state, and it is no audit."""

from pathlib import Path

import pytest

from palladion.cli.main import main
from palladion.clock import SystemClock
from palladion.errors import PalladionError
from palladion.ledger.record import decode_record
from palladion.lifecycle.installation import Installation
from palladion.redteam.extraction import Interval
from palladion.redteam.harden.harden import Hardened, Honest, Lesson, read_lesson
from palladion.redteam.harden.record import record_hardening
from tests.cli.conftest import folder
from tests.redteam.harden.networks import network, read, table

__all__ = ["folder"]
pytestmark = pytest.mark.slow


def made() -> tuple[Lesson, Hardened]:
    rows, labels = table(400)
    lesson = read_lesson(read(network()), {"x": rows}, labels, seed=1)
    honest = Honest(200, 0.9, 0.894, Interval(0.006, -0.001, 0.013))
    return lesson, Hardened("nasty", 0.02, read(network(seed=5)), honest, (), "no benefit")


def test_it_states_the_digest_that_the_protected_version_has(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    (folder / "hardened.onnx").write_bytes(network(seed=5))
    assert main(["init", "--passphrase-file", "pass"]) == 0
    assert main(["protect", "hardened.onnx", "--name", "fraud", "--passphrase-file", "pass"]) == 0
    installation = Installation.find(folder, SystemClock())
    record_hardening(installation, "fraud", *made(), actor="somebody")
    with installation.open_registry() as registry, registry.read() as records:
        version = records.versions.get("fraud", 1)
    record = [decode_record(entry, what="it") for _, entry in installation.read_ledger().entries()][-1]
    assert (record.kind, record.subject, record.actor) == ("redteam.run", "fraud", "somebody")
    known = {version.content_digest, *(mark["original"] for mark in version.marks)}
    assert record.details["hardened"] in known
    assert record.details["honest_points_lost"] == "0.60"
    assert (record.details["stage"], record.details["outcome"]) == ("harden", "no benefit")
    assert "verdict" not in record.details
    with pytest.raises(PalladionError):
        record_hardening(installation, "no name", *made(), actor="somebody")
