"""Keeps the core install small and honest: how many packages, how large, and declared exactly as imported."""

import ast
import sys
from collections.abc import Iterable
from importlib.metadata import packages_distributions
from pathlib import Path

from packaging.utils import canonicalize_name

from tools.distributions import APART, closure, direct, disk_bytes, extras

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "palladion"

DIRECT_MAX = 18
PACKAGES_MAX = 45
DISK_BYTES_MAX = 350 * 10**6
# Not imported by us, but by another dependency that we tell to use it.
BY_NAME = {"httptools"}  # uvicorn's parser, chosen in gate/connections.py
FORBIDDEN = {"torch"}  # half a gigabyte that most users never need: an extra


def budget_complaints(direct_count: int, packages: dict[str, int]) -> list[str]:
    """What of the core install is over its limit; `packages` maps names to bytes on disk."""
    found = []
    if direct_count > DIRECT_MAX:
        found.append(f"{direct_count} direct dependencies, at most {DIRECT_MAX} are allowed")
    if len(packages) > PACKAGES_MAX:
        found.append(f"{len(packages)} packages, at most {PACKAGES_MAX} are allowed")
    total = sum(packages.values())
    if total > DISK_BYTES_MAX:
        found.append(f"{total / 1e6:.0f} MB on disk, at most {DISK_BYTES_MAX / 1e6:.0f} are allowed")
    found += [f"{name} is in the core install" for name in sorted(FORBIDDEN & packages.keys())]
    return found


def imported_modules(sources: Iterable[str]) -> set[str]:
    """Top-level names that Python sources import, wherever in the file."""
    names: set[str] = set()
    for source in sources:
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
                names.add(node.module.partition(".")[0])
    return names


def declaration_complaints(
    imported: set[str], core: set[str], extras: set[str], owners: dict[str, list[str]]
) -> list[str]:
    """What is imported and not declared, or declared for the core and not imported.

    `owners` maps a module to the distributions that bring it, as `packages_distributions` does.
    """
    found = []
    used: set[str] = set()
    for module in sorted(imported - set(sys.stdlib_module_names) - {"palladion"}):
        brought_by = {canonicalize_name(name) for name in owners.get(module, ())}
        used |= brought_by
        if not brought_by & (core | extras):
            found.append(f"{module} is imported and no dependency declares it")
    found += [f"{name} is declared and never imported" for name in sorted(core - used - BY_NAME)]
    return found


def main() -> int:
    """Check the core install. Returns the exit code."""
    core = direct()
    packages = {name: disk_bytes(item) for name, item in closure(core).items()}
    sources = [path.read_text(encoding="utf-8") for path in SOURCE.rglob("*.py")]
    owners = {module: list(names) for module, names in packages_distributions().items()}
    wrong = budget_complaints(len(core), packages)
    # what an extra brings along counts as declared: a library's own parts are often packages of their own
    here = [extra for extra in extras() if extra != "dev" and extra not in APART]
    optional = set(closure([name for extra in here for name in direct(extra)]))
    wrong += declaration_complaints(imported_modules(sources), set(core), optional, owners)
    total = sum(packages.values()) / 1e6
    print("\n".join(wrong) or f"{len(core)} direct dependencies, {len(packages)} packages, {total:.0f} MB on disk")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
