"""Wrapping anew: the new passphrase or escrow opens everything, the old one nothing that is here."""

from pathlib import Path
from typing import Any

import pytest

from palladion import canonical, keys
from palladion.errors import KeysError, StorageError
from palladion.ledger.writer import Ledger
from palladion.lifecycle.doctor import examine
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version
from palladion.lifecycle.protect import protect
from palladion.lifecycle.rewrap import rewrap
from palladion.seal.reader import inspect_file, open_sealed
from palladion.seal.recipients import FileIdentity, read_identity, write_identity
from tests.models import onnx_bytes, write

from .installations import ACTOR, ESCROW, NOW, OWNER, kinds, make


@pytest.mark.slow
def test_a_changed_owner_and_a_new_escrow_open_everything(tmp_path: Path) -> None:
    made = make(tmp_path)
    done = protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    policy = made.installation.paths.policy
    policy.write_text(policy.read_text().replace("escrow = []", f'escrow = ["{ESCROW.recipient}"]'))
    installation = Installation.find(made.home, made.clock)
    fresh = FileIdentity(b"\x33" * 32)

    result = rewrap(installation, made.owner, [fresh.recipient], actor=ACTOR)

    assert result.originals == 1
    for identity in (fresh, ESCROW):
        installation.open_owner_root([identity])
    with pytest.raises(KeysError):
        installation.open_owner_root([OWNER])
    with open_sealed(done.original, [ESCROW], installation.publishers()) as opened:
        assert bytes(opened.files["m.onnx"]) == onnx_bytes()
    keys.open_root(installation.paths.gate.read_bytes(), [ESCROW], what="it")
    with open_version(installation, "fraud") as version:
        assert version.version.number == 1
    assert kinds(installation)[-1] == "keys.rewrapped"


@pytest.mark.slow
def test_an_escrow_that_left_the_policy_opens_nothing_any_more(tmp_path: Path) -> None:
    made = make(tmp_path, escrow=True)
    done = protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    policy = made.installation.paths.policy
    policy.write_text(policy.read_text().replace(str(ESCROW.recipient), str(FileIdentity.generate().recipient)))
    installation = Installation.find(made.home, made.clock)
    rewrap(installation, made.owner, [OWNER.recipient], actor=ACTOR)
    with pytest.raises(KeysError):
        installation.open_owner_root([ESCROW])
    with pytest.raises(KeysError):
        open_sealed(done.original, [ESCROW], installation.publishers())
    with pytest.raises(KeysError):
        keys.open_root(installation.paths.gate.read_bytes(), [ESCROW], what="it")


@pytest.mark.slow
def test_a_lost_host_identity_is_made_anew_and_everything_works_again(tmp_path: Path) -> None:
    made = make(tmp_path, escrow=True)
    installation, identity = made.installation, made.installation.paths.host_identity
    protect(installation, made.owner, write(tmp_path / "1.onnx", onnx_bytes(1)), "fraud", actor=ACTOR)
    lost = read_identity(identity)
    identity.unlink()
    with pytest.raises(KeysError, match="host identity cannot be read") as caught:
        installation.open_gate_root()
    assert "palladion key rewrap makes a new one" in caught.value.hints[0]

    result = rewrap(installation, made.owner, [OWNER.recipient], actor=ACTOR)

    assert result.new_host_identity == identity
    assert read_identity(identity).recipient != lost.recipient
    with open_version(installation, "fraud") as opened:
        assert opened.version.number == 1
    protect(installation, made.owner, write(tmp_path / "2.onnx", onnx_bytes(2)), "fraud", actor=ACTOR)
    assert [check for check in examine(installation) if check.status == "problem"] == []
    with pytest.raises(KeysError):
        keys.open_root(installation.paths.gate.read_bytes(), [lost], what="it")


def test_a_host_identity_that_was_exchanged_is_taken_as_it_is(tmp_path: Path) -> None:
    made = make(tmp_path)
    identity = made.installation.paths.host_identity
    identity.unlink()
    other = FileIdentity.generate()
    write_identity(identity, other, created=NOW)
    assert rewrap(made.installation, made.owner, [OWNER.recipient], actor=ACTOR).new_host_identity is None
    assert read_identity(identity).recipient == other.recipient
    made.installation.open_gate_root()


def test_without_its_record_nothing_is_wrapped_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make(tmp_path)
    paths = made.installation.paths
    done = protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    paths.host_identity.unlink()
    before = [path.read_bytes() for path in (paths.gate, paths.owner, done.original)]

    def fail(*_: Any) -> None:
        raise StorageError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(Ledger, "append", fail)
        with pytest.raises(StorageError):
            rewrap(made.installation, made.owner, [FileIdentity.generate().recipient], actor=ACTOR)
    assert [path.read_bytes() for path in (paths.gate, paths.owner, done.original)] == before
    assert not paths.host_identity.exists()


@pytest.mark.slow
def test_a_key_that_the_owner_file_states_after_the_root_was_opened_gets_nothing(tmp_path: Path) -> None:
    made = make(tmp_path)
    paths = made.installation.paths
    done = protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    thief = FileIdentity.generate()
    document = canonical.decode(paths.owner.read_bytes(), size_max=10**6, what="it")
    document["public"]["owner"] = thief.recipient.public_key.hex()
    paths.owner.write_bytes(canonical.encode(document))
    rewrap(made.installation, made.owner, [OWNER.recipient], actor=ACTOR)
    wraps = [*inspect_file(done.original).wraps, *keys.read_wraps(paths.gate.read_bytes(), what="it")]
    assert thief.recipient.key_id not in {wrap.key_id for wrap in wraps}


@pytest.mark.slow
def test_an_escrow_that_the_policy_names_twice_is_wrapped_to_once(tmp_path: Path) -> None:
    made = make(tmp_path)
    protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    policy, key = made.installation.paths.policy, str(ESCROW.recipient)
    policy.write_text(policy.read_text().replace("escrow = []", f'escrow = ["{key}", "{key.upper()}"]'))
    installation = Installation.find(made.home, made.clock)
    assert installation.escrow_recipients() == [ESCROW.recipient]
    assert rewrap(installation, made.owner, [OWNER.recipient], actor=ACTOR).originals == 1
