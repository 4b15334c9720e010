"""Pins: what of a resolution is written down, and that the file in the repository covers what is declared."""

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tools import lock
from tools.distributions import APART


def _report(**packages: str) -> dict[str, Any]:
    return {"install": [{"metadata": {"name": name, "version": version}} for name, version in packages.items()]}


def test_names_have_one_spelling() -> None:
    assert lock.versions(_report(Typing_Extensions="4.1")) == {"typing-extensions": "4.1"}


def test_a_local_version_label_is_left_out() -> None:
    assert lock.versions(_report(torch="2.13.0+cpu")) == {"torch": "2.13.0"}


def test_palladion_does_not_pin_itself() -> None:
    assert lock.versions(_report(palladion="0.1", click="8.2")) == {"click": "8.2"}


def test_nothing_is_installed_to_find_the_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    commands: list[list[str]] = []

    def resolve(command: list[str], *, check: bool) -> None:
        assert check
        commands.append(command)
        Path(command[command.index("--report") + 1]).write_text(json.dumps(_report(click="8.2")))

    monkeypatch.setattr(subprocess, "run", resolve)
    assert lock.resolved() == {"click": "8.2"}
    assert "--dry-run" in commands[0]
    extras = tomllib.loads((lock.ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert commands[0][-1] == f"{lock.ROOT}[{','.join(sorted(extras.keys() - APART))}]"
    assert extras.keys() >= APART


def test_the_file_is_sorted_and_keeps_what_is_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(lock, "CONSTRAINTS", tmp_path / "constraints.txt")
    monkeypatch.setattr(lock, "HELD", {"torch": "1.0"})
    monkeypatch.setattr(lock, "resolved", lambda: {"zlib": "3", "torch": "9.9", "alembic": "2"})
    assert lock.main() == 0
    assert (tmp_path / "constraints.txt").read_text() == lock.HEADER + "alembic==2\ntorch==1.0\nzlib==3\n"
    assert capsys.readouterr().out == "constraints.txt: 3 packages\n"


def test_every_declared_dependency_is_pinned_to_a_version_that_is_allowed() -> None:
    text = lock.CONSTRAINTS.read_text()
    assert text.startswith(lock.HEADER)
    pins = dict(re.findall(r"^([a-z0-9-]+)==(\S+)$", text, re.MULTILINE))
    project = tomllib.loads((lock.ROOT / "pyproject.toml").read_text())["project"]
    extras = [lines for extra, lines in project["optional-dependencies"].items() if extra not in APART]
    declared = map(Requirement, [*project["dependencies"], *(line for extra in extras for line in extra)])
    wrong = [
        str(item) for item in declared if not item.specifier.contains(pins.get(canonicalize_name(item.name), "0.dev0"))
    ]
    assert wrong == []


def test_the_file_has_nothing_but_pins_each_once_and_sorted() -> None:
    lines = [line for line in lock.CONSTRAINTS.read_text().splitlines() if not line.startswith("#")]
    names = [line.partition("==")[0] for line in lines]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[A-Za-z0-9.!-]+", line)] == []
    assert names == sorted(set(names))
