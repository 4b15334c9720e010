"""`palladion prove mine`: is a model ours, wholly or in part?"""

from pathlib import Path

import click

from palladion.cli.output import echo, print_json, print_table
from palladion.cli.prove.shared import (
    document_of,
    exit_code,
    nothing_found,
    options,
    outcomes_of,
    strength,
    version_name,
)


@click.command("mine", epilog="Example: palladion prove mine downloaded.onnx")
@options
def mine(
    ctx: click.Context,
    suspect: Path,
    versions: tuple[str, ...],
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> int:
    """Is SUSPECT (ONNX or safetensors) one of our models, wholly or in part?

    The p-value bounds the chance that a model which has nothing to do with our key looks like this. It stays valid
    after quantisation, pruning or fine-tuning, and pays for every version that was tested.
    """
    outcomes = outcomes_of(ctx, suspect, versions, passphrase_file, identity_file, copies=False)
    if as_json:
        print_json(
            {"finding": any(item.ours for item in outcomes), "versions": [document_of(item) for item in outcomes]}
        )
        return exit_code(outcomes, any(item.ours for item in outcomes))
    found = [item for item in outcomes if item.ours]
    for item in found:
        echo(f"{suspect} carries our mark: {version_name(item)}, {strength(item.log10_p)}")
        rows = [
            (part.tensor, part.suspect, f"{part.weights:,}", f"{part.correlation:.3f}", f"{part.log10_p:.0f}")
            for part in item.ownership.tensors
        ]
        print_table(("tensor", "in the suspect", "weights", "alike", "log10 p alone"), rows)
    if not found:
        echo(nothing_found(suspect, outcomes, "our mark", [item.log10_p for item in outcomes]))
    return exit_code(outcomes, bool(found))
