"""`palladion prove dispute`, `disclose` and `check`: when somebody else claims our model, and an expert has to tell."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    identity_option,
    json_option,
    owner_identities,
    passphrase_option,
    print_json,
    print_table,
    progress,
    stages,
)
from palladion.cli.prove.shared import document_of, strength, version_name
from palladion.errors import FINDING

if TYPE_CHECKING:
    from palladion.lifecycle.dispute import Dispute

_MODEL = click.Path(exists=True, path_type=Path)


@click.command("dispute", epilog="Example: palladion prove dispute fraud@1 --theirs claimed.onnx --suspect leaked.onnx")
@click.argument("version")
@click.option("--theirs", required=True, type=_MODEL, metavar="MODEL", help="What the other side calls its original.")
@click.option("--suspect", type=_MODEL, metavar="MODEL", help="The model that both sides claim.")
@passphrase_option
@identity_option
@json_option
@click.pass_context
def dispute(
    ctx: click.Context,
    version: str,
    theirs: Path,
    suspect: Path | None,
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> int:
    """Two claim one model: was theirs made from VERSION of ours?

    Whoever subtracts a mark of his own from our model has an "original" that carries our mark, while ours carries none
    of his. The other half of the test, their mark in our original, is theirs to show. Exit code 1 if theirs was made
    from ours, 0 otherwise, also if the suspect alone is ours.
    """
    from palladion.lifecycle.dispute import settle
    from palladion.model.read import read_weights

    installation = find_installation(ctx)
    limit = installation.policy.scan.file_bytes_max
    claimed = read_weights(theirs, bytes_max=limit)
    taken = read_weights(suspect, bytes_max=limit) if suspect else None
    owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
    with progress("dispute") as bar:
        outcome = settle(installation, owner, claimed, taken, version, actor=actor(), progress=stages(bar))
    if as_json:
        print_json(
            {
                "finding": outcome.ours_came_first,
                "in_theirs": document_of(outcome.in_theirs),
                "in_suspect": document_of(outcome.in_suspect) if outcome.in_suspect else None,
            }
        )
    else:
        _print(outcome, theirs, suspect)
    return FINDING if outcome.ours_came_first else 0


def _print(outcome: "Dispute", theirs: Path, suspect: Path | None) -> None:
    tested = [(theirs, outcome.in_theirs), *([(suspect, outcome.in_suspect)] if suspect and outcome.in_suspect else [])]
    for path, item in tested:
        verb = "carries" if item.ours else "does not carry"
        echo(f"{path} {verb} the mark of {version_name(item)}: {strength(item.log10_p)}")
    if outcome.ours_came_first:
        echo("what they call their original was made from our marked model")
    elif outcome.in_suspect and outcome.in_suspect.ours:
        echo("the suspect is ours, and their original is another model: they have to show their mark in the suspect")
    else:
        echo("nothing of ours was found")


@click.command("disclose", epilog="Example: palladion prove disclose fraud@1 --tensor fc.weight --out fc.json")
@click.argument("version")
@click.option(
    "--tensor", "tensors", required=True, multiple=True, metavar="NAME", help="A tensor to show; may be repeated."
)
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), metavar="FILE", help="Write them here."
)
@passphrase_option
@identity_option
@json_option
@click.pass_context
def disclose(
    ctx: click.Context,
    version: str,
    tensors: tuple[str, ...],
    out: Path,
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> None:
    """Write the mark's keys of a few tensors of VERSION, to be shown to a court; the others stay secret.

    Whoever sees a tensor's key can remove the mark from it. Show no more than is needed, and to nobody else.
    """
    from palladion.lifecycle.dispute import write_disclosure

    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
    found = write_disclosure(installation, owner, version, tensors, out, actor=actor())
    if as_json:
        print_json({"model": found.model, "version": found.number, "tensors": list(tensors), "file": str(out)})
    else:
        count = "1 tensor" if len(tensors) == 1 else f"{len(tensors)} tensors"
        echo(f"wrote the keys of {count} of {found.model} version {found.number} to {out}")
        echo("an expert checks them with palladion prove check, against tensor_keys in the version's ledger record")


@click.command(
    "check", epilog="Example: palladion prove check fc.json --original o.onnx --suspect s.onnx --committed HEX"
)
@click.argument("disclosure", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--original", required=True, type=_MODEL, metavar="MODEL", help="The unmarked original.")
@click.option("--suspect", required=True, type=_MODEL, metavar="MODEL", help="The model in question.")
@click.option("--committed", required=True, metavar="HEX", help="tensor_keys in the ledger record model.protected.")
@json_option
def check(disclosure: Path, original: Path, suspect: Path, committed: str, as_json: bool) -> int:
    """As an expert: are the keys in DISCLOSURE those that were committed to, and does the suspect carry their mark?

    Needs no installation and no other key. The p-value bounds the chance that a model which has nothing to do with the
    keys looks like this, and pays for every tensor that could have been shown. Files have the names they had.
    """
    from palladion.lifecycle.dispute import check_disclosure
    from palladion.lifecycle.prove import LOG10_P_MAX
    from palladion.model.read import read_file, read_weights

    found = check_disclosure(disclosure, read_file(original), read_weights(suspect), committed)
    carries = found.log10_p <= LOG10_P_MAX
    if as_json:
        print_json(
            {
                "finding": carries,
                "log10_p": found.log10_p,
                "tensors": {name: item.log10_p for name, item in found.findings.items()},
            }
        )
    else:
        echo("the keys are those that were committed to")
        print_table(("tensor", "log10 p"), [(name, f"{item.log10_p:.1f}") for name, item in found.findings.items()])
        verb = "carries" if carries else "does not carry"
        echo(f"{suspect} {verb} the mark: {strength(found.log10_p)}")
    return FINDING if carries else 0
