"""`palladion backup` and `palladion restore`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import (
    PUBLISHER,
    actor,
    echo,
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
from palladion.errors import KeysError

if TYPE_CHECKING:
    from palladion.lifecycle.restore import Restored


@click.command(epilog="Example: palladion backup /mnt/safe/palladion")
@click.argument("folder", type=click.Path(file_okay=False, path_type=Path))
@passphrase_option
@json_option
@click.pass_context
def backup(ctx: click.Context, folder: Path, passphrase_file: Path | None, as_json: bool) -> None:
    """Add a backup to FOLDER: keys, policy, registry and ledger in one sealed file, and the sealed versions beside it.

    The owner passphrase or an escrow identity opens it again; FOLDER may lie anywhere. Sealed versions are copied once,
    and the copies checked at every backup.
    """
    from palladion.lifecycle.backup import back_up
    from palladion.seal.recipients import PassphraseIdentity
    from palladion.seal.sign import publisher_text

    installation = find_installation(ctx)
    passphrase = read_passphrase(passphrase_file)
    owner = installation.open_owner_root([PassphraseIdentity(passphrase)])
    wraps = [passphrase_recipient(passphrase, installation.policy.passphrase)]
    with progress("backup") as bar:
        made = back_up(installation, owner, wraps, folder, actor=actor(), progress=bar)
    publisher = publisher_text(owner.public().keys["publisher"])
    if as_json:
        print_json({"state": str(made.state), "copied": made.copied, "present": made.present, "publisher": publisher})
    else:
        echo(f"backed up to {made.state}")
        print_fields(
            [
                ("sealed versions", f"{made.copied} copied, {made.present} were there already"),
                ("publisher", publisher),
            ]
        )
        echo("note the publisher's key elsewhere; restore can then check who made the backup")


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
    type=PUBLISHER,
    metavar="KEY",
    help="The publisher's key that you noted (pallp1…); --identity needs it. With the passphrase, which no forger "
    "knows, the one that FOLDER names is believed without it.",
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
    publisher: bytes | None,
    host_identity: str | None,
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> None:
    """Put an installation back from a backup in FOLDER, into this folder, and verify all of it.

    Nothing that exists is overwritten, and nothing outside this folder written but the host identity. Try it once
    before you need it.
    """
    from palladion.lifecycle import restore as life
    from palladion.lifecycle.backup import read_publisher
    from palladion.seal.sign import publisher_text

    if identity_file is not None and publisher is None:
        # anybody can seal to a public key, sign it with a key of his own, and name that in the folder
        raise KeysError(
            "--identity needs --publisher: it does not say by itself who made the backup",
            "palladion backup printed the publisher's key to be noted; on a machine that is left, palladion key list "
            "shows it, and trust.publishers in palladion.toml",
        )
    key = publisher if publisher is not None else read_publisher(folder)
    if state is None:
        newest = life.newest_state(folder, key)
        state = newest.state
        for path in newest.passed_over:
            warn(f"{path} is damaged or not signed by this publisher: passed over")
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
    _warn(done)
    if as_json:
        print_json(
            {
                "home": str(done.installation.paths.home),
                "state": str(done.state),
                "entries": done.ledger.size,
                "versions": done.versions,
                "publisher": publisher_text(done.publisher),
                "moved": {setting: str(place) for setting, place in done.moved.items()},
                "locked_out": done.locked_out,
            }
        )
    else:
        echo(f"restored {done.state.name} into {done.installation.paths.home}")
        print_fields(
            [
                ("ledger", f"{done.ledger.size} entries, whole"),
                ("versions", f"{done.versions}, every sealed file verified"),
                ("publisher", publisher_text(done.publisher)),
            ]
        )
    if publisher is None:
        warn("the publisher's key was taken from the backup's own folder: compare it with the one you noted")


def _warn(done: "Restored") -> None:
    """What is not as it was."""
    for setting, place in done.moved.items():
        warn(f"{setting} of the backup leads elsewhere and is set back in the new palladion.toml: {place}")
    if done.locked_out:
        warn(
            f"{done.installation.paths.host_identity} names a key in another machine's TPM, and does not open the gate "
            "root here: put another identity in its place (palladion recipient new), then run palladion key rewrap"
        )
