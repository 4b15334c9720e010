"""`palladion recipient …`: who may unseal."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import (
    RECIPIENT,
    actor,
    ask_pin,
    echo,
    find_installation,
    json_option,
    print_json,
    print_table,
)
from palladion.clock import SystemClock, timestamp

if TYPE_CHECKING:
    from palladion.keys import Recipient


@click.group()
def recipient() -> None:
    """Recipients: who may unseal, by public key."""


@recipient.command("new", epilog="Example: palladion recipient new escrow.identity")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option("--post-quantum", is_flag=True, help="ML-KEM-768 with X25519: its public key has 1,959 characters.")
@click.option("--pkcs11", "uri", metavar="URI", help="Make an AES key in an HSM instead, which stays there (RFC 7512).")
@click.option(
    "--tpm", metavar="URI", help="Make the key in this machine's TPM, and put its name into FILE. tpm: or tpm:?pcrs=7"
)
@json_option
def new(file: Path | None, post_quantum: bool, uri: str | None, tpm: str | None, as_json: bool) -> None:
    """Make an identity in FILE and print its public key, the recipient.

    Run it on the recipient's own machine: FILE opens what is sealed to the public key, and only the public key has to
    be sent. Needs no installation. A file that is recorded today and attacked with a quantum computer later stays
    closed if it was sealed to --post-quantum keys alone. A key in an HSM seals and opens where the HSM can be reached.
    With a key in a TPM, FILE opens nothing on another machine; sealing to it needs no TPM.
    """
    if (file is None) == (uri is None) or sum((post_quantum, uri is not None, tpm is not None)) > 1:
        raise click.UsageError("name a FILE for the identity, or an HSM with --pkcs11, and one kind of key")
    if uri is not None:
        recipient = _new_in_hsm(uri)
    elif tpm is not None:
        recipient = _new_in_tpm(file, tpm)
    else:
        recipient = _new_in_file(file, post_quantum=post_quantum)
    if as_json:
        print_json({"identity": str(file or recipient), "recipient": recipient})
    else:
        echo(recipient)


def _new_in_file(file: Path | None, *, post_quantum: bool) -> str:
    from palladion.seal.recipients import FileIdentity, HybridIdentity, write_identity

    if file is None:
        raise click.UsageError("name a FILE for the identity")
    identity = HybridIdentity.generate() if post_quantum else FileIdentity.generate()
    write_identity(file, identity, created=SystemClock().now())
    return str(identity.recipient)


def _new_in_hsm(uri: str) -> str:
    from palladion.seal.recipients.pkcs11 import generate_key

    return str(generate_key(uri, ask_pin=ask_pin))


def _new_in_tpm(file: Path | None, uri: str) -> str:
    from palladion.seal.recipients import write_identity
    from palladion.seal.recipients.tpm import generate_key

    if file is None:
        raise click.UsageError("name a FILE for the identity")
    identity = generate_key(uri, ask_pin=_ask_new_pin)
    write_identity(file, identity, created=SystemClock().now())
    return str(identity.recipient)


def _ask_new_pin(token: str) -> str:
    """Twice: a PIN that was mistyped here would be noticed when something has to be opened."""
    pin = ask_pin(token)
    if ask_pin(f"{token}, again") != pin:
        raise click.UsageError("the two PINs differ")
    return pin


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
