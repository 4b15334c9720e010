"""`palladion recipient …`: who may unseal."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import RECIPIENT, actor, echo, find_installation, json_option, print_json, print_table
from palladion.clock import SystemClock, timestamp

if TYPE_CHECKING:
    from palladion.keys import Recipient


@click.group()
def recipient() -> None:
    """Recipients: who may unseal, by public key."""


@recipient.command("new", epilog="Example: palladion recipient new escrow.identity")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@json_option
def new(file: Path, as_json: bool) -> None:
    """Make an identity in FILE and print its public key, the recipient.

    Run it on the recipient's own machine: FILE opens what is sealed to the public key, and only the public key has to
    be sent. Needs no installation.
    """
    from palladion.seal.recipients import FileIdentity, write_identity

    identity = FileIdentity.generate()
    write_identity(file, identity, created=SystemClock().now())
    if as_json:
        print_json({"identity": str(file), "recipient": str(identity.recipient)})
    else:
        echo(str(identity.recipient))


@recipient.command("add", epilog="Example: palladion recipient add acme pallr1x…")
@click.argument("name")
@click.argument("public_key", type=RECIPIENT)
@click.option("--note", default="", help="A sentence that stays with the recipient.")
@json_option
@click.pass_context
def add(ctx: click.Context, name: str, public_key: "Recipient", note: str, as_json: bool) -> None:
    """Register a recipient by NAME and PUBLIC_KEY."""
    from palladion.lifecycle.recipients import add_recipient

    row, receipt = add_recipient(find_installation(ctx), name, str(public_key), note=note, actor=actor())
    if as_json:
        print_json({"recipient": row.name, "public_key": row.public_key, "receipt": str(receipt)})
    else:
        echo(f"added recipient {row.name} (ledger {receipt})")


@recipient.command("list", epilog="Example: palladion recipient list")
@json_option
@click.pass_context
def list_recipients(ctx: click.Context, as_json: bool) -> None:
    """List the recipients, revoked ones included."""
    with find_installation(ctx).open_registry() as registry, registry.read() as records:
        rows = records.recipients.all()
    documents = [
        {
            "name": row.name,
            "kind": row.kind,
            "public_key": row.public_key,
            "created": timestamp(row.created),
            "revoked": timestamp(row.revoked_at) if row.revoked_at else None,
            "note": row.note,
        }
        for row in rows
    ]
    if as_json:
        print_json({"recipients": documents})
    elif documents:
        columns = ("name", "public_key", "created", "revoked", "note")
        print_table(columns, [[document[column] for column in columns] for document in documents])
    else:
        echo("no recipients yet: palladion recipient add NAME PUBLIC_KEY")


@recipient.command("revoke", epilog="Example: palladion recipient revoke acme")
@click.argument("name")
@json_option
@click.pass_context
def revoke(ctx: click.Context, name: str, as_json: bool) -> None:
    """Deliver nothing to a recipient any more. What it has, it can still open."""
    from palladion.lifecycle.recipients import revoke_recipient

    row, receipt = revoke_recipient(find_installation(ctx), name, actor=actor())
    if as_json:
        print_json({"recipient": row.name, "revoked": True, "receipt": str(receipt)})
    else:
        echo(f"revoked recipient {row.name} (ledger {receipt})")
