"""Lets old answers of the ledger go, after the ledger says so."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from datetime import datetime

from palladion import files
from palladion.errors import ConflictError, PalladionError
from palladion.ledger.index import INDEX_FILE, Index
from palladion.ledger.pruning import Plan, plan, prune, pruned_record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation

LOCK_FILE = "pruning.lock"

Progress = Callable[[int, int], None]


def plan_pruning(installation: Installation, before: datetime, progress: Progress | None = None) -> Plan:
    """What would be let go of what happened before a moment. Raises TamperError at what is not proved."""
    now = installation.clock.now()
    if before > now:
        raise PalladionError("only what is past can be let go: name an earlier time")
    return plan(installation.read_ledger(), before, now, progress)


def finish_pruning(installation: Installation, progress: Progress | None = None) -> None:
    """Go on with what was recorded, and interrupted before all of it was let go. Raises BusyError."""
    with _alone(installation):
        reader = installation.read_ledger()
        if reader.pruned is not None:
            prune(reader, reader.pruned.record, progress)
            _forget(installation)


def prune_ledger(
    installation: Installation, found: Plan, *, reason: str, actor: str, progress: Progress | None = None
) -> Receipt:
    """Record what is let go, and let go of it. Begun again after an interruption, it goes on where it was.

    Raises PalladionError without a reason, ConflictError where it was pruned since the plan was made, BusyError while
    somebody else prunes, TamperError, StorageError.
    """
    if not reason.strip():
        raise PalladionError("a reason is needed, such as the rule that says how long answers are kept")
    subject = installation.paths.home.name
    with _alone(installation):
        known = installation.read_ledger().pruned
        if (known.record if known is not None else None) != found.previous:
            raise ConflictError("the ledger was pruned by somebody else meanwhile", "look again what is old enough")
        with installation.recording(installation.open_gate_root()) as (ledger, _):
            record = pruned_record(found, reason=reason, actor=actor, subject=subject, now=installation.clock.now())
            receipt = ledger.append([record])[0]
            # deleting what no checkpoint speaks of would look like theft
            ledger.checkpoint()
        prune(installation.read_ledger(), receipt.index, progress)
        _forget(installation)
    return receipt


def _alone(installation: Installation) -> AbstractContextManager[None]:
    """Nobody else plans by what is deleted here, or deletes by what was planned before."""
    return files.exclusive_lock(installation.paths.ledger / LOCK_FILE, what="what is let go of the ledger")


def _forget(installation: Installation) -> None:
    reader = installation.read_ledger()
    path = reader.directory / INDEX_FILE
    if path.exists():
        with closing(Index(path)) as index:
            index.forget(reader)
