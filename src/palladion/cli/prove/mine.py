"""`palladion prove mine`: is a model ours, wholly or in part?"""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion import files
from palladion.cli.output import echo, print_json, print_table
from palladion.cli.prove.api import SuspectType, api_options, prove_url, require_use
from palladion.cli.prove.shared import (
    blind_limits,
    document_of,
    exit_code,
    nothing_found,
    options,
    outcomes_of,
    strength,
    version_name,
)

if TYPE_CHECKING:
    from palladion.lifecycle.prove import Tested
    from palladion.transit.url import Url


@click.command("mine", epilog="Example: palladion prove mine downloaded.onnx --picture ours.html")
@partial(options, suspect=SuspectType())
@api_options
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the outcome as a page to this new .html file: which tensors are ours.",
)
@click.option(
    "--blind",
    is_flag=True,
    help="Of a file or folder: test without the original, where it is lost or must not be opened here. It takes half a "
    "million weights, and finds no copy that was permuted or rotated.",
)
def mine(
    ctx: click.Context,
    suspect: "Path | Url",
    versions: tuple[str, ...],
    passphrase_file: Path | None,
    identity_file: Path | None,
    budget: int,
    key_file: Path | None,
    no_key: bool,
    api_file: Path | None,
    capture: Path | None,
    insecure_http: bool,
    picture: Path | None,
    blind: bool,
    as_json: bool,
) -> int:
    """Is SUSPECT one of our models, wholly or in part?

    A file (ONNX, safetensors, GGUF) or a folder is compared with the sealed originals; what was permuted, rotated,
    split or quantised is put back first, by the originals alone. The address of an API is asked our triggers, within
    a budget. The p-value bounds the chance that a model which has nothing to do with our key looks like this. It pays
    for every version that was tested.
    """
    require_use(ctx, address=not isinstance(suspect, Path), of_files=("picture", "blind"))
    if picture is not None and picture.suffix != ".html":
        raise click.UsageError(f"--picture writes a page, expected a name that ends in .html, got {picture}")
    if not isinstance(suspect, Path):
        return prove_url(
            ctx,
            suspect,
            versions,
            passphrase_file,
            identity_file,
            budget=budget,
            key_file=key_file,
            no_key=no_key,
            api_file=api_file,
            capture=capture,
            as_json=as_json,
        )
    outcomes = outcomes_of(ctx, suspect, versions, passphrase_file, identity_file, copies=False, blind=blind)
    found = [item for item in outcomes if item.ours]
    if picture is not None:
        _write_picture(picture, suspect, outcomes)
    if as_json:
        print_json({"finding": bool(found), "versions": [document_of(item) for item in outcomes]})
        return exit_code(outcomes, bool(found))
    for item in found:
        _print(suspect, item)
    if not found:
        echo(nothing_found(suspect, outcomes, "our mark", [item.log10_p for item in outcomes]))
        for words in blind_limits(outcomes):
            echo(words)
    if picture is not None:
        echo(f"picture: {picture}")
    return exit_code(outcomes, bool(found))


def _print(suspect: Path, item: "Tested") -> None:
    found, blind = item.ownership, item.blind_log10_p is not None
    how = ", without the original" if blind else ""
    echo(f"{suspect} carries our mark: {version_name(item)}{how}, {strength(item.log10_p)}")
    if found.payload_errors is not None:
        echo(f"what the mark says: {found.payload_errors} of 128 bits read wrongly")
    for words in item.needed:
        echo(f"undone first: {words}")
    columns = ("tensor", "in the suspect", "weights", *(() if blind else ("alike",)), "log10 p alone")
    rows = [
        (
            part.tensor,
            part.suspect,
            f"{part.weights:,}",
            *(() if blind else (f"{part.correlation:.3f}",)),
            f"{part.log10_p:.0f}",
        )
        for part in found.tensors
    ]
    print_table(columns, rows)
    if found.missing:
        echo(f"not in it: {len(found.missing)} of {found.places} tensors")


def _write_picture(path: Path, suspect: Path, outcomes: "list[Tested]") -> None:
    from palladion.cli.prove.picture import heat_map

    with files.atomic_writer(path, replace=False) as stream:
        stream.write(heat_map(suspect.name, outcomes).encode())
