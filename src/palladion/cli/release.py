"""`palladion release …`: the channel from which hosts take what is current, and `fetch`, which they do with it."""

from datetime import timedelta
from pathlib import Path

import click

from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    print_table,
    size_text,
    warn,
)
from palladion.clock import SystemClock, timestamp
from palladion.errors import FINDING

MARGIN = timedelta(days=1)  # a refresh that leaves less has come late
channel_option = click.option("--channel", default="main", show_default=True, metavar="NAME", help="Which channel.")


@click.group()
def release() -> None:
    """Release channels: which sealed files are current, and which are revoked, so that hosts cannot be held back."""


@release.command("init", epilog="Example: palladion release init --root fraud-channel.root.json")
@channel_option
@click.option(
    "--root",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the channel's root here, for hosts: give it to them as you give them the publisher's key.",
)
@passphrase_option
@json_option
@click.pass_context
def init(ctx: click.Context, channel: str, root: Path | None, passphrase_file: Path | None, as_json: bool) -> None:
    """Begin a channel: a folder to be served by any web server or copied, and nothing in it is secret."""
    from palladion.files import write_atomically
    from palladion.lifecycle import release as life

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    folder, receipt = life.create_channel(installation, owner, channel, actor=actor())
    if root is not None:
        write_atomically(root, life.trusted_root(installation, channel), mode=0o644)
    if as_json:
        print_json({"channel": channel, "folder": str(folder), "root": str(root) if root else None})
        return
    echo(f"began release channel {channel}")
    print_fields([("folder", f"{folder}: serve it or copy it"), ("root", root), ("ledger", f"entry {receipt.index}")])


@release.command("publish", epilog="Example: palladion release publish llama.sealed")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@channel_option
@passphrase_option
@json_option
@click.pass_context
def publish(ctx: click.Context, file: Path, channel: str, passphrase_file: Path | None, as_json: bool) -> None:
    """List the sealed FILE in the channel, after every byte of it was checked."""
    from palladion.lifecycle import release as life

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    made, receipt = life.publish(installation, owner, channel, file, actor=actor())
    if as_json:
        print_json({"channel": channel, "name": made.name, "receipt": str(receipt)})
    else:
        echo(f"published {made.name} in channel {channel}")
        print_fields([("bytes", size_text(made.length)), ("ledger", f"entry {receipt.index}")])


@release.command("refresh", epilog="Example: palladion release refresh   (every day, from a timer)")
@channel_option
@json_option
@click.pass_context
def refresh(ctx: click.Context, channel: str, as_json: bool) -> int:
    """Sign that the channel is still current; needs no passphrase. Exit code 1 if it will expire within a day."""
    from palladion.lifecycle import release as life

    expires = life.refresh(find_installation(ctx), channel)
    late = expires - SystemClock().now() < MARGIN
    if as_json:
        print_json({"channel": channel, "expires": timestamp(expires), "ok": not late})
    else:
        echo(f"channel {channel} is good until {timestamp(expires)}")
    if late:
        warn(
            "it expires within a day: what the owner signs has to be signed again (palladion release publish or rotate)"
        )
    return FINDING if late else 0


@release.command("rotate", epilog="Example: palladion release rotate")
@channel_option
@passphrase_option
@json_option
@click.pass_context
def rotate(ctx: click.Context, channel: str, passphrase_file: Path | None, as_json: bool) -> None:
    """Name this installation's gate as the one that refreshes the channel: after a stolen host, or a restore."""
    from palladion.lifecycle import release as life

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    receipt = life.rotate(installation, owner, channel, actor=actor())
    if as_json:
        print_json({"channel": channel, "receipt": str(receipt)})
    else:
        echo(f"channel {channel} has this host's key (ledger {receipt})")


@release.command("show", epilog="Example: palladion release show")
@channel_option
@json_option
@click.pass_context
def show(ctx: click.Context, channel: str, as_json: bool) -> None:
    """List what a channel has, and what it revokes."""
    from palladion.lifecycle import release as life

    folder, said = life.catalogue(find_installation(ctx), channel)
    revoked = {digest: item.reason for digest, item in said.revoked.items()}
    documents = [
        {"name": item.name, "purpose": item.purpose, "bytes": item.length, "revoked": revoked.get(item.header_digest)}
        for item in said.releases
    ]
    if as_json:
        print_json({"folder": str(folder), "expires": timestamp(said.expires), "files": documents, "revoked": revoked})
        return
    echo(f"channel {channel} in {folder}, good until {timestamp(said.expires)}")
    rows = [(item["name"], item["purpose"], size_text(int(str(item["bytes"]))), item["revoked"]) for item in documents]
    print_table(("sealed file", "purpose", "size", "revoked"), rows or [("none yet", "", "", "")])
    print_fields([("revoked", f"{len(revoked)} sealed files")])


@release.command(
    "fetch", epilog="Example: palladion release fetch https://models.example/channel fraud --root root.json"
)
@click.argument("address")
@click.argument("model")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path), required=False)
@click.option(
    "--root",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The channel's root, as the publisher gave it to you; needed the first time.",
)
@click.option("--file-id", default="", metavar="ID", help="Which delivery, where the channel has several.")
@json_option
def fetch(address: str, model: str, file: Path | None, root: Path | None, file_id: str, as_json: bool) -> None:
    """Put the current sealed file of MODEL from the channel at ADDRESS, a folder or URL, to FILE; on any host.

    It is not opened. A channel that stands still, or an older one that was put back, is refused. Needs no installation.
    """
    from palladion.host.host import Host
    from palladion.lifecycle import release as life

    target = file or Path(f"{model}.sealed")
    made = life.subscribe(Host.find(), address, root).fetch(model, target, file_id=file_id)
    if as_json:
        print_json(
            {"name": made.name, "version": made.version, "file": str(target), "header_digest": made.header_digest}
        )
    else:
        echo(f"{target} is {made.model} version {made.version}, current in the channel")
