"""The restore drill: a machine is lost, and everything comes back, verified."""

import shutil
import stat
from pathlib import Path

import pytest

from palladion.errors import ConflictError, InstallationError, KeysError, NotFoundError, PalladionError, TamperError
from palladion.lifecycle.backup import back_up, newest_state, read_publisher, restore
from palladion.lifecycle.doctor import examine
from palladion.lifecycle.open import open_version
from palladion.lifecycle.protect import protect
from palladion.seal.recipients import FileIdentity
from tests.models import onnx_bytes, write

from .installations import ACTOR, ESCROW, OWNER, Made, kinds, make


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = make(tmp_path / "first", escrow=True)
    for seed in (1, 2):
        path = write(tmp_path / f"{seed}.onnx", onnx_bytes(seed))
        protect(made.installation, made.owner, path, "fraud", actor=ACTOR)
    return made


def _back_up(made: Made, folder: Path) -> Path:
    return back_up(made.installation, made.owner, [OWNER.recipient], folder, actor=ACTOR).state


def _restore(state: Path, home: Path, made: Made, identity: FileIdentity = OWNER, **options: str) -> object:
    publisher = made.owner.public().keys["publisher"]
    return restore(state, home, [identity], publisher=publisher, actor=ACTOR, clock=made.clock, **options)  # type: ignore[arg-type]


@pytest.mark.parametrize("identity", [OWNER, ESCROW], ids=["owner", "escrow"])
def test_a_lost_machine_comes_back_whole(tmp_path: Path, made: Made, identity: FileIdentity) -> None:
    state = _back_up(made, tmp_path / "backup")
    shutil.rmtree(tmp_path / "first")  # the machine, with its host identity

    restored = restore(
        state,
        tmp_path / "second",
        [identity],
        publisher=made.owner.public().keys["publisher"],
        actor=ACTOR,
        clock=made.clock,
    )

    assert restored.versions == 2
    assert kinds(restored.installation)[-2:] == ["backup.made", "backup.restored"]
    with open_version(restored.installation, "fraud@2") as opened:
        assert bytes(opened.model.files[0].data) == onnx_bytes(2)
    path = write(tmp_path / "3.onnx", onnx_bytes(3))
    owner = restored.installation.open_owner_root([identity])
    assert protect(restored.installation, owner, path, "fraud", actor=ACTOR).version.number == 3
    assert [check for check in examine(restored.installation) if check.status == "problem"] == []
    folders = [path for path in (tmp_path / "second").rglob("*") if path.name != "palladion.toml"]
    assert [path for path in folders if stat.S_IMODE(path.stat().st_mode) & 0o077] == []


def test_a_second_backup_copies_only_what_is_new(tmp_path: Path, made: Made) -> None:
    first = back_up(made.installation, made.owner, [OWNER.recipient], tmp_path / "backup", actor=ACTOR)
    assert (first.copied, first.present) == (4, 0)
    protect(made.installation, made.owner, write(tmp_path / "3.onnx", onnx_bytes(3)), "fraud", actor=ACTOR)
    made.clock.advance(made.clock.now() - made.clock.now().replace(hour=0))
    second = back_up(made.installation, made.owner, [OWNER.recipient], tmp_path / "backup", actor=ACTOR)
    assert (second.copied, second.present) == (2, 4)
    assert newest_state(tmp_path / "backup") == second.state


def test_nothing_of_a_backup_can_be_read_without_a_key(tmp_path: Path, made: Made) -> None:
    _back_up(made, tmp_path / "backup")
    host_identity = made.installation.paths.host_identity.read_bytes()
    for path in (tmp_path / "backup").rglob("*"):
        content = path.read_bytes() if path.is_file() else b""
        for secret in (host_identity[-40:], onnx_bytes(1)[20:60], b"fraud@1"):
            assert secret not in content
    with pytest.raises(KeysError):
        _restore(newest_state(tmp_path / "backup"), tmp_path / "second", made, FileIdentity.generate())
    assert not (tmp_path / "second").exists()


def test_a_changed_backup_is_refused_and_leaves_nothing(tmp_path: Path, made: Made) -> None:
    state = _back_up(made, tmp_path / "backup")
    data = bytearray(state.read_bytes())
    data[len(data) // 2] ^= 1
    state.write_bytes(data)
    with pytest.raises(PalladionError):
        _restore(state, tmp_path / "second", made)
    assert not (tmp_path / "second").exists()


def test_a_backup_by_another_publisher_is_refused(tmp_path: Path, made: Made) -> None:
    state = _back_up(made, tmp_path / "backup")
    with pytest.raises(TamperError, match="none of the 1 that are trusted"):
        restore(state, tmp_path / "second", [OWNER], publisher=b"\x01" * 32, actor=ACTOR, clock=made.clock)


def test_a_changed_sealed_version_in_the_backup_is_found_by_the_restore(tmp_path: Path, made: Made) -> None:
    state = _back_up(made, tmp_path / "backup")
    shutil.copy(tmp_path / "backup/sealed/fraud/1.sealed", tmp_path / "backup/sealed/fraud/2.sealed")
    with pytest.raises(TamperError, match="is not the file that was registered as version 2"):
        _restore(state, tmp_path / "second", made, host_identity=str(tmp_path / "id"))


def test_nothing_is_restored_over_an_installation_or_another_hosts_identity(tmp_path: Path, made: Made) -> None:
    state = _back_up(made, tmp_path / "backup")
    with pytest.raises(InstallationError, match="exists already"):
        _restore(state, made.home, made)
    identity = made.installation.paths.host_identity
    identity.write_bytes(identity.read_bytes() + b"# another\n")
    with pytest.raises(ConflictError, match="is another host's identity"):
        _restore(state, tmp_path / "second", made)
    _restore(state, tmp_path / "third", made, host_identity=str(tmp_path / "moved.identity"))
    assert 'moved.identity"' in (tmp_path / "third" / "palladion.toml").read_text()


def test_a_folder_with_the_backups_of_somebody_else_is_left_alone(tmp_path: Path, made: Made) -> None:
    other = make(tmp_path / "other")
    _back_up(other, tmp_path / "backup")
    with pytest.raises(ConflictError, match="backups of another owner"):
        _back_up(made, tmp_path / "backup")
    assert read_publisher(tmp_path / "backup") == other.owner.public().keys["publisher"]


def test_a_folder_without_a_backup_is_told(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="no backup in"):
        newest_state(tmp_path)


def test_a_sealed_model_is_no_backup(tmp_path: Path, made: Made) -> None:
    with pytest.raises(PalladionError, match="a backup was expected"):
        _restore(made.installation.paths.original("fraud", 1), tmp_path / "second", made, ESCROW)
