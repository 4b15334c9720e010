"""In an installation its versions are named exactly, whose copy it is is said, and the sweep is recorded in numbers."""

import json
from pathlib import Path

import pytest

from palladion.ledger.record import decode_record
from palladion.lifecycle.deliver import deliver
from palladion.lifecycle.prove import prove
from palladion.model.read import read_file
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import FileIdentity
from palladion.sweep.known import SCANNED, Identifier, judge_of, record_sweep
from palladion.sweep.sweep import Sweep
from tests.sweep.known import ACTOR, House
from tests.sweep.things import sweep, the, told, write

pytestmark = pytest.mark.slow


def test_unsealed_copies_of_versions_are_named(house: House, tmp_path: Path) -> None:
    lair = write(
        tmp_path / "lair",
        {
            "marked": house.marked,
            "original": house.original,
            "table": bytes(range(256)) * 9,
            "other": bytes(range(255)) * 9,
        },
    )
    swept = sweep(lair, judge=judge_of(house.made.installation))
    texts = {found.place.rpartition("/")[2]: found for found in swept.findings}
    assert set(texts) == {"marked", "original", "table"}
    assert {found.rule for found in texts.values()} == {"our-model"}
    assert texts["marked"].version == texts["original"].version == "fraud@1"
    assert texts["original"].text.startswith("the unmarked original of fraud@1")
    assert texts["table"].version == "data@1"


def test_an_installation_is_in_order_by_itself(house: House) -> None:
    swept = sweep(house.made.home.parent / "home", house.made.home.parent / "host.identity",
                  judge=judge_of(house.made.installation))  # fmt: skip
    assert [found for found in swept.findings if found.rule != "open-folder"] == []
    assert {sealed.text for sealed in swept.sealed} == {
        "fraud@1 served, sealed, ours",
        "fraud@1 original, sealed, ours",
        "data@1 served, sealed, ours",
    }


def test_a_copy_names_its_recipient(house: House, tmp_path: Path) -> None:
    installation, party = house.made.installation, FileIdentity(b"\x33" * 32)
    with installation.open_registry() as registry, registry.write() as records:
        records.recipients.add("acme", kind="x25519", public_key=str(party.recipient))
        records.recipients.add("beta", kind="x25519", public_key=str(FileIdentity(b"\x34" * 32).recipient))
    for name in ("acme", "beta"):
        deliver(installation, house.made.owner, "fraud@1", name, tmp_path / f"{name}.sealed", actor=ACTOR)
    with open_sealed(tmp_path / "acme.sealed", [party], installation.publishers()) as opened:
        data = bytes(next(iter(opened.files.values())))
    lair = write(tmp_path / "lair", {"leaked.bin": data})
    # without the owner: what marks do not touch is ours
    assert the(sweep(lair, judge=judge_of(installation)), "our-tensors").text.startswith("2 of 4 tensors of fraud@1")
    identify = Identifier(installation, house.made.owner, actor=ACTOR)
    swept = sweep(lair, judge=judge_of(installation, identify=identify))
    assert sorted(found.rule for found in swept.findings) == ["our-copy", "our-tensors"]
    found = the(swept, "our-copy")
    assert (found.version, found.recipient, found.severity) == ("fraud@1", "acme", "critical")
    outcome = prove(
        installation, house.made.owner, read_file(lair / "leaked.bin"), ["fraud@1"], copies=True, actor=ACTOR
    )
    assert [who.recipient for who in outcome[0].accused] == ["acme"]


def test_a_sweep_is_recorded_in_numbers(house: House, tmp_path: Path) -> None:
    installation = house.made.installation
    lair = write(tmp_path / "lair-of-carelessness", {"secret-name.onnx": house.marked})
    swept = Sweep(judge_of(installation)).run([str(lair)])
    receipt = record_sweep(installation, swept, report="ab" * 32, actor=ACTOR)
    data = dict(installation.read_ledger().entries())[receipt.index]
    record = decode_record(data, what="it")
    assert (record.kind, record.subject) == (SCANNED, "storage")
    assert record.details["findings"] == {"low": 0, "medium": 0, "high": 0, "critical": 1}
    assert record.details["rules"] == {"our-model": 1}
    assert record.details["report"] == "ab" * 32
    text = json.dumps(record.details)
    assert "lair" not in text
    assert "fraud" not in text
    assert told(swept) != set()
