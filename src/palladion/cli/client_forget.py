"""`palladion client forget`: what is kept of a client is erased."""

import click

from palladion.cli.client_options import organisation_option
from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json, warn


@click.command("forget", epilog="Example: palladion client forget acme")
@click.argument("name")
@organisation_option
@json_option
@click.pass_context
def forget_client(ctx: click.Context, name: str, organisation: str | None, as_json: bool) -> None:
    """Erase what is kept of a revoked client: its queries, what the watch and limits know of it, and its identities.

    It cannot be undone, and a student that was trained on its answers cannot be traced any more. The client stays
    listed by name, and the ledger stays whole; backups that were made before hold what they hold.
    """
    from palladion.lifecycle import client_forget as life

    done = life.forget_client(find_installation(ctx), organisation or name, name, actor=actor())
    client = f"{done.client.organisation}/{done.client.name}"
    if as_json:
        erased = {"bodies": list(done.versions), "states": done.states, "identities": done.identities}
        print_json({"client": client, **erased, "receipt": str(done.receipt)})
        return
    echo(f"erased what was kept of {client}")
    print_fields(
        [
            ("queries to", ", ".join(done.versions) or "no version"),
            ("states", str(done.states)),
            ("identities", str(done.identities)),
            ("ledger", str(done.receipt)),
        ]
    )
    warn("backups that were made before still hold its states and identities")
