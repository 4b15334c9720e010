"""Looks an installation over: is everything there, private, sound, and recoverable. Changes nothing.

What it says is fine it has looked at; what it has not looked at, it says.
"""

import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, get_args

from palladion import keys
from palladion.errors import PalladionError
from palladion.keys import Recipient, Wrap
from palladion.ledger.audit import verify_ledger
from palladion.ledger.checkpoint import VerifierKey
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.audits import AUDITED, is_audit
from palladion.lifecycle.expiry import look_at_retained
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.open import require_registered
from palladion.lifecycle.reconcile import recorded, registered, unrecorded, unregistered, unserved
from palladion.registry import SealedFile, Version
from palladion.registry.rows import SealedKind
from palladion.seal.reader import inspect_file

BACKUP_AGE_MAX = timedelta(days=30)  # a month of versions and records is what one would lose
LOOKED_BACK_MAX = 100_000  # ledger entries searched for the last backup or audit; a second of reading
AUDITED_MAX = 300_000  # ledger entries that are all recomputed; some two seconds
MIB = 1024 * 1024
DIFFERENCES_MAX = 5  # an old registry differs in everything, and says so in one line as well as in a thousand

Status = Literal["ok", "warning", "problem"]


@dataclass(frozen=True)
class Check:
    """One thing that was looked at: a sentence of what is so, and what to do where it is not as it should be."""

    name: str
    status: Status
    message: str
    hint: str = ""


Look = tuple[str, Callable[[Installation], Iterator[Check]]]


def examine(installation: Installation, *, also: Sequence[Look] = ()) -> list[Check]:
    """Every check, in the order in which a person would mend what they find. A check that fails hides no other.

    `also` are looks, with their names, at what is built on this: they come last.
    """
    checks: list[Check] = []
    for name, look in (*_LOOKS, *also):
        try:
            checks += look(installation)
        except PalladionError as error:
            # two looks can meet with the same damage
            if error.message not in {check.message for check in checks}:
                checks.append(Check(name, "problem", error.message, error.hints[0] if error.hints else ""))
    return checks


def _permissions(installation: Installation) -> Iterator[Check]:
    paths = installation.paths
    private = (
        paths.directory,
        paths.gate.parent,
        paths.gate,
        paths.owner,
        paths.host_identity,
        paths.registry,
        paths.sealed,
        paths.ledger,
    )
    exposed = list(_exposed(private, 0o077, "read it"))
    # the policy holds no secret, and says whose signatures count
    exposed += _exposed([paths.policy], 0o022, "change it")
    yield from exposed
    if not exposed:
        yield Check("permissions", "ok", "folders and keys are readable by their owner only")


def _exposed(paths: Iterable[Path], forbidden: int, what: str) -> Iterator[Check]:
    for path in paths:
        mode = stat.S_IMODE(path.stat().st_mode) if path.exists() else 0
        if mode & forbidden:
            right = mode & ~forbidden
            message = f"{path} has mode {mode:04o}: others may {what}"
            yield Check("permissions", "problem", message, f"chmod {right:o} {path}")


def _host_identity(installation: Installation) -> Iterator[Check]:
    gate = installation.open_gate_root()
    path = installation.paths.host_identity.resolve()
    if path.is_relative_to(installation.paths.directory.resolve()):
        hint = "move it elsewhere and set keys.host_identity: now a copy of the folder opens the served versions"
        yield Check("host identity", "problem", f"{path} lies in the installation folder", hint)
    else:
        yield Check("host identity", "ok", f"{path} unlocks the gate root")
    if installation.pinned_ledger_key() is None:
        key = VerifierKey(installation.policy.ledger.origin, gate.public().keys["checkpoint"])
        yield Check(
            "ledger key",
            "warning",
            "the policy does not name it: whoever rewrites the ledger can name his own key in keys/gate.json",
            f'write into palladion.toml, under [ledger]: key = "{key}"',
        )


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
    escrow = installation.escrow_recipients()
    owner_is_here = installation.paths.owner.is_file()
    faults: list[Check] = []
    # passphrase and host identity are beside the escrow recipients, and the owner where his key is not known here
    wraps = keys.read_wraps(installation.keyring("gate"), what="the gate root")
    faults += _wrapped("the gate root", wraps, _owner_and_escrow(installation), others_max=1 if owner_is_here else 2)
    if owner_is_here:
        wraps = keys.read_wraps(installation.keyring("owner"), what="the owner root")
        faults += _wrapped("the owner root", wraps, escrow, others_max=None)
    yield from faults
    if not escrow:
        hint = "palladion recipient new on another machine, its key into keys.escrow, then palladion key rewrap"
        yield Check("escrow", "warning", "none: a forgotten owner passphrase loses every original", hint)
    elif not faults:
        roots = "both roots are" if owner_is_here else "the gate root is"
        count = f"the {len(escrow)} escrow recipients" if len(escrow) > 1 else "the escrow recipient"
        unseen = "" if owner_is_here else "; the owner root is not here to be looked at"
        yield Check("escrow", "ok", f"{roots} wrapped to {count}{unseen}")


def _owner_and_escrow(installation: Installation) -> list[Recipient]:
    """Whoever opens every original and the gate root; without the owner, where his root is not on this host."""
    escrow = installation.escrow_recipients()
    if not installation.paths.owner.is_file():
        return escrow
    return [installation.stated_recipient("owner"), *escrow]


def _wrapped(
    what: str, wraps: Sequence[Wrap], expected: Sequence[Recipient], *, others_max: int | None
) -> Iterator[Check]:
    """Problems with who can open `what`: a recipient that cannot, or more than `others_max` that nobody named."""
    hint = "palladion key rewrap"
    found = {(wrap.kind, wrap.key_id) for wrap in wraps}
    for recipient in expected:
        if (recipient.kind, recipient.key_id) not in found:
            yield Check("escrow", "problem", f"{what} is not wrapped to {recipient}", hint)
    others = sorted(found - {(recipient.kind, recipient.key_id) for recipient in expected})
    if others_max is not None and len(others) > others_max:
        listed = ", ".join(f"{kind} {key_id}" for kind, key_id in others)
        yield Check("escrow", "warning", f"{what} opens for others than the policy names, among {listed}", hint)


def _registry(installation: Installation) -> Iterator[Check]:
    with installation.open_registry() as registry:
        if registry.path != installation.paths.registry:
            yield from _exposed([registry.path], 0o077, "read it")
        registry.verify()
        with registry.read() as records:
            models = records.models.all()
            versions = [version for model in models for version in records.versions.all(model.name)]
    yield Check("registry", "ok", f"{len(models)} models, {len(versions)} versions")
    yield from _sealed_files(installation, versions)


def _sealed_files(installation: Installation, versions: Sequence[Version]) -> Iterator[Check]:
    folder = installation.paths.sealed
    recipients = _owner_and_escrow(installation)
    others_max = 0 if installation.paths.owner.is_file() else 1
    faults: list[Check] = []
    missing: list[str] = []
    known: set[str] = set()
    for version, kind, file in _files(versions):
        known.add(file.path)
        if not (folder / file.path).is_file():
            missing.append(file.path)
            continue
        try:
            info = inspect_file(folder / file.path)
            require_registered(info, version, kind, folder / file.path)
        except PalladionError as error:
            faults.append(Check("sealed files", "problem", error.message, "restore it from a backup"))
            continue
        if kind == "original":
            faults += _wrapped(file.path, info.wraps, recipients, others_max=others_max)
    if missing:
        message = f"{len(missing)} sealed files are missing, {min(missing)} first"
        faults.append(Check("sealed files", "problem", message, "restore them from a backup"))
    yield from faults
    if not faults:
        message = f"{len(known)} sealed files are in their place, of the right size and header"
        yield Check("sealed files", "ok", f"{message}; palladion verify checks their content")
    stray = sorted(
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and path.relative_to(folder).as_posix() not in known
    )
    if stray:
        message = f"{len(stray)} files belong to no version, {stray[0]} first"
        hint = "unless a protect or key rewrap is running, one was interrupted, and they can be removed"
        yield Check("sealed files", "warning", message, hint)


def _files(versions: Iterable[Version]) -> Iterator[tuple[Version, SealedKind, SealedFile]]:
    for version in versions:
        for kind in get_args(SealedKind):
            file = version.served if kind == "served" else version.original
            if file is not None:
                yield version, kind, file


def _ledger(installation: Installation) -> Iterator[Check]:
    reader = installation.read_ledger()
    size, origin = reader.size, reader.checkpoint.origin
    if size > AUDITED_MAX:
        message = f"{size} entries under a checkpoint that {origin} signed; more than {AUDITED_MAX} are not recomputed"
        yield Check("ledger", "ok", f"{message} here: palladion ledger verify does it")
    else:
        size = verify_ledger(installation.paths.ledger, installation.ledger_key()).size
        yield Check("ledger", "ok", f"{size} entries, all recomputed, under a checkpoint that {origin} signed")


def _history(installation: Installation) -> Iterator[Check]:
    with installation.open_registry() as registry:
        # before and after the ledger is read, because commands may be at work meanwhile
        with registry.read() as records:
            before = registered(records)
        ledger = recorded(installation, installation.open_gate_root())
        with registry.read() as records:
            after = registered(records)
    found = [*unrecorded(before, ledger), *unregistered(ledger, after), *unserved(before, ledger, after)]
    for difference in found[:DIFFERENCES_MAX]:
        yield Check("history", "problem", difference.message, difference.hint)
    if len(found) > DIFFERENCES_MAX:
        message = f"registry and ledger differ in {len(found) - DIFFERENCES_MAX} further things"
        yield Check("history", "problem", message, "restore the newest backup")
    if not found:
        yield Check("history", "ok", "registry and ledger tell the same of every version and promotion")


def _backup(installation: Installation) -> Iterator[Check]:
    made = [record.time for record in _recent(installation, "backup.made")]
    age = installation.clock.now() - made[-1] if made else None
    if age is None or age > BACKUP_AGE_MAX:
        message = "there is no backup" if age is None else f"the last backup is {age.days} days old"
        yield Check("backup", "warning", message, "palladion backup FOLDER, on another machine's disk")
    else:
        yield Check("backup", "ok", f"the last backup is {age.days} days old")


def _audits(installation: Installation) -> Iterator[Check]:
    """Whether the red team attacked each version that is served, as long ago as the policy allows at most."""
    limit = timedelta(days=installation.policy.redteam.overdue_days)
    with installation.open_registry() as registry, registry.read() as records:
        models = sorted({route.model for route in installation.policy.route})
        current = [version for name in models if (version := records.promotions.current(name)) is not None]
    served = [f"{version.model}@{version.number}" for version in current]
    if not served:
        return
    done = {item.subject: item.time for item in _recent(installation, AUDITED) if is_audit(item)}
    late = [name for name in served if name not in done or installation.clock.now() - done[name] > limit]
    for name in late:
        age = f"for {(installation.clock.now() - done[name]).days} days" if name in done else "so far"
        hint = f"palladion redteam run {name} --rows FILE, or palladion redteam schedule"
        yield Check("red team", "warning", f"{name} is served and was not audited {age}", hint)
    if not late:
        yield Check(
            "red team", "ok", f"all {len(served)} versions that are served were audited within {limit.days} days"
        )


def _recent(installation: Installation, kind: str) -> Iterator[Record]:
    """Records of a kind among the ledger's last ones, in order."""
    reader = installation.read_ledger()
    named = f'"{kind}"'.encode()
    for index, entry in reader.entries(max(0, reader.size - LOOKED_BACK_MAX)):
        if named in entry and (record := decode_record(entry, what=f"entry {index}")).kind == kind:
            yield record


def check_tracing(installation: Installation, model: str | None = None) -> Iterator[Check]:
    """Whether a student of our answers could be traced to an account: only what was marked when it was given can.

    Of the routes of one `model`, or of all.
    """
    routes = [route for route in installation.policy.route if model in (None, route.model)]
    unmarked = [route.route for route in routes if route.flipped == 0]
    faults: list[Check] = []
    with installation.open_registry() as registry, registry.read() as records:
        for name in sorted({route.model for route in routes if route.flipped > 0}):
            version = records.promotions.current(name)
            if version is not None and records.calibrations.newest(name, version.number) is None:
                message = f"version {version.number} of {name} is not calibrated, so its answers cannot be marked"
                hint = f"palladion watch calibrate {name}@{version.number}, or the gate does not start"
                faults.append(Check("student tracing", "problem", message, hint))
    if unmarked:
        message = f"{len(unmarked)} routes mark no answers, {unmarked[0]} first: no student of them can be traced"
        hint = "calibrate the model, and write flipped = 0.03 into its [[route]]; 3 of 100 unsure labels turn then"
        faults.append(Check("student tracing", "warning", message, hint))
    yield from faults
    if routes and not faults:
        yield Check("student tracing", "ok", f"all {len(routes)} routes mark their answers, each client's its own way")


def _retention(installation: Installation) -> Iterator[Check]:
    """What is kept of queries, and for how long; what has been kept for longer than was said."""
    policy, name = installation.policy.retention, "retained queries"
    kept = look_at_retained(installation)
    size = f"{kept.files} files of {kept.clients} clients, {kept.size / MIB:.1f} MiB" if kept.files else "none yet"
    days = f"{policy.days} days, with a marked answer {policy.marked_days}"
    unlooked = f"; {kept.unlooked} files were not looked through" if kept.unlooked else ""
    marking = any(route.flipped > 0 for route in installation.policy.route)
    if kept.overdue and installation.server_status() is None:
        message = f"{size}; some have been kept for longer than {days}"
        yield Check(name, "warning", message, "palladion ledger expire, or let a gate run, which erases them")
    elif policy.queries == 0 or not (policy.unmarked or marking):
        message = "none are kept of queries to come: no new version can be calibrated before anybody asks it"
        hint = "retention.queries = 5000 and retention.unmarked = true, if your clients' data may be kept"
        yield Check(name, "warning", f"{message}, and no policy be tried on what was asked", hint)
    else:
        whose = "of each client and version" if policy.unmarked else "with marked answers, of each client and version,"
        yield Check(name, "ok", f"{size}; at most {policy.queries} {whose} are kept, for {days}{unlooked}")


_LOOKS: tuple[Look, ...] = (
    ("permissions", _permissions),
    ("host identity", _host_identity),
    ("owner root", _owner_root),
    ("escrow", _escrow),
    ("registry", _registry),
    ("ledger", _ledger),
    ("history", _history),
    ("backup", _backup),
    ("red team", _audits),
    ("student tracing", check_tracing),
    ("retained queries", _retention),
)
