"""`palladion incident close|verdicts`: what cases turned out to be, and who was found to be honest."""

from collections import Counter
from datetime import timedelta
from typing import Any

import click

from palladion.cli.client_options import DurationType
from palladion.cli.output import actor, echo, find_installation, json_option, print_json, print_table
from palladion.clock import timestamp

# As the registry has them, which only commands that run load; a test compares.
VERDICTS = ("theft", "false-alarm", "test", "unclear")


@click.command(
    "close", epilog="Example: palladion incident close 3f2a 'load test, they forgot to tell us' --verdict false-alarm"
)
@click.argument("id")
@click.argument("text")
@click.option(
    "--verdict", type=click.Choice(VERDICTS), help="What it was. With false-alarm all its clients are honest."
)
@click.option(
    "--honest",
    multiple=True,
    metavar="NAME",
    help="A client that was honest in spite of another verdict. May be repeated.",
)
@json_option
@click.pass_context
def close(
    ctx: click.Context,
    id: str,  # noqa: A002 (click names arguments so)
    text: str,
    verdict: Any,
    honest: tuple[str, ...],
    as_json: bool,
) -> None:
    """Close a case for good, with what was found. It raises nobody's standing: `incident restore` before.

    Whoever was found to be honest counts as that when the next calibration is made of retained traffic.
    """
    from palladion.incident.cases import act
    from palladion.incident.verdicts import close_case

    if honest and verdict is None:
        raise click.UsageError("--honest needs a --verdict on the others", ctx)
    installation = find_installation(ctx)
    if verdict is None:
        case, receipt = act(installation, id, "close", text, actor=actor())
    else:
        case, receipt = close_case(installation, id, text, verdict, honest=honest, actor=actor())
    if as_json:
        print_json({"incident": case.id, "state": case.state, "verdict": case.verdict, "receipt": str(receipt)})
    else:
        said = "" if case.verdict is None else f", as {case.verdict}"
        echo(f"incident {case.id} is {case.state}{said} (ledger {receipt})")


@click.command("verdicts", epilog="Example: palladion incident verdicts --since 90d --json")
@click.option(
    "--since", type=DurationType(), metavar="TIME", help="Cases closed since then, such as 90d; without it, all."
)
@json_option
@click.pass_context
def verdicts(ctx: click.Context, since: timedelta | None, as_json: bool) -> None:
    """Say what cases turned out to be, and which clients are known to be honest, by name and by pseudonym.

    Who is honest by a verdict stays so until a newer case or the watch says otherwise.
    """
    from palladion.access.pseudonyms import pseudonym
    from palladion.incident.cases import label
    from palladion.incident.verdicts import honest_clients

    installation = find_installation(ctx)
    key = installation.open_gate_root().derive("pseudonyms")
    begin = None if since is None else installation.clock.now() - since
    with installation.open_registry() as registry, registry.read() as records:
        cases = [
            case
            for case in records.incidents.all(state="closed")
            if begin is None or (case.closed_at is not None and case.closed_at >= begin)
        ]
        names = {client.id: label(client) for client in records.clients.all()}
        honest = honest_clients(records)
    documents = [
        {
            "incident": case.id,
            "closed": timestamp(case.closed_at) if case.closed_at else None,
            "verdict": case.verdict,
            "clients": len(case.clients),
            "cleared": sorted(names[client] for client in case.cleared),
            "finding": case.finding,
        }
        for case in cases
    ]
    counts = Counter(case.verdict or "none" for case in cases)
    cleared = [
        {
            "client": names[item.client],
            "pseudonym": pseudonym(key, item.client),
            "incident": item.incident,
            "since": timestamp(item.closed_at),
        }
        for item in honest
    ]
    if as_json:
        print_json({"verdicts": documents, "counts": dict(sorted(counts.items())), "honest": cleared})
        return
    if not documents:
        echo("no case was closed")
        return
    columns = ("incident", "closed", "verdict", "clients", "finding")
    print_table(columns, [[document[column] for column in columns] for document in documents])
    echo(", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())))
    if cleared:
        print_table(("honest", "by case", "since"), [[i["client"], i["incident"], i["since"]] for i in cleared])
