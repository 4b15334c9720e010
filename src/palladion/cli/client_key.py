"""`palladion client key …`: API keys of a client, one more, one less, or a new one in place of the old."""

from datetime import timedelta

import click

from palladion.cli.client_options import DurationType, expires, key_options, organisation_option
from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json, warn
from palladion.clock import timestamp


@click.group("key")
def key() -> None:
    """API keys of a client: one more, one less, or a new one in place of the old."""


@key.command("add", epilog="Example: palladion client key add acme --days 90")
@click.argument("name")
@organisation_option
@key_options
@json_option
@click.pass_context
def add_client_key(
    ctx: click.Context, name: str, organisation: str | None, environment: str, days: int | None, as_json: bool
) -> None:
    """Give a client one more key, so that it can change keys without a gap. Shows it once."""
    from palladion.lifecycle.clients import add_key

    installation = find_installation(ctx)
    row, made, receipt = add_key(
        installation,
        organisation or name,
        name,
        environment=environment,
        expires=expires(installation, days),
        actor=actor(),
    )
    if as_json:
        print_json({"key": made.text, "prefix": row.prefix, "receipt": str(receipt)})
        return
    echo(f"added key {row.prefix}…")
    print_fields([("key", made.text), ("expires", timestamp(row.expires) if row.expires else None)])
    warn("the key is shown this once and cannot be shown again")


@key.command("rotate", epilog="Example: palladion client key rotate acme --overlap 7d")
@click.argument("name")
@click.option(
    "--overlap",
    type=DurationType(),
    default="7d",
    show_default=True,
    help="How long the old keys go on, such as 30m, 12h or 7d; 0m ends them at once.",
)
@click.option("--only", "prefix", metavar="PREFIX", help="End this key alone, and no other one of the client.")
@organisation_option
@key_options
@json_option
@click.pass_context
def rotate_client_key(
    ctx: click.Context,
    name: str,
    overlap: timedelta,
    prefix: str | None,
    organisation: str | None,
    environment: str,
    days: int | None,
    as_json: bool,
) -> None:
    """Give a client a new key, and its old ones an end. Shows the new one once."""
    from palladion.lifecycle.clients import rotate_key

    installation = find_installation(ctx)
    made, ending, receipt = rotate_key(
        installation,
        organisation or name,
        name,
        overlap=overlap,
        environment=environment,
        expires=expires(installation, days),
        actor=actor(),
        prefix=prefix,
    )
    ends = {row.prefix: timestamp(row.expires) for row in ending if row.expires}
    if as_json:
        print_json({"key": made.text, "ending": ends, "receipt": str(receipt)})
        return
    print_fields([("key", made.text), *((f"{old}… ends", end) for old, end in ends.items()), ("ledger", str(receipt))])
    warn("the key is shown this once and cannot be shown again")


@key.command("revoke", epilog="Example: palladion client key revoke pall_live_x4Kd9Q")
@click.argument("prefix")
@json_option
@click.pass_context
def revoke_client_key(ctx: click.Context, prefix: str, as_json: bool) -> None:
    """Accept a key no more, named by its beginning as `palladion client show` lists it."""
    from palladion.lifecycle.clients import revoke_key

    row, receipt = revoke_key(find_installation(ctx), prefix, actor=actor())
    if as_json:
        print_json({"prefix": row.prefix, "revoked": True, "receipt": str(receipt)})
    else:
        echo(f"revoked key {row.prefix}… (ledger {receipt})")
