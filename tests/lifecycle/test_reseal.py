"""New file keys for a version: the content stays, the old files are gone and revoked."""

from pathlib import Path

import pytest

from palladion.errors import KeysError, NotFoundError
from palladion.lifecycle.installation import gate_identity, owner_identity
from palladion.lifecycle.open import open_payload, open_version, verify_version
from palladion.lifecycle.protect import protect
from palladion.lifecycle.recipients import add_recipient, revoke_recipient
from palladion.lifecycle.reconcile import recorded, registered, unrecorded
from palladion.lifecycle.reseal import reseal
from palladion.lifecycle.revoke import read_revocations
from palladion.lifecycle.seal import seal
from palladion.seal.opening import unwrap_file_key
from palladion.seal.recipients import FileIdentity
from palladion.seal.structure import opened
from tests.lifecycle.installations import ACTOR, Made, kinds, make
from tests.models import onnx_bytes, write

pytestmark = pytest.mark.slow  # seals everything twice

ACME, OTHER, GONE = (FileIdentity(bytes([number]) * 32) for number in (3, 4, 5))


def _file_key(path: Path, identity: FileIdentity) -> bytes:
    with opened(path) as (_, structure):
        return unwrap_file_key(structure, [identity])


def _reconciled(made: Made) -> list[object]:
    with made.installation.open_registry() as registry, registry.read() as records:
        told = registered(records)
    return list(unrecorded(told, recorded(made.installation, made.installation.open_gate_root())))


def test_a_protected_version_gets_new_keys_and_stays_what_it_is(tmp_path: Path) -> None:
    made = make(tmp_path, escrow=True)
    before = protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    gate, owner = gate_identity(made.installation.open_gate_root()), owner_identity(made.owner)
    old_keys = {_file_key(before.served, gate), _file_key(before.original, owner)}
    done = reseal(made.installation, made.owner, "fraud@1", reason="a laptop was stolen", actor=ACTOR)
    assert done.version.content_digest == before.version.content_digest
    assert (done.version.number, done.lost) == (1, ())
    assert not before.served.exists()
    assert not before.original.exists()
    for kind, identity in (("served", gate), ("original", owner)):
        verify_version(made.installation, done.version, kind)  # type: ignore[arg-type]
        sealed = done.version.served if kind == "served" else done.version.original
        assert sealed is not None
        assert _file_key(made.installation.paths.sealed / sealed.path, identity) not in old_keys
    with open_version(made.installation, "fraud") as opened_model:
        assert opened_model.version.number == 1
    listed = read_revocations(made.installation)
    assert listed is not None
    assert set(listed.files) == {
        sealed.header_digest for sealed in (before.version.served, before.version.original) if sealed
    }
    assert kinds(made.installation)[-2:] == ["model.resealed", "model.revoked"]
    assert _reconciled(made) == []


def test_the_next_version_follows_the_new_file(tmp_path: Path) -> None:
    made = make(tmp_path)
    protect(made.installation, made.owner, write(tmp_path / "1.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
    done = reseal(made.installation, made.owner, "fraud@1", reason="test", actor=ACTOR)
    second = protect(made.installation, made.owner, write(tmp_path / "2.onnx", onnx_bytes(2)), "fraud", actor=ACTOR)
    with opened(second.served) as (_, structure):
        assert structure.header.previous == done.version.served.header_digest


def test_who_was_revoked_or_never_registered_is_left_out_and_named(tmp_path: Path) -> None:
    made = make(tmp_path)
    for name, identity in (("acme", ACME), ("gone", GONE)):
        add_recipient(made.installation, name, str(identity.recipient), note="", actor=ACTOR)
    path = write(tmp_path / "data.bin", b"data")
    seal(made.installation, made.owner, path, "data", ["acme", "gone", str(OTHER.recipient)], actor=ACTOR)
    revoke_recipient(made.installation, "gone", actor=ACTOR)
    done = reseal(made.installation, made.owner, "data@1", reason="test", actor=ACTOR)
    assert set(done.lost) == {f"x25519 {identity.recipient.key_id}" for identity in (GONE, OTHER)}
    with open_payload(made.installation, done.version, ACME) as files:
        assert bytes(files.files["data.bin"]) == b"data"
    for identity in (GONE, OTHER):
        with pytest.raises(KeysError):
            open_payload(made.installation, done.version, identity)


def test_what_cannot_be_recorded_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path)
    before = protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    with pytest.raises(NotFoundError):
        reseal(made.installation, made.owner, "fraud@2", reason="test", actor=ACTOR)
    from palladion.lifecycle import reseal as life

    def fail(*_arguments: object, **_options: object) -> None:
        raise KeysError("the ledger is gone")

    monkeypatch.setattr(life, "_register", fail)
    with pytest.raises(KeysError, match="the ledger is gone"):
        reseal(made.installation, made.owner, "fraud@1", reason="test", actor=ACTOR)
    assert sorted(made.installation.paths.sealed.rglob("*.sealed")) == sorted([before.served, before.original])
    verify_version(made.installation, before.version, "served")
