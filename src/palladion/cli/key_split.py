"""`palladion key split` and `join`: an escrow key in shares, so that no single person has it."""

from pathlib import Path

import click

from palladion.cli.output import (
    RECIPIENT,
    actor,
    echo,
    find_installation,
    json_option,
    passphrase_recipient,
    print_fields,
    print_json,
    read_passphrase,
    warn,
)
from palladion.keys import Recipient


@click.command("split", epilog="Example: palladion key split --shares 5 --needed 3 --out shares")
@click.option("--shares", type=click.IntRange(2, 16), required=True, help="How many shares there are.")
@click.option("--needed", type=click.IntRange(2, 16), required=True, help="How many of them are needed.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write each share to a file here that only you can read, instead of printing all of them once.",
)
@json_option
def split(shares: int, needed: int, out: Path | None, as_json: bool) -> None:
    """Make an escrow recipient whose key is in shares of 33 words (SLIP-39), each for another person.

    Put the recipient that it prints into keys.escrow of palladion.toml, then palladion key rewrap: from then on as many
    people as are needed set a new owner passphrase together (palladion key join), or restore a backup. Fewer of them
    learn nothing. Do it on a machine that nobody else uses; the key itself is written nowhere.
    """
    from palladion.lifecycle.split import split_escrow, write_shares

    made = split_escrow(shares=shares, needed=needed)
    paths = write_shares(out, made) if out is not None else []
    if as_json:
        where = {"files": [str(path) for path in paths]} if paths else {"shares": list(made.shares)}
        print_json({"recipient": str(made.recipient), "needed": made.needed, **where})
        return
    echo(str(made.recipient))
    for number, share in enumerate(made.shares, 1):
        if not paths:
            echo()
            echo(f"share {number} of {shares}:")
            echo(share)
    if paths:
        print_fields([("shares", f"{paths[0].parent}, {shares} files: give each to another person, then delete it")])
    else:
        echo()
        warn("the shares are shown this once and cannot be shown again")


@click.command("join", epilog="Example: palladion key join share-1-of-5.txt share-4-of-5.txt share-5-of-5.txt")
@click.argument(
    "files", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="SHARE..."
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the joined key to an identity file instead, to restore a backup with; delete it afterwards.",
)
@click.option(
    "--recipient",
    type=RECIPIENT,
    metavar="KEY",
    help="With --out, the recipient that the shares have to give, as you noted it.",
)
@click.option(
    "--new-passphrase-file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Read the new owner passphrase from the first line of FILE instead of asking.",
)
@json_option
@click.pass_context
def join(
    ctx: click.Context,
    files: tuple[Path, ...],
    out: Path | None,
    recipient: Recipient | None,
    new_passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Set a new owner passphrase with as many shares as are needed.

    Wrong words, shares of different splits and too few of them are told apart, and none is printed. The shares stay
    valid: who has joined them once may have kept the key, so make new ones afterwards.
    """
    from palladion.clock import SystemClock
    from palladion.lifecycle.split import joined_identity, read_share, rescue
    from palladion.seal.recipients import write_identity

    shares = [read_share(path) for path in files]
    if out is not None:
        identity = joined_identity(shares, [recipient] if recipient is not None else [])
        write_identity(out, identity, created=SystemClock().now())
        if as_json:
            print_json({"recipient": str(identity.recipient), "file": str(out)})
        else:
            echo(str(identity.recipient))
            warn(f"{out} is the whole key: delete it when it has served its purpose")
        return
    if recipient is not None:
        raise click.UsageError("--recipient goes with --out: else palladion.toml says whose shares they are")
    installation = find_installation(ctx)
    identity = joined_identity(shares, installation.escrow_recipients())
    new = passphrase_recipient(read_passphrase(new_passphrase_file, new=True), installation.policy.passphrase)
    done = rescue(installation, identity, new, actor=actor())
    if as_json:
        print_json({"owner_root": list(done.owner_wraps), "originals": done.originals})
    else:
        echo(f"wrapped both roots and {done.originals} originals anew, to the new passphrase")
        print_fields([("owner root opens for", ", ".join(done.owner_wraps))])


COMMANDS = (split, join)
