"""`palladion unseal`: a sealed model back to plaintext, on record."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.approval_key import approval_option, break_glass_option, permit_of
from palladion.cli.output import (
    HOST_IDENTITIES,
    HOST_PUBLISHERS,
    actor,
    ask_pin,
    echo,
    find_host,
    find_installation,
    home_is_named,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    warn,
)
from palladion.errors import InstallationError, NotFoundError

if TYPE_CHECKING:
    from palladion.keys import Identity
    from palladion.lifecycle.approvals import Permit
    from palladion.lifecycle.installation import Installation
    from palladion.lifecycle.unseal import Unsealed


@click.command(epilog="Example: palladion unseal fraud@2 --out fraud.onnx --reason 'retraining on Monday'")
@click.argument("target")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    metavar="PATH",
    help="Where the model goes, a new file or, for what was a folder, a new folder; external data goes beside it.",
)
@click.option("--reason", default="", help="Why it is needed; goes into the ledger with your name. Not for a host.")
@approval_option
@break_glass_option
@passphrase_option
@HOST_IDENTITIES
@HOST_PUBLISHERS
@click.option("--allow-older", is_flag=True, help="Open an older version than this host has opened before.")
@json_option
@click.pass_context
def unseal(
    ctx: click.Context,
    target: str,
    out: Path,
    reason: str,
    approval: str,
    break_glass: str,
    passphrase_file: Path | None,
    identities: tuple[str, ...],
    publishers: tuple[bytes, ...],
    allow_older: bool,
    as_json: bool,
) -> None:
    """Write what is sealed back to disk, in plaintext.

    TARGET is a version such as fraud@2, a model for its promoted version, or a sealed file. In an installation its
    owner or an escrow recipient gets it, and the ledger has it first. Where there is no installation, or with
    --publisher, TARGET is a sealed file that this host opens as a recipient. Where others have to agree
    (docs/approvals.md), an original needs an --approval to export it.
    """
    installation = None if publishers else _installation(ctx, target)
    if installation is None:
        done = _on_host(target, out, identities, publishers, allow_older=allow_older)
    else:
        permit = permit_of(approval, break_glass)
        done = _in_installation(installation, target, out, identities, passphrase_file, reason=reason, permit=permit)
    header = done.info.header
    paths = [str(path) for path in done.files]
    receipt = str(done.receipt) if done.receipt else None
    if as_json:
        print_json({"model": header.model, "version": header.version, "files": paths, "receipt": receipt})
    else:
        echo(f"unsealed {header.model} version {header.version}, {header.purpose}")
        entry = f"entry {done.receipt.index}" if done.receipt else None
        print_fields([("files", ", ".join(paths)), ("content", header.content), ("ledger", entry)])
    warn(f"{out} is plaintext: whoever reads this disk has the model; delete it when it has served its purpose")


def _installation(ctx: click.Context, target: str) -> "Installation | None":
    """The installation, or None where there is none and a file is named, which a host can open alone."""
    try:
        return find_installation(ctx)
    except InstallationError:
        if home_is_named(ctx) or not Path(target).is_file():
            raise
        return None


def _on_host(
    target: str, out: Path, identities: tuple[str, ...], publishers: tuple[bytes, ...], *, allow_older: bool
) -> "Unsealed":
    from palladion.lifecycle.unseal import unseal_on_host

    if not Path(target).is_file():
        raise NotFoundError(f"{target} is no file", "a host opens sealed files; versions have names in an installation")
    host = find_host(identities, publishers)
    done = unseal_on_host(host, Path(target), out, allow_older=allow_older)
    for warning in host.granted.warnings if host.granted else ():
        warn(warning)
    return done


def _in_installation(
    installation: "Installation",
    target: str,
    out: Path,
    identities: tuple[str, ...],
    passphrase_file: Path | None,
    *,
    reason: str,
    permit: "Permit",
) -> "Unsealed":
    from palladion.lifecycle import unseal as life
    from palladion.lifecycle.installation import owner_identity
    from palladion.seal.recipients import parse_identity

    if not reason:
        raise click.UsageError("--reason is needed: the ledger states why")
    if len(identities) > 1:
        raise click.UsageError("in an installation one --identity is enough")
    identity: Identity
    if identities:
        identity = parse_identity(identities[0], ask_pin=ask_pin)
    else:
        identity = owner_identity(installation.open_owner_root(owner_identities(passphrase_file)))
    what = Path(target) if Path(target).is_file() else target
    return life.unseal(installation, what, identity, out, reason=reason, actor=actor(), permit=permit)
