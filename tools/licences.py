"""Fails if a dependency's licence is GPL, AGPL, non-commercial or unknown. `--table` prints what each package says.

Reads the metadata of the installed packages: the SPDX expression where there is one, else the old free-text field, else
the classifiers. LGPL is accepted only for optional plug-ins, named below.
"""

import re
import sys
import tomllib
from importlib.metadata import Distribution
from pathlib import Path

from tools.distributions import APART, closure, direct

ROOT = Path(__file__).resolve().parents[1]

ALLOWED = {
    "0BSD", "APACHE-2.0", "APACHE-2.0 WITH LLVM-EXCEPTION", "BSD-2-CLAUSE", "BSD-3-CLAUSE",
    "BSL-1.0", "CC0-1.0", "CNRI-PYTHON", "ISC", "MIT", "MIT-0", "MIT-CMU", "MPL-2.0", "PSF-2.0", "PYTHON-2.0",
    "UNLICENSE", "ZLIB",
}  # fmt: skip
# Copyleft that stops at the library: only where the user installs it on purpose.
LGPL_PLUGINS: set[str] = set()
# Free text and classifiers that older packages use, as SPDX.
SPELLINGS = {
    "3-CLAUSE BSD LICENSE": "BSD-3-CLAUSE",
    "APACHE": "APACHE-2.0",
    "APACHE 2.0": "APACHE-2.0",
    "APACHE 2.0 LICENSE": "APACHE-2.0",
    "APACHE LICENSE 2.0": "APACHE-2.0",
    "APACHE LICENSE V2.0": "APACHE-2.0",
    "APACHE LICENSE, VERSION 2.0": "APACHE-2.0",
    "APACHE SOFTWARE LICENSE": "APACHE-2.0",
    "BSD": "BSD-3-CLAUSE",
    "BSD LICENSE": "BSD-3-CLAUSE",
    "BSD 2-CLAUSE LICENSE": "BSD-2-CLAUSE",
    "ISC LICENSE": "ISC",
    "MIT LICENSE": "MIT",
    "MOZILLA PUBLIC LICENSE 2.0 (MPL 2.0)": "MPL-2.0",
    "PSFL": "PSF-2.0",
    "PYTHON SOFTWARE FOUNDATION LICENSE": "PSF-2.0",
}


# What packages whose metadata does not say enough state in their licence file.
STATED = {
    "atheris": "Apache-2.0",
    "cedarpy": "Apache-2.0",
    "python-dateutil": "Apache-2.0 OR BSD-3-Clause",
    "sigstore-models": "MIT",
}


def judge(expression: str, *, plugin: bool = False) -> bool:
    """Whether an SPDX expression leaves a licence that we may use: one side of each OR, both sides of each AND.

    Raises ValueError if it is not an expression.
    """
    tokens = re.findall(r"\(|\)|[^\s()]+", expression.upper())
    verdict, rest = _either(tokens, plugin)
    if rest:
        raise ValueError(f"not a licence expression: {expression!r}")
    return verdict


def stated(item: Distribution) -> str:
    """What a distribution says its licence is, as SPDX where it can be told; empty if it says nothing."""
    metadata = item.metadata
    if metadata["License-Expression"]:
        return str(metadata["License-Expression"])
    text = (metadata["License"] or "").strip()
    if text and "\n" not in text:
        return SPELLINGS.get(text.upper(), text)
    classified = [
        line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier") or () if line.startswith("License")
    ]
    names = [SPELLINGS.get(line.upper(), line) for line in classified if line != "OSI Approved"]
    # several classifiers mean that all of them apply to some part
    return " AND ".join(names)


def complaints(packages: dict[str, Distribution]) -> list[str]:
    """A sentence for every package whose licence is not accepted."""
    found = []
    for name, item in sorted(packages.items()):
        licence = STATED.get(name) or stated(item)
        try:
            accepted = bool(licence) and judge(licence, plugin=name in LGPL_PLUGINS)
        except ValueError:
            accepted = False
        if not accepted:
            found.append(f"{name} {item.version}: licence {licence or 'unknown'!r} is not accepted")
    return found


def _either(tokens: list[str], plugin: bool) -> tuple[bool, list[str]]:
    verdict, tokens = _both(tokens, plugin)
    while tokens and tokens[0] == "OR":
        other, tokens = _both(tokens[1:], plugin)
        verdict = verdict or other
    return verdict, tokens


def _both(tokens: list[str], plugin: bool) -> tuple[bool, list[str]]:
    verdict, tokens = _single(tokens, plugin)
    while tokens and tokens[0] == "AND":
        other, tokens = _single(tokens[1:], plugin)
        verdict = verdict and other
    return verdict, tokens


def _single(tokens: list[str], plugin: bool) -> tuple[bool, list[str]]:
    if not tokens or tokens[0] in {"AND", "OR", "WITH", ")"}:
        raise ValueError("a licence name was expected")
    if tokens[0] == "(":
        verdict, rest = _either(tokens[1:], plugin)
        if not rest or rest[0] != ")":
            raise ValueError("a closing parenthesis was expected")
        return verdict, rest[1:]
    name, rest = tokens[0], tokens[1:]
    if len(rest) > 1 and rest[0] == "WITH":
        name, rest = f"{name} WITH {rest[1]}", rest[2:]
    lesser = plugin and name.startswith("LGPL-")
    return name in ALLOWED or lesser, rest


def main() -> int:
    """Check every dependency of the core and of each extra. Returns the exit code."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    packages = closure([*direct(), *(name for extra in extras.keys() - APART for name in direct(extra))])
    if "--table" in sys.argv[1:]:
        for name, item in sorted(packages.items()):
            print(f"{name:<24}{item.version:<14}{stated(item)}")
    wrong = complaints(packages)
    print("\n".join(wrong) if wrong else f"{len(packages)} packages, all under accepted licences")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
