"""`palladion redteam schedule`: files with which systemd or Kubernetes attacks a model again and again."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion.cli.output import echo, find_installation, json_option, print_json

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command("schedule", epilog="Example: palladion redteam schedule fraud --rows validation.npz --every monthly")
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
    help="Folder for the files, such as /etc/systemd/system; without it they are printed.",
)
@click.option("--user", metavar="NAME", help="User that it runs as, under systemd; you without it.")
@click.option(
    "--kubernetes",
    is_flag=True,
    help="A CronJob beside the gate of deploy kubernetes, as a component of Kustomize, in place of units.",
)
@click.option(
    "--claim",
    metavar="NAME",
    help="With --kubernetes: the volume claim that holds the files; without it, a secret does.",
)
@json_option
@click.pass_context
def schedule(
    ctx: click.Context,
    /,
    model: str,
    rows: Path,
    training: Path | None,
    profile: str,
    every: str,
    out: Path | None,
    user: str | None,
    kubernetes: bool,
    claim: str | None,
    as_json: bool,
) -> None:
    """Files that attack MODEL, the version that is served then, again and again: a unit and a timer for systemd.

    With --kubernetes a CronJob, which runs on the gate's node and asks nobody.
    """
    from palladion import files

    if "://" in model:
        raise click.UsageError("an address is not attacked by a timer: each time somebody has to state that he may")
    if kubernetes and user is not None:
        raise click.UsageError("--user is for systemd: a pod has a user of its own")
    if claim is not None and not kubernetes:
        raise click.UsageError("--claim goes with --kubernetes")
    installation = find_installation(ctx)
    needs: list[str] = []
    if kubernetes:
        texts, needs, then = _component(installation, model, rows, training, profile, every, claim)
    else:
        texts, then = _units(installation, model, rows, training, profile, every, user)
    if out is not None:
        with files.storage_errors(out):
            out.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            files.write_atomically(out / name, text.encode(), mode=0o644)
    if as_json:
        kind = "files" if kubernetes else "units"
        print_json({kind: texts, "folder": None if out is None else str(out), "needs": needs, "then": then})
        return
    for name, text in texts.items():
        for line in [f"# {name}", *text.splitlines(), ""] if out is None else [f"wrote {out / name}"]:
            echo(line)
    for line in [*(f"needed: {need}" for need in needs), f"then: {then}"]:
        echo(line, err=out is None)


def _units(
    installation: "Installation",
    model: str,
    rows: Path,
    training: Path | None,
    profile: str,
    every: str,
    user: str | None,
) -> tuple[dict[str, str], str]:
    """The files by name, and what to do then."""
    import os
    import pwd
    import sys

    from palladion.redteam.audit.schedule import names, timer, unit

    service, started_by = names(model)
    directory = installation.paths.directory.resolve()
    arguments = [model, "--rows", str(rows.resolve()), "--profile", profile]
    arguments += [] if training is None else ["--training", str(training.resolve())]
    places = {"home": installation.paths.home, "directory": directory, "out": directory / f"audit-{model}"}
    program = str(Path(sys.executable).parent / "palladion")
    user = user or pwd.getpwuid(os.geteuid()).pw_name
    texts = {service: unit(arguments, **places, program=program, user=user), started_by: timer(every)}
    return texts, f"systemctl daemon-reload && systemctl enable --now {started_by}"


def _component(
    installation: "Installation",
    model: str,
    rows: Path,
    training: Path | None,
    profile: str,
    every: str,
    claim: str | None,
) -> tuple[dict[str, str], list[str], str]:
    """The files by name, what has to be there, and what to do then."""
    import shlex

    from palladion.errors import ConflictError
    from palladion.gate.deploy.plan import make_plan
    from palladion.redteam.audit.schedule import SECRET_BYTES_MAX, Given, component, job_of

    # names of their own, which a secret and a shell take, and which are never the same
    there = {f"rows{_ending(rows)}": rows}
    there |= {} if training is None else {f"training{_ending(training)}": training}
    rows_name, training_name = (*there, "")[:2]
    given = Given(rows_name, training_name, claim or "")
    texts = component(make_plan(installation.policy), model, given, profile=profile, every=every)
    size = sum(path.stat().st_size for path in there.values())
    if claim is not None:
        held = " and ".join(f"{name} ({path})" for name, path in there.items())
        needs = [f"the claim {claim} holds {held}, and can be mounted on the gate's node"]
    elif size > SECRET_BYTES_MAX:
        raise ConflictError(
            f"the files have {size} bytes, more than the {SECRET_BYTES_MAX} that a secret of Kubernetes holds",
            "fewer rows, or --claim NAME with a volume claim that holds them",
        )
    else:
        sources = " ".join(f"--from-file={name}={shlex.quote(str(path))}" for name, path in there.items())
        needs = [f"kubectl create secret generic {job_of(model)} {sources}"]
    then = "name this folder under components: in the kustomization.yaml of deploy kubernetes, and kubectl apply -k"
    return texts, needs, then


def _ending(path: Path) -> str:
    return path.suffix if path.suffix in {".npy", ".npz"} else ""
