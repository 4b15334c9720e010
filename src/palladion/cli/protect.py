"""`palladion protect`: a plaintext model in, a sealed and recorded version out."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import (
    actor,
    find_installation,
    json_option,
    owner_identities,
    passphrase_option,
    print_fields,
    print_json,
    progress,
    size_text,
    warn,
)

if TYPE_CHECKING:
    from palladion.lifecycle.protect import Protected


@click.command(epilog="Example: palladion protect model.onnx --name fraud --note 'retrained in March'")
@click.argument("model", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--name", required=True, help="The model's name; a name that exists gets its next version.")
@click.option("--note", default="", help="A sentence that stays with the version.")
@click.option("--delete-plaintext", is_flag=True, help="Remove the plaintext files once the sealed ones have verified.")
@passphrase_option
@json_option
@click.pass_context
def protect(
    ctx: click.Context,
    model: Path,
    name: str,
    note: str,
    delete_plaintext: bool,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Scan MODEL, seal it, sign it, and record it as the next version of NAME.

    Two sealed files come out: the served one, for this host's gate, and the original, for owner and escrow only. MODEL
    is ONNX or safetensors.
    """
    from palladion.lifecycle import protect as life
    from palladion.lifecycle.open import verify_version

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    with progress("protect") as bar:
        made = life.protect(
            installation,
            owner,
            model,
            name,
            actor=actor(),
            note=note,
            progress=lambda stage, done, total: bar(done, total, stage),
        )
    deleted: list[str] = []
    if delete_plaintext:
        for kind in ("served", "original"):
            verify_version(installation, made.version, kind)
        for path in made.plaintext:
            path.unlink()
            deleted.append(str(path))
    if as_json:
        print_json(_document(made, deleted))
    else:
        _print(made, deleted)
    if not delete_plaintext:
        warn(f"{model} is still there in plaintext; --delete-plaintext removes it")


def _document(made: "Protected", deleted: list[str]) -> dict[str, object]:
    version = made.version
    return {
        "model": version.model,
        "version": version.number,
        "parent": version.parent,
        "format": version.format,
        "content": version.content_digest,
        "graph": version.graph_digest,
        "tensors": made.tensors,
        "parameters": made.parameters,
        "served": str(made.served),
        "original": str(made.original),
        "publisher": version.publisher,
        "receipt": str(made.receipt),
        "promoted": made.promoted,
        "deleted": deleted,
    }


def _print(made: "Protected", deleted: list[str]) -> None:
    version = made.version
    click.echo(f"protected {version.model} version {version.number}")
    print_fields(
        [
            ("scanned", f"{version.format}, {made.tensors} tensors, {made.parameters:,} numbers, no findings"),
            ("content", version.content_digest),
            ("served", f"{made.served} ({size_text(made.served.stat().st_size)}), for this host's gate"),
            ("original", f"{made.original}, for owner{' and escrow' if made.escrowed else ' only'}"),
            ("signed by", version.publisher),
            ("ledger", f"entry {made.receipt.index}"),
            ("promoted", "yes, as the first version" if made.promoted else "no: palladion model promote"),
            ("deleted", ", ".join(deleted) or None),
        ]
    )
