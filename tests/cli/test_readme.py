"""What the README shows is what a person gets."""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from palladion.seal.recipients import FileIdentity, write_identity
from tests.cli import session
from tests.lifecycle.installations import NOW
from tests.models import onnx_bytes, write

README = Path(__file__).resolve().parents[2] / "README.md"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


@pytest.fixture
def reader(folder: Path) -> Path:
    """The folder of somebody who follows the README: two models, a passphrase, and a recipient's identity."""
    write(folder / "fraud.onnx", onnx_bytes(1, inputs=64, classes=32))
    write(folder / "fraud-v2.onnx", onnx_bytes(2, inputs=64, classes=32))
    write_identity(folder / "acme.identity", FileIdentity(b"\x33" * 32), created=NOW)
    return folder


def test_the_commands_of_the_readme_print_what_it_shows(reader: Path) -> None:
    steps = [step for block in _blocks("console") for step in session.parse(block)]
    assert len(steps) > 8
    session.run(steps, reader)


def test_the_python_of_the_readme_opens_a_session(reader: Path) -> None:
    folder = reader
    session.run(
        session.parse(
            "$ palladion init --passphrase-file pass\n…\n"
            "$ palladion protect fraud.onnx --name fraud --passphrase-file pass\n…\n"
        ),
        folder,
    )
    code = next(block for block in _blocks("python") if "open_version" in block)
    names: dict[str, object] = {}
    with session.chdir(folder):
        exec(code, names)
    assert type(names["session"]).__name__ == "Session"


def test_the_python_of_the_readme_opens_what_was_sealed(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    host = reader / "host"
    host.mkdir()
    monkeypatch.setenv("PALLADION_HOST", str(host))
    shutil.copy(reader / "acme.identity", host)
    session.run(
        session.parse(
            "$ palladion init --passphrase-file pass\n…\n$ let KEY palladion.toml pallp1[a-z0-9]+\n"
            f"$ palladion seal llama --name llama --to {FileIdentity(bytes([0x33]) * 32).recipient} --out llama.sealed "
            "--passphrase-file pass\n…\n$ palladion host trust $KEY\n…\n"
        ),
        reader,
    )
    code = next(block for block in _blocks("python") if "palladion.load" in block)
    names: dict[str, Any] = {}
    with session.chdir(reader):
        exec(code, names)
    assert set(names["weights"]) == {"a", "b"}
    assert (names["one"] == names["weights"]["a"]).all()
