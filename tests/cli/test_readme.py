"""What the README shows is what a person gets."""

import re
from pathlib import Path

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
    (code,) = _blocks("python")
    names: dict[str, object] = {}
    with session.chdir(folder):
        exec(code, names)
    assert type(names["session"]).__name__ == "Session"
