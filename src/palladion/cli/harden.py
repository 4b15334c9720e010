"""`palladion harden MODEL`: fine-tune against extraction, measure what adaptive students still get, and say so."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    json_option,
    print_json,
    print_table,
    progress,
)
from palladion.errors import FINDING, FINE, ConflictError, UnsupportedFormatError

if TYPE_CHECKING:
    from palladion.redteam.extraction import Interval
    from palladion.redteam.harden.harden import Hardened
    from palladion.redteam.harden.leftover import Leftover, Robbed

QUERIES_MAX = 50_000
SEEDS_MAX = 50
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW = click.Path(dir_okay=False, path_type=Path)
_WORDS = {
    "benefit": "benefit: with every budget the best adaptive student is further behind, and agrees less",
    "no benefit": "no benefit: the best adaptive student gets what it got before, as far as these seeds can tell",
    "worse": "worse: with some budget the best adaptive student gets more than before",
    "too dear": "too dear: it costs honest users more than a point of accuracy, whatever the strength",
}


@click.command("harden", epilog="Example: palladion harden fraud.onnx --training training.npz --out hardened.onnx")
@click.argument("model", type=_FILE)
@click.option(
    "--training",
    type=_FILE,
    required=True,
    metavar="FILE",
    help="Rows with their true classes, 300 or more, 2,000 or more to see anything: .npz with x and y. Half of them "
    "teaches, half judges; those that the model has not seen in training judge it better.",
)
@click.option(
    "--out",
    type=_NEW,
    required=True,
    metavar="FILE",
    help="Where the hardened model goes, if it is worth it: a new file.",
)
@click.option(
    "--method",
    type=click.Choice(["nasty", "steering", "adversarial"]),
    default="nasty",
    show_default=True,
    help="What it is fine-tuned for: answers unlike a student's, answers that turn its slopes away, or PGD training.",
)
@click.option(
    "--queries",
    type=click.IntRange(40, QUERIES_MAX),
    multiple=True,
    default=(1000, 10_000),
    show_default=True,
    help="Budget of the students. May be repeated.",
)
@click.option(
    "--seeds",
    type=click.IntRange(5, SEEDS_MAX),
    default=5,
    show_default=True,
    help="Students of each kind, for intervals.",
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, help="The first of the seeds.")
@click.option("--report", type=_NEW, metavar="FILE", help="Write what was measured to this new .json file.")
@click.option(
    "--name", metavar="NAME", help="Record it in this installation's ledger, for the model that protect will name so."
)
@json_option
@click.pass_context
def harden(
    ctx: click.Context,
    /,
    model: Path,
    training: Path,
    out: Path,
    method: Any,
    queries: tuple[int, ...],
    seeds: int,
    seed: int,
    report: Path | None,
    name: str | None,
    as_json: bool,
) -> None:
    """Fine-tune the ONNX network MODEL so that students of its answers do worse, and measure whether they do.

    Adaptive students are trained on its answers before and after: as they are, by labels alone, softened and averaged.
    The new file is written only where the best of them lost something with every budget, and honest users lost one
    point of accuracy at most. Exits with 0 then, else with 1. Needs the torch extra.
    """
    from palladion import files
    from palladion.model.read import read_file
    from palladion.model.run import open_session
    from palladion.redteam.harden.harden import harden as hardened
    from palladion.redteam.harden.harden import read_lesson
    from palladion.redteam.harden.network import HINT
    from palladion.redteam.harden.record import record_hardening
    from palladion.redteam.victim import read_data
    from palladion.registry import names

    _check_new(out, report)
    installation = None
    if name is not None:
        names.slug(name, what="the name of a model")
        installation = find_installation(ctx)
    original = read_file(model)
    if len(original.files) > 1:
        raise UnsupportedFormatError(f"{model} keeps its weights in other files", "save it as one file", HINT)
    feeds, right = read_data(training, None, original, open_session(original))
    lesson = read_lesson(original, feeds, right, seed=seed)
    with progress(f"harden {model.name}") as bar:
        made = hardened(
            lesson,
            method,
            budgets=sorted(set(queries)),
            seeds=range(seed, seed + seeds),
            progress=lambda stage, done, total: bar(done, total, stage),
        )
    gained = made.outcome == "benefit"
    document = {"model": model.name, "seeds": [seed, seed + seeds - 1], **made.document()}
    document["written"] = str(out) if gained else None
    if installation is not None and name is not None:
        record_hardening(installation, name, lesson, made, actor=actor())
    if gained:
        with files.atomic_writer(out, replace=False) as stream:
            stream.write(made.model.files[0].data)
    if report is not None:
        with files.atomic_writer(report, replace=False) as stream:
            stream.write(json.dumps(document, indent=2, sort_keys=True, allow_nan=False).encode() + b"\n")
    if as_json:
        print_json(document)
    else:
        _print(model, out, made)
    ctx.exit(FINE if gained else FINDING)


def _check_new(out: Path, report: Path | None) -> None:
    for path in (out, report):
        if path is not None and path.exists():
            raise ConflictError(f"{path} is there already", "name a new file")
    if report == out:
        raise click.UsageError("--out and --report are one file")


def _print(model: Path, out: Path, made: "Hardened") -> None:
    honest = made.honest
    echo(f"{model.name}: {made.method}, strength {made.strength:g}")
    echo(
        f"honest accuracy on {honest.rows:,} rows: {honest.before:.1%} before, {honest.after:.1%} after; "
        f"lost {_points(honest.lost)} points"
    )
    for item in made.leftovers:
        print_table(
            ["student", "used", "agrees", "after", "is right", "after"],
            [
                [
                    one.thief,
                    one.manner,
                    *(f"{_mean(values):.1%}" for values in (one.fidelities, other.fidelities)),
                    *(f"{_mean(values):.1%}" for values in (one.accuracies, other.accuracies)),
                ]
                for one, other in zip(item.before.students, item.after.students, strict=True)
            ],
            title=f"{item.before.queries:,} queries, {len(item.before.accuracies)} seeds",
        )
        echo(_best(item))
    echo(_WORDS[made.outcome])
    echo(f"written: {out}" if made.outcome == "benefit" else "nothing was written")


def _best(item: "Leftover") -> str:
    return (
        f"best of each seed: agrees {_agreeing(item.before):.1%} before, {_agreeing(item.after):.1%} after, lost "
        f"{_points(item.fidelity_lost)} points; further behind the model by {_points(item.further_behind)} points: "
        f"{item.verdict}"
    )


def _agreeing(robbed: "Robbed") -> float:
    return float(robbed.best_fidelities().mean())


def _mean(values: tuple[float, ...]) -> float:
    return sum(values) / len(values)


def _points(found: "Interval") -> str:
    if found.low is None or found.high is None:
        return f"{100 * found.mean:.1f}"
    return f"{100 * found.mean:.1f} ({100 * found.low:.1f} to {100 * found.high:.1f})"
