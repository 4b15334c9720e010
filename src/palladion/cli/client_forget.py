"""`palladion client forget`: what is kept of a client is erased."""

import click

from palladion.cli.client_options import organisation_option
from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json, warn


@click.command("forget", epilog="Example: palladion client forget acme")
@click.argument("name")
@organisation_option
@click.option("--name", "name_too", is_flag=True, help="Erase also its name: nobody can say any more who it was.")
@json_option
@click.pass_context
def forget_client(ctx: click.Context, name: str, organisation: str | None, name_too: bool, as_json: bool) -> None:
    """Erase what is kept of a revoked client: queries, salts, what the watch and limits know of it, and identities.

    Without its salts nobody can show any more which request or answer a record is of. It cannot be undone, and a
    student that was trained on its answers cannot be traced any more. The client stays listed by name unless that is
    erased too, and the ledger stays whole; backups from before hold what they hold.
    """
    from palladion.lifecycle import client_forget as life

    done = life.forget_client(find_installation(ctx), organisation or name, name, actor=actor(), name_too=name_too)
    client = f"{done.client.organisation}/{done.client.name}"
    if as_json:
        erased: dict[str, object] = {
            "bodies": list(done.versions),
            "states": done.states,
            "identities": done.identities,
            "salts": done.salts,
        }
        if done.erased_as:
            erased["erased_as"] = done.erased_as
        print_json({"client": client, **erased, "receipt": str(done.receipt)})
        return
    echo(f"erased what was kept of {client}")
    print_fields(
        [
            ("queries to", ", ".join(done.versions) or "no version"),
            ("states", str(done.states)),
            ("identities", str(done.identities)),
            ("salts", "erased" if done.salts else "none"),
            *([("is called", done.erased_as)] if done.erased_as else []),
            ("ledger", str(done.receipt)),
        ]
    )
    warn("backups that were made before still hold its states and identities")
