"""`palladion prove copy`: whose copy leaked?"""

from functools import partial
from pathlib import Path
from typing import Any

import click

from palladion.cli.output import echo, print_json
from palladion.cli.prove.shared import (
    document_of,
    exit_code,
    nothing_found,
    options,
    outcomes_of,
    strength,
    version_name,
)


class CopyType(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks alone
    """A file or a folder that exists."""

    name = "suspect"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """Its path. What has `://` in it is an address, whose weights nobody sees."""
        if isinstance(value, str) and "://" in value:
            self.fail(
                "copies are told apart by their weights, which an API does not show: expected a file or a folder. Of "
                "an API, palladion prove mine asks whether its model is ours, and palladion prove student whose "
                "answers it was trained on",
                param,
                ctx,
            )
        return click.Path(exists=True, path_type=Path).convert(value, param, ctx)


@click.command("copy", epilog="Example: palladion prove copy leaked.onnx --reference fraud@2")
@partial(options, suspect=CopyType())
def copy(
    ctx: click.Context,
    suspect: Path,
    versions: tuple[str, ...],
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> int:
    """Whose copy is SUSPECT? Names the recipients whose fingerprint it carries, several for a mixture, or nobody.

    The p-value bounds the chance that an innocent recipient is named; it pays for every recipient and version tested.
    """
    outcomes = outcomes_of(ctx, suspect, versions, passphrase_file, identity_file, copies=True)
    accused = [(item, who) for item in outcomes for who in item.accused]
    if as_json:
        print_json({"finding": bool(accused), "versions": [document_of(item) for item in outcomes]})
        return exit_code(outcomes, bool(accused))
    for item, who in accused:
        echo(f"{suspect} is {who.recipient}'s copy of {version_name(item)}: {strength(who.log10_p)}")
    if not accused:
        log10_ps = [who.log10_p for item in outcomes for who in item.accusations]
        echo(nothing_found(suspect, outcomes, "a recipient's fingerprint", log10_ps))
        for item in outcomes:
            if item.ours:
                echo(f"but it is ours: it carries the mark of {version_name(item)}, {strength(item.log10_p)}")
    echo(f"versions tested: {len(outcomes)}, recipients: {sum(item.recipients for item in outcomes)}")
    return exit_code(outcomes, bool(accused))
