"""A copy for one recipient: stamped, sealed to nobody else, on record, or not there at all."""

from pathlib import Path
from typing import Any

import pytest

from palladion.errors import ConflictError, KeysError, NotFoundError, StorageError
from palladion.ledger.record import decode_record
from palladion.ledger.writer import Ledger
from palladion.lifecycle import deliver as module
from palladion.lifecycle.deliver import Delivered, deliver
from palladion.lifecycle.installation import gate_identity, owner_identity
from palladion.lifecycle.marking import ownership_key_of
from palladion.lifecycle.protect import protect
from palladion.lifecycle.recipients import add_recipient, revoke_recipient
from palladion.mark.fingerprints import fingerprint_key, trace
from palladion.model.digest import model_digest
from palladion.model.model import Model
from palladion.model.read import read_memory
from palladion.registry import Delivery, Registry
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import FileIdentity
from tests.models import onnx_bytes, safetensors_bytes, write

from .installations import ACTOR, ESCROW, Made, kinds, make

ACME, OTHER = FileIdentity(b"\x33" * 32), FileIdentity(b"\x44" * 32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """An installation with a model that can be marked, one that cannot, and two recipients; tests only add to it."""
    folder = tmp_path_factory.mktemp("deliver")
    made = make(folder, escrow=True)
    for name, data in (("house", safetensors_bytes()), ("small", onnx_bytes())):
        protect(made.installation, made.owner, write(folder / f"{name}.bin", data), name, actor=ACTOR)
    for name, identity in (("acme", ACME), ("other", OTHER)):
        add_recipient(made.installation, name, str(identity.recipient), note="", actor=ACTOR)
    return made


def _deliver(made: Made, out: Path, version: str = "house", recipient: str = "acme", **options: Any) -> Delivered:
    return deliver(made.installation, made.owner, version, recipient, out, actor=ACTOR, **options)


def _opened(made: Made, path: Path, identity: FileIdentity = ACME) -> Model:
    with open_sealed(path, [identity], made.installation.publishers()) as opened:
        return read_memory({name: bytes(data) for name, data in opened.files.items()})


def _deliveries(made: Made) -> list[Delivery]:
    with made.installation.open_registry() as registry, registry.read() as records:
        return records.deliveries.all()


def _original() -> Model:
    return read_memory({"house.bin": safetensors_bytes()})


@pytest.mark.slow
def test_a_copy_opens_for_its_recipient_and_for_nobody_else(tmp_path: Path, made: Made) -> None:
    done = _deliver(made, tmp_path / "copy.sealed")
    assert done.path == tmp_path / "copy.sealed"
    assert _opened(made, done.path).tensors.keys() == {"a", "b"}
    gate = gate_identity(made.installation.open_gate_root())
    for identity in (OTHER, ESCROW, gate, owner_identity(made.owner)):
        with pytest.raises(KeysError):
            _opened(made, done.path, identity)


def test_what_opens_is_stamped_with_the_recipients_fingerprint(tmp_path: Path, made: Made) -> None:
    done = _deliver(made, tmp_path / "copy.sealed")
    copy, digest = _opened(made, done.path), model_digest(_original()).hex()
    root = made.owner.derive("fingerprint")
    keys = [
        (name, fingerprint_key(root, digest, str(key.recipient))) for name, key in (("acme", ACME), ("other", OTHER))
    ]
    found = trace(_original(), copy, ownership_key_of({"scheme": "weights-2", "original": digest}, made.owner), keys)
    assert [item.recipient for item in found.accusations] == ["acme", "other"]
    assert found.accusations[0].log10_p < 0.7 * done.predicted_log10_p < -100
    assert found.accusations[1].log10_p > -3


@pytest.mark.slow
def test_two_recipients_get_different_copies_and_the_same_one_the_same(tmp_path: Path, made: Made) -> None:
    digests = [
        model_digest(_opened(made, _deliver(made, tmp_path / f"{index}", recipient=name).path, identity)).hex()
        for index, (name, identity) in enumerate([("acme", ACME), ("other", OTHER), ("acme", ACME)])
    ]
    assert digests[0] == digests[2] != digests[1]
    with made.installation.open_registry() as registry, registry.read() as records:
        served = records.versions.get("house", 1).content_digest
    assert not {served, model_digest(_original()).hex()} & set(digests)


def test_a_delivery_is_signed_registered_and_recorded(tmp_path: Path, made: Made) -> None:
    done = _deliver(made, tmp_path / "copy.sealed", "house@1")
    row = _deliveries(made)[-1]
    assert row == done.delivery
    assert (row.model, row.number, row.recipient, row.fingerprinted, row.actor) == ("house", 1, "acme", True, ACTOR)
    assert row.public_key == str(ACME.recipient)
    with open_sealed(done.path, [ACME], made.installation.publishers()) as opened:
        info = opened.info
    header = info.header
    assert (header.purpose, header.model, header.version, header.recipient) == ("delivery", "house", 1, "acme")
    assert header.content == model_digest(_opened(made, done.path)).hex()
    assert (row.digest, row.header_digest) == (info.root, info.header_digest)
    record = decode_record(made.installation.read_ledger().entry(done.receipt.index), what="it")
    assert (record.kind, record.actor, record.subject) == ("model.delivered", ACTOR, "house@1")
    assert record.details == {
        "recipient": "acme",
        "public_key": str(ACME.recipient),
        "fingerprinted": True,
        "file_id": header.file_id,
        "content": header.content,
        "root": info.root,
        "header": info.header_digest,
    }


def test_that_the_original_was_opened_is_on_record_before_the_copy(tmp_path: Path, made: Made) -> None:
    before = len(kinds(made.installation))
    done = _deliver(made, tmp_path / "copy.sealed")
    assert kinds(made.installation)[before:] == ["model.opened", "model.delivered"]
    record = decode_record(made.installation.read_ledger().entry(done.receipt.index - 1), what="it")
    assert (record.actor, record.subject) == (ACTOR, "house@1")
    assert record.details["purpose"] == "original"
    assert record.details["reason"] == "to make the copy for acme"


def test_a_model_that_is_too_small_is_delivered_only_if_that_is_asked_for(tmp_path: Path, made: Made) -> None:
    with pytest.raises(ConflictError, match="too small for a fingerprint"):
        _deliver(made, tmp_path / "copy.sealed", "small")
    assert not (tmp_path / "copy.sealed").exists()
    done = _deliver(made, tmp_path / "copy.sealed", "small", without_fingerprint=True)
    assert (done.delivery.fingerprinted, done.predicted_log10_p) == (False, 0)
    assert model_digest(_opened(made, done.path)) == model_digest(read_memory({"small.bin": onnx_bytes()}))


def test_a_model_that_can_be_stamped_is_stamped_whatever_is_asked_for(tmp_path: Path, made: Made) -> None:
    assert _deliver(made, tmp_path / "copy.sealed", without_fingerprint=True).delivery.fingerprinted


def test_nothing_is_overwritten(tmp_path: Path, made: Made) -> None:
    taken = write(tmp_path / "copy.sealed", b"mine")
    before = kinds(made.installation)
    with pytest.raises(StorageError, match="exists already"):
        _deliver(made, taken)
    assert taken.read_bytes() == b"mine"
    assert kinds(made.installation) == before


def test_a_dangling_link_is_not_written_through(tmp_path: Path, made: Made) -> None:
    before = _deliveries(made)
    (tmp_path / "copy.sealed").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StorageError):
        _deliver(made, tmp_path / "copy.sealed")
    assert not (tmp_path / "elsewhere").exists()
    assert (tmp_path / "copy.sealed").is_symlink()
    assert _deliveries(made) == before


def test_a_revoked_recipient_gets_nothing_and_nothing_is_opened_for_it(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "unmarked", None)
    add_recipient(made.installation, "gone", str(FileIdentity.generate().recipient), note="", actor=ACTOR)
    revoke_recipient(made.installation, "gone", actor=ACTOR)
    with pytest.raises(ConflictError, match="was revoked on 2026-06-01 and gets nothing"):
        _deliver(made, tmp_path / "copy.sealed", recipient="gone")
    assert not (tmp_path / "copy.sealed").exists()


def test_a_version_or_recipient_that_does_not_exist_is_named(tmp_path: Path, made: Made) -> None:
    with pytest.raises(NotFoundError, match="no version 9 of house"):
        _deliver(made, tmp_path / "copy.sealed", "house@9")
    with pytest.raises(NotFoundError, match="no recipient 'acmee'"):
        _deliver(made, tmp_path / "copy.sealed", recipient="acmee")


@pytest.mark.slow
@pytest.mark.parametrize(("owner", "step"), [(Ledger, "append"), (Registry, "write")])
def test_a_copy_that_cannot_be_recorded_is_not_left_behind(
    tmp_path: Path, made: Made, monkeypatch: pytest.MonkeyPatch, owner: type, step: str
) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    out, before = tmp_path / "copy.sealed", _deliveries(made)
    with monkeypatch.context() as patch:
        patch.setattr(owner, step, fail)
        with pytest.raises(StorageError, match="the disk is full"):
            _deliver(made, out)
    assert not out.exists()
    assert _deliveries(made) == before
    assert _deliver(made, out).delivery.number == 1


def test_no_plaintext_of_the_copy_is_left_on_the_disk(tmp_path: Path, made: Made) -> None:
    done = _deliver(made, tmp_path / "out" / "copy.sealed")
    piece = _opened(made, done.path).tensors["a"].data.tobytes()[:32]
    for path in (*tmp_path.rglob("*"), *made.home.rglob("*")):
        assert not path.is_file() or piece not in path.read_bytes(), path


@pytest.mark.slow
def test_progress_is_told(tmp_path: Path, made: Made) -> None:
    steps: list[tuple[str, int, int]] = []
    _deliver(made, tmp_path / "copy.sealed", progress=lambda *step: steps.append(step))
    assert list(dict.fromkeys(stage for stage, _, _ in steps)) == ["stamp", "seal"]
    assert steps[-1][1] == steps[-1][2] > 0
