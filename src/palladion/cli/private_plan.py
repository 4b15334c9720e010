"""`palladion private plan`: what a privacy budget buys, before anybody trains or answers."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import echo, find_installation, json_option, print_json, print_table

if TYPE_CHECKING:
    from palladion.private.dp.plan import Reached

ROWS_MAX, CLASSES_MAX = 1_000_000_000, 10_000
CLASSES = 2  # of answers, where nothing is measured
EPSILONS = (0.5, 1.0, 2.0, 4.0, 8.0)
COSTS = (0.01, 0.1, 0.5, 1.0, 2.0, 8.0)  # ε of one answer
MARGINS = (0.2, 0.5, 0.9)
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("plan", epilog="Example: palladion private plan --rows 5000 --classes 10 --budget 8")
@click.option("--rows", type=click.IntRange(2, ROWS_MAX), help="How many rows there are to learn from.")
@click.option("--data", type=_FILE, metavar="FILE", help="Rows with their classes, .npz with x and y, to measure on.")
@click.option(
    "--classes", type=click.IntRange(2, CLASSES_MAX), help="Classes of the answers, or of --data, 0, 1, …; 2 without."
)
@click.option("--delta", type=click.FloatRange(0, 0.01, min_open=True), help="δ; one in ten times the rows by default.")
@click.option(
    "--budget", type=click.FloatRange(0, 1000, min_open=True), default=8.0, show_default=True, help="ε of all answers."
)
@click.option(
    "--sensitivity",
    type=click.FloatRange(0, 1, min_open=True),
    default=1.0,
    show_default=True,
    help="By how much one row may move a score; below 1 it is assumed.",
)
@click.option(
    "--offset",
    type=float,
    default=0.0,
    show_default=True,
    help="Taken off every number of a row; public, never measured on the rows.",
)
@click.option(
    "--scale",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="Every number is divided by; public too.",
)
@click.option(
    "--model", metavar="NAME", help="Say too what answers of this model have spent, and what its route allows."
)
@json_option
@click.pass_context
def plan(
    ctx: click.Context,
    /,
    rows: int | None,
    data: Path | None,
    classes: int | None,
    delta: float | None,
    budget: float,
    sensitivity: float,
    offset: float,
    scale: float,
    model: str | None,
    as_json: bool,
) -> None:
    """Print what ε buys: accuracy of a private linear model of --data, and how many answers a budget pays for.

    Accuracy is cross-validated, and looks at the rows without being charged: keep it to yourself. Without --data it
    says how much noise a training of so many rows gets.
    """
    found: dict[str, Any] = {}
    reached: list[Reached] = []
    if data is not None:
        if classes is None:
            raise click.UsageError("--classes says how many classes the rows of --data have: it is not counted", ctx)
        features, labels = read_training(data, classes)
        rows = len(features)
    classes = CLASSES if classes is None else classes
    if rows is None:
        raise click.UsageError("--rows says how many rows there are, or --data has them", ctx)
    delta = default_delta(rows) if delta is None else delta
    found |= {"rows": rows, "classes": classes, "delta": delta}
    if data is not None:
        reached = _measured(features, labels, classes, delta, offset, scale)
        found["accuracy"] = [_reached(item) for item in reached]
    found["training"] = _noise(rows, delta)
    found["answers"] = _answers(budget, delta, classes, sensitivity)
    if model is not None:
        found["model"] = _spent(ctx, model)
    if as_json:
        print_json(found)
        return
    _print(found, budget=budget, sensitivity=sensitivity)


def default_delta(rows: int) -> float:
    """A chance in ten times the rows, to two digits: a guarantee that gave up one row of all would be none."""
    return float(f"{1 / (10 * rows):.2g}")


def read_training(path: Path, classes: int) -> tuple[Any, Any]:
    """Rows (rows, features) and classes (rows,) of an NPZ file with x and y, which go from 0 to below `classes`.

    Classes are as the file has them: numbered by which ones occur, one row could number all others anew. Raises
    FormatError.
    """
    import numpy as np

    from palladion.errors import FormatError
    from palladion.redteam.validation import read_validation

    found = read_validation(path)
    if found.labels is None:
        raise FormatError(f"{path} has no array 'y' with the class of each row")
    with np.load(path, allow_pickle=False) as arrays:
        labels = arrays["y"]
    if labels.dtype.kind not in "iu":
        raise FormatError(
            f"{path}: y is {labels.dtype}, whole numbers from 0 to {classes - 1} were expected",
            "give each class its number, by a list that does not come of these rows",
        )
    outside = int(((labels < 0) | (labels >= classes)).sum())
    if outside:
        raise FormatError(
            f"{path}: the class of {outside:,} rows is not one of 0 to {classes - 1}",
            "leave such rows out, or set --classes to what is known without these rows",
        )
    return found.rows.reshape(len(found.rows), -1).astype(np.float64), labels.astype(np.int64)


def _measured(features: Any, labels: Any, classes: int, delta: float, offset: float, scale: float) -> "list[Reached]":
    from palladion.private.dp.plan import accuracies

    return accuracies(
        features, labels, classes=classes, epsilons=EPSILONS, delta=delta, offset=offset, scale=scale
    )  # fmt: skip


def _reached(item: "Reached") -> dict[str, Any]:
    descent = item.descent
    return {
        "epsilon": item.epsilon,
        "accuracy": round(item.accuracy, 4),
        "deviation": round(item.deviation, 4),
        "steps": descent.steps,
        "rate": descent.rate,
        "clipping": descent.clipping,
        "bias": descent.bias,
    }


def _noise(rows: int, delta: float) -> list[dict[str, Any]]:
    """Of a descent of one step's worth: how wide the noise on the mean gradient is beside what one row may move it."""
    from palladion.private.dp.accounting import noise_for

    return [
        {"epsilon": epsilon, "noise": round(noise := noise_for(epsilon, delta, 1.0, 1), 4), "share": noise / rows}
        for epsilon in EPSILONS
    ]


def _answers(budget: float, delta: float, classes: int, sensitivity: float) -> list[dict[str, Any]]:
    from palladion.gate.disclosure.privacy import answers_within
    from palladion.private.dp.plan import chance_of_top

    return [
        {
            "epsilon": cost,
            "answers": answers_within(cost, cost**2 / 8, budget, delta),
            "right": {str(margin): round(chance_of_top(margin, classes, cost, sensitivity), 3) for margin in MARGINS},
        }
        for cost in COSTS
    ]


def _spent(ctx: click.Context, model: str) -> dict[str, Any]:
    from palladion.errors import NotFoundError
    from palladion.gate.disclosure.privacy import spent_epsilon

    installation = find_installation(ctx)
    route = next((item for item in installation.policy.route if item.model == model and item.privacy.is_on), None)
    if route is None:
        raise NotFoundError(f"no route answers privately from {model}", 'write privacy = { mechanism = "noisy-max" }')
    with installation.open_registry() as registry, registry.read() as records:
        together = records.privacy.spent(model)
    policy = route.privacy
    return {
        "name": model,
        "mechanism": policy.mechanism,
        "answers": together.answers,
        "spent": round(spent_epsilon(together, policy.delta), 6),
        "epsilon_total": policy.epsilon_total,
        "epsilon_per_client": policy.epsilon_per_client,
        "delta": policy.delta,
    }


def _print(found: dict[str, Any], *, budget: float, sensitivity: float) -> None:
    echo(f"{found['rows']:,} rows, δ = {found['delta']:g}")
    if "accuracy" in found:
        measured = [
            (
                "none" if item["epsilon"] is None else f"{item['epsilon']:g}",
                f"{item['accuracy']:.3f}",
                item["deviation"],
            )
            for item in found["accuracy"]
        ]
        echo("a linear model of these rows, cross-validated:")
        print_table(("ε", "accuracy", "±"), measured)
    noise = [(f"{item['epsilon']:g}", f"{item['noise']:.3g}", f"{item['share']:.2g}") for item in found["training"]]
    echo("noise in training, beside what one row may move:")
    print_table(("ε", "noise", "of the mean gradient"), noise)
    titles = ("ε of one", "answers", *(f"right at {margin:g}" for margin in MARGINS))
    bought = [
        (f"{item['epsilon']:g}", f"{item['answers']:,}", *(f"{value:.3f}" for value in item["right"].values()))
        for item in found["answers"]
    ]
    assumed = "nothing" if sensitivity == 1 else f"that one row moves no score by more than {sensitivity:g}"
    echo(f"labels by noisy-max for ε = {budget:g} in all, {found['classes']} classes, assuming {assumed}:")
    print_table(titles, bought)
    if "model" in found:
        item = found["model"]
        echo(
            f"{item['name']}: {item['answers']:,} answers have spent ε = {item['spent']:g} of {item['epsilon_total']:g}"
        )
