"""Installed distributions as a graph: which packages Palladion's core and extras need."""

from importlib.metadata import Distribution, PackageNotFoundError, distribution, metadata, requires
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

# extras that pin what others need newer: they live in an environment of their own, and are not installed here
APART = frozenset({"fl"})


def direct(extra: str = "") -> list[str]:
    """Names that Palladion itself requires: the core's, or those that `extra` adds."""
    wanted = [Requirement(line) for line in requires("palladion") or ()]
    if extra:
        return [canonicalize_name(r.name) for r in wanted if r.marker and r.marker.evaluate({"extra": extra})]
    return [canonicalize_name(r.name) for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]


def extras() -> list[str]:
    """The names of Palladion's extras."""
    return sorted(metadata("palladion").get_all("Provides-Extra") or ())


def closure(names: list[str]) -> dict[str, Distribution]:
    """`names` and everything they require on this machine, by name. Raises PackageNotFoundError if one is missing."""
    found: dict[str, Distribution] = {}
    pending = [Requirement(name) for name in names]
    seen: set[tuple[str, frozenset[str]]] = set()
    while pending:
        requirement = pending.pop()
        name = canonicalize_name(requirement.name)
        key = (name, frozenset(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            raise PackageNotFoundError(f"{name} is required and not installed") from None
        for line in found[name].requires or ():
            needed = Requirement(line)
            marker = needed.marker
            if marker is None or any(marker.evaluate({"extra": extra}) for extra in {"", *requirement.extras}):
                pending.append(needed)
    return found


def disk_bytes(item: Distribution) -> int:
    """Bytes of a distribution's installed files, without compiled caches."""
    files = [item.locate_file(path) for path in item.files or () if path.suffix != ".pyc"]
    return sum(path.stat().st_size for path in map(_path, files) if path.is_file())


def _path(item: object) -> Path:
    return Path(str(item))
