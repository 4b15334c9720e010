"""`palladion unseal`: a sealed model back to plaintext, on record."""

from pathlib import Path

import click

from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    identity_option,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    warn,
)


@click.command(epilog="Example: palladion unseal fraud@2 --out fraud.onnx --reason 'retraining on Monday'")
@click.argument("target")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="Where the model goes; its external data goes beside it. Nothing is overwritten.",
)
@click.option("--reason", required=True, help="Why it is needed; goes into the ledger with your name.")
@passphrase_option
@identity_option
@json_option
@click.pass_context
def unseal(
    ctx: click.Context,
    target: str,
    out: Path,
    reason: str,
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> None:
    """Write the original of a version back to disk, in plaintext, for the owner or an escrow recipient.

    TARGET is a version such as fraud@2, a model for its promoted version, or a sealed file. The ledger has it first.
    """
    from palladion.lifecycle import unseal as life
    from palladion.lifecycle.installation import owner_identity

    installation = find_installation(ctx)
    identities = owner_identities(passphrase_file, identity_file)
    if identity_file is None:
        identities = [owner_identity(installation.open_owner_root(identities))]
    what = Path(target) if Path(target).is_file() else target
    done = life.unseal(installation, what, identities[0], out, reason=reason, actor=actor())
    header = done.info.header
    paths = [str(path) for path in done.files]
    if as_json:
        print_json(
            {"model": header.model, "version": header.version, "files": paths, "receipt": str(done.receipt)},
        )
    else:
        echo(f"unsealed {header.model} version {header.version}, {header.purpose}")
        print_fields(
            [("files", ", ".join(paths)), ("content", header.content), ("ledger", f"entry {done.receipt.index}")]
        )
    warn(f"{paths[0]} is plaintext: whoever reads this disk has the model; delete it when it has served its purpose")
