#!/usr/bin/env python3
"""Everything a developer needs, from a bare checkout: `python3 dev.py` says what there is.

Needs Python 3.11 with venv and nothing else. Each command sets up `.venv` first, and only when something changed.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
STAMP = VENV / "palladion-set-up"
PYTHON = VENV / "bin" / "python"
EXTRAS = ("demo", "dev")  # enough for the demo and the default suite
# with them every test and check can run; torch alone takes 0.7 GB
ALL_EXTRAS = (*EXTRAS, "alerts", "attest", "aws", "azure", "cloud", "dossier", "dp", "export", "gcp", "grpc", "he",
              "hsm", "intel", "otel", "release", "split", "stamp", "thorough", "torch", "vault",
              "zstd")  # fmt: skip
# what other makers made and tests run against; without them these are skipped
TEST_PEERS = ("art", "flower", "mlserver", "transformers")
# compiled where Debian's libtss2-dev is; its tests are skipped elsewhere
TPM_LIBRARY = "tss2-esys"
FAST = "not slow and not service and not torch"
WITHOUT = ("-p", "no:schemathesis")  # a plugin that no test needs, and that takes a second to load
PARTS = 2  # the default suite is written for two cores
AGAIN_MAX = 3  # failures that are asked once more; with more of them something is broken
TAIL_LINES = 40  # of a failing command's output; the cause stands at its end

CHECKS: dict[str, list[str]] = {
    "format": ["-m", "ruff", "format", "--check", "."],
    "lint": ["-m", "ruff", "check", "."],
    "types": ["-m", "mypy"],
    "floors": ["-c", "from importlinter.cli import lint_imports_command as c; c()"],
    "licences": ["-m", "tools.licences"],
    "dependencies": ["-m", "tools.dependencies"],
    "reference": ["-m", "tools.reference", "--check"],
    "docs and tidiness": ["-m", "pytest", "-q", "tests/test_docs.py", "tests/test_tidy.py"],
}


class SetupError(Exception):
    """The environment cannot be made; the text is a sentence for the person who ran the command."""


def main(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if options.command is None:
        parser.print_help()
        return 0
    if rest and options.command != "test":
        parser.error(f"unknown arguments: {' '.join(rest)}")
    try:
        set_up(everything=options.command in {"bench", "check", "lock"} or getattr(options, "all", False))
        if options.command == "demo":
            # small matrices: threads that wait for each other would only take the cores from the gate
            os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
            return _run(["-m", "palladion", "demo", *(["--folder", options.folder] if options.folder else [])])
        if options.command == "test":
            return test(everything=options.all, pytest_arguments=rest)
        if options.command == "check":
            return check()
        if options.command == "bench":
            return _run(["-m", "bench", *_flags(options)])
        return _run(["-m", "tools.lock"])
    except SetupError as error:
        print(f"dev.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("dev.py: interrupted", file=sys.stderr)
        return 130


def set_up(*, everything: bool) -> None:
    """Make `.venv` with what the tests need, or with all extras, unless it is already as the pins say."""
    whole = (*ALL_EXTRAS, *(["tpm"] if _has_library(TPM_LIBRARY) else []))
    extras = whole if everything else EXTRAS
    # an environment with all extras serves for less, too
    serving = [_fingerprint(whole), _fingerprint(extras)]
    if STAMP.is_file() and STAMP.read_text() in serving and PYTHON.exists():
        return
    started = time.monotonic()
    print("dev.py: setting up .venv (once, and again when the pins change) …", flush=True)
    STAMP.unlink(missing_ok=True)
    _make_venv()
    packages = ["-c", "constraints.txt", "-e", f".[{','.join(extras)}]"]
    uv = shutil.which("uv")
    if uv:
        _quietly([uv, "pip", "install", "--quiet", "--python", str(PYTHON), *packages])
    else:
        pip = [str(PYTHON), "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--no-compile"]
        _quietly([*pip, *packages])
    STAMP.write_text(_fingerprint(extras))
    print(f"dev.py: set up in {time.monotonic() - started:.0f} s", flush=True)


def test(*, everything: bool, pytest_arguments: list[str]) -> int:
    """Run the default suite, or all of it."""
    if not everything and not pytest_arguments:
        return _in_parts(["-m", "pytest", *WITHOUT, "-m", FAST])
    # two workers: the suite is written for two cores, and files stay together so that session fixtures are made once
    if everything and _run(["-m", "tools.peers", *TEST_PEERS]) != 0:
        print("dev.py: tests that need these servers are skipped", file=sys.stderr, flush=True)
    # each worker has a core: libraries that start a thread for each core would wait for one another
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = ["-m", "pytest", *WITHOUT, "-n", "2", "--dist", "loadfile"]
    command += ["--hypothesis-profile", "thorough"] if everything else ["-m", FAST]
    code = _run([*command, *pytest_arguments])
    if code == 1 and everything and not pytest_arguments:
        return _ask_again()
    return code


def _ask_again() -> int:
    """Run the few that failed once more, alone: on a shared machine a limit of time may pass while nothing runs."""
    failed = json.loads((ROOT / ".pytest_cache" / "v" / "cache" / "lastfailed").read_text())
    if len(failed) > AGAIN_MAX:
        return 1
    print(f"dev.py: {len(failed)} failed beside others and are asked once more, alone", flush=True)
    code = _run(["-m", "pytest", *WITHOUT, "-n", "0", "--last-failed", "--hypothesis-profile", "thorough"])
    if code == 0:
        print("dev.py: passed alone, and to be mended, for they depend on what runs beside them:", *failed, sep="\n  ")
    return code


def _in_parts(command: list[str]) -> int:
    """Run the parts of the default suite side by side; what all but the first print comes after it."""

    # not by xdist: each of its workers reads all tests, and hearing what they say takes a tenth of the time again
    def run(part: int) -> subprocess.CompletedProcess[str]:
        # a cache for each: the second would overwrite what failed in the first
        own = ["-o", f"cache_dir=.pytest_cache/{part}", "--part", f"{part}/{PARTS}"]
        output = None if part == 1 else subprocess.PIPE
        return subprocess.run(
            [str(PYTHON), *command, *own],
            cwd=ROOT,
            check=False,
            env=_environment(),
            stdout=output,
            stderr=output,
            text=True,
        )

    with ThreadPoolExecutor(PARTS) as threads:
        parts = list(threads.map(run, range(1, PARTS + 1)))
    for part in parts[1:]:
        print(f"{part.stdout}{part.stderr}", end="")
    return next((part.returncode for part in parts if part.returncode != 0), 0)


def check() -> int:
    """Run every check, print a line for each, and the output of those that fail."""
    failed = []
    for name, command in CHECKS.items():
        started = time.monotonic()
        ended = subprocess.run([str(PYTHON), *command], cwd=ROOT, capture_output=True, text=True, check=False)
        verdict = "ok" if ended.returncode == 0 else "FAILED"
        print(f"{name:<20}{verdict:<8}{time.monotonic() - started:5.1f} s", flush=True)
        if ended.returncode != 0:
            failed.append(name)
            print(_tail(ended.stdout + ended.stderr))
    print(
        f"{len(CHECKS) - len(failed)} of {len(CHECKS)} checks passed"
        + (f"; failed: {', '.join(failed)}" if failed else "")
    )
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python3 dev.py", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    demo = commands.add_parser("demo", help="the product at work on a model trained in the same minute")
    demo.add_argument("--folder", help="where the demo's files go; it must be new")
    tests = commands.add_parser("test", help="the default suite; further arguments go to pytest")
    tests.add_argument("--all", action="store_true", help="slow and service tests as well")
    commands.add_parser("check", help="format, lint, types, floors, licences, dependencies, docs")
    bench = commands.add_parser("bench", help="measure, beside a reference in the same run")
    bench.add_argument("name", nargs="?", help="one script of bench/, for example seal; without it all of them")
    bench.add_argument("--quick", action="store_true", help="a smaller form, at most 60 s a script")
    bench.add_argument("--json", action="store_true", help="print JSON instead of tables")
    commands.add_parser("lock", help="renew constraints.txt")
    return parser


def _flags(options: argparse.Namespace) -> list[str]:
    named = [options.name] if options.name else []
    return named + [f"--{flag}" for flag in ("quick", "json") if getattr(options, flag)]


def _fingerprint(extras: Sequence[str]) -> str:
    """What `.venv` was made from: another value means that it has to be made again."""
    parts = [sys.version, str(sys.prefix), ",".join(extras)]
    parts += [(ROOT / name).read_text() for name in ("pyproject.toml", "constraints.txt")]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def _make_venv() -> None:
    if (VENV / "bin" / "pip").exists() or (PYTHON.exists() and shutil.which("uv")):
        return
    shutil.rmtree(VENV, ignore_errors=True)  # half-made by an earlier attempt
    made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True, text=True, check=False)
    if made.returncode == 0:
        return
    shutil.rmtree(VENV, ignore_errors=True)
    output = made.stdout + made.stderr
    if "ensurepip" in output or "No module named venv" in output:
        raise SetupError("this Python cannot make virtual environments; on Debian: apt install python3-venv")
    raise SetupError(f"python3 -m venv failed:\n{_tail(output)}")


def _has_library(name: str) -> bool:
    config = shutil.which("pkg-config")
    return config is not None and subprocess.run([config, "--exists", name], check=False).returncode == 0


def _quietly(command: list[str]) -> None:
    ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        raise SetupError(f"the installation failed:\n{_tail(ended.stdout + ended.stderr)}")


def _run(arguments: list[str]) -> int:
    return subprocess.run([str(PYTHON), *arguments], cwd=ROOT, check=False, env=_environment()).returncode


def _environment() -> dict[str, str]:
    # nothing was compiled while installing, and tests start hundreds of processes: each would compile it all again
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return kept | {"PYTHONUNBUFFERED": "1"}


def _tail(output: str) -> str:
    return "\n".join(output.strip().splitlines()[-TAIL_LINES:])


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 (this file is what tells people so)
        sys.exit(f"dev.py: Python 3.11 or newer is needed, this is {sys.version.split()[0]}")
    sys.exit(main(sys.argv[1:]))
