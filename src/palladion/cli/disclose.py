"""`palladion disclose …`: what coarser answers cost honest users and thieves, on one's own model and data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import echo, find_installation, json_option, print_json, print_table, progress

if TYPE_CHECKING:
    from palladion.redteam.disclosed import Measurement, Theft

_HONEST = {
    "accuracy": "accuracy",
    "log_loss": "log loss",
    "brier": "Brier",
    "calibration_error": "calibration error",
    "root_mean_square_error": "error (RMS)",
    "cosine": "cosine",
    "neighbours_kept": "neighbours kept",
    "change": "mean change",
    "decisions_changed": "decisions changed",
}
_LEVELS = {"contract": "as the contract says", "reduced": "reduced", "label": "the least"}


@click.group()
def disclose() -> None:
    """What answers disclose, and what that costs."""


@disclose.command("measure", epilog="Example: palladion disclose measure fraud --rows validation.npz")
@click.argument("model")
@click.option(
    "--rows",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Rows as honest clients send them, 300 or more: .npy, or .npz by names of inputs, or x and y as for watch.",
)
@click.option(
    "--labels",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Their true classes, from 0 on, or numbers (.npy).",
)
@click.option("--queries", type=click.IntRange(1, 1_000_000), help="Queries of each thief, 1,000 without it.")
@click.option(
    "--seeds", type=click.IntRange(1, 30), default=5, show_default=True, help="Repeat all with so many seeds."
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, help="The first of them.")
@click.option(
    "--minutes", type=click.FloatRange(0.1, 600), default=5.0, show_default=True, help="CPU minutes for all thieves."
)
@json_option
@click.pass_context
def measure(
    ctx: click.Context,
    model: str,
    rows: Path,
    labels: Path | None,
    queries: int | None,
    seeds: int,
    seed: int,
    minutes: float,
    as_json: bool,
) -> None:
    """Measure what each standing's answers of MODEL cost an honest user, and what they leave to a thief.

    Thieves train students within a budget of queries: on answers as they are, on labels alone, and on averages over
    near-duplicates. What counts is the best of the three, beside the same thieves without any defence.
    """
    import time

    from palladion.gate.contract import make_contract
    from palladion.lifecycle.open import open_version
    from palladion.model.run import open_session
    from palladion.policy import RoutePolicy
    from palladion.redteam.disclosed import Plan
    from palladion.redteam.disclosed import measure as measure_all
    from palladion.redteam.victim import meet, read_data

    installation = find_installation(ctx)
    with open_version(installation, model) as opened:
        session, version = open_session(opened.model), opened.version
        feeds, right = read_data(rows, labels, opened.model, session)
    routes = [route for route in installation.policy.route if route.model == version.model]
    route = routes[0] if routes else RoutePolicy(model=version.model)
    victim = meet(session, make_contract(route, session.outputs), feeds, right)
    started = time.process_time()
    with progress("measure") as bar:
        plan = Plan(queries, seeds, seed, minutes)
        found = measure_all(victim, route, plan, progress=bar, cpu_seconds=time.process_time)
    document = _document(found, f"{version.model}@{version.number}", victim.contract.kind)
    document["cpu_seconds"] = round(time.process_time() - started, 1)
    if as_json:
        print_json(document)
    else:
        _print(document)


def _document(found: "Measurement", version: str, kind: str) -> dict[str, Any]:
    return {
        "version": version,
        "kind": kind,
        "rows": found.rows,
        "held_out": found.held_out,
        "queries": found.queries,
        "seeds": list(found.seeds),
        "planned_seeds": found.planned_seeds,
        "undefended": _theft(found.undefended),
        "steps": [
            {
                "standing": step.standing,
                "discloses": step.terms.level,
                "perturbation": step.terms.perturbation,
                "honest": dict(step.honest),
                "thief": _theft(step.theft),
            }
            for step in found.steps
        ],
    }


def _theft(theft: "Theft") -> dict[str, Any]:
    ways = {way: {"mean": item.mean, "low": item.low, "high": item.high} for way, item in theft.ways.items()}
    return {"ways": ways, "best": theft.best}


def _print(document: dict[str, Any]) -> None:
    steps = document["steps"]
    echo(f"{document['version']}: {document['held_out']} of {document['rows']} rows held out")
    names = [name for name in _HONEST if any(step["honest"].get(name) is not None for step in steps)]
    echo("")
    echo("an honest user")
    print_table(
        ["standing", "gets", *(_HONEST[name] for name in names)],
        [[step["standing"], _gets(step), *(_figure(step["honest"].get(name)) for name in names)] for step in steps],
    )
    ways = list(document["undefended"]["ways"])
    echo("")
    echo(f"a thief with {document['queries']} queries: fidelity of its student")
    thieves = [("undefended", "all", document["undefended"])]
    thieves += [(step["standing"], _gets(step), step["thief"]) for step in steps]
    print_table(
        ["standing", "gets", *ways, "best of these"],
        [[who, gets, *(_mean(theft, way) for way in ways), _best(theft)] for who, gets, theft in thieves],
    )
    seeds = document["seeds"]
    spread = f", intervals of 95 % over seeds {seeds[0]} to {seeds[-1]}" if len(seeds) > 1 else f", seed {seeds[0]}"
    what = "held-out rows with the model's own label" if document["kind"] == "classes" else "variance explained"
    echo("")
    echo(f"fidelity: share of {what}{spread}; {document['cpu_seconds']} s of CPU time")
    if len(seeds) < document["planned_seeds"]:
        echo(f"{len(seeds)} of {document['planned_seeds']} seeds fitted into the time: --minutes gives more")
    echo("other thieves may do better: with more queries, larger students, or rows of their own")


def _gets(step: dict[str, Any]) -> str:
    return _LEVELS[step["discloses"]] + (f", {step['perturbation']}" if step["perturbation"] else "")


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.4f}"


def _mean(theft: dict[str, Any], way: str) -> str:
    return f"{theft['ways'][way]['mean']:.3f}" if way in theft["ways"] else "-"


def _best(theft: dict[str, Any]) -> str:
    found = theft["ways"][theft["best"]]
    spread = "" if found["low"] is None else f" ({found['low']:.3f} to {found['high']:.3f})"
    return f"{found['mean']:.3f}{spread}, {theft['best']}"
