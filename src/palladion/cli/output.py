"""What every command shares: `--json`, tables, progress bars, passphrases, and the installation it works on."""

import os
import pwd
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click
import msgspec

from palladion import files
from palladion.clock import SystemClock
from palladion.errors import KeysError
from palladion.keys import Identity, Recipient
from palladion.policy import PassphrasePolicy

if TYPE_CHECKING:
    from palladion.lifecycle.installation import Installation

PASSPHRASE_BYTES_MAX = 4096  # far above any passphrase; a wrong file name must not be read whole
PASSPHRASE_CHARACTERS_MIN = 12  # of a new one: NIST SP 800-63B asks for 8, and sealed files can be guessed at for ever
PASSPHRASE_LANES = 4  # RFC 9106's recommended options
PROGRESS_AFTER_SECONDS = 1.0


class Progress(Protocol):
    """Draws how far a step is; `stage` replaces the bar's label."""

    def __call__(self, done: int, total: int, stage: str = "") -> None:
        """`done` of `total`, in whatever unit."""
        ...


json_option = click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of text.")
passphrase_option = click.option(
    "--passphrase-file",
    type=click.Path(dir_okay=False, allow_dash=True, path_type=Path),
    metavar="FILE",
    help="Read the owner passphrase from the first line of FILE ('-' for standard input) instead of asking.",
)


identity_option = click.option(
    "--identity",
    "identity_file",
    type=click.Path(dir_okay=False, exists=True, path_type=Path),
    metavar="FILE",
    help="Unlock with this identity file, for example an escrow recipient's, instead of the passphrase.",
)


def find_installation(context: click.Context) -> "Installation":
    """The installation that `--home`, or the current folder, names."""
    from palladion.lifecycle.installation import Installation

    return Installation.find(context.find_root().obj, SystemClock())


def actor() -> str:
    """Who runs this command, for the ledger: the account, which the environment cannot fake."""
    try:
        return f"user:{pwd.getpwuid(os.getuid()).pw_name}"
    except KeyError:
        return f"user:{os.getuid()}"


def owner_identities(passphrase_file: Path | None, identity_file: Path | None = None) -> list[Identity]:
    """What unlocks the owner root: an identity file if given, else the passphrase."""
    from palladion.seal.recipients import PassphraseIdentity, read_identity

    if identity_file is not None:
        return [read_identity(identity_file)]
    return [PassphraseIdentity(read_passphrase(passphrase_file))]


def passphrase_recipient(passphrase: str, settings: PassphrasePolicy) -> Recipient:
    """Whoever knows `passphrase`, at the cost that the policy asks of a guess."""
    from palladion.seal.recipients import Cost, PassphraseRecipient

    cost = Cost(memory_kib=settings.memory_mib * 1024, iterations=settings.passes, lanes=PASSPHRASE_LANES)
    return PassphraseRecipient(passphrase, cost=cost)


def warn(message: str) -> None:
    """A sentence on standard error about something that works and should not stay so."""
    click.echo(f"palladion: warning: {message}", err=True)


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Names and values in two columns on standard output; leaves out what is None."""
    shown = [(name, value) for name, value in fields if value is not None]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        click.echo(f"  {name:<{width}}  {value}")


def print_json(document: Any) -> None:
    """One JSON document, indented, on standard output."""
    click.echo(msgspec.json.format(msgspec.json.encode(document), indent=2).decode())


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """A table on standard output; cut to the terminal where there is one, never cut in a pipe."""
    from rich.console import Console
    from rich.table import Table

    console = Console(soft_wrap=False) if sys.stdout.isatty() else Console(width=10_000)
    table = Table(
        title=title, title_justify="left", box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0)
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*("" if cell is None else str(cell) for cell in row))
    with console.capture() as captured:
        console.print(table, markup=False, highlight=False)
    click.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


@contextmanager
def progress(label: str) -> Iterator[Progress]:
    """A callback `(done, total)` that draws a bar on standard error once a step takes longer than a second.

    It draws nothing where standard error is not a terminal.
    """
    if not sys.stderr.isatty():

        def draw_nothing(done: int, total: int, stage: str = "") -> None:
            """Nobody is looking."""

        yield draw_nothing
        return
    from rich.console import Console
    from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    started = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    bar = Bar(*columns, console=Console(stderr=True), transient=True)
    task = bar.add_task(label, total=None)

    def update(done: int, total: int, stage: str = "") -> None:
        if time.monotonic() - started > PROGRESS_AFTER_SECONDS:
            bar.start()
            bar.update(task, completed=done, total=total, description=stage or label)

    try:
        yield update
    finally:
        bar.stop()


def read_passphrase(source: Path | None, *, new: bool = False) -> str:
    """The owner passphrase: from `source` if given, else asked on the terminal without echo; a `new` one twice.

    Raises KeysError if there is neither, or if it is empty, or new and too short. It is never taken from an argument
    or the environment, where other processes could read it.
    """
    passphrase: str
    if source is not None:
        with files.storage_errors(source), click.open_file(str(source), "rb") as stream:
            line = stream.readline(PASSPHRASE_BYTES_MAX)
        try:
            passphrase = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError:
            raise KeysError(f"the passphrase in {source} is not UTF-8 text") from None
    elif sys.stdin.isatty():
        prompt = "New owner passphrase" if new else "Owner passphrase"
        passphrase = click.prompt(prompt, hide_input=True, confirmation_prompt=new, err=True)
    else:
        raise KeysError("a passphrase is needed and there is no terminal to ask on", "use --passphrase-file FILE")
    if not passphrase:
        raise KeysError("the passphrase is empty")
    if new and len(passphrase) < PASSPHRASE_CHARACTERS_MIN:
        raise KeysError(
            f"the passphrase has {len(passphrase)} characters, at least {PASSPHRASE_CHARACTERS_MIN} are needed",
            "five random words are easy to remember and hard to guess",
        )
    return passphrase


def size_text(count: int) -> str:
    """A number of bytes for people: 512 B, 1.4 KiB, 2.0 GiB."""
    if count < 1024:
        return f"{count} B"
    value = float(count)
    for unit in ("KiB", "MiB", "GiB", "TiB"):
        value /= 1024
        if value < 1024 or unit == "TiB":
            break
    return f"{value:.1f} {unit}"
