"""`palladion backup` and `palladion restore`."""

from pathlib import Path

import click

from palladion.cli.output import (
    actor,
    find_installation,
    identity_option,
    json_option,
    owner_identities,
    passphrase_option,
    passphrase_recipient,
    print_fields,
    print_json,
    progress,
    read_passphrase,
    warn,
)
from palladion.clock import SystemClock


@click.command(epilog="Example: palladion backup /mnt/safe/palladion")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@passphrase_option
@json_option
@click.pass_context
def backup(ctx: click.Context, folder: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Add a backup to FOLDER: keys, policy, registry and ledger in one sealed file, and the sealed versions beside it.

    The owner passphrase or an escrow identity opens it again; FOLDER may lie anywhere. Sealed versions are copied once.
    """
    from palladion.lifecycle.backup import back_up
    from palladion.seal.recipients import PassphraseIdentity

    installation = find_installation(ctx)
    passphrase = read_passphrase(passphrase_file)
    owner = installation.open_owner_root([PassphraseIdentity(passphrase)])
    wraps = [passphrase_recipient(passphrase, installation.policy.passphrase)]
    with progress("backup") as bar:
        made = back_up(installation, owner, wraps, folder, actor=actor(), progress=bar)
    publisher = installation.policy.trust.publishers[0]
    if as_json:
        print_json({"state": str(made.state), "copied": made.copied, "present": made.present, "publisher": publisher})
    else:
        click.echo(f"backed up to {made.state}")
        print_fields(
            [
                ("sealed versions", f"{made.copied} copied, {made.present} were there already"),
                ("publisher", publisher),
            ]
        )
        click.echo("note the publisher's key elsewhere; restore can then check who made the backup")


@click.command(epilog="Example: palladion --home /srv/palladion restore /mnt/safe/palladion")
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--state",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The backup to restore; without it, the newest in FOLDER.",
)
@click.option(
    "--publisher",
    metavar="KEY",
    help="The publisher's key that you noted (pallp1…); without it, the one that FOLDER names is believed.",
)
@click.option("--host-identity", metavar="FILE", help="Put the host identity here instead of where the policy says.")
@passphrase_option
@identity_option
@json_option
@click.pass_context
def restore(
    ctx: click.Context,
    folder: Path,
    state: Path | None,
    publisher: str | None,
    host_identity: str | None,
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> None:
    """Put an installation back from a backup in FOLDER, into this folder, and verify all of it.

    Nothing that exists is overwritten. Try it once before you need it.
    """
    from palladion.lifecycle import backup as life
    from palladion.seal.sign import parse_publisher, publisher_text

    key = parse_publisher(publisher) if publisher is not None else life.read_publisher(folder)
    state = state or life.newest_state(folder)
    with progress("restore") as bar:
        done = life.restore(
            state,
            ctx.find_root().obj.resolve(),
            owner_identities(passphrase_file, identity_file),
            publisher=key,
            actor=actor(),
            clock=SystemClock(),
            host_identity=host_identity,
            progress=bar,
        )
    if as_json:
        print_json(
            {
                "home": str(done.installation.paths.home),
                "state": str(done.state),
                "entries": done.ledger.size,
                "versions": done.versions,
                "publisher": publisher_text(done.publisher),
            }
        )
    else:
        click.echo(f"restored {done.state.name} into {done.installation.paths.home}")
        print_fields(
            [
                ("ledger", f"{done.ledger.size} entries, whole"),
                ("versions", f"{done.versions}, every sealed file verified"),
                ("publisher", publisher_text(done.publisher)),
            ]
        )
    if publisher is None:
        warn("the publisher's key was taken from the backup's own folder: compare it with the one you noted")
