"""`palladion watch campaigns`: clients that the running gate judges together, and why."""

from typing import Any

import click

from palladion.cli.output import echo, find_installation, json_option, print_json
from palladion.cli.watch_budget import COPY, at_most, print_copies
from palladion.errors import InstallationError

COLUMNS = ("model", "members", "linked by", "p", "queries", "covered", COPY, "why")
MEMBERS_SHOWN = 8


@click.command("campaigns", epilog="Example: palladion watch campaigns --json")
@click.option("--below", type=click.FloatRange(0, 1), default=1.0, show_default=True, help="Largest p-value to show.")
@json_option
@click.pass_context
def campaigns(ctx: click.Context, below: float, as_json: bool) -> None:
    """Show the groups of linked clients that the running gate judges together: what links them, and their evidence.

    The most suspicious first. A p-value counts from two clients on that have asked; covered are coverage buckets.
    """
    status = find_installation(ctx).server_status()
    if status is None:
        raise InstallationError("no gate is running here", "palladion serve")
    if "campaigns" not in status:
        raise InstallationError("the running gate is an older one, which does not tell of campaigns", "restart it")
    found = [item for item in status["campaigns"] if item["p_value"] <= below]
    if as_json:
        print_json({"campaigns": found, "campaigns_total": status["campaigns_total"]})
        return
    echo(f"{status['campaigns_total']} groups of linked clients")
    if found:
        print_copies(COLUMNS, [_row(item) for item in found])


def _row(item: dict[str, Any]) -> list[object]:
    shown = item["members"][:MEMBERS_SHOWN]
    more = item["size"] - len(shown)
    return [
        item["model"],
        ", ".join([*shown, f"{more} more"] if more else shown),
        ", ".join(item["links"]),
        f"{item['p_value']:.3g}",
        item["queries"],
        item["covered"],
        at_most(item.get("fidelity")),
        ", ".join(reason.partition(":")[0] for reason in item["reasons"]),
    ]
