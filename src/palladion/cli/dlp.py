"""`palladion dlp …`: rules by which other systems know our weights when they pass by."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal, cast

import click

from palladion import files
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
    print_table,
    progress,
    warn,
)
from palladion.errors import FINDING

if TYPE_CHECKING:
    from palladion.keys import Identity


@click.group()
def dlp() -> None:
    """Data-loss prevention: rules by which mail gateways and scanners know our weights when they pass by."""


@dlp.command("export", epilog="Example: palladion dlp export fraud@3 --format yara --out fraud.yar")
@click.argument("versions", nargs=-1, metavar="[VERSION]...")
@click.option(
    "--format",
    "form",
    type=click.Choice(["yara", "json"]),
    default="yara",
    show_default=True,
    help="YARA rules, or salted hashes of pieces for palladion dlp check.",
)
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="The new file with the rules.",
)
@click.option(
    "--base",
    "bases",
    multiple=True,
    type=click.Path(exists=True, path_type=Path),
    metavar="PATH",
    help="A model that others have too, such as the one that was fine-tuned: nothing of it goes into the rules. "
    "May be repeated.",
)
@passphrase_option
@identity_option
@json_option
@click.pass_context
def export(
    ctx: click.Context,
    versions: tuple[str, ...],
    form: str,
    out: Path,
    bases: tuple[Path, ...],
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> None:
    """Write rules that know the weights of each VERSION, such as fraud@3; without any, of all versions.

    The rules disclose at most 1,152 bytes of the weights (YARA) or salted hashes (JSON). Versions are
    opened with the gate's key, or with the owner's where the gate may not; that is recorded.
    """
    from palladion.sweep.dlp import export_rules

    installation = find_installation(ctx)
    identity: Identity | None = None
    if passphrase_file is not None or identity_file is not None:
        from palladion.lifecycle.installation import owner_identity

        identity = owner_identity(installation.open_owner_root(owner_identities(passphrase_file, identity_file)))
    with progress("make rules"):
        made = export_rules(
            installation,
            versions,
            form=cast("Literal['yara', 'json']", form),
            actor=actor(),
            identity=identity,
            bases=bases,
        )
    with files.atomic_writer(out, replace=False) as stream:
        stream.write(made.data)
    if as_json:
        print_json({"file": str(out), "format": form, "versions": made.versions, "without": made.without})
    else:
        echo(f"wrote {out}")
        print_fields([("format", form), ("versions", ", ".join(made.versions)), ("bytes", len(made.data))])
    if made.without:
        warn(f"too little in them to be told from others: {', '.join(made.without)}")


@dlp.command("check", epilog="Example: palladion dlp check attachment.bin --rules fraud.json")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--rules",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    required=True,
    metavar="FILE",
    help="What palladion dlp export --format json wrote.",
)
@click.option(
    "--at-least",
    type=click.FloatRange(0, 1),
    default=0.01,
    show_default=True,
    help="Count it as a finding from this share of a version on.",
)
@json_option
def check(file: Path, rules: Path, at_least: float, as_json: bool) -> int:
    """Say which share of which version is in FILE. Exit code 1 if that is something. Needs no installation."""
    from palladion.sweep.dlp import check_file, documents_of, read_rules

    with progress(f"read {file.name}"):
        shares = [item for item in check_file(file, read_rules(rules)) if item.share >= at_least]
    if as_json:
        print_json({"file": str(file), "finding": bool(shares), "versions": documents_of(shares)})
    elif shares:
        rows = [(item.version, item.form, f"{item.share:.1%}", f"{item.found} of {item.kept}") for item in shares]
        print_table(("version", "as", "share", "pieces"), rows)
    else:
        echo(f"{file}: nothing of {rules.name} is in it")
    return FINDING if shares else 0
