"""`palladion intel rules …`: Sigma rules over the ledger."""

from contextlib import closing
from datetime import datetime, timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.ledger_options import MOMENT
from palladion.cli.output import echo, find_installation, json_option, print_json, print_table, progress
from palladion.clock import timestamp
from palladion.errors import FINDING

if TYPE_CHECKING:
    from palladion.intel.sigma.run import Match

LIMIT_MAX = 100_000


@click.group()
def rules() -> None:
    """Sigma rules over the ledger: ours, or yours in a file."""


@rules.command("list", epilog="Example: palladion intel rules list")
@json_option
def list_rules(*, as_json: bool) -> None:
    """List the rules that ship with this release."""
    from palladion.intel.sigma.run import pack

    found = pack()
    if as_json:
        print_json(
            {
                "rules": [
                    {"name": name, "id": rule.id, "title": rule.title, "level": rule.level, "tags": list(rule.tags)}
                    for name, rule in found.items()
                ]
            }
        )
        return
    print_table(("rule", "level", "title"), [(name, rule.level, rule.title) for name, rule in found.items()])


@rules.command(epilog="Example: palladion intel rules run --since 7d suspension-burst")
@click.argument("names", nargs=-1, metavar="[RULE]...")
@click.option("--since", type=MOMENT, metavar="TIME", help="Only records from then on: 2026-11-24, or 7d ago.")
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=100, show_default=True, help="How many at most.")
@json_option
@click.pass_context
def run(ctx: click.Context, names: tuple[str, ...], *, since: Any, limit: int, as_json: bool) -> None:
    """Run rules over the ledger: all of ours, or those named; a file is a Sigma rule written as JSON.

    Each record is proved to be under the signed checkpoint before it counts. Exits with 1 if a rule applied.
    """
    from palladion.intel.sigma.run import kinds_of, load_rules, run_rules
    from palladion.ledger.index import INDEX_FILE, Index, Question

    chosen = load_rules(names)
    installation = find_installation(ctx)
    moment: datetime | None = installation.clock.now() - since if isinstance(since, timedelta) else since
    reader = installation.read_ledger()
    with closing(Index(reader.directory / INDEX_FILE)) as index:
        with progress("index") as bar:
            index.update(reader, bar)
        entries = index.find(reader, Question(kinds_of(chosen.values()), since=moment))
        matches = list(islice(run_rules(list(chosen.values()), entries), limit + 1))
    more, matches = len(matches) > limit, matches[:limit]
    if as_json:
        print_json({"matches": [_document(match) for match in matches], "more": more})
    elif matches:
        rows = [
            (item.rule.level, item.rule.title, " ".join(item.group), item.count, timestamp(item.last), item.entries[1])
            for item in matches
        ]
        print_table(("level", "rule", "about", "count", "time", "entry"), rows)
        if more:
            echo(f"… and more: --limit {limit} was reached")
    else:
        echo(f"none of {len(chosen)} rules applies")
    if matches:
        ctx.exit(FINDING)


def _document(match: "Match") -> dict[str, Any]:
    return {
        "rule": match.rule.id,
        "title": match.rule.title,
        "level": match.rule.level,
        "tags": list(match.rule.tags),
        "group": list(match.group),
        "count": match.count,
        "first": timestamp(match.first),
        "last": timestamp(match.last),
        "entries": list(match.entries),
    }
