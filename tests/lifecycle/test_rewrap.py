"""Wrapping anew: the new passphrase or escrow opens everything, the old one nothing that is here."""

from pathlib import Path

import pytest

from palladion import keys
from palladion.errors import KeysError
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import open_version
from palladion.lifecycle.protect import protect
from palladion.lifecycle.rewrap import rewrap
from palladion.seal.reader import open_sealed
from palladion.seal.recipients import FileIdentity
from tests.models import onnx_bytes, write

from .installations import ACTOR, ESCROW, OWNER, kinds, make


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
