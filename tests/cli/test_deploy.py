"""What the commands that write files for other programs tell of what those still need."""

import json
from pathlib import Path

import pytest

from palladion.cli.main import main


@pytest.fixture
def home(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Path:
    """An installation whose gate can be reached from outside a container."""
    monkeypatch.chdir(folder)
    assert main(["init", "--passphrase-file", "pass"]) == 0
    policy = folder / "palladion.toml"
    settings = '[gate]\nlisten = "0.0.0.0:8710"\nbehind_proxy = true\n'
    policy.write_text(policy.read_text().replace("[gate]\n", settings, 1))
    capsys.readouterr()
    return folder


def _told(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[list[str], str]:
    assert main(["deploy", *arguments]) == 0
    told = capsys.readouterr()
    return told.out.splitlines(), told.err


def test_a_container_is_told_with_its_volumes_and_their_owner(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, _ = _told(capsys, "container", "--out", "image")
    identity = home.parent / "home" / ".config" / "palladion"
    assert lines == [
        "wrote image/Containerfile",
        "wrote image/.containerignore",
        f"needed: a copy of {identity}, as a volume at /srv/palladion/.config/palladion",
        "needed: user 65532 owns both volumes and all in them",
        "then: buildah build -t palladion-gate image",
    ]


def test_a_unit_is_told_with_what_its_user_has_to_own(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines, complaints = _told(capsys, "systemd", "--user", "gate", "--json")
    told = json.loads("\n".join(lines))
    assert told["needs"][0] == f"gate owns {home / '.palladion'} and all in it"
    assert told["needs"][1].startswith("gate owns ")
    assert "host.identity" in told["needs"][1]
    assert complaints == ""


def test_a_unit_is_told_with_the_folder_of_its_socket(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = home / "palladion.toml"
    text = policy.read_text()
    policy.write_text(text.replace("[operators]\n", '[operators]\nsocket = "run/operators.sock"\n', 1))
    lines, _ = _told(capsys, "systemd", "--user", "gate")
    assert f"needed: gate owns the folder {home / 'run'}, in which the gate makes a socket" in lines
    policy.write_text(text.replace("[operators]\n", '[operators]\nsocket = "/run/palladion/o.sock"\n', 1))
    lines, _ = _told(capsys, "systemd", "--user", "gate", "--force")
    assert [line for line in lines if "socket" in line] == []


@pytest.mark.usefixtures("home")
def test_a_unit_that_runs_as_root_is_warned_of(capsys: pytest.CaptureFixture[str]) -> None:
    _, complaints = _told(capsys, "systemd", "--user", "root")
    assert complaints == "palladion: warning: the gate would run as root: name a user of its own by --user\n"


def test_a_timer_is_written_where_the_gate_refreshes_no_feeds(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    policy = home / "palladion.toml"
    policy.write_text(f'{policy.read_text()}\n[[feed]]\nname = "near"\nfile = "near.txt"\n')
    lines, _ = _told(capsys, "systemd", "--user", "gate", "--out", "units")
    written = ["palladion.service", "palladion-intel.service", "palladion-intel.timer"]
    assert lines[:3] == [f"wrote units/{name}" for name in written]
    assert lines[-1].endswith("enable --now palladion.service palladion-intel.timer")
    assert "intel refresh" in (home / "units" / "palladion-intel.service").read_text()
    policy.write_text(policy.read_text().replace("[intel]\n", "[intel]\nrefresh = true\n", 1))
    lines, _ = _told(capsys, "systemd", "--user", "gate", "--out", "alone")
    assert [path.name for path in (home / "alone").iterdir()] == ["palladion.service"]
