"""Commands while a process serves: the same functions, the same records, in effect when they return."""

from pathlib import Path

import pytest

from palladion.errors import BusyError, ConflictError, StorageError
from palladion.ledger.audit import verify_ledger
from palladion.lifecycle.open import find_version
from palladion.lifecycle.promote import promote, roll_back
from palladion.lifecycle.protect import protect
from palladion.lifecycle.recipients import add_recipient, revoke_recipient
from palladion.lifecycle.rewrap import rewrap
from palladion.seal.recipients import FileIdentity
from tests.gate.serving import Serving
from tests.models import onnx_bytes, write

from .installations import ACTOR, OWNER, Made, kinds, make, served


@pytest.fixture
def made(tmp_path: Path) -> Made:
    """An installation with two versions, the first one promoted."""
    made = make(tmp_path)
    for seed in (1, 2):
        path = write(tmp_path / f"{seed}.onnx", onnx_bytes(seed))
        protect(made.installation, made.owner, path, "fraud", actor=ACTOR)
    return made


def _key() -> str:
    return str(FileIdentity.generate().recipient)


@pytest.mark.slow
def test_every_command_writes_into_the_one_ledger(tmp_path: Path, made: Made) -> None:
    installation = made.installation
    with served(installation) as running:
        indices = [
            add_recipient(installation, "acme", _key(), note="", actor=ACTOR)[1].index,
            promote(installation, "fraud", 2, actor=ACTOR)[1].index,
            roll_back(installation, "fraud", actor=ACTOR)[1].index,
            protect(
                installation, made.owner, write(tmp_path / "3.onnx", onnx_bytes(3)), "fraud", actor=ACTOR
            ).receipt.index,
            revoke_recipient(installation, "acme", actor=ACTOR)[1].index,
        ]
        rewrap(installation, made.owner, [OWNER.recipient], actor=ACTOR)
        # published already, as after a command that held the lock itself
        seen = kinds(installation)
        assert running.port.ledger.size == len(seen)
    assert indices == [6, 7, 8, 9, 10]
    assert seen[6:] == [
        "recipient.added",
        "model.promoted",
        "model.rolled-back",
        "model.protected",
        "recipient.revoked",
        "keys.rewrapped",
    ]
    assert verify_ledger(installation.paths.ledger, installation.ledger_key()).size == len(seen)


@pytest.mark.slow
def test_a_command_has_taken_effect_when_it_returns(made: Made) -> None:
    view: list[int] = []
    with served(made.installation) as running:
        running.on_reload = lambda: view.append(find_version(made.installation, "fraud").number)
        promote(made.installation, "fraud", 2, actor=ACTOR)
        assert view == [2]
        roll_back(made.installation, "fraud", actor=ACTOR)
        assert view == [2, 1]


@pytest.mark.slow
def test_a_refused_command_leaves_no_record_and_the_way_free(made: Made) -> None:
    with served(made.installation):
        key = _key()
        add_recipient(made.installation, "acme", key, note="", actor=ACTOR)
        for _ in range(10):
            with pytest.raises(ConflictError, match="is that of recipient 'acme'"):
                add_recipient(made.installation, "other", key, note="", actor=ACTOR)
        add_recipient(made.installation, "other", _key(), note="", actor=ACTOR)
    assert kinds(made.installation)[6:] == ["recipient.added", "recipient.added"]


@pytest.mark.slow
def test_two_commands_do_not_write_at_once(made: Made) -> None:
    gate = made.installation.open_gate_root()
    with (
        served(made.installation),
        made.installation.open_ledger(gate),
        pytest.raises(BusyError, match="written by another command"),
    ):
        promote(made.installation, "fraud", 2, actor=ACTOR)
    assert find_version(made.installation, "fraud").number == 1


def _break(running: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(running.port.ledger._journal, "append", fail)


@pytest.mark.slow
def test_without_its_record_a_promotion_does_not_happen(made: Made, monkeypatch: pytest.MonkeyPatch) -> None:
    with served(made.installation) as running:
        _break(running, monkeypatch)
        with pytest.raises(StorageError, match="the disk is full"):
            promote(made.installation, "fraud", 2, actor=ACTOR)
    assert find_version(made.installation, "fraud").number == 1
