"""`palladion ledger prune`: let old answers go, and keep everything else provable."""

from datetime import UTC, datetime, timedelta

import click

from palladion.cli.ledger_options import MOMENT
from palladion.cli.output import actor, echo, find_installation, json_option, print_json, progress


@click.command(epilog='Example: palladion ledger prune --before 365d --reason "answers are kept for a year"')
@click.option("--before", type=MOMENT, required=True, metavar="TIME", help="What is older: 2025-11-24, or 365d ago.")
@click.option("--reason", default="", metavar="TEXT", help="Why; the ledger keeps it.")
@click.option("--dry-run", is_flag=True, help="Say what would be let go, and let go of nothing.")
@json_option
@click.pass_context
def prune(ctx: click.Context, before: datetime | timedelta, reason: str, *, dry_run: bool, as_json: bool) -> None:
    """Delete the records of old answers and refusals, for good; records of every other kind stay.

    Hashes stay as well: every checkpoint and every proof holds as before. The ledger itself says what was let go.
    Backups that were made before still hold it.
    """
    from palladion.lifecycle.prune import finish_pruning, plan_pruning, prune_ledger

    installation = find_installation(ctx)
    moment = datetime.now(UTC) - before if isinstance(before, timedelta) else before
    if not dry_run:
        finish_pruning(installation)
    with progress("look") as bar:
        found = plan_pruning(installation, moment, bar)
    receipt = None
    if found.dropped and not dry_run:
        with progress("prune") as bar:
            receipt = prune_ledger(installation, found, reason=reason, actor=actor(), progress=bar)
    if as_json:
        print_json(
            {
                "dry_run": dry_run,
                "until": found.until,
                "dropped": found.dropped,
                "kept": found.kept,
                "bytes": found.bytes,
                "entry": receipt.index if receipt is not None else None,
            }
        )
    elif not found.dropped:
        echo("nothing is old enough: entries go in pieces of 256, once all of a piece are")
    else:
        verb = "would be" if dry_run else "were"
        echo(f"{found.dropped} records of answers before entry {found.until} {verb} let go, {found.bytes} bytes")
        echo(f"{found.kept} records of other kinds stay" + (f"; entry {receipt.index} says so" if receipt else ""))
