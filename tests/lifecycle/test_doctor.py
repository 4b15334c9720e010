"""The doctor finds what is wrong, says what to do, and no finding hides another."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.lifecycle.backup import back_up
from palladion.lifecycle.doctor import examine
from palladion.lifecycle.installation import Installation, Paths
from palladion.lifecycle.protect import protect
from tests.models import onnx_bytes, write

from .installations import ACTOR, OWNER, Made, make


@pytest.fixture
def made(tmp_path: Path) -> Made:
    made = make(tmp_path, escrow=True)
    protect(made.installation, made.owner, write(tmp_path / "m.onnx", onnx_bytes()), "fraud", actor=ACTOR)
    return made


def _found(installation: Installation, status: str) -> dict[str, str]:
    return {check.name: check.message for check in examine(installation) if check.status == status}


def test_a_sound_installation_has_no_problem(tmp_path: Path, made: Made) -> None:
    assert _found(made.installation, "problem") == {}
    assert set(_found(made.installation, "warning")) == {"owner root", "backup"}
    back_up(made.installation, made.owner, [OWNER.recipient], tmp_path / "backup", actor=ACTOR)
    made.installation.paths.owner.unlink()
    assert _found(made.installation, "warning") == {}


def test_an_old_backup_is_told(tmp_path: Path, made: Made) -> None:
    back_up(made.installation, made.owner, [OWNER.recipient], tmp_path / "backup", actor=ACTOR)
    made.clock.advance(timedelta(days=31))
    assert _found(made.installation, "warning")["backup"] == "the last backup is 31 days old"


def test_a_missing_escrow_is_told(tmp_path: Path) -> None:
    assert "none" in _found(make(tmp_path / "x").installation, "warning")["escrow"]


def _expose(paths: Paths) -> None:
    paths.gate.chmod(0o644)


def _lose_identity(paths: Paths) -> None:
    paths.host_identity.unlink()


def _break_registry(paths: Paths) -> None:
    paths.registry.write_bytes(b"garbage" * 1000)


def _lose_sealed(paths: Paths) -> None:
    paths.served("fraud", 1).unlink()


def _break_ledger(paths: Paths) -> None:
    (paths.ledger / "checkpoint").write_bytes(b"nothing")


def _change_owner(paths: Paths) -> None:
    text = paths.owner.read_bytes()
    position = text.index(b'"publisher":"') + 13
    paths.owner.write_bytes(text[:position] + (b"0" * 64) + text[position + 64 :])


@pytest.mark.parametrize(
    ("damage", "name", "message"),
    [
        (_expose, "permissions", "has mode 0644"),
        (_lose_identity, "host identity", "host.identity"),
        (_break_registry, "registry", "registry.sqlite"),
        (_lose_sealed, "sealed files", "1 sealed files are missing, fraud/1.sealed first"),
        (_break_ledger, "ledger", "not a signed note"),
        (_change_owner, "owner root", "does not trust"),
    ],
)
def test_each_damage_is_a_problem_that_hides_no_other(
    made: Made, damage: Callable[[Paths], None], name: str, message: str
) -> None:
    damage(made.installation.paths)
    problems = _found(made.installation, "problem")
    assert list(problems) == [name]
    assert message in problems[name]


def test_an_identity_inside_the_folder_is_a_problem(made: Made) -> None:
    paths = made.installation.paths
    inside = paths.directory / "host.identity"
    paths.host_identity.rename(inside)
    text = paths.policy.read_text().replace(str(paths.host_identity), str(inside))
    paths.policy.write_text(text)
    problems = _found(Installation.find(made.home, made.clock), "problem")
    assert "lies in the installation folder" in problems["host identity"]


def test_a_file_of_no_version_is_told(made: Made) -> None:
    write(made.installation.paths.sealed / "fraud" / "9.sealed", b"left over")
    assert "1 files belong to no version, fraud/9.sealed first" in _found(made.installation, "warning")["sealed files"]
