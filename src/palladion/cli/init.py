"""`palladion init`: makes an installation."""

from pathlib import Path

import click

from palladion.cli.output import (
    RECIPIENT,
    actor,
    echo,
    json_option,
    passphrase_option,
    passphrase_recipient,
    print_fields,
    print_json,
    read_passphrase,
    warn,
)
from palladion.clock import SystemClock
from palladion.keys import Recipient
from palladion.policy import KeysPolicy, PassphrasePolicy


@click.command(epilog="Example: palladion init --escrow pallr1x…")
@passphrase_option
@click.option(
    "--host-identity",
    default=KeysPolicy().host_identity,
    show_default=True,
    metavar="FILE",
    help="Identity file that unlocks this host's gate root; made if it does not exist. Keep it out of the folder.",
)
@click.option(
    "--escrow",
    type=RECIPIENT,
    multiple=True,
    metavar="RECIPIENT",
    help="Public key of somebody who can recover everything (see: palladion recipient new). May be repeated.",
)
@click.option("--origin", default="", help="Name of the ledger, for example ledger.example.com/fraud. Default: random.")
@json_option
@click.pass_context
def init(
    ctx: click.Context,
    passphrase_file: Path | None,
    host_identity: str,
    escrow: tuple[Recipient, ...],
    origin: str,
    as_json: bool,
) -> None:
    """Make an installation in this folder: keys, registry, ledger and palladion.toml.

    Asks for the owner passphrase, which is needed to protect a model and to prove that one is yours. Nothing that
    exists is overwritten.
    """
    from palladion.lifecycle.create import Plan, create_installation

    passphrase = read_passphrase(passphrase_file, new=True)
    escrow_keys = tuple(str(recipient) for recipient in escrow)
    plan = Plan(ctx.find_root().obj.resolve(), host_identity, escrow_keys, origin)
    owner_wraps = [passphrase_recipient(passphrase, PassphrasePolicy())]
    made = create_installation(plan, owner_wraps, escrow, actor=actor(), clock=SystemClock())
    document = {
        "home": str(made.paths.home),
        "policy": str(made.paths.policy),
        "owner_root": str(made.paths.owner),
        "host_identity": str(made.paths.host_identity),
        "ledger": made.policy.ledger.origin,
        "ledger_key": str(made.ledger_key()),
        "publisher": made.policy.trust.publishers[0],
        "escrow": list(escrow_keys),
    }
    if as_json:
        print_json(document)
    else:
        echo(f"made an installation in {made.paths.home}")
        print_fields([(name.replace("_", " "), value) for name, value in document.items() if value and name != "home"])
        echo("next: palladion protect MODEL --name NAME")
    if not escrow:
        warn("no escrow recipient: if the owner passphrase is forgotten, the originals are lost (see palladion doctor)")
