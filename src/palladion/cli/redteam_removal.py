"""`palladion redteam removal MODEL`: what the owner's own mark survives, and what an attack costs the thief."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

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
    warn,
)
from palladion.errors import FormatError

if TYPE_CHECKING:
    from palladion.model.model import Model
    from palladion.redteam.audit.bars import Judged
    from palladion.redteam.audit.result import StageResult
    from palladion.redteam.removal.usefulness import Usefulness

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_STANDS = {"pass": "holds", "fail": "FAILS", "inconclusive": "undecided"}


@click.command("removal", epilog="Example: palladion redteam removal fraud@2 --rows rows.npz --picture marks.html")
@click.argument("model")
@click.option(
    "--rows",
    type=_FILE,
    metavar="FILE",
    help="Rows of yours, as for run: what an attack costs is measured on them. Without, on random ones.",
)
@click.option("--labels", type=_FILE, metavar="FILE", help="Their true classes, from 0 on (.npy).")
@click.option("--recipient", metavar="NAME", help="Attack the copy that this recipient gets, and test it for his name.")
@click.option("--kind", "kinds", multiple=True, metavar="KIND", help="Try this kind of attack alone. May be repeated.")
@click.option("--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, help="Same seed, same table.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the table as a page to this new .html file.",
)
@passphrase_option
@identity_option
@json_option
@click.pass_context
def removal(
    ctx: click.Context,
    /,
    model: str,
    rows: Path | None,
    labels: Path | None,
    recipient: str | None,
    kinds: tuple[str, ...],
    seed: int,
    picture: Path | None,
    passphrase_file: Path | None,
    identity_file: Path | None,
    as_json: bool,
) -> None:
    """Attack the mark of MODEL, or MODEL@3: round, prune, disturb, mix, overwrite and rewire a copy, and test it.

    Says for each attack what `prove mine` would still find, and how much of the copy's usefulness it costs. Exits with
    0, or with 1 where the policy's bar for it fails.
    """
    from palladion.redteam.audit.bars import CODES, judge, overall
    from palladion.redteam.audit.record import record_removal
    from palladion.redteam.audit.removal import removal_bars, result_of
    from palladion.redteam.removal.opened import opened_trial
    from palladion.redteam.removal.trial import attacks_for, run_trial

    _check(picture, rows, labels)
    installation = find_installation(ctx)
    owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
    with opened_trial(installation, owner, model, recipient=recipient) as (trial, version):
        attacks = [attack for attack in attacks_for(trial.marked) if not kinds or attack.kind in kinds]
        if not attacks:
            known = ", ".join(dict.fromkeys(attack.kind for attack in attacks_for(trial.marked)))
            raise click.BadParameter(f"there are {known}", param_hint="--kind")
        usefulness = usefulness_of(trial.marked, rows, labels, seed=seed)
        with progress(f"attack the mark of {model}") as bar:
            outcomes = run_trial(trial, usefulness, seed=seed, attacks=attacks, progress=stages(bar))
            result = result_of(outcomes, usefulness)
    judged = judge(removal_bars(installation.policy.redteam), [result])
    record_removal(installation, version, result, actor=actor(), recipient=recipient or "", seed=seed)
    name = f"{version.model}@{version.number}"
    verdict = overall(judged, [result])
    document = {
        "version": name,
        "recipient": recipient,
        "seed": seed,
        **result.details,
        "bars": [item.document() for item in judged],
        "verdict": verdict,
    }
    if picture is not None:
        _write_picture(picture, name, result)
    if as_json:
        print_json(document)
    else:
        _print(name, recipient, result, judged)
        if picture is not None:
            echo(f"picture: {picture}")
    ctx.exit(CODES[verdict])


def usefulness_of(model: "Model", rows: Path | None, labels: Path | None, *, seed: int) -> "Usefulness | None":
    """What judges altered copies of a model; None, and a warning, for what cannot be run on random rows."""
    from palladion.model.run import open_session, unservable
    from palladion.redteam.removal.usefulness import Usefulness
    from palladion.redteam.victim import read_data

    if rows is not None:
        feeds, right = read_data(rows, labels, model, open_session(model))
        return Usefulness(model, feeds, right, seed=seed)
    reason = unservable(model)
    if reason is None:
        try:
            return Usefulness(model, None, None, seed=seed)
        except FormatError as error:
            reason = error.message
    warn(f"what an attack costs is not measured: {reason}")
    return None


def _check(picture: Path | None, rows: Path | None, labels: Path | None) -> None:
    if picture is not None and picture.suffix != ".html":
        raise click.UsageError(f"--picture writes a page, expected a name that ends in .html, got {picture}")
    if labels is not None and rows is None:
        raise click.UsageError("--labels are those of --rows")


def _print(name: str, recipient: str | None, result: "StageResult", judged: "tuple[Judged, ...]") -> None:
    from palladion.redteam.audit.grid import state_of
    from palladion.redteam.audit.removal import WEAKEST

    attacks: list[dict[str, Any]] = result.details["attacks"]
    echo(f"{name}{f', the copy of {recipient}' if recipient else ''}: {len(attacks)} attacks on its mark")
    echo(f"points lost are of 100: {result.details['usefulness']}")
    columns = [
        "attack",
        "strength",
        "log10 p",
        "bits wrong",
        *(["copy, log10 p"] if recipient else []),
        "points lost",
        "",
    ]
    print_table(
        columns,
        [
            [
                item["kind"],
                item["strength"],
                f"{item['log10_p']:.1f}",
                "-" if item["payload_errors"] is None else str(item["payload_errors"]),
                *([f"{item['copy_log10_p']:.1f}"] if recipient else []),
                "-" if item["points_lost"] is None else f"{item['points_lost']:.1f}",
                state_of(item),
            ]
            for item in attacks
        ],
    )
    for figure in result.figures:
        if figure.key == WEAKEST:
            echo(f"{figure.words}: log10 p {figure.value:.1f}")
    for item in judged:
        echo(f"{_STANDS[item.verdict]}: {item.reason}")
    if not judged:
        echo("no bar is set: redteam.removal_log10_p of the policy sets one")


def _write_picture(path: Path, name: str, result: "StageResult") -> None:
    from palladion import files
    from palladion.redteam.audit.grid import page

    data = page(f"What the mark of {name} survives", result.details["attacks"], result.details["usefulness"])
    with files.atomic_writer(path, replace=False) as stream:
        stream.write(data)
