"""Runs scripted command-line sessions: what a person types, and what he sees.

A session is text. A line `$ palladion …` runs that command in this process; `$ cp a b`, `$ rm a` and `$ flip a 12`
(change one bit of byte 12) prepare files, and `$ let KEY a pall[a-z0-9]+` names what a file holds, for `$KEY` in what
follows. The lines up to the next `$` are what it prints, standard output and error
together; `…` stands for any text in a line, a line of only `…` for any number of lines, and a last line `[exit 1]` for
the exit code (0 if there is none). Lines that start with `#` are comments.
"""

import io
import re
import shlex
import shutil
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from string import Template

from palladion.cli.main import main

__all__ = ["Step", "chdir", "matches", "parse", "run"]

ANY = "…"


@dataclass(frozen=True)
class Step:
    """One command and what it is expected to print."""

    line: int
    command: str
    expected: tuple[str, ...]
    exit_code: int


def parse(text: str) -> list[Step]:
    """The steps of a session. Raises ValueError on output that belongs to no command."""
    steps: list[Step] = []
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("$ "):
            steps.append(Step(number, line[2:], (), 0))
        elif line.startswith("#") or (not steps and not line.strip()):
            continue
        elif not steps:
            raise ValueError(f"line {number}: output before the first command")
        elif code := re.fullmatch(r"\[exit (\d+)\]", line):
            steps[-1] = Step(steps[-1].line, steps[-1].command, steps[-1].expected, int(code.group(1)))
        else:
            steps[-1] = Step(steps[-1].line, steps[-1].command, (*steps[-1].expected, line), steps[-1].exit_code)
    return steps


def run(steps: list[Step], folder: Path) -> None:
    """Run the steps in `folder` and compare; raises AssertionError with command, expectation and output."""
    names: dict[str, str] = {}
    with chdir(folder):
        for step in steps:
            output, code = _run(Template(step.command).safe_substitute(names), names)
            expected = "\n".join(step.expected).rstrip("\n")
            if code != step.exit_code or not matches(expected, output):
                raise AssertionError(
                    f"line {step.line}: $ {step.command}\n--- expected (exit {step.exit_code})\n{expected}\n"
                    f"--- got (exit {code})\n{output}"
                )


def matches(expected: str, output: str) -> bool:
    """Whether `output` is what `expected` describes, trailing white space aside."""
    pattern = ""
    for line in expected.split("\n"):
        if line.strip() == ANY:
            pattern += r"(?:.*\n)*?"
        else:
            pattern += ".*?".join(re.escape(part.rstrip() if last else part) for part, last in _parts(line)) + r" *\n"
    lines = "".join(f"{line.rstrip()}\n" for line in output.rstrip("\n").split("\n"))
    return re.fullmatch(pattern, lines) is not None


def _parts(line: str) -> list[tuple[str, bool]]:
    parts = line.split(ANY)
    return [(part, index == len(parts) - 1) for index, part in enumerate(parts)]


def _run(command: str, names: dict[str, str]) -> tuple[str, int]:
    name, *arguments = shlex.split(command)
    if name == "palladion":
        output = io.StringIO()
        with redirect_stdout(output), redirect_stderr(output):
            code = main(arguments)
        return output.getvalue().rstrip("\n"), code
    if name == "cp":
        source, target = map(Path, arguments)
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
    elif name == "rm":
        for path in map(Path, arguments):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    elif name == "let":
        found = re.search(arguments[2], Path(arguments[1]).read_text(encoding="utf-8"))
        if found is None:
            raise ValueError(f"{arguments[1]} holds nothing like {arguments[2]}")
        names[arguments[0]] = found.group()
    elif name == "flip":
        path, position = Path(arguments[0]), int(arguments[1])
        data = bytearray(path.read_bytes())
        data[position] ^= 1
        path.write_bytes(data)
    else:
        raise ValueError(f"a session cannot run {name!r}")
    return "", 0
