"""`palladion revoke` and `palladion rewrap`: what must not be opened any more, and to whom a sealed file opens."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.approval_key import approval_option, break_glass_option, permit_of
from palladion.cli.output import (
    HOST_IDENTITIES,
    HOST_PUBLISHERS,
    actor,
    echo,
    find_host,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
)

if TYPE_CHECKING:
    from palladion.seal.structure import SealedInfo


@click.command(epilog="Example: palladion revoke fraud@2 --reason 'trained on poisoned data' --out revocations")
@click.argument("target")
@click.option("--reason", required=True, help="Why; everybody who gets the list can read it.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the whole signed list here too, to be given to hosts.",
)
@passphrase_option
@json_option
@click.pass_context
def revoke(
    ctx: click.Context, target: str, reason: str, out: Path | None, passphrase_file: Path | None, as_json: bool
) -> None:
    """Put TARGET, a version such as fraud@2 or one sealed file, on the signed list of what must not be opened.

    A revoked version is promoted and delivered no more. Hosts refuse it once they have the list: palladion host update.
    For a recipient there is palladion recipient revoke, for a licence palladion license revoke.
    """
    from palladion.files import write_atomically
    from palladion.lifecycle import revoke as life
    from palladion.lifecycle.release import revoke_in_channels

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    if Path(target).is_file():
        listed, receipt = life.revoke_file(installation, owner, Path(target), reason=reason, actor=actor())
    else:
        listed, receipt = life.revoke_version(installation, owner, target, reason=reason, actor=actor())
    channels = revoke_in_channels(installation, owner, listed)
    if out is not None:
        write_atomically(out, installation.paths.revocations.read_bytes())
    shown = out or installation.paths.revocations
    if as_json:
        print_json(
            {
                "target": target,
                "sequence": listed.sequence,
                "list": str(shown),
                "channels": channels,
                "receipt": str(receipt),
            }
        )
    else:
        echo(f"revoked {target}")
        print_fields(
            [
                ("list", f"{shown}, number {listed.sequence}: give it to hosts"),
                ("channels", ", ".join(channels) or None),
                ("ledger", f"entry {receipt.index}"),
            ]
        )


@click.command(epilog="Example: palladion rewrap llama@2 --to acme --drop 3f6a1e0c5b7d9842")
@click.argument("target")
@click.option(
    "--to",
    "recipients",
    multiple=True,
    metavar="RECIPIENT",
    help="Who may open it from now on: a registered name, or a key such as pallr1…. May be repeated.",
)
@click.option(
    "--drop",
    multiple=True,
    metavar="KEY_ID",
    help="Whose wrap goes, by the key id that inspect shows; only for a version. May be repeated.",
)
@click.option(
    "--renew",
    multiple=True,
    metavar="KEY",
    help="Have the service of this key (awskms:… or vault:…) wrap anew under its newest version, without opening the "
    "file. May be repeated.",
)
@HOST_IDENTITIES
@HOST_PUBLISHERS
@approval_option
@break_glass_option
@passphrase_option
@json_option
@click.pass_context
def rewrap(
    ctx: click.Context,
    target: str,
    recipients: tuple[str, ...],
    drop: tuple[str, ...],
    renew: tuple[str, ...],
    identities: tuple[str, ...],
    publishers: tuple[bytes, ...],
    approval: str,
    break_glass: str,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Change to whom a sealed file opens, in seconds: its body and its signature stay.

    TARGET is a version that was sealed, or a sealed file: then the wraps that your identity opens are replaced by --to,
    and no installation is needed. It takes back nothing that was opened: palladion reseal makes new file keys.
    """
    from palladion.lifecycle import wraps as life

    if bool(renew) == bool(recipients or drop):
        raise click.UsageError("name somebody: --to or --drop; or a key with --renew")
    if renew and Path(target).is_file():
        info = life.renew_on_host(find_host(identities, publishers), Path(target), renew)
        _show(target, info, None, as_json=as_json)
        return
    if renew:
        info, receipt = life.renew_version(find_installation(ctx), target, renew, actor=actor())
        _show(target, info, str(receipt), as_json=as_json)
        return
    if Path(target).is_file():
        if drop or not recipients:
            raise click.UsageError("a file's own wraps are replaced by --to; --drop goes with a version")
        info = life.rewrap_on_host(find_host(identities, publishers), Path(target), recipients)
        _show(target, info, None, as_json=as_json)
        return
    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    permit = permit_of(approval, break_glass)
    info, receipt = life.rewrap_version(
        installation, owner, target, add=recipients, drop=drop, actor=actor(), permit=permit
    )
    _show(target, info, str(receipt), as_json=as_json)


def _show(target: str, info: "SealedInfo", receipt: str | None, *, as_json: bool) -> None:
    wraps = [{"kind": wrap.kind, "key_id": wrap.key_id} for wrap in info.wraps]
    if as_json:
        print_json({"target": target, "wraps": wraps, "receipt": receipt})
        return
    echo(f"{target} is wrapped anew")
    opens = ", ".join(f"{wrap['kind']} {wrap['key_id']}" for wrap in wraps)
    print_fields([("opens for", opens), ("ledger", receipt)])
