"""Lets old answers of the ledger go, after the ledger says so."""

from collections.abc import Callable
from contextlib import closing
from datetime import datetime

from palladion.errors import PalladionError
from palladion.ledger.index import INDEX_FILE, Index
from palladion.ledger.pruning import Plan, plan, prune, pruned_record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation

Progress = Callable[[int, int], None]


def plan_pruning(installation: Installation, before: datetime, progress: Progress | None = None) -> Plan:
    """What would be let go of what happened before a moment. Raises TamperError at what is not proved."""
    if before > installation.clock.now():
        raise PalladionError("only what is past can be let go: name an earlier time")
    return plan(installation.read_ledger(), before, progress)


def finish_pruning(installation: Installation, progress: Progress | None = None) -> None:
    """Go on with what was recorded, and interrupted before all of it was let go."""
    reader = installation.read_ledger()
    if reader.pruned is not None:
        prune(reader, reader.pruned.record, progress)


def prune_ledger(
    installation: Installation, found: Plan, *, reason: str, actor: str, progress: Progress | None = None
) -> Receipt:
    """Record what is let go, and let go of it. Begun again after an interruption, it goes on where it was.

    Raises PalladionError without a reason, TamperError, StorageError.
    """
    if not reason.strip():
        raise PalladionError("a reason is needed, such as the rule that says how long answers are kept")
    subject = installation.paths.home.name
    with installation.recording(installation.open_gate_root()) as (ledger, _):
        record = pruned_record(found, reason=reason, actor=actor, subject=subject, now=installation.clock.now())
        receipt = ledger.append([record])[0]
        # deleting what no checkpoint speaks of would look like theft
        ledger.checkpoint()
    reader = installation.read_ledger()
    prune(reader, receipt.index, progress)
    path = reader.directory / INDEX_FILE
    if path.exists():
        with closing(Index(path)) as index:
            index.forget(reader)
    return receipt
