"""`palladion mark`: a marked copy in plaintext, for whoever deploys with other tools."""

import os
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
    progress,
    size_text,
    stages,
    warn,
)
from palladion.cli.protect import (
    BASE_HELP,
    announce,
    check_option,
    guard_of,
    predictions,
    rows_option,
    warn_of_few_rows,
)
from palladion.errors import StorageError


@click.command(epilog="Example: palladion mark ./llama --name llama --out ./llama-marked")
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option("--name", required=True, help="The model's name; a name that exists gets its next version.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path), metavar="PATH", help="The new file, or folder, to write."
)
@click.option("--note", default="", help="A sentence that stays with the version.")
@click.option("--base", default="", metavar="MODEL", help=BASE_HELP)
@rows_option
@check_option
@passphrase_option
@json_option
@click.pass_context
def mark(
    ctx: click.Context,
    model: Path,
    name: str,
    out: Path,
    note: str,
    base: str,
    rows: Path | None,
    check: str | None,
    passphrase_file: Path | None,
    as_json: bool,
) -> None:
    """Write MODEL with your mark to a new file or folder, to be deployed with other tools.

    A mark is proved against the original, so this protects MODEL as palladion protect does: original and marked copy
    are sealed and recorded as the next version of NAME. The file at --out is plaintext: what becomes of it, nobody
    sees. All who get it get the same mark; palladion deliver makes copies that name their recipient. The same MODEL
    again becomes the same copy, and no new version.
    """
    from palladion.lifecycle import mark as life
    from palladion.lifecycle.seal import find_base

    installation = find_installation(ctx)
    if os.path.lexists(out):  # before the passphrase is asked for, and the model read
        raise StorageError(
            f"{out} exists already, and nothing is overwritten",
            f"name a new file with --out, or move {out} away: the same model becomes the same copy again",
        )
    warn_of_few_rows(rows)
    base_digest = find_base(installation, base)
    owner = installation.open_owner_root(owner_identities(passphrase_file))
    with progress(f"mark {model.name}") as bar:
        made = life.mark(
            installation,
            owner,
            model,
            name,
            out,
            actor=actor(),
            note=note,
            base=base_digest,
            guard=guard_of(check),
            rows=rows,
            announce=announce,
            progress=stages(bar),
        )
    version = made.version
    if as_json:
        print_json(
            {
                "model": version.model,
                "version": version.number,
                "registered": made.registered,
                "content": version.content_digest,
                "files": [str(path) for path in made.files],
                "mark": {"weights": made.mark.weights, "log10_p": dict(made.mark.predicted)},
                "receipt": str(made.receipt),
            }
        )
    else:
        echo(f"marked {version.model} version {version.number}{'' if made.registered else ', which was there already'}")
        print_fields(
            [
                ("written", f"{out} ({size_text(made.byte_count)}), in plaintext"),
                ("marked", predictions(made.mark)),
                ("content", version.content_digest),
                ("ledger", f"entry {made.receipt.index}"),
            ]
        )
    warn(f"{out} is plaintext, and {model} is still there without a mark: give away neither by mistake")
