"""`palladion private train|audit`: a linear model with a privacy statement, and canaries against such a training."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import echo, json_option, print_fields, print_json, warn
from palladion.cli.private_plan import CLASSES_MAX, default_delta, read_training
from palladion.errors import FINDING, FINE, ConflictError

if TYPE_CHECKING:
    from palladion.private.dp.linear import Descent
    from palladion.redteam.membership.canaries import Audit

SEED_MAX = 2**31
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_NEW = click.Path(dir_okay=False, path_type=Path)


def _settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """What both commands train by."""
    above_zero = click.FloatRange(0, min_open=True)
    options = [
        click.option("--data", type=_FILE, required=True, metavar="FILE", help="Rows and classes: .npz with x and y."),
        click.option(
            "--classes", type=click.IntRange(2, CLASSES_MAX), required=True, help="How many there are, 0, 1, …; public."
        ),
        click.option("--epsilon", type=click.FloatRange(0, 500, min_open=True), required=True, help="A row's cost."),
        click.option("--delta", type=click.FloatRange(0, 0.01, min_open=True), help="δ; one in ten times the rows."),
        click.option("--steps", type=click.IntRange(1, 100_000), default=60, show_default=True, help="Over all rows."),
        click.option("--rate", type=above_zero, default=8.0, show_default=True, help="Length of a step."),
        click.option("--clipping", type=above_zero, default=0.5, show_default=True, help="Longest gradient of a row."),
        click.option("--offset", type=float, default=0.0, show_default=True, help="Taken off every number; public."),
        click.option("--scale", type=above_zero, default=1.0, show_default=True, help="Divides every number; public."),
        click.option("--bias", type=float, default=0.0, show_default=True, help="Constant feature beside the others."),
    ]  # fmt: skip
    for option in reversed(options):
        command = option(command)
    return command


@click.command(
    "train",
    epilog="Example: palladion private train --data rows.npz --classes 10 --epsilon 2 --out m.onnx --statement m.json",
)
@_settings
@click.option("--out", type=_NEW, required=True, metavar="FILE", help="Where the model goes, in ONNX: a new file.")
@click.option(
    "--statement",
    "stated",
    type=_NEW,
    required=True,
    metavar="FILE",
    help="Where its privacy statement goes: a new file.",
)
@json_option
def train(
    data: Path,
    classes: int,
    epsilon: float,
    delta: float | None,
    out: Path,
    stated: Path,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train a linear classifier within (ε, δ) for each row, by noisy gradient descent, and state what it cost.

    --classes is known beforehand and never counted on these rows: one of another class is refused before anything is
    trained. Settings are chosen with `palladion private plan`, which is not charged: choose them on rows that are not
    among these. `palladion protect MODEL --privacy STATEMENT` signs the statement into the version.
    """
    from palladion import files
    from palladion.private.dp.linear import train_linear_dp

    for path in (out, stated):
        if path.exists():
            raise ConflictError(f"{path} is there already", "name a new file")
    if out == stated:
        raise click.UsageError("--out and --statement are one file")
    rows, labels = read_training(data, classes)
    delta = _delta(delta, len(rows))
    model, statement = train_linear_dp(
        rows, labels, classes=classes, epsilon=epsilon, delta=delta, descent=_descent(settings)
    )
    with files.atomic_writer(out, replace=False) as stream:
        stream.write(model.to_onnx())
    with files.atomic_writer(stated, replace=False) as stream:
        stream.write(statement.encode() + b"\n")
    accuracy = float((model.predict(rows) == labels).mean())
    if as_json:
        import msgspec

        print_json({"statement": msgspec.to_builtins(statement), "model": str(out), "written": str(stated)})
        return
    echo(f"trained on {len(rows):,} rows of {classes} classes")
    print_fields(
        [
            ("privacy", f"ε = {statement.epsilon} at δ = {statement.delta} for each row"),
            ("noise", f"{statement.noise_multiplier} times the clipping {statement.clipping}, {statement.steps} steps"),
            ("learnt", f"{accuracy:.1%} of its own rows are right"),
            ("model", out),
            ("statement", stated),
        ]
    )
    warn(f"{data} and {out} lie here in plaintext; the share of right rows is not covered by ε: keep it to yourself")


@click.command("audit", epilog="Example: palladion private audit --data rows.npz --classes 10 --epsilon 2")
@_settings
@click.option(
    "--canaries", type=click.IntRange(100, 20_000), default=4000, show_default=True, help="Rows that are in by a coin."
)
@click.option("--seed", type=click.IntRange(0, SEED_MAX), default=1, show_default=True, help="Of the coins.")
@json_option
@click.pass_context
def audit(
    ctx: click.Context,
    /,
    data: Path,
    classes: int,
    epsilon: float,
    delta: float | None,
    canaries: int,
    seed: int,
    as_json: bool,
    **settings: Any,
) -> None:
    """Train as `palladion private train` does, with canaries among the rows, and hold what they tell against ε.

    Exit code 1 if they tell more than ε allows, which is a fault of the training; if they do not, that proves nothing.
    """
    import numpy as np

    from palladion.private.dp.linear import train_linear_dp
    from palladion.redteam.membership.canaries import audit_linear, stated_at

    rows, labels = read_training(data, classes)
    delta = _delta(delta, len(rows))
    descent = _descent(settings)
    _, statement = train_linear_dp(
        rows[:1], labels[:1], classes=classes, epsilon=epsilon, delta=delta, descent=descent
    )  # fmt: skip

    def learnt(wide: Any, known: Any) -> Any:
        model, _ = train_linear_dp(wide, known, classes=classes, epsilon=epsilon, delta=delta, descent=descent)
        return model.weights

    found = audit_linear(
        learnt,
        rows,
        labels,
        classes=classes,
        epsilon=stated_at(statement),
        canaries=canaries,
        blank=descent.offset,
        mu=math.sqrt(descent.steps) / float(statement.noise_multiplier),
        generator=np.random.default_rng(seed),
    )
    if as_json:
        print_json(
            {
                "epsilon": epsilon,
                "delta": delta,
                "audited": {"epsilon": found.stated, "delta": found.bound.delta},
                "bound": found.bound.epsilon,
                "confidence": found.bound.confidence,
                "p_value": found.p_value,
                "canaries": found.canaries,
                "guesses": found.guesses,
                "right": found.right,
                **_separated(found),
                "breaks": found.breaks,
            }
        )
    else:
        echo(f"ε = {epsilon:g} at δ = {delta:g}, which is ε = {found.stated:.4g} at δ = {found.bound.delta:g}")
        echo(found.sentence)
        if found.separation is not None:
            told = found.separation
            echo(
                f"canaries are told with an AUC of {told.auc:.3f} ± {told.deviation:.3f}; {told.allowed:.3f} is allowed"
            )
        echo(f"ε is at least {found.bound.epsilon:.3g} with a confidence of {found.bound.confidence:.0%}")
    ctx.exit(FINDING if found.breaks else FINE)


def _separated(found: "Audit") -> dict[str, Any]:
    told = found.separation
    if told is None:
        return {}
    return {"auc": {"value": told.auc, "deviation": told.deviation, "allowed": told.allowed, "p_value": told.p_value}}


def _delta(delta: float | None, rows: int) -> float:
    """The δ of a training. Raises UsageError for one that gives a row up."""
    if delta is not None and delta > 1 / rows:
        raise click.UsageError(f"--delta {delta:g} gives one row of {rows:,} up: at most one in the rows protects")
    return default_delta(rows) if delta is None else delta


def _descent(settings: dict[str, Any]) -> "Descent":
    from palladion.private.dp.linear import Descent

    return Descent(momentum=0.5, **settings)
