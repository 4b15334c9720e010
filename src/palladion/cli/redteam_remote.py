"""`palladion redteam run URL`: the same attacks on a model behind an address, by whoever states that he may."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from palladion.cli.output import actor, find_installation
from palladion.cli.prove.api import QUERIES_MAX, capturing, limits_of, read_api, require_use
from palladion.errors import ConflictError

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation
    from palladion.lifecycle.probe import Api
    from palladion.redteam.audit.stage import Stage
    from palladion.redteam.audit.subject import Subject
    from palladion.transit.url import Url

BUDGET = 50_000
PER_REQUEST = 8  # rows: with five requests a second, a gate's limits as they are shipped are not reached
_OWN = {
    "i_am_authorised": "--i-am-authorised",
    "per_second": "--per-second",
    "per_request": "--per-request",
    "key_files": "--key-file",
}
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)

_Command = TypeVar("_Command", bound=Callable[..., Any])


@dataclass(frozen=True)
class Address:
    """What the options say about an address."""

    budget: int
    key_files: tuple[Path, ...]
    no_key: bool
    api_file: Path | None
    capture: Path | None
    per_second: float
    per_request: int

    def apis(self, url: "Url") -> "list[Api]":
        """How `url` is asked, by each account. Raises KeysError where a file holds no key."""
        return [
            read_api(url, api_file=self.api_file, key_file=path, no_key=self.no_key)
            for path in self.key_files or (None,)
        ]


@dataclass(frozen=True)
class Data:
    """Files of the owner's rows, their labels, and rows of training; without rows for language models alone."""

    rows: Path | None
    labels: Path | None
    training: Path | None


def remote_options(command: _Command) -> _Command:
    """What `redteam run` takes beside where MODEL is an address."""
    decorators: list[Callable[[_Command], _Command]] = [
        click.option(
            "--budget",
            type=click.IntRange(1, QUERIES_MAX),
            default=BUDGET,
            show_default=True,
            help="Of an address: queries that may be sent, each row being one.",
        ),
        click.option(
            "--key-file",
            "key_files",
            type=_FILE,
            multiple=True,
            help="Of an address: file with the API key; asked for if it is not given. Several accounts share the "
            "harvest, in turns.",
        ),
        click.option("--no-key", is_flag=True, help="Of an address: it takes no key."),
        click.option(
            "--api",
            "api_file",
            type=_FILE,
            help="Of an address that is no Palladion gate: JSON file that says how it is asked (docs/marks.md).",
        ),
        click.option(
            "--capture",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Of an address: new file for every request and answer; named after the time if it is not given.",
        ),
        click.option(
            "--insecure-http",
            is_flag=True,
            is_eager=True,
            help="Of an address: allow unencrypted http to other machines, also with a key.",
        ),
        click.option(
            "--i-am-authorised",
            is_flag=True,
            help="Of an address: its owner allows this attack. Recorded in the ledger as you state it.",
        ),
        click.option(
            "--per-second",
            type=click.FloatRange(0.01, 1000),
            default=5.0,
            show_default=True,
            help="Of an address: requests in a second, of all accounts together.",
        ),
        click.option(
            "--per-request",
            type=click.IntRange(1, 1024),
            default=PER_REQUEST,
            show_default=True,
            help="Of the address of a Palladion gate: rows in a request.",
        ),
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def address_of(ctx: click.Context, model: str, *, authorised: bool) -> "Url | None":
    """The address that MODEL is, or None. Raises UsageError for options that do not go with it."""
    from palladion.transit.url import parse_url

    address = "://" in model
    require_use(ctx, address=address)
    if not address:
        for name, option in _OWN.items():
            if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
                raise click.UsageError(f"{option} is for an address")
        return None
    try:
        url = parse_url(model, insecure_http=bool(ctx.params.get("insecure_http")))
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="MODEL") from None
    if not authorised:
        raise ConflictError(
            f"an attack on {url} needs the leave of whoever runs it",
            "--i-am-authorised states that you have it, and is recorded",
        )
    return url


@contextmanager
def remote_subject_of(
    ctx: click.Context, url: "Url", address: Address, data: Data, *, state: Path
) -> "Iterator[tuple[Subject, dict[str, Stage], Callable[[], str]]]":
    """The subject behind `url`, met; no stage of its own; what says how its capture ends.

    That it is attacked is recorded before it is asked.
    """
    from palladion import files
    from palladion.lifecycle.capture import new_capture
    from palladion.redteam.audit.journal import Journal
    from palladion.redteam.audit.record import record_planned
    from palladion.redteam.audit.remote import Remote
    from palladion.redteam.audit.remote_subject import digest_of, read_remote_rows, remote_subject
    from palladion.transit.web import Web

    installation: Installation = find_installation(ctx)
    if data.rows is None:
        raise ValueError("a service that is asked with rows needs some")
    layout, flat, right = read_remote_rows(data.rows, data.labels)
    learnt = None
    if data.training is not None:
        _, learnt_rows, learnt_labels = read_remote_rows(data.training, None)
        if learnt_labels is None:
            raise ConflictError("membership needs labels of the rows of training", "y beside x")
        learnt = (learnt_rows, learnt_labels)
    api, *others = address.apis(url)
    if address.api_file is None:
        api = replace(api, rows=address.per_request)
    files.make_private_directory(state.parent)
    files.make_private_directory(state)
    web = Web(limits_of(url))
    with (
        files.exclusive_lock(state / "asking", what=f"the audit in {state}"),
        capturing(address.capture, installation.clock) as path,
        new_capture(path, installation.clock) as capture,
        Journal(state / f"answers-{digest_of(api)[:16]}.jsonl") as journal,
    ):
        try:
            record_planned(installation, str(url), actor=actor(), queries=address.budget)
            capture.write("plan", {"suspect": str(url), "budget": address.budget, "authorised": f"stated by {actor()}"})
            remote = Remote(
                api, layout, journal, capture, web,
                budget=address.budget, per_second=address.per_second, wait=time.sleep,
                more_keys=[other.key for other in others],
            )  # fmt: skip
            yield remote_subject(remote, flat, right, learnt), {}, lambda: capture.digest
        finally:
            web.close()


def folder_of(url: "Url") -> Path:
    """Where an audit of an address goes if nobody says."""
    return Path(f"audit-{url.host.replace(':', '-')}-{url.port}")


def budget_of(installation: "Installation", address: Address) -> int:
    """Queries that may be asked: of the policy and the option, the smaller."""
    return min(installation.policy.redteam.queries, address.budget)
