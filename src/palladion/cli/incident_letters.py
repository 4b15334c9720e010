"""`palladion incident notice|appeal`: what a client is told of a case, and what it says to that."""

from pathlib import Path
from typing import Any

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json


@click.command(
    "notice", epilog="Example: palladion incident notice 3f2a --contact appeals@example.com --out notice.txt"
)
@click.argument("id")
@click.option("--client", default="", metavar="NAME", help="Whom to tell; not needed where there is only one.")
@click.option("--contact", required=True, metavar="TEXT", help="Where an appeal goes to, such as a mail address.")
@click.option("--note", default="", metavar="TEXT", help="A paragraph of your own; the client reads it.")
@click.option(
    "--format",
    "form",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="What the file holds.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="Write the letter to this new file. Sending it is yours.",
)
@json_option
@click.pass_context
def notice(
    ctx: click.Context,
    id: str,  # noqa: A002 (click names arguments so)
    client: str,
    contact: str,
    note: str,
    form: Any,
    out: Path,
    as_json: bool,
) -> None:
    """Write a letter to a client: what happened to its access, since when, what that means, and how to appeal.

    It says nothing of how something was noticed, of decoys, or of others. Its SHA-256 is recorded. To whoever notices
    nothing (trusted or watched) there is no letter, unless its access was restored.
    """
    from palladion.incident.notices import write_notice

    sent = write_notice(find_installation(ctx), id, client, out, contact=contact, note=note, form=form, actor=actor())
    if as_json:
        print_json(
            {
                "incident": sent.case.id,
                "client": sent.notice.client,
                "notice": str(out),
                "sha256": sent.digest,
                "receipt": str(sent.receipt),
            }
        )
        return
    echo(f"wrote the notice to {sent.notice.client} to {out}")
    print_fields([("says", sent.notice.happened), ("sha256", sent.digest), ("ledger", sent.receipt)])


@click.command("appeal", epilog="Example: palladion incident appeal 3f2a --client acme/web --text 'it was a load test'")
@click.argument("id")
@click.option("--client", default="", metavar="NAME", help="Who appeals; not needed where there is only one.")
@click.option(
    "--text", required=True, metavar="TEXT", help="What it says. It stays in the case; the ledger has a hash."
)
@json_option
@click.pass_context
def appeal(ctx: click.Context, id: str, client: str, text: str, as_json: bool) -> None:  # noqa: A002
    """Keep what a client says against what was done. `incident reinstate` grants it; `incident note` says why not."""
    from palladion.incident.notices import record_appeal

    case, receipt = record_appeal(find_installation(ctx), id, client, text, actor=actor())
    if as_json:
        print_json({"incident": case.id, "receipt": str(receipt)})
    else:
        echo(f"the appeal is in incident {case.id} (ledger {receipt})")
