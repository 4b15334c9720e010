"""`palladion ledger expire`: erase retained queries whose days have passed, where no gate runs that does it."""

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_json, progress, warn
from palladion.errors import FINDING


@click.command(epilog="Example: palladion ledger expire")
@json_option
@click.pass_context
def expire(ctx: click.Context, as_json: bool) -> int:
    """Erase the retained queries of clients that are older than the policy's days, for good, and record how many.

    A gate that serves does this by itself. Exit code 1 if a file could not be looked through: the others were.
    """
    from palladion.lifecycle.expiry import days_of, expire_retained

    installation = find_installation(ctx)
    with progress("expire") as bar:
        found = expire_retained(installation, actor=actor(), progress=bar)
    days = days_of(installation)
    if as_json:
        print_json(
            {
                "bodies": found.bodies,
                "clients": found.clients,
                "days": days.unmarked,
                "marked_days": days.marked,
                "receipt": str(found.receipt) if found.receipt is not None else None,
                "failed": list(found.failed),
            }
        )
    elif found.receipt is None:
        echo(f"nothing is older than {days.unmarked} days, or {days.marked} with a mark")
    else:
        echo(f"{found.bodies} queries of {found.clients} clients were erased (ledger {found.receipt})")
    if not as_json:
        for message in found.failed:
            warn(message)
    return FINDING if found.failed else 0
