"""Telling a salt: on record first, of one answer alone, and of no client who was forgotten."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, StorageError
from palladion.ledger.journal import JournalWriter
from palladion.ledger.record import Record, decode_record, encode_record
from palladion.ledger.salts import FOLDER, make_seed, request_salt
from palladion.lifecycle.client_forget import erase_files
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.salts import disclose_salt

from .installations import ACTOR, NOW, make

CLIENT, REQUEST = "0123456789abcdef", "0011223344556677"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("salts")).installation.paths.home


@pytest.fixture
def installation(template: Path, tmp_path: Path) -> Installation:
    return Installation.find(shutil.copytree(template, tmp_path / "home"), ManualClock(NOW), exact=True)


def _given(installation: Installation) -> tuple[Record, bytes]:
    """A record of an answer, and the salt of its digests."""
    gate = installation.open_gate_root()
    name = pseudonym(gate.derive("pseudonyms"), CLIENT)
    seed = make_seed(installation.paths.directory / FOLDER, gate.derive("ledger-salts"), name)
    return Record("answer.given", NOW, name, "fraud@1", {"request": REQUEST, "seed": seed.name}), seed.salt(
        REQUEST
    ).value


def test_a_salt_is_told_and_that_is_on_record(installation: Installation) -> None:
    record, salt = _given(installation)
    assert disclose_salt(installation, 7, encode_record(record), actor=ACTOR) == salt
    last = decode_record(list(installation.read_ledger().entries())[-1][1], what="it")
    assert (last.kind, last.actor, last.subject) == ("salt.disclosed", ACTOR, record.actor)
    assert last.details == {"entry": 7, "request": REQUEST}


def test_a_record_from_before_there_were_seeds_has_its_salt_from_the_gate_root(installation: Installation) -> None:
    record, _ = _given(installation)
    record = replace(record, details={"request": REQUEST})
    key = installation.open_gate_root().derive("ledger-salts")
    assert disclose_salt(installation, 7, encode_record(record), actor=ACTOR) == request_salt(key, REQUEST)


def test_what_could_not_be_recorded_is_not_told(installation: Installation, monkeypatch: pytest.MonkeyPatch) -> None:
    record, _ = _given(installation)

    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(JournalWriter, "append", fail)
    with pytest.raises(StorageError, match="the disk is full"):
        disclose_salt(installation, 7, encode_record(record), actor=ACTOR)


def test_when_the_client_is_forgotten_nobody_can_tell_it_and_nothing_says_that_it_was(
    installation: Installation,
) -> None:
    record, _ = _given(installation)
    size = installation.read_ledger().size
    erase_files(installation, installation.open_gate_root(), [CLIENT])
    with pytest.raises(NotFoundError, match="is gone"):
        disclose_salt(installation, 7, encode_record(record), actor=ACTOR)
    # nor with a seed that was made since: another salt would make an honest record look forged
    later, _ = _given(installation)
    assert later.details["seed"] != record.details["seed"]
    with pytest.raises(NotFoundError, match="is gone"):
        disclose_salt(installation, 7, encode_record(record), actor=ACTOR)
    assert installation.read_ledger().size == size


@pytest.mark.parametrize(
    "record",
    [
        Record("model.opened", NOW, "user:x", "fraud@1", {"request": REQUEST}),
        Record("answer.refused", NOW, "client:x", "fraud@1", {"kind": "busy"}),
    ],
    ids=["another kind", "a refusal"],
)
def test_a_record_without_digests_has_no_salt(installation: Installation, record: Record) -> None:
    with pytest.raises(ConflictError, match="has no salted digests"):
        disclose_salt(installation, 7, encode_record(record), actor=ACTOR)
