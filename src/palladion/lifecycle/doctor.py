"""Looks an installation over: is everything there, private, sound, and recoverable. Changes nothing."""

import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from palladion.errors import PalladionError
from palladion.ledger.record import decode_record
from palladion.lifecycle.installation import Installation

BACKUP_AGE_MAX = timedelta(days=30)  # a month of versions and records is what one would lose
LOOKED_BACK_MAX = 100_000  # ledger entries searched for the last backup; a second of reading

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: a sentence of what is so, and what to do where it is not as it should be."""

    name: str
    status: Status
    message: str
    hint: str = ""


def examine(installation: Installation) -> list[Check]:
    """Every check, in the order in which a person would mend what they find. A check that fails hides no other."""
    checks: list[Check] = []
    for name, look in _LOOKS:
        try:
            checks += look(installation)
        except PalladionError as error:
            checks.append(Check(name, "problem", error.message, error.hints[0] if error.hints else ""))
    return checks


def _permissions(installation: Installation) -> Iterator[Check]:
    paths = installation.paths
    exposed = [
        path
        for path in (paths.directory, paths.gate.parent, paths.gate, paths.owner, paths.host_identity, paths.registry)
        if path.exists() and stat.S_IMODE(path.stat().st_mode) & 0o077
    ]
    for path in exposed:
        mode = stat.S_IMODE(path.stat().st_mode)
        right = "700" if path.is_dir() else "600"
        yield Check(
            "permissions", "problem", f"{path} has mode {mode:04o}: others may read it", f"chmod {right} {path}"
        )
    if not exposed:
        yield Check("permissions", "ok", "folders and keys are readable by their owner only")


def _host_identity(installation: Installation) -> Iterator[Check]:
    installation.open_gate_root()
    path = installation.paths.host_identity.resolve()
    if path.is_relative_to(installation.paths.directory.resolve()):
        hint = "move it elsewhere and set keys.host_identity: now a copy of the folder opens the served versions"
        yield Check("host identity", "problem", f"{path} lies in the installation folder", hint)
    else:
        yield Check("host identity", "ok", f"{path} unlocks the gate root")


def _owner_root(installation: Installation) -> Iterator[Check]:
    if not installation.paths.owner.is_file():
        message = f"the owner root is not on this host ({installation.paths.owner})"
        yield Check("owner root", "ok", f"{message}: nothing can be protected here, and no original opened")
        return
    if installation.public_keys("owner").keys["publisher"] not in installation.publishers():
        hint = "compare trust.publishers in palladion.toml with palladion key list"
        yield Check("owner root", "problem", "the policy does not trust this installation's own publisher key", hint)
        return
    yield Check(
        "owner root",
        "warning",
        f"{installation.paths.owner} is on this host, behind its passphrase",
        "on a host that serves, keep it on a disk that you take away, and point keys.owner to it",
    )


def _escrow(installation: Installation) -> Iterator[Check]:
    count = len(installation.escrow_recipients())
    if count:
        yield Check(
            "escrow", "ok", f"{count} escrow recipient{'s' if count > 1 else ''} can recover what the owner can"
        )
    else:
        hint = "palladion recipient new on another machine, its key into keys.escrow, then palladion key rewrap"
        yield Check("escrow", "warning", "none: a forgotten owner passphrase loses every original", hint)


def _registry(installation: Installation) -> Iterator[Check]:
    with installation.open_registry() as registry:
        registry.verify()
        with registry.read() as records:
            models = records.models.all()
            versions = [version for model in models for version in records.versions.all(model.name)]
    yield Check("registry", "ok", f"{len(models)} models, {len(versions)} versions")
    sealed = installation.paths.sealed
    known = {file.path for version in versions for file in (version.served, version.original) if file}
    missing = sorted(path for path in known if not (sealed / path).is_file())
    if missing:
        message = f"{len(missing)} sealed files are missing, {missing[0]} first"
        yield Check("sealed files", "problem", message, "restore them from a backup")
    else:
        yield Check("sealed files", "ok", f"{len(known)} sealed files are in their place")
    stray = sorted(
        path.relative_to(sealed).as_posix()
        for path in sealed.rglob("*")
        if path.is_file() and path.relative_to(sealed).as_posix() not in known
    )
    if stray:
        message = f"{len(stray)} files belong to no version, {stray[0]} first"
        yield Check("sealed files", "warning", message, "left by an attempt that was interrupted: they can be removed")


def _ledger(installation: Installation) -> Iterator[Check]:
    reader = installation.read_ledger()
    yield Check("ledger", "ok", f"{reader.size} entries under a checkpoint that {reader.checkpoint.origin} signed")
    start = max(0, reader.size - LOOKED_BACK_MAX)
    made = [
        record.time
        for index, entry in reader.entries(start)
        if b'"backup.made"' in entry and (record := decode_record(entry, what=f"entry {index}")).kind == "backup.made"
    ]
    age = installation.clock.now() - made[-1] if made else None
    if age is None or age > BACKUP_AGE_MAX:
        message = "there is no backup" if age is None else f"the last backup is {age.days} days old"
        yield Check("backup", "warning", message, "palladion backup FOLDER, on another machine's disk")
    else:
        yield Check("backup", "ok", f"the last backup is {age.days} days old")


_LOOKS: tuple[tuple[str, Callable[[Installation], Iterator[Check]]], ...] = (
    ("permissions", _permissions),
    ("host identity", _host_identity),
    ("owner root", _owner_root),
    ("escrow", _escrow),
    ("registry", _registry),
    ("ledger", _ledger),
)
