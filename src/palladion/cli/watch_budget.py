"""`palladion watch budget`: how good a copy somebody could have by how much was answered, and what that limits."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json, print_table
from palladion.cli.output import progress as progress_bar
from palladion.errors import ConflictError, PalladionError

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.redteam.learning_curve import CurvePlan
    from palladion.redteam.validation import Validation
    from palladion.watch.learning_curve import Fit, LearningCurve

COLUMNS = ("buckets", "fidelity", "at least", "at most")
COPY = "copy"  # the column of other tables that says how good a copy could be


@click.command("budget", epilog="Example: palladion watch budget fraud --fidelity 0.8")
@click.argument("model")
@click.option(
    "--fidelity",
    type=click.FloatRange(0, 1, min_open=True),
    help="How many buckets this fidelity is, and how many of the running gate's clients are beyond it.",
)
@click.option(
    "--measure",
    "data",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Measure the curve first, on rows as for watch calibrate: 300 or more.",
)
@click.option("--seeds", type=click.IntRange(3, 30), default=5, show_default=True, help="Thieves to measure.")
@click.option("--minutes", type=click.FloatRange(0.1, 600), default=5.0, show_default=True, help="CPU minutes at most.")
@json_option
@click.pass_context
def budget(
    ctx: click.Context,
    model: str,
    fidelity: float | None,
    data: Path | None,
    seeds: int,
    minutes: float,
    as_json: bool,
) -> None:
    """Print the learning curve of MODEL, or of MODEL@3: coverage, and how good a copy a thief could have with it.

    Fidelity is the share of held-out rows on which copy and model agree. Thieves of the curve ask rows like honest
    ones and get labels alone; nobody can tell them from honest clients, so that only a budget limits them.
    """
    from palladion.gate.curves import load_curve
    from palladion.gate.served import newest_calibration
    from palladion.lifecycle.open import find_version
    from palladion.redteam.learning_curve import CurvePlan
    from palladion.redteam.validation import read_validation

    installation = find_installation(ctx)
    version = find_version(installation, model)
    subject = f"{version.model}@{version.number}"
    if data is not None:
        curve = _measured(installation, subject, read_validation(data), CurvePlan(seeds=seeds, minutes=minutes))
    else:
        found = load_curve(newest_calibration(installation, version))
        if found is None:
            raise ConflictError(f"{subject} has no learning curve", f"palladion watch budget {subject} --measure FILE")
        curve = found
    document = {"version": subject, **curve_document(curve)}
    if fidelity is not None:
        document |= {"fidelity": fidelity, "budget": curve.budget(fidelity)}
        document |= _beyond(installation, version.model, document["budget"])
    if as_json:
        print_json(document)
        return
    print_curve(document)
    if fidelity is not None:
        _print_budget(document)


def curve_of(installation: "Installation", subject: str, validation: "Validation") -> dict[str, Any]:
    """Measure a curve beside a calibration; where that cannot be done, the reason in its place."""
    from palladion.redteam.learning_curve import CurvePlan

    try:
        return {"version": subject, **curve_document(_measured(installation, subject, validation, CurvePlan()))}
    except PalladionError as error:
        # the calibration stands, and most policies need no curve
        return {"version": subject, "missing": error.message}


def curve_document(curve: "LearningCurve") -> dict[str, Any]:
    """What a curve states of itself."""
    points = zip(curve.coverage, curve.mean, curve.worst, curve.best, strict=True)
    return {
        "points": [dict(zip(("buckets", "mean", "worst", "best"), point, strict=True)) for point in points],
        "seeds": list(curve.seeds),
        "queries": list(curve.queries),
        "held_out": curve.held_out,
        "left_out": _fit(curve.left_out),
        "families": {name: _fit(fit) for name, fit in sorted(curve.families.items())},
    }


def print_curve(document: dict[str, Any] | None) -> None:
    """Say it to people, where it was measured at all."""
    if document is None:
        return
    if "missing" in document:
        echo(f"no learning curve: {document['missing']}")
        return
    echo(f"what coverage of {document['version']} is worth to a thief with rows like honest ones, and labels alone:")
    points = [[point[name] for name in ("buckets", "mean", "worst", "best")] for point in document["points"]]
    print_table(COLUMNS, [[buckets, *(f"{share:.1%}" for share in shares)] for buckets, *shares in points])
    fit = document["left_out"]
    fields = [
        ("measured", f"{fit['thieves']} thieves, up to {document['queries'][-1]} queries, {document['held_out']} rows"),
        ("foretells", _foretold(fit)),
        *[(f"  {name}", _foretold(other)) for name, other in document["families"].items()],
    ]
    print_fields(fields)


def at_most(fidelity: float | None) -> str:
    """A fidelity as it is shown for a client; nothing where it is not known."""
    return "" if fidelity is None else f"≤ {fidelity:.0%}"


def print_copies(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print a table that has the column `copy`, unless nobody could have one that is known of."""
    place = columns.index(COPY)
    kept = [index for index in range(len(columns)) if index != place or any(row[place] for row in rows)]
    print_table([columns[index] for index in kept], [[row[index] for index in kept] for row in rows])


def _measured(
    installation: "Installation", subject: str, validation: "Validation", plan: "CurvePlan"
) -> "LearningCurve":
    import time

    from palladion.policy import RoutePolicy
    from palladion.redteam.curves import measure_version

    name = subject.partition("@")[0]
    routes = [route for route in installation.policy.route if route.model == name]
    with progress_bar("measure") as bar:
        curve, _ = measure_version(
            installation,
            subject,
            validation,
            plan,
            route=routes[0] if routes else RoutePolicy(model=name),
            actor=actor(),
            progress=bar,
            cpu_seconds=time.process_time,
        )
    return curve


def _beyond(installation: "Installation", model: str, buckets: int) -> dict[str, Any]:
    """How many of the running gate's clients have covered more, with their groups; nothing where no gate runs."""
    status = installation.server_status()
    if status is None:
        return {"clients": None, "beyond": None}
    covered = [
        item["group_buckets"] for client in status["clients"] for item in client["models"] if item["model"] == model
    ]
    return {"clients": len(covered), "beyond": sum(item > buckets for item in covered)}


def _print_budget(document: dict[str, Any]) -> None:
    end = document["points"][-1]
    echo(f"a fidelity of at most {document['fidelity']:.1%}: {document['budget']} buckets")
    if document["budget"] == end["buckets"]:
        echo("that is as far as it was measured: more rows tell more")
    if document["clients"] is not None:
        echo(f"{document['beyond']} of {document['clients']} clients of the running gate have covered more")


def _fit(fit: "Fit") -> dict[str, Any]:
    return {
        "thieves": fit.thieves,
        "r2": fit.r2,
        "above": fit.above,
        "spearman": fit.spearman,
        "spearman_queries": fit.spearman_queries,
    }


def _foretold(fit: dict[str, Any]) -> str:
    explained, ranks = ("-" if fit[name] is None else f"{fit[name]:.2f}" for name in ("r2", "spearman"))
    return f"R² {explained}, Spearman {ranks}, {fit['above']:.0%} of the copies above the last column"
