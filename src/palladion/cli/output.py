"""What every command shares: printing, `--json`, tables, progress bars, passphrases, keys that people type, and the
installation it works on.

Commands print with what is here and with nothing else (tests/cli/test_output.py): names in models, ledgers and folders
may be hostile, and what is no printing character in them must not reach a terminal.
"""

import json
import os
import pwd
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click
import msgspec
from click.core import ParameterSource

from palladion import files
from palladion.clock import SystemClock
from palladion.errors import FINDING, FormatError, KeysError, PalladionError
from palladion.keys import Identity, Recipient
from palladion.ledger.checkpoint import parse_verifier_key
from palladion.policy import PassphrasePolicy

if TYPE_CHECKING:
    from palladion.host.host import Host
    from palladion.ledger.cosignature import WitnessKey
    from palladion.lifecycle.installation import Installation
    from palladion.lifecycle.reading import Progress as Stages

PASSPHRASE_LINE_BYTES_MAX = 4096  # far above any passphrase; a wrong file name must not be read whole
PASSPHRASE_CHARACTERS_MIN = 12  # of a new one: NIST SP 800-63B asks for 8, and sealed files can be guessed at for ever
PASSPHRASE_LANES = 4  # RFC 9106's recommended options
PROGRESS_AFTER_SECONDS = 1.0
TABLE_WIDTH = 100_000  # in a pipe: wider than any row, names of 2 KiB in escapes too, so that none is folded
VERSION_NUMBER = click.IntRange(1, 999_999_999)  # as in fraud@3, and what every database holds


class Progress(Protocol):
    """Draws how far a step is; `stage` replaces the bar's label."""

    def __call__(self, done: int, total: int, stage: str = "") -> None:
        """`done` of `total`, in whatever unit; of a total of 0 nobody knows how far it is."""
        ...


class KeyType(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks alone
    """A public key as it is typed. One that does not parse is a mistake of the caller (exit code 2), not a finding."""

    def __init__(self, name: str, parse: Callable[[str], Any]) -> None:
        self.name = name
        self._parse = parse

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The parsed key of a text."""
        if not isinstance(value, str):
            return value
        try:
            return self._parse(value)
        except FormatError as error:
            self.fail(error.message, param, ctx)


def _parse_recipient(text: str) -> Recipient:
    from palladion.seal.recipients import parse_recipient

    return parse_recipient(text, ask_pin=ask_pin)


def _parse_publisher(text: str) -> bytes:
    from palladion.seal.sign import parse_publisher

    return parse_publisher(text)


def _parse_witness(text: str) -> "WitnessKey":
    from palladion.ledger.cosignature import parse_witness_key

    return parse_witness_key(text)


RECIPIENT = KeyType("recipient", _parse_recipient)  # a Recipient; its str() is the text again
PUBLISHER = KeyType("publisher", _parse_publisher)  # the raw key; publisher_text() is the text again
VERIFIER_KEY = KeyType("verifier key", parse_verifier_key)  # a VerifierKey; its str() is the text again
WITNESS_KEY = KeyType("witness's key", _parse_witness)  # a WitnessKey; its str() is the text again

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


HOST_IDENTITIES = click.option(
    "--identity",
    "identities",
    multiple=True,
    metavar="IDENTITY",
    help="Open with this identity file, or key in an HSM or a cloud (pkcs11:…, awskms:…), instead of this host's. "
    "May be repeated.",
)
HOST_PUBLISHERS = click.option(
    "--publisher",
    "publishers",
    type=PUBLISHER,
    multiple=True,
    metavar="KEY",
    help="Accept this publisher's signature (pallp1…), instead of those that this host trusts. May be repeated.",
)


def find_host(identities: Sequence[str] = (), publishers: Sequence[bytes] = ()) -> "Host":
    """This host, with other keys where they were named."""
    from palladion.host.host import Host
    from palladion.seal.recipients import parse_identity

    return Host.find(identities=[parse_identity(text, ask_pin=ask_pin) for text in identities], publishers=publishers)


def find_installation(context: click.Context) -> "Installation":
    """The installation in the folder that `--home` names, or else in the current one or the nearest above it."""
    from palladion.lifecycle.installation import Installation

    return Installation.find(context.find_root().obj, SystemClock(), exact=home_is_named(context))


def home_is_named(context: click.Context) -> bool:
    """Whether `--home` was given: then that folder is meant, and none above it."""
    return context.find_root().get_parameter_source("home") is not ParameterSource.DEFAULT


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


def printable(text: str) -> str:
    """`text` with what is no printing character escaped: line breaks, terminal sequences, marks that turn or hide."""
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def echo(text: str = "", *, err: bool = False, bold: bool = False) -> None:
    """One line, whatever `text` holds, on standard output or standard error."""
    line = printable(text)
    click.echo(click.style(line, bold=True) if bold else line, err=err)


def warn(message: str) -> None:
    """A sentence on standard error about something that works and should not stay so."""
    echo(f"palladion: warning: {message}", err=True)


def print_fields(fields: Sequence[tuple[str, object]]) -> None:
    """Names and values in two columns on standard output; leaves out what is None."""
    shown = [(name, value) for name, value in fields if value is not None]
    width = max(len(name) for name, _ in shown)
    for name, value in shown:
        echo(f"  {name:<{width}}  {value}")


def print_json(document: Any) -> None:
    """One JSON document, indented, on standard output; what is no printing character is escaped in JSON's way.

    The name of a file need not be text: a byte 0xff that is no UTF-8 stands in the document as backslash, `udcff`.
    """
    try:
        encoded = msgspec.json.encode(document)
    except UnicodeEncodeError:
        encoded = msgspec.json.encode(_without_surrogates(document))
    text = msgspec.json.format(encoded, indent=2).decode()
    # what may stand outside of a text is printable, but for the line breaks of the layout
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode()
    if isinstance(value, dict):
        return {_without_surrogates(key): _without_surrogates(item) for key, item in value.items()}
    return [_without_surrogates(item) for item in value] if isinstance(value, list | tuple) else value


@contextmanager
def finding_as_json(as_json: bool) -> Iterator[None]:
    """A check whose finding is a document too, `{"ok": false, …}`, where JSON is asked for; the error goes its way."""
    try:
        yield
    except PalladionError as error:
        if as_json and error.exit_code == FINDING:
            print_json({"ok": False, "error": error.message, "hints": list(error.hints)})
        raise


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str | None = None) -> None:
    """A table on standard output; cut to the terminal where there is one, never cut in a pipe."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False) if sys.stdout.isatty() else Console(width=TABLE_WIDTH)
    table = Table(
        title=title and printable(title),
        title_justify="left",
        box=None,
        pad_edge=False,
        header_style="bold",
        padding=(0, 2, 0, 0),
    )
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        # Text, since rich would replace :names: of emojis in a str
        table.add_row(*(Text("" if cell is None else printable(str(cell))) for cell in row))
    with console.capture() as captured:
        console.print(table, markup=False, highlight=False)
    click.echo("\n".join(line.rstrip() for line in captured.get().rstrip("\n").split("\n")))


@contextmanager
def progress(label: str) -> Iterator[Progress]:
    """A callback that draws a bar on standard error once a command takes longer than a second, whether it is told or
    not. It draws nothing where standard error is no terminal that a bar can move on.
    """
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":

        def draw_nothing(done: int, total: int, stage: str = "") -> None:
            """Nobody is looking."""

        yield draw_nothing
        return
    bar = _Bar(printable(label))
    # not when it is told first: a step may take minutes before it can tell anything
    timer = threading.Timer(PROGRESS_AFTER_SECONDS, bar.show)
    timer.daemon = True
    timer.start()
    try:
        yield bar.update
    finally:
        timer.cancel()
        bar.close()


class _Bar:
    """One line with what is being done, a bar, and how long the stage still takes."""

    def __init__(self, label: str) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, TaskProgressColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        text = TextColumn("{task.description}", markup=False)
        columns = (text, BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        self._bar = Bar(*columns, console=Console(stderr=True, emoji=False), transient=True)
        self._label = label
        self._done = self._total = 0
        self._task = self._bar.add_task(label, total=None)
        self._lock = threading.Lock()
        self._closed = False

    def show(self) -> None:
        """Draw it from now on."""
        with self._lock:
            if not self._closed:
                self._bar.start()

    def close(self) -> None:
        """Wipe it, for good."""
        with self._lock:
            self._closed = True
            self._bar.stop()

    def update(self, done: int, total: int, stage: str = "") -> None:
        """See `Progress`."""
        text = printable(stage) or self._label
        if total != self._total or done < self._done:
            # another stage has a time of its own
            self._bar.remove_task(self._task)
            self._task = self._bar.add_task(text, total=total or None)
        self._done, self._total = done, total
        self._bar.update(self._task, completed=done, description=text)


def stages(bar: Progress) -> "Stages":
    """A bar for steps that count bytes, each under its own name."""

    def update(stage: str, done: int, total: int) -> None:
        bar(done, total, f"{stage} {size_text(done)} of {size_text(total)}" if total else stage)

    return update


def read_passphrase(source: Path | None, *, new: bool = False) -> str:
    """The owner passphrase: from `source` if given, else asked on the terminal without echo; a `new` one twice.

    Raises KeysError if there is neither, or if it is empty, too long, not UTF-8, or new and too short. It is never
    taken from an argument or the environment, where other processes could read it.
    """
    from palladion.seal.recipients import PassphraseIdentity

    passphrase: str
    if source is not None:
        with files.storage_errors(source), click.open_file(str(source), "rb") as stream:
            line = stream.readline(PASSPHRASE_LINE_BYTES_MAX)
        # cut off here is only what is too long below
        passphrase = line.decode("utf-8", "surrogateescape").rstrip("\r\n")
    elif sys.stdin.isatty():
        prompt = "New owner passphrase" if new else "Owner passphrase"
        passphrase = click.prompt(prompt, hide_input=True, confirmation_prompt=new, err=True)
    else:
        raise KeysError("a passphrase is needed and there is no terminal to ask on", "use --passphrase-file FILE")
    if not passphrase:
        raise KeysError("the passphrase is empty")
    try:
        PassphraseIdentity(passphrase)
    except ValueError as error:
        raise KeysError(f"the passphrase cannot be used: {error}") from None
    if new and len(passphrase) < PASSPHRASE_CHARACTERS_MIN:
        raise KeysError(
            f"the passphrase has {len(passphrase)} characters, at least {PASSPHRASE_CHARACTERS_MIN} are needed",
            "five random words are easy to remember and hard to guess",
        )
    return passphrase


def ask_pin(token: str) -> str:
    """The PIN of an HSM's token, asked on the terminal without echo. Raises KeysError where there is none."""
    if not sys.stdin.isatty():
        raise KeysError(
            f"the PIN of token {token} is needed and there is no terminal to ask on",
            "name a file that holds it: pin-source in the pkcs11: URI",
        )
    pin: str = click.prompt(f"PIN of {printable(token)}", hide_input=True, err=True)
    return pin


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
