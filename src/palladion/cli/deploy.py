"""`palladion deploy …`: files with which this installation's gate runs as a service, in a container, in a cluster."""

import os
import pwd
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from palladion import files
from palladion.cli.output import echo, find_installation, json_option, print_json, warn
from palladion.errors import ConflictError

_Command = Callable[..., Any]


@click.group()
def deploy() -> None:
    """Write what systemd, container builders and Kubernetes need, so that it fits palladion.toml."""


def _output(command: _Command) -> _Command:
    folder = click.Path(file_okay=False, path_type=Path)
    out = click.option("--out", type=folder, default=Path(), metavar="FOLDER", help="Where to write; here without it.")
    force = click.option("--force", is_flag=True, help="Replace files that are there.")
    return out(force(json_option(command)))


@deploy.command("systemd", epilog="Example: palladion deploy systemd --out /etc/systemd/system")
@_output
@click.option("--user", metavar="NAME", help="User that the gate runs as; you without it.")
@click.pass_context
def systemd(ctx: click.Context, out: Path, force: bool, as_json: bool, user: str | None) -> None:
    """Write a unit for systemd, shut in as far as a gate allows.

    Where the policy has feeds that the gate does not refresh, a timer that does is written as well.
    """
    from palladion.gate.deploy.plan import make_plan
    from palladion.gate.deploy.systemd import (
        NAME,
        REFRESH_NAME,
        TIMER_NAME,
        folders_needed,
        refresh_unit,
        timer,
        unit,
    )

    installation = find_installation(ctx)
    paths = installation.paths
    user = user or pwd.getpwuid(os.geteuid()).pw_name
    plan, directory = make_plan(installation.policy), paths.directory.resolve()
    program = str(Path(sys.executable).parent / "palladion")
    places = {"home": paths.home, "directory": directory, "identity": paths.host_identity}
    texts = {NAME: unit(plan, **places, program=program, user=user)}
    if plan.refreshed_beside:
        texts |= {REFRESH_NAME: refresh_unit(plan, **places, program=program, user=user), TIMER_NAME: timer()}
    _write(out, texts, force=force)
    if user == "root":
        warn("the gate would run as root: name a user of its own by --user")
    needs = [
        f"{user} owns {directory} and all in it",
        f"{user} owns {paths.host_identity}, and can read {paths.policy} and the files that it names",
    ]
    folders = folders_needed(plan, home=paths.home, directory=directory)
    needs += [f"{user} owns the folder {folder}, in which the gate makes a socket" for folder in folders]
    enabled = " ".join(name for name in (NAME, TIMER_NAME) if name in texts)
    then = f"systemctl daemon-reload && systemctl enable --now {enabled}"
    _tell(out, texts, then=then, as_json=as_json, needs=needs)


@deploy.command("container", epilog="Example: palladion deploy container --out image")
@_output
@click.pass_context
def container(ctx: click.Context, out: Path, force: bool, as_json: bool) -> None:
    """Write a Containerfile: an image without shell and without root, for Docker, Podman and Buildah."""
    from palladion.gate.deploy.container import IGNORE, IGNORE_NAME, NAME, USER, containerfile, identity_folder
    from palladion.gate.deploy.plan import make_plan

    installation = find_installation(ctx)
    plan = make_plan(installation.policy)
    texts = {NAME: containerfile(plan), IGNORE_NAME: IGNORE}
    _write(out, texts, force=force)
    needs = [
        f"a copy of {installation.paths.host_identity.parent}, as a volume at {identity_folder(plan)}",
        f"user {USER} owns both volumes and all in them",
    ]
    _tell(out, texts, then=f"buildah build -t palladion-gate {out}", as_json=as_json, needs=needs)


@deploy.command("kubernetes", epilog="Example: palladion deploy kubernetes --out base")
@_output
@click.option("--storage", default="10Gi", metavar="SIZE", help="Size of the volume for ledger and models.")
@click.pass_context
def kubernetes(ctx: click.Context, out: Path, force: bool, as_json: bool, storage: str) -> None:
    """Write a Kustomize base for one gate: everything is denied that it does not need."""
    from palladion.gate.deploy.kubernetes import base, secrets_needed
    from palladion.gate.deploy.plan import make_plan

    installation = find_installation(ctx)
    plan = make_plan(installation.policy)
    text = installation.paths.policy.read_text(encoding="utf-8")
    texts = base(plan, text, storage=storage)
    _write(out, texts, force=force)
    secrets = {"palladion-identity": installation.paths.host_identity.name}
    secrets |= {name: f"the files of {folder}" for name, folder in secrets_needed(plan).items()}
    _tell(out, texts, then=f"kubectl apply -k {out}", as_json=as_json, secrets=secrets)


@deploy.command("upstreams", epilog="Example: palladion deploy upstreams --gate 192.0.2.7 --user palladion --out rules")
@_output
@click.option("--gate", required=True, metavar="ADDRESS", help="Address from which the gate asks model servers.")
@click.option("--user", metavar="NAME", help="User that the gate runs as; you without it.")
@click.pass_context
def upstreams(ctx: click.Context, out: Path, force: bool, as_json: bool, gate: str, user: str | None) -> None:
    """Write rules that let nobody but the gate ask the model servers, and these nobody: nftables and Kubernetes."""
    from palladion.gate.deploy.upstreams import KUBERNETES_NAME, model_servers, network_policy, rules

    servers = model_servers(find_installation(ctx).policy)
    user = user or pwd.getpwuid(os.geteuid()).pw_name
    texts = rules(servers, gate=gate, user=user) | {KUBERNETES_NAME: network_policy(servers)}
    _write(out, texts, force=force)
    needs = [
        f"user {user} exists where the rules are loaded",
        'pods of model servers have the label palladion-upstream: "true"',
    ]
    then = "nft -c -f FILE on the machines that it names, and without -c where that says nothing; or kubectl apply -f"
    _tell(out, texts, then=then, as_json=as_json, needs=needs)


def _write(folder: Path, texts: Mapping[str, str], *, force: bool) -> None:
    there = [name for name in texts if (folder / name).exists()]
    if there and not force:
        raise ConflictError(f"{folder / there[0]} is there already", "use another folder, or --force")
    with files.storage_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in texts.items():
            (folder / name).write_text(text, encoding="utf-8")


def _tell(
    folder: Path,
    names: Iterable[str],
    *,
    then: str,
    as_json: bool,
    secrets: Mapping[str, str] | None = None,
    needs: Sequence[str] = (),
) -> None:
    """What was written, which secrets and what else has to be there, and what to do next."""
    written = [str(folder / name) for name in names]
    if as_json:
        print_json({"files": written, "secrets": dict(secrets or {}), "needs": list(needs), "then": then})
        return
    for path in written:
        echo(f"wrote {path}")
    for name, holds in (secrets or {}).items():
        echo(f"a secret is needed: {name}, with {holds}")
    for need in needs:
        echo(f"needed: {need}")
    echo(f"then: {then}")
