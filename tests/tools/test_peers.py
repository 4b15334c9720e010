"""Environments of peers: made once from their pins, again when these change, and named when they cannot be made."""

import json
import shutil
from pathlib import Path

import pytest

from tools import peers


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """A room of pins with one peer, and the commands that were run."""
    commands: list[list[str]] = []

    def run(command: list[str], _: str) -> None:
        commands.append(command)
        if "venv" in command:
            (Path(command[-1]) / "bin").mkdir(parents=True)

    (tmp_path / "pins").mkdir()
    (tmp_path / "pins" / "server.txt").write_text("server==1.0\n")
    monkeypatch.setattr(peers, "PINS", tmp_path / "pins")
    monkeypatch.setattr(peers, "_run", run)
    return commands


def test_a_peer_is_made_from_its_pins_once(made: list[list[str]], tmp_path: Path) -> None:
    folder = peers.make("server", tmp_path)
    assert folder == tmp_path / "server" / "bin"
    assert made[-1][-2:] == ["-r", str(tmp_path / "pins" / "server.txt")]
    assert peers.make("server", tmp_path) == folder == peers.programs("server", tmp_path)
    assert len(made) == 2


def test_other_pins_make_it_anew(made: list[list[str]], tmp_path: Path) -> None:
    peers.make("server", tmp_path)
    (tmp_path / "pins" / "server.txt").write_text("server==2.0\n")
    assert peers.programs("server", tmp_path) is None
    peers.make("server", tmp_path)
    assert len(made) == 4


def test_one_that_was_not_finished_is_not_there(
    made: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(peers, "_run", _failing)
    with pytest.raises(peers.PeerError, match="server cannot be made"):
        peers.make("server", tmp_path)
    assert peers.programs("server", tmp_path) is None


def test_an_unknown_peer_is_named_with_those_that_there_are(
    made: list[list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    assert peers.main(["nothing"]) == 1
    assert "there is no peer 'nothing', only server" in capsys.readouterr().err
    assert peers.main([]) == 2


def test_a_peer_of_node_is_made_from_its_lock(
    made: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {"name": "it", "dependencies": {"proxy": "1.0.0"}}
    lock = json.dumps({"lockfileVersion": 3, "packages": {"": wanted}})
    (tmp_path / "pins" / "proxy.json").write_text(lock)
    monkeypatch.setattr(shutil, "which", lambda _: "/usr/bin/npm")
    folder = peers.make("proxy", tmp_path)
    assert folder == tmp_path / "proxy" / "node_modules" / ".bin" == peers.programs("proxy", tmp_path)
    assert made[-1][:4] == ["/usr/bin/npm", "ci", "--prefix", str(tmp_path / "proxy")]
    assert "--ignore-scripts" in made[-1]
    assert (tmp_path / "proxy" / "package-lock.json").read_text() == lock
    assert json.loads((tmp_path / "proxy" / "package.json").read_text()) == {"private": True, **wanted}


def test_without_npm_a_peer_of_node_cannot_be_made(
    made: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pins" / "proxy.json").write_text("{}")
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(peers.PeerError, match="there is no npm here"):
        peers.make("proxy", tmp_path)
    assert made == []


def test_the_pins_of_node_are_exact_and_name_no_registry() -> None:
    for path in peers.PINS.glob("*.json"):
        packages = json.loads(path.read_text())["packages"]
        assert all("integrity" in item and "resolved" not in item for name, item in packages.items() if name)
        assert all(version[:1].isdigit() for version in packages[""]["dependencies"].values())


def test_the_pins_are_exact() -> None:
    for path in peers.PINS.glob("*.txt"):
        lines = path.read_text().splitlines()
        assert [line for line in lines if line and not line.startswith("#") and "==" not in line] == []


def _failing(_: list[str], name: str) -> None:
    raise peers.PeerError(f"{name} cannot be made")
