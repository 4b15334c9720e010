"""`palladion redteam …`: attack one's own model as a thief would, and say what he gets."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import actor, echo, find_installation, json_option, print_json, print_table, progress
from palladion.cli.redteam_remote import (
    Address,
    Data,
    address_of,
    budget_of,
    folder_of,
    remote_options,
    remote_subject_of,
)
from palladion.errors import FormatError, MissingExtraError

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.redteam.audit.result import Figure
    from palladion.redteam.audit.stage import Plan, Profile
    from palladion.redteam.audit.subject import Subject
    from palladion.registry import Version

REPORT_BYTES_MAX = 64 * 1024 * 1024
REPORT, SARIF, HTML, BOM, PDF = "report.json", "report.sarif", "report.html", "report.cdx.json", "report.pdf"
STATE = "state"  # of a folder: what is needed to go on
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_STANDS = {"pass": "holds", "fail": "FAILS", "inconclusive": "undecided"}


@click.group()
def redteam() -> None:
    """Attack one's own models, and say what a thief gets."""


@redteam.command("run", epilog="Example: palladion redteam run fraud --rows validation.npz --training training.npz")
@click.argument("model")
@click.option(
    "--rows",
    required=True,
    type=_FILE,
    metavar="FILE",
    help="Rows as honest clients send them, 300 or more: .npy, or .npz by names of inputs, or x and y as for watch.",
)
@click.option("--labels", type=_FILE, metavar="FILE", help="Their true classes, from 0 on (.npy).")
@click.option(
    "--training",
    type=_FILE,
    metavar="FILE",
    help="Rows that the model was trained on, 200 or more, with labels (.npz with x and y): for membership.",
)
@click.option(
    "--profile",
    type=click.Choice(["quick", "standard", "thorough"]),
    default="quick",
    show_default=True,
    help="How hard to try: minutes, an hour, a night.",
)
@click.option("--seed", type=click.IntRange(0, 2**31), default=1, show_default=True, help="Same seed, same report.")
@click.option("--only", multiple=True, metavar="STAGE", help="Run this stage alone. May be repeated.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder for the reports, and what is needed to go on after an interruption; audit-MODEL without it.",
)
@click.option("--anew", is_flag=True, help="Forget what was found and answered so far in that folder.")
@click.option("--baseline", type=_FILE, metavar="FILE", help="An earlier report.json: what got worse fails too.")
@click.option("--processes", type=click.IntRange(1, 256), default=1, show_default=True, help="Work side by side.")
@remote_options
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    model: str,
    rows: Path,
    labels: Path | None,
    training: Path | None,
    profile: "Profile",
    seed: int,
    only: tuple[str, ...],
    out: Path | None,
    anew: bool,
    baseline: Path | None,
    processes: int,
    i_am_authorised: bool,
    insecure_http: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Attack MODEL, or MODEL@3, within the policy's budget of queries, with and without what its route withholds.

    Instead of MODEL, the address of a gate or of any other service that --api describes: only with --i-am-authorised.

    Exits with 0 if every bar of the policy holds, 1 if one fails or something got worse, 3 if that cannot be said. An
    interrupted run goes on where it was when it is given the same folder.
    """
    from palladion.redteam.audit.bars import CODES, figures_of
    from palladion.redteam.audit.document import encode_document
    from palladion.redteam.audit.record import record_audit, record_remote
    from palladion.redteam.audit.stage import Plan

    url, address = address_of(ctx, model, authorised=i_am_authorised), Address(**options)
    installation = find_installation(ctx)
    earlier = () if baseline is None else figures_of(_read(baseline))
    if url is None:
        version, subject = _subject(installation, model, rows, labels, training)
        plan = Plan(profile, seed, installation.policy.redteam.queries, processes)
        folder = _folder(Path(f"audit-{version.model}-{version.number}") if out is None else out, anew=anew)
        document = _audited(installation, subject, plan, only, folder, earlier)
        report = encode_document(document)
        record_audit(installation, version, report, document, actor=actor())
    else:
        plan = Plan(profile, seed, budget_of(installation, address), processes)
        folder = _folder(folder_of(url) if out is None else out, anew=anew)
        data = Data(rows, labels, training)
        with remote_subject_of(ctx, url, address, data, state=folder / STATE) as (subject, capture):
            document = _audited(installation, subject, plan, only, folder, earlier)
            report = encode_document(document)
            record_remote(installation, str(url), report, document, actor=actor(), capture=capture())
    written = _write(folder, document, report)
    if as_json:
        print_json(document)
    else:
        _print(document)
        echo(f"wrote {', '.join(written)} to {folder}")
    ctx.exit(CODES[document["verdict"]])


@redteam.command("schedule", epilog="Example: palladion redteam schedule fraud --rows validation.npz --every monthly")
@click.argument("model")
@click.option("--rows", required=True, type=_FILE, metavar="FILE", help="As for run.")
@click.option("--training", type=_FILE, metavar="FILE", help="As for run.")
@click.option(
    "--profile",
    type=click.Choice(["quick", "standard", "thorough"]),
    default="standard",
    show_default=True,
    help="As for run.",
)
@click.option(
    "--every",
    type=click.Choice(["daily", "weekly", "monthly", "quarterly"]),
    default="monthly",
    show_default=True,
    help="How often; palladion doctor says when one is overdue.",
)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder for the units, such as /etc/systemd/system; without it they are printed.",
)
@click.option("--user", metavar="NAME", help="User that it runs as; you without it.")
@json_option
@click.pass_context
def schedule(
    ctx: click.Context,
    model: str,
    rows: Path,
    training: Path | None,
    profile: str,
    every: str,
    out: Path | None,
    user: str | None,
    as_json: bool,
) -> None:
    """A unit and a timer for systemd that attack MODEL, the version that is served then, again and again."""
    import os
    import pwd
    import sys

    from palladion import files
    from palladion.redteam.audit.schedule import TIMER, UNIT, timer, unit

    paths = find_installation(ctx).paths
    directory = paths.directory.resolve()
    arguments = [model, "--rows", str(rows.resolve()), "--profile", profile]
    arguments += [] if training is None else ["--training", str(training.resolve())]
    places = {"home": paths.home, "directory": directory, "out": directory / f"audit-{model}"}
    program = str(Path(sys.executable).parent / "palladion")
    user = user or pwd.getpwuid(os.geteuid()).pw_name
    texts = {UNIT: unit(arguments, **places, program=program, user=user), TIMER: timer(every)}
    then = f"systemctl daemon-reload && systemctl enable --now {TIMER}"
    if out is not None:
        with files.storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            files.write_atomically(out / name, text.encode(), mode=0o644)
    if as_json:
        print_json({"units": texts, "folder": None if out is None else str(out), "then": then})
    else:
        for name, text in texts.items():
            for line in [f"# {name}", *text.splitlines(), ""] if out is None else [f"wrote {out / name}"]:
                echo(line)
        echo(f"then: {then}", err=out is None)


@redteam.command("show", epilog="Example: palladion redteam show audit-fraud-1/report.json")
@click.argument("report", type=_FILE)
@json_option
def show(report: Path, as_json: bool) -> None:
    """Print a report that `redteam run` wrote."""
    document = _read(report)
    if as_json:
        print_json(document)
    else:
        _print(document)


def _folder(folder: Path, *, anew: bool) -> Path:
    """The folder; without what an earlier run keeps in it, if this one begins `anew`."""
    import shutil

    from palladion import files

    state = folder / STATE
    if anew and state.is_dir():
        with files.exclusive_lock(state / "lock", what=f"the audit in {state}"), files.storage_errors(state):
            shutil.rmtree(state)
    return folder


def _write(folder: Path, document: dict[str, Any], report: bytes) -> list[str]:
    """All forms of a report; the names of those that could be made."""
    from palladion import files
    from palladion.policy import POLICY_FILE
    from palladion.redteam.audit.cyclonedx import to_cyclonedx
    from palladion.redteam.audit.html import to_html
    from palladion.redteam.audit.pdf import to_pdf
    from palladion.redteam.audit.sarif import to_sarif

    made = {
        REPORT: report,
        SARIF: to_sarif(document, artifact=POLICY_FILE),
        HTML: to_html(document),
        BOM: to_cyclonedx(document),
    }
    try:
        made[PDF] = to_pdf(report)
    except MissingExtraError as error:
        echo(f"no {PDF}: {error.message}; {error.hints[0]}", err=True)
    for name, data in made.items():
        files.write_atomically(folder / name, data)
    return list(made)


def _read(path: Path) -> dict[str, Any]:
    from palladion import files
    from palladion.redteam.audit.document import decode_document

    data = files.read_limited(path, size_max=REPORT_BYTES_MAX, what="the report")
    return decode_document(data, what=str(path))


def _subject(
    installation: "Installation", model: str, rows: Path, labels: Path | None, training: Path | None
) -> "tuple[Version, Subject]":
    from palladion.gate.contract import make_contract
    from palladion.lifecycle.open import open_version
    from palladion.model.run import open_session
    from palladion.policy import RoutePolicy
    from palladion.redteam.audit.exhibit import exhibit_of
    from palladion.redteam.audit.subject import subject_of, training_of
    from palladion.redteam.victim import meet, read_data

    with open_version(installation, model) as opened:
        session, version = open_session(opened.model), opened.version
        exhibit = exhibit_of(opened.model, installation.policy.scan.operator_domains)
        feeds, right = read_data(rows, labels, opened.model, session)
        learnt = None if training is None else read_data(training, None, opened.model, session)
    route = next((item for item in installation.policy.route if item.model == version.model), None)
    route = route or RoutePolicy(model=version.model)
    contract = make_contract(route, session.outputs)
    victim = meet(session, contract, feeds, right)
    members = None
    if learnt is not None:
        if learnt[1] is None or victim.right is None:
            raise FormatError("membership needs labels of both the rows of training and the others", "y beside x")
        own = meet(session, contract, *learnt)
        members = training_of(own.rows, learnt[1][: len(own.rows)], victim.rows, victim.right)
    name = f"{version.model}@{version.number}"
    return version, subject_of(victim, route, name, version.content_digest, training=members, exhibit=exhibit)


def _audited(
    installation: "Installation",
    subject: "Subject",
    plan: "Plan",
    only: tuple[str, ...],
    folder: Path,
    earlier: "tuple[Figure, ...]",
) -> dict[str, Any]:
    import time

    from palladion import __version__
    from palladion.redteam.audit import stages as all_stages
    from palladion.redteam.audit.bars import compare, judge
    from palladion.redteam.audit.document import bars_of, report_document
    from palladion.redteam.audit.run import run_stages

    known = all_stages.STAGES
    unknown = set(only) - {stage.name for stage in known}
    if unknown:
        names = ", ".join(stage.name for stage in known)
        raise click.BadParameter(f"no stage is called {sorted(unknown)[0]!r}; there are {names}", param_hint="--only")
    stages = [stage for stage in known if not only or stage.name in only]
    started, clock = installation.clock.now(), time.monotonic()
    with progress("audit") as bar:
        results = run_stages(subject, stages, plan, progress=bar, folder=folder / STATE)
    judged = judge(bars_of(installation.policy.redteam, subject), results)
    return report_document(
        subject, plan, results, judged, compare(earlier, results),
        started=started, seconds=time.monotonic() - clock, program=f"palladion {__version__}",
    )  # fmt: skip


def _print(document: dict[str, Any]) -> None:
    subject = document["subject"]
    echo(f"{subject['name']}: {document['queries']} queries, profile {document['plan']['profile']}")
    for stage in document["stages"]:
        echo("")
        echo(f"{stage['stage']}: {stage['outcome']}, {stage['queries']} queries")
        if stage["figures"]:
            print_table(
                ["figure", "value", "95 % interval", ""],
                [[item["words"], f"{item['value']:.4g}", _interval(item), item["unit"]] for item in stage["figures"]],
            )
        for seen in stage["observations"]:
            echo(f"{seen['level']}: {seen['text']}")
        for reason in stage["reasons"]:
            echo(f"note: {reason}")
    echo("")
    for item in [*document["bars"], *document["regressions"]]:
        echo(f"{_STANDS[item['verdict']]}: {item['reason']}")
    if not document["bars"]:
        echo("no bar is set in [redteam] of the policy: figures are shown, and none fails")
    echo(f"verdict: {document['verdict']}")


def _interval(item: dict[str, Any]) -> str:
    return "-" if item["low"] is None else f"{item['low']:.4g} to {item['high']:.4g}"
