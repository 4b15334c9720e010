"""Other people's scanners as second opinions, each in a process of its own: they parse hostile files, too.

None of them is a dependency: picklescan (MIT) and fickling (LGPL) are asked where they are installed, and pip-audit for
the packages that a file of requirements names.
"""

import json
import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from palladion.errors import InconclusiveError, MissingExtraError
from palladion.scan.verdict import Finding

Other = Literal["picklescan", "fickling"]
SECONDS_MAX = 120
OUTPUT_CHARACTERS_MAX = 300
# what they may know of where they run; a network's proxy and authorities too, without which pip-audit reaches nothing
_NETWORK = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE")
_ENVIRONMENT = ("PATH", "HOME", "LANG", "TMPDIR", *_NETWORK, *(name.lower() for name in _NETWORK[:3]))
_UNREACHABLE = ("connection", "timed out", "resolve", "ssl")
_NOT_PINNED = "every line has to pin a version with ==: nothing is installed or resolved here"


def second_opinion(other: Other, path: Path) -> Finding | None:
    """What another scanner finds in the file at `path`, as a suspicion; None if it finds nothing.

    Raises MissingExtraError where it is not installed.
    """
    if other == "picklescan":
        done = _run([*_command(other), "--strict", "-p", str(path.absolute())])
    else:
        done = _run([*_command(other), "--check-safety", str(path.absolute())])
    if done is None:
        return Finding("second-opinion", path.name, f"{other} did not end within {SECONDS_MAX} s", "suspicious")
    if done.returncode == 0:
        return None
    said = _first_line(done.stdout) if done.returncode == 1 else f"it failed (exit {done.returncode})"
    return Finding("second-opinion", path.name, f"{other} finds something in {path.name}: {said}", "suspicious")


def audit_requirements(path: Path) -> list[Finding]:
    """Known vulnerabilities of the packages in a file of requirements, by pip-audit.

    Raises MissingExtraError where it is not installed, InconclusiveError where it cannot be asked: without a network.
    """
    if find_spec("pip_audit") is None:
        raise MissingExtraError("pip-audit is not installed", "pip install pip-audit")
    options = ["--format", "json", "--progress-spinner", "off", "--no-deps", "--disable-pip"]
    command = [sys.executable, "-I", "-m", "pip_audit", "-r", str(path.absolute()), *options]
    done = _run(command)
    if done is None:
        raise InconclusiveError(f"pip-audit did not end within {SECONDS_MAX} s", "it needs the network")
    try:
        document = json.loads(done.stdout)
        packages = document["dependencies"]
        return [finding for package in packages for finding in _vulnerable(package, path)]
    except (ValueError, KeyError, TypeError):
        said = _last_line(done.stderr) or "it said nothing"
        if any(word in said.lower() for word in _UNREACHABLE):
            hint = "it needs the network: HTTPS_PROXY and REQUESTS_CA_BUNDLE are passed on"
            raise InconclusiveError("pip-audit could not reach what it asks", hint) from None
        message = f"pip-audit could not judge {path.name}: {said}"
        raise InconclusiveError(message, _NOT_PINNED, "it needs the network") from None


def _vulnerable(package: dict[str, Any], path: Path) -> list[Finding]:
    if "skip_reason" in package:
        message = f"{package['name']} could not be judged: {package['skip_reason']}"
        return [Finding("vulnerable-dependency", path.name, message, "suspicious")]
    return [
        Finding("vulnerable-dependency", path.name, f"{package['name']} {package['version']} has {item['id']}")
        for item in package["vulns"]
    ]


def _command(other: Other) -> list[str]:
    if find_spec(other) is not None:
        # -I: neither the folder one is in nor the environment puts modules in its way; -m would lose the exit code
        return [sys.executable, "-I", "-c", f"import sys; from {other}.cli import main; sys.exit(main())"]
    program = shutil.which(other)
    if program is None:
        raise MissingExtraError(f"{other} is not installed", f"pip install {other}")
    return [program]


def _run(command: list[str]) -> "subprocess.CompletedProcess[str] | None":
    environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
    try:
        # some leave files where they run
        with TemporaryDirectory() as folder:
            return subprocess.run(  # noqa: S603 (fixed programs, and a file's absolute path)
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
                timeout=SECONDS_MAX,
                env=environment,
                cwd=folder,
            )
    except subprocess.TimeoutExpired:
        return None


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:OUTPUT_CHARACTERS_MAX] if lines else "it does not say what"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:OUTPUT_CHARACTERS_MAX] if lines else ""
