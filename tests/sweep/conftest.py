"""One installation for all tests of this room that need one, copied to each."""

import shutil
from pathlib import Path

import pytest

from palladion.lifecycle.installation import Installation
from tests.lifecycle.installations import OWNER, Made
from tests.sweep.known import House, build


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, House]:
    """The installation that is copied."""
    folder = tmp_path_factory.mktemp("sweep")
    return folder, build(folder)


@pytest.fixture
def house(built: tuple[Path, House], tmp_path: Path) -> House:
    """A copy of it."""
    folder, whole = built
    shutil.copytree(folder / "home", tmp_path / "home")
    shutil.copy(folder / "host.identity", tmp_path / "host.identity")
    (tmp_path / "host.identity").chmod(0o600)
    policy = tmp_path / "home/palladion.toml"
    policy.write_text(policy.read_text().replace(str(folder), str(tmp_path)))
    installation = Installation.find(tmp_path / "home", whole.made.clock)
    return House(
        Made(installation, installation.open_owner_root([OWNER]), whole.made.clock), whole.original, whole.marked
    )
