"""`palladion watch reexecute`: are the answers that left here those of the promoted version?"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_fields, print_json, warn
from palladion.errors import FINDING, INCONCLUSIVE

if TYPE_CHECKING:
    from palladion.gate.reexecution import Outcome
    from palladion.lifecycle.installation import Installation

SAMPLE, SAMPLE_MAX = 300, 10_000  # as gate.reexecution has it, which is imported only where a model runs
REQUESTS_SHOWN = 5


@click.command("reexecute", epilog="Example: palladion watch reexecute fraud --sample 1000")
@click.argument("model")
@click.option(
    "--sample",
    type=click.IntRange(1, SAMPLE_MAX),
    default=SAMPLE,
    show_default=True,
    help="Answers that are computed again, at most, drawn at random from all that are retained.",
)
@click.option("--days", type=click.IntRange(1, 3650), metavar="NUMBER", help="Only of what was asked so lately.")
@click.option(
    "--tolerance",
    type=click.FloatRange(0, 1),
    metavar="NUMBER",
    help="How far a score may be off, in place of what is measured here: for a server with other hardware.",
)
@click.option("--no-case", is_flag=True, help="Open no case where answers differ.")
@click.option(
    "--units",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write a unit and a timer for systemd, of this MODEL alone, that do it again and again, and do nothing else.",
)
@click.option(
    "--every",
    type=click.Choice(["hourly", "daily", "weekly", "monthly"]),
    default="daily",
    show_default=True,
    help="With --units: how often.",
)
@click.option("--user", metavar="NAME", help="With --units: who runs it; you without it.")
@json_option
@click.pass_context
def reexecute(
    ctx: click.Context,
    /,
    model: str,
    sample: int,
    days: int | None,
    tolerance: float | None,
    no_case: bool,
    units: Path | None,
    every: str,
    user: str | None,
    as_json: bool,
) -> int:
    """Compute answers that a model server gave again, with the version that MODEL promises, from its sealed file.

    Finds another version than the promoted one, a server that was tampered with, and bits that are hidden in answers;
    says which share of answers it could still have missed. What the gate retained of queries is what the server said,
    before marks and rounding. Goes into the ledger; where answers differ a case is opened, and the exit code is 1. It
    is 3 where digits below the tolerance differ more than the arithmetic of this machine does.
    """
    installation = find_installation(ctx)
    if units is not None:
        asked = [model, "--sample", str(sample)]
        asked += [] if days is None else ["--days", str(days)]
        asked += [] if tolerance is None else ["--tolerance", f"{tolerance:g}"]
        asked += ["--no-case"] if no_case else []
        _write_units(installation, model, asked, units, every=every, user=user, as_json=as_json)
        return 0
    if user is not None:
        raise click.UsageError("--user goes with --units FOLDER alone", ctx)
    from palladion.gate.reexecution import case_of
    from palladion.gate.reexecution import reexecute as run

    outcome = run(installation, model, sample=sample, tolerance=tolerance, days=days, actor=actor())
    case = None if no_case else case_of(installation, outcome, actor=actor())
    if as_json:
        print_json(_document(outcome) | {"case": None if case is None else case.id})
    else:
        _print(outcome)
        if case is not None:
            echo(f"opened the case {case.id[:8]}: palladion incident show {case.id[:8]}")
    if outcome.differs:
        return FINDING
    return INCONCLUSIVE if outcome.verdict == "low-digits" else 0


def _document(outcome: "Outcome") -> dict[str, Any]:
    version, sample, compared = outcome.version, outcome.sample, outcome.compared
    return {
        "version": f"{version.model}@{version.number}",
        **outcome.details(),
        "said": outcome.sentence,
        "requests": outcome.requests,
        "clients": sample.clients,
        "unreadable": sample.unreadable,
        "without_scores": sample.without,
        "bits_an_answer": round(compared.bits, 2),
        "bits_an_answer_here": round(compared.bits_here, 2),
    }


def _print(outcome: "Outcome") -> None:
    compared, sample, tolerance = outcome.compared, outcome.sample, outcome.tolerance
    rounded = "" if tolerance.decimals is None else f", and the server rounds to {tolerance.decimals} decimals"
    shown = outcome.requests[:REQUESTS_SHOWN]
    more = len(outcome.requests) - len(shown)
    kept = f"{compared.rows} of {sample.of} retained, of {sample.clients} client{'s' if sample.clients != 1 else ''}"
    differ = f"{compared.count} ({int(compared.relabelled.sum())} with another class)" if compared.count else "none"
    echo(f"{outcome.version.model}@{outcome.version.number}: {outcome.sentence}")
    print_fields(
        [
            ("computed again", kept),
            ("differ", differ),
            ("of all retained", f"at most {outcome.share_at_most:.2%} do, with 95 % confidence"),
            ("largest deviation", f"{float(compared.deviation.max(initial=0.0)):.3g}"),
            ("tolerance", f"{tolerance.absolute:.3g}{rounded}"),
            ("answers", ", ".join(shown) + (f" and {more} more" if more > 0 else "") if shown else None),
        ]
    )
    if sample.unreadable:
        warn(f"{sample.unreadable} files of retained queries are damaged: palladion ledger verify")


def _write_units(
    installation: "Installation",
    model: str,
    arguments: list[str],
    folder: Path,
    *,
    every: str,
    user: str | None,
    as_json: bool,
) -> None:
    import os
    import pwd
    import sys

    from palladion import files
    from palladion.gate.deploy.reexecution import names, timer, unit

    paths = installation.paths
    program = str(Path(sys.executable).parent / "palladion")
    user = user or pwd.getpwuid(os.geteuid()).pw_name
    home, directory = paths.home, paths.directory.resolve()
    service, started_by = names(model)
    texts = {
        service: unit(arguments, home=home, directory=directory, program=program, user=user),
        started_by: timer(every),
    }
    then = f"systemctl daemon-reload && systemctl enable --now {started_by}"
    with files.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts.items():
        files.write_atomically(folder / name, text.encode(), mode=0o644)
    if as_json:
        print_json({"units": texts, "folder": str(folder), "then": then})
        return
    for name in texts:
        echo(f"wrote {folder / name}")
    echo(f"then: {then}")
