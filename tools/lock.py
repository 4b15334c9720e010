"""Renews `constraints.txt`: one `name==version` line for everything that the core and the extras resolve to today.

Resolves with pip's dry run, so nothing is installed and no address is written down.
"""

import json
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from tools.distributions import APART

ROOT = Path(__file__).resolve().parents[1]
CONSTRAINTS = ROOT / "constraints.txt"
# The newest torch brings gigabytes of CUDA packages; this one has a CPU build. No extra needs it yet, but whoever
# installs torch beside Palladion with these constraints gets the version that the tests will use.
HELD = {"torch": "2.13.0"}
HEADER = "# Every version that CI and dev.py install. Renew with: python3 dev.py lock\n"


def resolved() -> dict[str, str]:
    """Name → version of all packages, without Palladion itself and without local version labels (`+cpu`)."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--dry-run"]
        command += ["--ignore-installed", "--report", report.name, f"{ROOT}[{','.join(sorted(extras.keys() - APART))}]"]
        subprocess.run(command, check=True)
        return versions(json.load(report))


def versions(report: dict[str, Any]) -> dict[str, str]:
    """Name → version of a pip installation report."""
    found = {}
    for item in report["install"]:
        name = re.sub(r"[-_.]+", "-", item["metadata"]["name"]).lower()
        if name != "palladion":
            found[name] = item["metadata"]["version"].partition("+")[0]
    return found


def main() -> int:
    """Write the file. Returns the exit code."""
    pins = resolved() | HELD
    CONSTRAINTS.write_text(HEADER + "".join(f"{name}=={pins[name]}\n" for name in sorted(pins)))
    print(f"{CONSTRAINTS.name}: {len(pins)} packages")
    return 0


if __name__ == "__main__":
    sys.exit(main())
