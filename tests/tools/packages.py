"""Installed packages that consist of nothing but metadata, in a folder for `sys.path`."""

from collections.abc import Mapping, Sequence
from importlib.metadata import Distribution
from pathlib import Path


def install(
    site: Path,
    name: str,
    *,
    version: str = "1.0",
    requires: Sequence[str] = (),
    says: Sequence[str] = (),
    files: Mapping[str, bytes] | None = None,
) -> Distribution:
    """A package in `site` with `requires`, further metadata lines (`says`), and `files`, listed in its RECORD."""
    folder = site / f"{name}-{version}.dist-info"
    folder.mkdir(parents=True)
    lines = ["Metadata-Version: 2.4", f"Name: {name}", f"Version: {version}", *says]
    (folder / "METADATA").write_text("\n".join([*lines, *(f"Requires-Dist: {line}" for line in requires)]) + "\n")
    for path, content in (files or {}).items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_bytes(content)
    (folder / "RECORD").write_text("".join(f"{path},,\n" for path in files or {}))
    return Distribution.at(folder)
