"""`palladion protect`: a plaintext model in, a sealed and recorded version out."""

from pathlib import Path
from typing import TYPE_CHECKING

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
    warn,
)
from palladion.errors import FINDING

if TYPE_CHECKING:
    from palladion.lifecycle.protect import Protected

LOG10_P_WEAK = -12.0  # a thousand times below the threshold of a verdict: less leaves nothing for a rounding


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
) -> int:
    """Scan MODEL, seal it, sign it, and record it as the next version of NAME.

    Two sealed files come out: the served one, for this host's gate, and the original, for owner and escrow only. MODEL
    is ONNX or safetensors. Exit code 1 if the version is protected and a plaintext file that was to go has stayed.
    """
    from palladion.lifecycle import protect as life

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
            delete=delete_plaintext,
            progress=lambda stage, done, total: bar(done, total, stage),
        )
    if as_json:
        print_json(_document(made))
    else:
        _print(made)
    if not delete_plaintext:
        warn(f"{model} is still there in plaintext; --delete-plaintext removes it")
    if made.unservable:
        warn(f"palladion serve cannot run it: {made.unservable}")
    if made.mark is None:
        warn("the model is too small to carry a mark: a copy of it cannot be proved ours, and no leak can be traced")
    elif made.mark.predicted["int8"] > LOG10_P_WEAK:
        warn("the model is so small that its mark may not survive quantisation")
    for item in made.stayed:
        warn(f"{item.path} was not deleted: {item.reason}")
    return FINDING if made.stayed else 0


def _marked(made: "Protected") -> str:
    """What will be found again in copies: stated before anybody has one."""
    if made.mark is None:
        return "no: it has no tensor that could carry a mark"
    found = ", ".join(f"{p:.0f} ({name})" for name, p in made.mark.predicted.items())
    return f"{made.mark.weights:,} weights; a test against the original will find log10 p of about {found}"


def _document(made: "Protected") -> dict[str, object]:
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
        "mark": None if made.mark is None else {"weights": made.mark.weights, "log10_p": dict(made.mark.predicted)},
        "served": str(made.served),
        "original": str(made.original),
        "publisher": version.publisher,
        "receipt": str(made.receipt),
        "promoted": made.promoted,
        "deleted": [str(path) for path in made.deleted],
        "stayed": [{"file": str(item.path), "reason": item.reason} for item in made.stayed],
    }


def _print(made: "Protected") -> None:
    version = made.version
    echo(f"protected {version.model} version {version.number}")
    print_fields(
        [
            ("scanned", f"{version.format}, {made.tensors} tensors, {made.parameters:,} numbers, no findings"),
            ("marked", _marked(made)),
            ("content", version.content_digest),
            ("served", f"{made.served} ({size_text(made.served.stat().st_size)}), for this host's gate"),
            ("original", f"{made.original}, for owner{' and escrow' if made.escrowed else ' only'}"),
            ("signed by", version.publisher),
            ("ledger", f"entry {made.receipt.index}"),
            ("promoted", "yes, as the first version" if made.promoted else "no: palladion model promote"),
            ("deleted", ", ".join(map(str, made.deleted)) or None),
        ]
    )
