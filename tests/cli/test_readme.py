"""What the README shows is what a person gets."""

import re
from pathlib import Path

from tests.cli import session

README = Path(__file__).resolve().parents[2] / "README.md"


def _blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)


def test_the_commands_of_the_readme_print_what_it_shows(folder: Path) -> None:
    steps = [step for block in _blocks("console") for step in session.parse(block)]
    assert len(steps) > 8
    (folder / "v1.onnx").rename(folder / "fraud.onnx")
    (folder / "v2.onnx").rename(folder / "fraud-v2.onnx")
    session.run(steps, folder)


def test_the_python_of_the_readme_opens_a_session(folder: Path) -> None:
    (folder / "v1.onnx").rename(folder / "fraud.onnx")
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
