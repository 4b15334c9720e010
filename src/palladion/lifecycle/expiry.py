"""Erases retained queries whose days have passed, where no gate runs that does it; and says how much is kept."""

from collections.abc import Callable
from dataclasses import dataclass

from palladion.errors import ConflictError, PalladionError
from palladion.ledger.bodies import FOLDER, body_path, retained_names
from palladion.ledger.expiry import Days, expire, expired_record, is_due
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation

LOOKED_AT_MAX = 1000  # files that are looked through for something due, when that is only to be said; some seconds


@dataclass(frozen=True)
class Expired:
    """What was erased, of how many clients; `failed` says of files why they could not be looked through."""

    bodies: int
    clients: int
    receipt: Receipt | None
    failed: tuple[str, ...]


@dataclass(frozen=True)
class Kept:
    """What is retained: `files`, one for each client and version, and whether something in them is `overdue`.

    `unlooked` of the files were not looked through for that.
    """

    files: int
    clients: int
    size: int
    overdue: bool
    unlooked: int


def days_of(installation: Installation) -> Days:
    """How long bodies stay, as the policy says."""
    return Days(installation.policy.retention.days, installation.policy.retention.marked_days)


def expire_retained(
    installation: Installation, *, actor: str, progress: Callable[[int, int], None] = lambda done, total: None
) -> Expired:
    """Erase what is due, and record how much.

    A file that is damaged keeps no other from being looked through. Raises ConflictError while a gate serves, which
    does this itself; BusyError while another command writes.
    """
    if installation.server_status() is not None:
        raise ConflictError("a gate serves, and erases by itself what is due: every hour, and when it starts")
    gate, now, days = installation.open_gate_root(), installation.clock.now(), days_of(installation)
    folder, key = installation.paths.directory / FOLDER, gate.derive("body-cipher")
    bodies, clients, failed = 0, set[str](), list[str]()
    # held all the time: whoever serves writes to these files
    with installation.lock_ledger(gate) as ledger:
        names = retained_names(folder)
        try:
            for done, name in enumerate(names):
                progress(done, len(names))
                try:
                    erased = expire(folder, key, name, days, now) if is_due(folder, key, name, days, now) else 0
                except PalladionError as error:
                    failed.append(error.message)
                    continue
                bodies += erased
                clients |= {name[0]} if erased else set()
        finally:
            receipt = None
            if bodies:
                subject = installation.paths.home.name
                record = expired_record(bodies, len(clients), days, actor=actor, subject=subject, now=now)
                receipt = ledger.append([record])[0]
    return Expired(bodies, len(clients), receipt, tuple(failed))


def look_at_retained(installation: Installation) -> Kept:
    """What is retained now. Raises PalladionError where a file that is looked through is damaged."""
    gate, now, days = installation.open_gate_root(), installation.clock.now(), days_of(installation)
    folder, key = installation.paths.directory / FOLDER, gate.derive("body-cipher")
    names = retained_names(folder)
    size = sum(path.stat().st_size for name in names if (path := body_path(folder, *name)).exists())
    overdue = any(is_due(folder, key, name, days, now) for name in names[:LOOKED_AT_MAX])
    return Kept(len(names), len({client for client, _ in names}), size, overdue, max(0, len(names) - LOOKED_AT_MAX))
