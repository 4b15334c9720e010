"""`palladion redteam …`: attack one's own model as a thief would, and say what he gets."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    identity_option,
    json_option,
    passphrase_option,
    print_json,
    print_table,
    progress,
)
from palladion.cli.redteam_local import Local, local_subject_of
from palladion.cli.redteam_remote import (
    Address,
    Data,
    address_of,
    budget_of,
    folder_of,
    remote_options,
    remote_subject_of,
)
from palladion.cli.redteam_removal import removal
from palladion.cli.redteam_schedule import schedule
from palladion.cli.redteam_text import Text, check_text, remote_text, text_options
from palladion.errors import MissingExtraError

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.redteam.audit.result import Figure
    from palladion.redteam.audit.stage import Plan, Profile, Stage
    from palladion.redteam.audit.subject import Subject
    from palladion.transit.url import Url

REPORT_BYTES_MAX = 64 * 1024 * 1024
REPORT, SARIF, HTML, BOM, PDF = "report.json", "report.sarif", "report.html", "report.cdx.json", "report.pdf"
STATE = "state"  # of a folder: what is needed to go on
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_STANDS = {"pass": "holds", "fail": "FAILS", "inconclusive": "undecided"}


@click.group()
def redteam() -> None:
    """Attack one's own models, and say what a thief gets."""


redteam.add_command(removal)
redteam.add_command(schedule)


@redteam.command("run", epilog="Example: palladion redteam run fraud --rows validation.npz --training training.npz")
@click.argument("model")
@click.option(
    "--rows",
    type=_FILE,
    metavar="FILE",
    help="Rows as honest clients send them, 300 or more: .npy, or .npz by names of inputs, or x and y as for watch. "
    "Language models alone take none.",
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
@click.option(
    "--files",
    "beside",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Folder that the model came with, or lies in on its way here: scanned by the stage supply-chain.",
)
@passphrase_option
@identity_option
@remote_options
@text_options
@json_option
@click.pass_context
def run(
    ctx: click.Context,
    /,
    model: str,
    rows: Path | None,
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
    With the owner's passphrase or identity file, the mark of MODEL is attacked as well.

    Exits with 0 if every bar of the policy holds, 1 if one fails or something got worse, 3 if that cannot be said. An
    interrupted run goes on where it was when it is given the same folder.
    """
    from palladion.redteam.audit.bars import CODES, figures_of

    url = address_of(ctx, model, authorised=i_am_authorised)
    text, local = Text.taken(options), Local.taken(options, Data(rows, labels, training))
    address = Address(**options)
    check_text(text, address=url is not None)
    installation = find_installation(ctx)
    earlier = () if baseline is None else figures_of(_read(baseline))
    order = _Order(installation, profile, seed, only, out, earlier, processes, anew=anew)
    if url is None:
        document, report, folder = _here(order, model, local, text)
    else:
        local.require_remote()
        document, report, folder = _elsewhere(ctx, order, url, address, local.data, text)
    written = _write(folder, document, report)
    if as_json:
        print_json(document)
    else:
        _print(document)
        echo(f"wrote {', '.join(written)} to {folder}")
    ctx.exit(CODES[document["verdict"]])


@dataclass(frozen=True)
class _Order:
    """What is asked of an audit, whatever is audited."""

    installation: "Installation"
    profile: "Profile"
    seed: int
    only: tuple[str, ...]
    out: Path | None
    earlier: "tuple[Figure, ...]"
    processes: int
    anew: bool

    def plan(self, queries: int) -> "Plan":
        from palladion.redteam.audit.stage import Plan

        return Plan(self.profile, self.seed, queries, self.processes)

    def folder(self, otherwise: Path) -> Path:
        return _folder(otherwise if self.out is None else self.out, anew=self.anew)


def _here(order: _Order, name: str, local: Local, text: Text) -> tuple[dict[str, Any], bytes, Path]:
    """The audit of a version that is sealed here: document, report and folder."""
    from palladion.redteam.audit.document import encode_document
    from palladion.redteam.audit.record import record_audit

    installation = order.installation
    with local_subject_of(installation, name, local, text, seed=order.seed) as (version, subject, ready):
        folder = order.folder(Path(f"audit-{version.model}-{version.number}"))
        document = _audited(order, subject, order.plan(installation.policy.redteam.queries), folder, ready)
    report = encode_document(document)
    record_audit(installation, version, report, document, actor=actor())
    return document, report, folder


def _elsewhere(
    ctx: click.Context, order: _Order, url: "Url", address: Address, data: Data, text: Text
) -> tuple[dict[str, Any], bytes, Path]:
    """The audit of what is behind an address."""
    from palladion.redteam.audit.document import encode_document
    from palladion.redteam.audit.record import record_remote

    if text.language_model is None and data.rows is None:
        raise click.UsageError("--rows is missing: a model that is no language model is attacked with rows")
    folder = order.folder(folder_of(url))
    reached = (
        remote_subject_of(ctx, url, address, data, state=folder / STATE)
        if text.language_model is None
        else remote_text(ctx, url, address, text, state=folder / STATE)
    )
    with reached as (subject, ready, capture):
        document = _audited(order, subject, order.plan(budget_of(order.installation, address)), folder, ready)
        report = encode_document(document)
        record_remote(order.installation, str(url), report, document, actor=actor(), capture=capture())
    return document, report, folder


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


def _audited(
    order: _Order, subject: "Subject", plan: "Plan", folder: Path, ready: "Mapping[str, Stage]"
) -> dict[str, Any]:
    """The report. `ready` are stages that were given what they need, by name."""
    import time

    from palladion import __version__
    from palladion.redteam.audit import stages as all_stages
    from palladion.redteam.audit.bars import compare, judge
    from palladion.redteam.audit.document import bars_of, report_document
    from palladion.redteam.audit.removal import NAME, removal_bars
    from palladion.redteam.audit.run import run_stages

    known = all_stages.STAGES
    unknown = set(order.only) - {stage.name for stage in known}
    if unknown:
        names = ", ".join(stage.name for stage in known)
        raise click.BadParameter(f"no stage is called {sorted(unknown)[0]!r}; there are {names}", param_hint="--only")
    stages = [ready.get(stage.name, stage) for stage in known if not order.only or stage.name in order.only]
    started, clock = order.installation.clock.now(), time.monotonic()
    with progress("audit") as bar:
        results = run_stages(subject, stages, plan, progress=bar, folder=folder / STATE)
    policy = order.installation.policy.redteam
    # the mark's bar is one for whoever holds the owner's keys: without them nobody can say
    bars = (*bars_of(policy, subject), *(removal_bars(policy) if NAME in ready else ()))
    judged = judge(bars, results)
    return report_document(
        subject, plan, results, judged, compare(order.earlier, results),
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
