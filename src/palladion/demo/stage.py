"""Where the demo plays: a folder, commands run in it as a person would type them, and a gate in its own process."""

import io
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import click
import msgspec

from palladion.errors import InconclusiveError

SERVE_SECONDS_MAX = 30.0


class Stage:
    """A folder for the demo, which must be new or empty."""

    def __init__(self, folder: Path | None) -> None:
        if folder is None:
            folder = Path(tempfile.mkdtemp(prefix="palladion-demo-"))
        elif folder.exists() and any(folder.iterdir()):
            raise InconclusiveError(f"{folder} is not empty", "name a new folder")
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder.resolve()

    def chapter(self, title: str, explanation: str) -> None:
        """A heading and a sentence."""
        click.echo()
        click.secho(title, bold=True)
        click.echo(f"   {explanation}")

    def say(self, text: str) -> None:
        """Lines of what was found."""
        for line in text.splitlines():
            click.echo(f"   {line}".rstrip())

    def run(self, arguments: str, *, exit_code: int = 0) -> None:
        """Run `palladion` in a process of its own, as a person would, and show what it printed.

        Raises InconclusiveError if it ends otherwise than with `exit_code`.
        """
        click.secho(f"   $ palladion {arguments}", bold=True)
        command = [sys.executable, "-m", "palladion", *shlex.split(arguments)]
        ended = subprocess.run(  # noqa: S603
            command, cwd=self.folder, capture_output=True, text=True, check=False, env=_environment()
        )
        self.say(ended.stdout + ended.stderr)
        if ended.returncode != exit_code:
            raise InconclusiveError(f"palladion {arguments} ended with {ended.returncode}, expected {exit_code}")

    def quietly(self, *arguments: str) -> Any:
        """Run a command of the same command line in this process, with `--json`; returns its document."""
        from palladion.cli.main import main

        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err):
            code = main(["--home", str(self.folder), *arguments, "--json"])
        if code:
            raise InconclusiveError(f"palladion {shlex.join(arguments)} failed: {err.getvalue().strip()}")
        return msgspec.json.decode(out.getvalue())

    @contextmanager
    def serving(self) -> Iterator[str]:
        """Run `palladion serve`, shown, for the length of the block; gives its URL. Stops it in good order."""
        click.secho("   $ palladion serve", bold=True)
        log = self.folder / "serve.log"
        with log.open("w") as output:
            command = [sys.executable, "-m", "palladion", "serve"]
            process = subprocess.Popen(  # noqa: S603
                command, cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, env=_environment()
            )
            try:
                url = self._wait_for_url(process, log)
                yield url
            finally:
                process.terminate()
                process.wait(timeout=SERVE_SECONDS_MAX)

    def _wait_for_url(self, process: "subprocess.Popen[bytes]", log: Path) -> str:
        until = time.monotonic() + SERVE_SECONDS_MAX
        while time.monotonic() < until and process.poll() is None:
            lines = log.read_text().splitlines()
            if lines and lines[-1].startswith("serving on "):
                self.say("\n".join(lines))
                return lines[-1].removeprefix("serving on ")
            time.sleep(0.05)
        raise InconclusiveError(f"the gate did not start: {log.read_text().strip()}")


def _environment() -> dict[str, str]:
    """Matrices here are small: threads that wait for each other would take both cores and be slower."""
    return os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
