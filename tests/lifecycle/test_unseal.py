"""Unsealing: the original comes back as plaintext, privately, over nothing, and on record before it is written."""

import stat
from pathlib import Path
from typing import Any

import pytest

from palladion import files
from palladion.errors import FormatError, KeysError, NotFoundError, PalladionError, StorageError, TamperError
from palladion.ledger.record import decode_record
from palladion.ledger.writer import Ledger
from palladion.lifecycle.backup import back_up
from palladion.lifecycle.installation import owner_identity
from palladion.lifecycle.protect import protect
from palladion.lifecycle.unseal import Unsealed, unseal
from palladion.seal.recipients import FileIdentity
from tests.model import factories
from tests.models import onnx_bytes, write

from .installations import ACTOR, ESCROW, OWNER, Made, kinds, make

pytestmark = pytest.mark.slow  # makes and seals installations by the dozen


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """An installation with a version of one file, and a version with external data."""
    made = make(tmp_path, escrow=True)
    data, weights = factories.externalise(factories.perceptron(), "data/weights.bin")
    (tmp_path / "data").mkdir()
    write(tmp_path / "data" / "weights.bin", weights)
    for path in (write(tmp_path / "1.onnx", onnx_bytes(1)), write(tmp_path / "2.onnx", data)):
        protect(made.installation, made.owner, path, "fraud", actor=ACTOR)
    return made


def _unseal(made: Made, target: str | Path, out: Path, **options: Any) -> Unsealed:
    identity = options.pop("identity", owner_identity(made.owner))
    return unseal(made.installation, target, identity, out, actor=ACTOR, **{"reason": "retraining", **options})


def test_the_owner_gets_the_original_of_a_version_back_and_it_is_on_record(tmp_path: Path, made: Made) -> None:
    out = tmp_path / "back.onnx"
    done = _unseal(made, "fraud@1", out)
    assert done.files == (out,)
    assert out.read_bytes() == onnx_bytes(1)
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    assert done.receipt is not None
    record = decode_record(made.installation.read_ledger().entry(done.receipt.index), what="it")
    assert (record.kind, record.subject, record.actor) == ("model.opened", "fraud@1", ACTOR)
    assert (record.details["reason"], record.details["purpose"]) == ("retraining", "original")


def test_an_escrow_recipient_gets_it_from_the_sealed_file_without_the_owner_root(tmp_path: Path, made: Made) -> None:
    made.installation.paths.owner.unlink()
    _unseal(made, made.installation.paths.original("fraud", 1), tmp_path / "back.onnx", identity=ESCROW)
    assert (tmp_path / "back.onnx").read_bytes() == onnx_bytes(1)
    _unseal(made, "fraud@1", tmp_path / "again.onnx", identity=ESCROW)


def test_external_data_goes_beside_it(tmp_path: Path, made: Made) -> None:
    out = tmp_path / "back" / "main.onnx"
    out.parent.mkdir()
    done = _unseal(made, "fraud@2", out)
    assert done.files == (out, out.parent / "data" / "weights.bin")
    assert [path.read_bytes() for path in done.files] == [
        (tmp_path / name).read_bytes() for name in ("2.onnx", "data/weights.bin")
    ]
    assert stat.S_IMODE((out.parent / "data").stat().st_mode) == 0o700


@pytest.mark.parametrize("taken", ["main.onnx", "data/weights.bin"])
def test_nothing_is_overwritten_and_nothing_is_recorded_then(tmp_path: Path, made: Made, taken: str) -> None:
    folder = tmp_path / "back"
    (folder / "data").mkdir(parents=True)
    (folder / taken).symlink_to("nowhere")
    with pytest.raises(StorageError, match="a file of this name exists"):
        _unseal(made, "fraud@2", folder / "main.onnx")
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    assert "model.opened" not in kinds(made.installation)


def test_a_name_that_the_external_data_has_is_refused(tmp_path: Path, made: Made) -> None:
    data, weights = factories.externalise(factories.perceptron())
    write(tmp_path / "weights.bin", weights)
    protect(made.installation, made.owner, write(tmp_path / "3.onnx", data), "other", actor=ACTOR)
    (tmp_path / "back").mkdir()
    with pytest.raises(StorageError, match="would exist twice"):
        _unseal(made, "other@1", tmp_path / "back" / "weights.bin")
    assert list((tmp_path / "back").iterdir()) == []


def test_without_its_record_nothing_is_written(tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(Ledger, "append", fail)
    with pytest.raises(StorageError, match="the disk is full"):
        _unseal(made, "fraud@1", tmp_path / "back.onnx")
    assert not (tmp_path / "back.onnx").exists()


def test_a_write_that_fails_leaves_no_part_of_the_model(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = files.atomic_writer

    def fail_at_the_second(path: Path, **options: Any) -> Any:
        if path.name == "weights.bin":
            raise StorageError("the disk is full")
        return writer(path, **options)

    monkeypatch.setattr(files, "atomic_writer", fail_at_the_second)
    (tmp_path / "back").mkdir()
    with pytest.raises(StorageError, match="the disk is full"):
        _unseal(made, "fraud@2", tmp_path / "back" / "main.onnx")
    assert [path for path in (tmp_path / "back").rglob("*") if path.is_file()] == []


def test_what_is_not_sealed_to_the_identity_stays_sealed(tmp_path: Path, made: Made) -> None:
    for target in ("fraud@1", made.installation.paths.served("fraud", 1)):
        with pytest.raises(KeysError):
            _unseal(made, target, tmp_path / "back.onnx", identity=FileIdentity.generate())
    assert not (tmp_path / "back.onnx").exists()
    assert "model.opened" not in kinds(made.installation)


def test_a_file_of_another_publisher_stays_sealed(tmp_path: Path, made: Made) -> None:
    other = make(tmp_path / "other", escrow=True)
    done = protect(other.installation, other.owner, tmp_path / "1.onnx", "fraud", actor=ACTOR)
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        _unseal(made, done.original, tmp_path / "back.onnx", identity=ESCROW)


def test_a_backup_is_not_taken_apart_onto_a_disk(tmp_path: Path, made: Made) -> None:
    back_up(made.installation, made.owner, [OWNER.recipient], tmp_path / "backup", actor=ACTOR)
    (state,) = (tmp_path / "backup").glob("state-*.sealed")
    with pytest.raises(FormatError, match="is a sealed backup, a model was expected"):
        _unseal(made, state, tmp_path / "back", identity=ESCROW)


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "x" * 300])
def test_a_reason_that_is_none_is_refused(tmp_path: Path, made: Made, reason: str) -> None:
    with pytest.raises(PalladionError, match="the reason"):
        _unseal(made, "fraud@1", tmp_path / "back.onnx", reason=reason)


def test_a_version_that_does_not_exist_is_told(tmp_path: Path, made: Made) -> None:
    with pytest.raises(NotFoundError, match="no version 9 of fraud"):
        _unseal(made, "fraud@9", tmp_path / "back.onnx")
