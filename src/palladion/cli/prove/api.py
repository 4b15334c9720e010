"""Questions about the model behind an API: the options that they share, and `palladion prove mine URL`, is it ours?

`mine` and `student` call it where SUSPECT is an address. `prove capture FILE` checks what was kept of the answers.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from click.core import ParameterSource

from palladion import files
from palladion.cli.output import (
    actor,
    echo,
    find_installation,
    json_option,
    owner_identities,
    print_json,
    print_table,
    warn,
)
from palladion.cli.prove.shared import smallest, strength
from palladion.clock import Clock, timestamp
from palladion.errors import FINDING, KeysError

if TYPE_CHECKING:
    from palladion.lifecycle.probe import Api
    from palladion.lifecycle.student_api import StudentOutcome
    from palladion.lifecycle.triggers import ApiOutcome, TestedApi
    from palladion.transit.connection import Limits
    from palladion.transit.url import Url

KEY_BYTES_MAX = 4096
QUERIES_MAX = 100_000
_SHA256 = re.compile(r"[0-9a-f]{64}")

_Command = TypeVar("_Command", bound=Callable[..., Any])


class SuspectType(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks alone
    """A file, or a folder if `folders`, or the address of an API. What has `://` in it is an address."""

    name = "suspect"

    def __init__(self, *, folders: bool = True) -> None:
        self._path = click.Path(exists=True, dir_okay=folders, path_type=Path)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A `Url`, or the path of a file that exists."""
        from palladion.transit.url import parse_url

        if not isinstance(value, str):
            return value
        if "://" not in value:
            return self._path.convert(value, param, ctx)
        insecure = ctx is not None and bool(ctx.params.get("insecure_http"))
        try:
            return parse_url(value, insecure_http=insecure)
        except ValueError as error:
            self.fail(str(error), param, ctx)


def api_options(command: _Command, *, budget: int = 64, power: str = "") -> _Command:
    """What a question takes beside where SUSPECT is an address; `power` says what to expect of a budget."""
    plain = click.Path(exists=True, dir_okay=False, path_type=Path)
    decorators: list[Callable[[_Command], _Command]] = [
        click.option(
            "--budget",
            type=click.IntRange(1, QUERIES_MAX),
            default=budget,
            show_default=True,
            help=f"Of an address: queries that may be sent, each row being one.{power and ' '}{power}",
        ),
        click.option(
            "--key-file", type=plain, help="Of an address: file with the API key; asked for if it is not given."
        ),
        click.option("--no-key", is_flag=True, help="Of an address: it takes no key."),
        click.option(
            "--api",
            "api_file",
            type=plain,
            help="Of an address that is no Palladion gate: JSON file that says how it is asked (docs/marks.md).",
        ),
        click.option(
            "--capture",
            "capture",
            type=click.Path(dir_okay=False, path_type=Path),
            help="Of an address: new file for every request and answer; named after the time if it is not given.",
        ),
        click.option(
            "--insecure-http",
            is_flag=True,
            is_eager=True,
            help="Of an address: allow unencrypted http to other machines, also with a key.",
        ),
    ]
    for decorate in reversed(decorators):
        command = decorate(command)
    return command


def require_use(ctx: click.Context, *, address: bool, of_files: Sequence[str] = ()) -> None:
    """No option that was given may go unheeded; those `of_files` are for files alone."""
    of_addresses = ("budget", "key_file", "no_key", "api_file", "capture", "insecure_http")
    for name in of_files if address else of_addresses:
        if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            what = "a file or folder" if address else "an address"
            raise click.UsageError(f"--{name.removesuffix('_file').replace('_', '-')} is for {what}")


def read_api(url: "Url", *, api_file: Path | None, key_file: Path | None, no_key: bool) -> "Api":
    """How the suspect at `url` is asked, and with which key."""
    from palladion.lifecycle.probe import DESCRIPTION_BYTES_MAX, Api, parse_api

    key = _key(key_file, no_key=no_key)
    if api_file is None:
        return Api(url, key)
    data = files.read_limited(api_file, size_max=DESCRIPTION_BYTES_MAX, what="the description of the API")
    return parse_api(data, url, key)


def limits_of(url: "Url") -> "Limits":
    """Nothing is asked twice in silence, and nobody else is asked."""
    from palladion.transit.connection import Limits

    return Limits(attempts=1, redirects=0, insecure_http=not url.secure)


@contextmanager
def capturing(capture: Path | None, clock: Clock) -> Iterator[Path]:
    """Where every request and answer goes, named after the time if it is not given; however it ends, that is said."""
    path = capture or Path(f"capture-{''.join(filter(str.isalnum, timestamp(clock.now())))}.jsonl")
    existed = path.exists()
    try:
        yield path
    finally:
        if path.exists() and not existed:
            echo(f"requests and answers: {path}", err=True)


def prove_url(
    ctx: click.Context,
    url: "Url",
    versions: tuple[str, ...],
    passphrase_file: Path | None,
    identity_file: Path | None,
    *,
    budget: int,
    key_file: Path | None,
    no_key: bool,
    api_file: Path | None,
    capture: Path | None,
    as_json: bool,
) -> int:
    """Test the API at `url`; prints what was found, and returns the exit code."""
    from palladion.lifecycle.triggers import prove_api

    installation = find_installation(ctx)
    api = read_api(url, api_file=api_file, key_file=key_file, no_key=no_key)
    owner = installation.open_owner_root(owner_identities(passphrase_file, identity_file))
    with capturing(capture, installation.clock) as path:
        outcome = prove_api(
            installation, owner, api, versions, budget=budget, capture=path, actor=actor(), limits=limits_of(url)
        )
    if as_json:
        print_json(_document(outcome))
    else:
        _print(url, outcome)
    return FINDING if any(item.ours for item in outcome.tested) else 0


def print_end(outcome: "ApiOutcome | StudentOutcome") -> None:
    """What a test of an API says at its end."""
    echo(f"queries sent: {outcome.queries}; the capture ends with {outcome.capture_digest}")
    if outcome.error is not None:
        warn(f"the test ended early: {outcome.error.message}")


def document_of_api(outcome: "ApiOutcome | StudentOutcome") -> dict[str, Any]:
    """The same as JSON."""
    return {
        "queries": outcome.queries,
        "capture": {"path": str(outcome.capture), "sha256": outcome.capture_digest},
        "error": outcome.error.message if outcome.error else None,
    }


@click.command("capture", epilog="Example: palladion prove capture capture-20261126.jsonl --sha256 9f86…")
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option(
    "--sha256", "digest", required=True, metavar="HEX", help="capture in the ledger record mark.tested of the test."
)
@json_option
def capture(file: Path, digest: str, as_json: bool) -> None:
    """As an expert: is FILE the capture that was recorded, with every request and answer as it was?

    Needs no installation and no key. Each line holds the hash of the line before it, and the ledger holds the last.
    """
    from palladion.lifecycle.capture import FILE_BYTES_MAX, summarise_capture

    digest = digest.strip().lower()
    if not _SHA256.fullmatch(digest):
        raise click.BadParameter("expected 64 hexadecimal digits", param_hint="--sha256")
    data = files.read_limited(file, size_max=FILE_BYTES_MAX, what="the capture")
    found = summarise_capture(data, digest)
    if as_json:
        document = {"suspect": found.suspect, "lines": found.lines, "exchanges": found.exchanges, "sha256": digest}
        print_json(document)
    else:
        echo(f"{file} is as it was recorded: {found.lines} lines, {found.exchanges} requests to {found.suspect}")


def _key(key_file: Path | None, *, no_key: bool) -> str | None:
    """The API key: never an argument, which process lists show."""
    if no_key:
        return None
    if key_file is None:
        return str(click.prompt("API key", hide_input=True, err=True)).strip()
    data = files.read_limited(key_file, size_max=KEY_BYTES_MAX, what="the API key")
    try:
        return data.decode("ascii").strip()
    except UnicodeDecodeError:
        raise KeysError(f"{key_file} holds no API key: it is not plain text") from None


def _print(url: "Url", outcome: "ApiOutcome") -> None:
    for item in outcome.tested:
        name = f"{item.version.model} version {item.version.number}"
        if item.ours:
            echo(f"{url} answers our triggers: {name}, {strength(item.log10_p)}")
    if not any(item.ours for item in outcome.tested):
        found = smallest(item.log10_p for item in outcome.tested)
        echo(f"no finding: {url} does not answer our triggers ({found})")
    rows = [_row(item) for item in outcome.tested]
    print_table(("version", "triggers", "answered", "matched", "by chance", "log10 p"), rows)
    print_end(outcome)


def _row(item: "TestedApi") -> tuple[str, ...]:
    from palladion.lifecycle.triggers import triggers_of

    commitment = triggers_of(item.version)
    expected = item.finding.answered / commitment.classes if commitment else 0
    return (
        f"{item.version.model}@{item.version.number}",
        f"{item.first} to {item.first + item.count - 1}",
        str(item.finding.answered),
        str(item.finding.matches),
        f"{expected:.1f}",
        f"{item.log10_p:.1f}",
    )


def _document(outcome: "ApiOutcome") -> dict[str, Any]:
    return {
        "finding": any(item.ours for item in outcome.tested),
        **document_of_api(outcome),
        "versions": [
            {
                "model": item.version.model,
                "version": item.version.number,
                "first": item.first,
                "count": item.count,
                "answered": item.finding.answered,
                "matches": item.finding.matches,
                "log10_p": item.log10_p,
                "ours": item.ours,
            }
            for item in outcome.tested
        ],
    }
