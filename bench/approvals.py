"""How long does it take to know what the ledger says of approvals, with an index and without?"""

import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bench.report import Report, interleaved, main
from palladion.clock import ManualClock
from palladion.ledger.record import Record
from palladion.ledger.remote import LedgerWriter
from palladion.ledger.writer import BATCH_MAX
from palladion.lifecycle.approval_board import read_board
from palladion.lifecycle.approval_index import APPROVAL_INDEX_FILE
from palladion.lifecycle.approvals import Asking, ask
from palladion.lifecycle.create import Plan, create_installation
from palladion.lifecycle.installation import Installation
from palladion.seal.recipients import FileIdentity

SIZE, QUICK_SIZE = 1_000_000, 60_000
REQUESTS = 100  # spread over the ledger, so that each is in a bundle of its own
START = datetime(2026, 6, 1, tzinfo=UTC)
OWNER = FileIdentity(bytes(range(32)))


def measure(report: Report) -> None:
    """Fill the report."""
    size = QUICK_SIZE if report.quick else SIZE
    with tempfile.TemporaryDirectory() as folder:
        installation = _made(Path(folder), size)
        gate = installation.open_gate_root()
        index = installation.paths.ledger / APPROVAL_INDEX_FILE
        index.unlink(missing_ok=True)
        began = time.process_time()
        board = read_board(installation, gate)  # which writes the index
        first = time.process_time() - began
        runs: dict[str, Callable[[], object]] = {
            "whole": lambda: read_board(installation, gate, whole=True),
            "indexed": lambda: read_board(installation, gate),
        }
        timings = interleaved(runs, repeats=5)
        what = f"approvals of {size:,} entries, {len(board.cases)} requests among them"
        report.add(f"{what}, all of it read", timings["whole"].median, "s CPU", reference=timings["whole"].noise)
        beside = timings["indexed"].beside(timings["whole"], "reading all")
        report.at_most(f"{what}, by the index", timings["indexed"].median, "s CPU", 0.5, reference=beside)
        report.add("reading all and writing the index anew", first, "s CPU", reference=timings["whole"].noise)
        report.add("the index on disk", index.stat().st_size / 1024, "KiB")


def _made(folder: Path, size: int) -> Installation:
    """An installation with that many entries, of which requests are some."""
    home = folder / "home"
    home.mkdir()
    clock = ManualClock(START)
    plan = Plan(home, str(folder / "host.identity"), ())
    installation = create_installation(plan, [OWNER.recipient], [], actor="user:bench", clock=clock)
    gate = installation.open_gate_root()
    for number in range(REQUESTS):
        with installation.open_ledger(gate) as ledger:
            _fill(ledger, size // REQUESTS, clock)
        clock.advance(timedelta(hours=2))  # so that requests end, and few wait at a time
        asking = Asking("fraud@1", "export", "a contract", file_id=f"{number:032x}")
        ask(installation, asking, actor="user:bench", hours=1)
    return installation


def _fill(ledger: LedgerWriter, count: int, clock: ManualClock) -> None:
    details = {"digest": "a" * 64, "route": "/v1/fraud"}
    for start in range(0, count, BATCH_MAX):
        batch = range(start, min(count, start + BATCH_MAX))
        ledger.append([Record("answer.given", clock.now(), f"client:{n % 5000}", "fraud@1", details) for n in batch])


if __name__ == "__main__":
    main("approvals", __doc__ or "", measure)
