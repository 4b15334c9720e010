"""Finding an installation and opening its rooms."""

from pathlib import Path

import pytest

from palladion.clock import ManualClock
from palladion.errors import BusyError, InstallationError, KeysError, TamperError
from palladion.lifecycle.installation import Installation, paths_of
from palladion.policy import POLICY_FILE, parse_policy

from .installations import NOW, OWNER, make

CLOCK = ManualClock(NOW)


def test_the_nearest_installation_above_is_found(tmp_path: Path) -> None:
    made = make(tmp_path)
    (made.home / "a" / "b").mkdir(parents=True)
    assert Installation.find(made.home / "a" / "b", CLOCK).paths == made.installation.paths


def test_where_there_is_none_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InstallationError, match=r"no palladion\.toml in") as caught:
        Installation.find(tmp_path, CLOCK)
    assert caught.value.hints[0] == "run palladion init"


def test_a_policy_without_its_folder_is_told(tmp_path: Path) -> None:
    (tmp_path / POLICY_FILE).write_text("")
    with pytest.raises(InstallationError, match="which does not exist"):
        Installation.find(tmp_path, CLOCK)


def test_paths_follow_the_policy() -> None:
    policy = parse_policy(b"[installation]\ndirectory = 'state'\n[keys]\nowner = '/mnt/owner.json'\n", "it")
    paths = paths_of(Path("/srv"), policy)
    assert paths.directory == Path("/srv/state")
    assert paths.owner == Path("/mnt/owner.json")
    assert paths.served("fraud", 3) == Path("/srv/state/sealed/fraud/3.sealed")
    assert paths.host_identity == Path("~/.config/palladion/host.identity").expanduser()


def test_an_owner_root_that_was_taken_away_is_told(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.installation.paths.owner.unlink()
    with pytest.raises(KeysError, match="no keyring file at") as caught:
        made.installation.open_owner_root([OWNER])
    assert "attach the disk" in caught.value.hints[0]


def test_an_owner_root_of_somebody_else_is_refused(tmp_path: Path) -> None:
    one, two = make(tmp_path / "one"), make(tmp_path / "two")
    one.installation.paths.owner.write_bytes(two.installation.paths.owner.read_bytes())
    with pytest.raises(TamperError, match="signs as a publisher that the policy does not trust"):
        one.installation.open_owner_root([OWNER])


def test_a_lost_registry_is_not_taken_for_an_empty_one(tmp_path: Path) -> None:
    made = make(tmp_path)
    made.installation.paths.registry.unlink()
    with pytest.raises(InstallationError, match="no registry"):
        made.installation.open_registry()


def test_one_process_writes_the_ledger(tmp_path: Path) -> None:
    made = make(tmp_path)
    gate = made.installation.open_gate_root()
    with made.installation.open_ledger(gate), pytest.raises(BusyError):
        made.installation.open_ledger(gate)
