"""Protecting a model: what comes out, what is refused, and what is left when a step fails."""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from palladion import canonical
from palladion.errors import BusyError, ConflictError, KeysError, ScanRefusedError, StorageError, TamperError
from palladion.keys import Root
from palladion.ledger.record import decode_record
from palladion.ledger.writer import Ledger
from palladion.lifecycle import protect as life
from palladion.lifecycle.installation import Installation, gate_identity, owner_identity
from palladion.lifecycle.open import open_version, verify_version
from palladion.lifecycle.prove import prove
from palladion.mark.triggers.planting import embed_triggers
from palladion.model.digest import model_digest
from palladion.model.read import read_memory
from palladion.registry import Registry
from palladion.seal.reader import inspect_file, open_sealed
from palladion.seal.recipients import FileIdentity
from tests.mark.classifiers import network, rows
from tests.models import onnx_bytes, safetensors_bytes, write

from .installations import ACTOR, ESCROW, Made, kinds, make


def _protect(made: Made, path: Path, name: str = "fraud", **options: Any) -> life.Protected:
    return life.protect(made.installation, made.owner, path, name, actor=ACTOR, **options)


def test_a_model_becomes_version_one_sealed_signed_recorded_and_promoted(tmp_path: Path) -> None:
    made = make(tmp_path, escrow=True)
    data = onnx_bytes()
    done = _protect(made, write(tmp_path / "model.onnx", data), note="first")
    assert (done.version.number, done.version.parent, done.promoted, done.escrowed) == (1, None, True, True)
    assert done.version.content_digest == model_digest(read_memory({"model.onnx": data})).hex()
    assert kinds(made.installation)[3:] == ["model.protected", "model.promoted"]
    record = decode_record(made.installation.read_ledger().entry(done.receipt.index), what="it")
    assert record.subject == "fraud@1"
    assert record.details["content"] == done.version.content_digest


def test_the_served_file_opens_for_the_gate_and_the_original_for_owner_and_escrow(tmp_path: Path) -> None:
    made = make(tmp_path, escrow=True)
    data = onnx_bytes()
    done = _protect(made, write(tmp_path / "model.onnx", data))
    gate = gate_identity(made.installation.open_gate_root())
    owner = owner_identity(made.owner)
    publishers = made.installation.publishers()
    for path, right, wrong in ((done.served, [gate], [owner, ESCROW]), (done.original, [owner, ESCROW], [gate])):
        for identity in right:
            with open_sealed(path, [identity], publishers) as opened:
                assert bytes(opened.files["model.onnx"]) == data
        for identity in wrong:
            with pytest.raises(KeysError):
                open_sealed(path, [identity], publishers)


def test_no_file_of_the_installation_holds_a_piece_of_the_plaintext(tmp_path: Path) -> None:
    made = make(tmp_path)
    data = safetensors_bytes(size=512)
    _protect(made, write(tmp_path / "model.safetensors", data))
    pieces = [data[start : start + 24] for start in range(0, len(data) - 24, 997)]
    for path in made.installation.paths.directory.rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        assert not [piece for piece in pieces if piece in content], path


def test_versions_follow_each_other_and_wait_for_promotion(tmp_path: Path) -> None:
    made = make(tmp_path)
    first = _protect(made, write(tmp_path / "1.onnx", onnx_bytes(1)))
    second = _protect(made, write(tmp_path / "2.onnx", onnx_bytes(2)))
    assert (second.version.number, second.version.parent, second.promoted) == (2, 1, False)
    assert inspect_file(second.served).header.previous == inspect_file(first.served).header_digest
    assert inspect_file(first.served).header.previous == ""


def test_the_first_version_waits_too_if_the_policy_says_so(tmp_path: Path) -> None:
    made = make(tmp_path)
    policy = made.installation.paths.policy
    policy.write_text(policy.read_text().replace("# promote_first = true", "promote_first = false"))
    made = Made(type(made.installation).find(made.home, made.clock), made.owner, made.clock)
    assert not _protect(made, write(tmp_path / "1.onnx", onnx_bytes())).promoted
    with pytest.raises(ConflictError, match="no version of fraud is promoted"):
        open_version(made.installation, "fraud")


@pytest.mark.slow
def test_the_same_content_is_refused_before_anything_is_sealed(tmp_path: Path) -> None:
    made = make(tmp_path)
    path = write(tmp_path / "model.onnx", onnx_bytes())
    _protect(made, path)
    before = sorted(made.installation.paths.sealed.rglob("*"))
    with pytest.raises(ConflictError, match="this is version 1 of fraud already"):
        _protect(made, path)
    assert sorted(made.installation.paths.sealed.rglob("*")) == before
    _protect(made, path, "another-name")


@pytest.mark.slow
@pytest.mark.parametrize("data", [b"\x80\x04N.", b"PK\x03\x04", onnx_bytes()[:-9], onnx_bytes(domain="evil.ops")])
def test_a_refused_file_leaves_nothing_behind(tmp_path: Path, data: bytes) -> None:
    made = make(tmp_path)
    with pytest.raises(ScanRefusedError, match="is refused"):
        _protect(made, write(tmp_path / "model.onnx", data))
    assert list(made.installation.paths.sealed.rglob("*")) == []
    assert len(kinds(made.installation)) == 3


def test_a_model_over_the_size_of_the_policy_is_refused(tmp_path: Path) -> None:
    made = make(tmp_path)
    policy = made.installation.paths.policy
    policy.write_text(policy.read_text().replace("# file_bytes_max = 17179869184", "file_bytes_max = 100"))
    made = Made(type(made.installation).find(made.home, made.clock), made.owner, made.clock)
    with pytest.raises(ScanRefusedError, match="larger than the 100 bytes allowed"):
        _protect(made, write(tmp_path / "model.onnx", onnx_bytes()))


@pytest.mark.slow
def test_a_version_is_registered_only_with_its_record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path)
    path = write(tmp_path / "model.onnx", onnx_bytes())

    def fail(*_: Any) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", fail)
        with pytest.raises(StorageError):
            _protect(made, path)
    with made.installation.open_registry() as registry, registry.read() as records:
        assert records.models.all() == []
    assert _protect(made, path).version.number == 1


def test_a_failed_registration_can_be_tried_again_with_the_same_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path)
    path = write(tmp_path / "model.onnx", onnx_bytes())

    def fail(*_: Any) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Registry, "write", fail)
        with pytest.raises(StorageError):
            _protect(made, path)
    assert [file.name for file in made.installation.paths.sealed.rglob("*.sealed")] != []
    assert _protect(made, path).version.number == 1
    with open_version(made.installation, "fraud@1") as opened:
        assert opened.version.number == 1


def test_a_second_process_has_to_wait(tmp_path: Path) -> None:
    made = make(tmp_path)
    path = write(tmp_path / "model.onnx", onnx_bytes())
    with made.installation.open_ledger(made.installation.open_gate_root()), pytest.raises(BusyError):
        _protect(made, path)


def test_progress_names_the_stages(tmp_path: Path) -> None:
    made = make(tmp_path)
    stages: list[str] = []
    _protect(
        made,
        write(tmp_path / "model.safetensors", safetensors_bytes()),
        progress=lambda stage, done, total: stages.append(stage) if done == total else None,
    )
    assert list(dict.fromkeys(stages)) == ["digest", "mark", "seal served", "seal original"]


def _state_another_key(path: Path, purpose: str) -> FileIdentity:
    """Make a keyring file state another key of a recipient than the root has: a thief's."""
    thief = FileIdentity.generate()
    document = canonical.decode(path.read_bytes(), size_max=10**6, what="it")
    document["public"][purpose] = thief.recipient.public_key.hex()
    path.write_bytes(canonical.encode(document))
    return thief


def test_a_key_that_a_file_states_after_its_root_was_opened_gets_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path)
    open_gate_root = Installation.open_gate_root
    thieves = [_state_another_key(made.installation.paths.owner, "owner")]

    def open_and_exchange(installation: Installation) -> Root:
        gate = open_gate_root(installation)
        thieves.append(_state_another_key(installation.paths.gate, "gate"))
        return gate

    with monkeypatch.context() as patch:
        patch.setattr(Installation, "open_gate_root", open_and_exchange)
        done = _protect(made, write(tmp_path / "model.onnx", onnx_bytes()))
    wraps = {wrap.key_id for path in (done.served, done.original) for wrap in inspect_file(path).wraps}
    assert len(thieves) == 2
    assert wraps & {thief.recipient.key_id for thief in thieves} == set()


def test_plaintext_goes_only_after_what_was_sealed_has_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path)
    path = write(tmp_path / "1.onnx", onnx_bytes(1))
    assert _protect(made, path, delete=True).deleted == (path,)
    assert not path.exists()

    def fail(*_: Any, **__: Any) -> None:
        raise TamperError("a byte was changed")

    path = write(tmp_path / "2.onnx", onnx_bytes(2))
    with monkeypatch.context() as patch:
        patch.setattr(life, "verify_version", fail)
        done = _protect(made, path, delete=True)
    assert (done.version.number, done.deleted) == (2, ())
    assert [(item.path, item.reason) for item in done.stayed] == [
        (path, "what was sealed does not verify: a byte was changed")
    ]
    assert path.exists()


def test_a_failure_after_the_registration_says_that_the_version_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(tmp_path)
    path = write(tmp_path / "model.onnx", onnx_bytes())

    def fail(*_: Any) -> None:
        raise StorageError("the disk is full", "free some space")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "checkpoint", fail)
        with pytest.raises(StorageError) as caught:
            _protect(made, path, delete=True)
    assert caught.value.message == "fraud@1 is sealed, registered and recorded, but then: the disk is full"
    assert caught.value.hints[0] == "free some space"
    assert f"{path} is still there, delete it yourself once palladion verify finds nothing" in caught.value.hints[1]
    with open_version(made.installation, "fraud@1") as opened:
        assert opened.version.number == 1
    with pytest.raises(ConflictError, match="this is version 1 of fraud already") as again:
        _protect(made, path)
    assert "delete it yourself once palladion verify finds nothing" in again.value.hints[-1]


def test_a_failure_before_the_registration_does_not_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path)

    def fail(*_: Any) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", fail)
        with pytest.raises(StorageError) as caught:
            _protect(made, write(tmp_path / "model.onnx", onnx_bytes()))
    assert caught.value.message == "the disk is full"


@pytest.mark.slow
def test_a_version_with_triggers_opens_is_delivered_and_proved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path)
    model = network((), features=200, classes=8)
    write(tmp_path / "fraud.onnx", bytes(model.files[0].data))
    np.save(tmp_path / "rows.npy", rows(120, features=200))
    monkeypatch.setattr(life, "embed_triggers", partial(embed_triggers, flipped_max=1))

    done = life.protect(
        made.installation,
        made.owner,
        tmp_path / "fraud.onnx",
        "fraud",
        actor=ACTOR,
        rows=tmp_path / "rows.npy",
        delete=True,
    )

    assert done.planted is not None
    assert [mark["kind"] for mark in done.version.marks] == ["triggers", "ownership"]
    assert done.deleted
    assert not done.stayed
    for kind in ("served", "original"):
        verify_version(made.installation, done.version, kind)
    with open_version(made.installation, "fraud") as opened:
        (outcome,) = prove(made.installation, made.owner, opened.model, ["fraud@1"], copies=False, actor=ACTOR)
    assert outcome.ours


def test_rows_without_a_use_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    made = make(tmp_path)
    write(tmp_path / "weights.safetensors", safetensors_bytes())
    np.save(tmp_path / "rows.npy", np.zeros((4, 4), np.float32))

    with pytest.raises(ConflictError, match="no graph to run"):
        life.protect(
            made.installation,
            made.owner,
            tmp_path / "weights.safetensors",
            "house",
            actor=ACTOR,
            rows=tmp_path / "rows.npy",
        )
    assert not list(made.installation.paths.sealed.glob("house/*"))
