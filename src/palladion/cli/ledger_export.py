"""`palladion ledger export`: entries in the words of a SIEM, once or for as long as the ledger grows."""

import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion import files
from palladion.cli.ledger_options import ledger_options, question_of, question_options
from palladion.cli.output import actor, echo, find_installation, json_option, print_json, warn

if TYPE_CHECKING:
    from palladion.export.destination import Address, Destination
    from palladion.export.follow import Encode
    from palladion.export.item import Source
    from palladion.ledger.checkpoint import VerifierKey
    from palladion.ledger.index import Question
    from palladion.ledger.reader import LedgerReader

PARQUET = "parquet"
SECONDS_MAX = 3600
_PEM = click.Path(exists=True, dir_okay=False, path_type=Path)

_Open = Callable[[], "tuple[LedgerReader, Source]"]
_Named = Callable[[], dict[str, str]]
_Tell = Callable[[int, int | None], None]


class AddressType(click.ParamType):  # type: ignore[type-arg]  # generic in newer clicks alone
    """Where a receiver listens."""

    name = "address"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The address of a text."""
        from palladion.export.destination import parse_address

        if not isinstance(value, str):
            return value
        try:
            return parse_address(value)
        except ValueError as error:
            self.fail(f"{value!r}: {error}", param, ctx)


@click.command(
    epilog="Example: palladion ledger export --format syslog --to tls://siem.example:6514 --follow --state p"
)
@click.option(
    "--format",
    "form",
    type=click.Choice(["ocsf", "cef", "syslog", "jsonl", PARQUET]),
    required=True,
    help="In which words (docs/siem.md). Parquet is a file, and needs palladion[export].",
)
@question_options
@click.option("--name-clients", is_flag=True, help="Say who a client is beside its pseudonym.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write lines there, in place of what is there; with --state, after it. Default: standard output.",
)
@click.option("--to", type=AddressType(), metavar="ADDRESS", help="Send there: tcp://host:port or tls://host:port.")
@click.option("--tls-ca", type=_PEM, metavar="FILE", help="Who may vouch for the receiver. Default: the system's.")
@click.option("--tls-certificate", type=_PEM, metavar="FILE", help="Our certificate, for a receiver that wants one.")
@click.option("--tls-key", type=_PEM, metavar="FILE", help="Its key, where it is not in the same file.")
@click.option("--host", metavar="NAME", help="This machine's name in syslog. Default: its own.")
@click.option(
    "--state",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Keep the place there, and go on from it the next time.",
)
@click.option("--follow", is_flag=True, help="Go on for as long as the ledger grows. Needs --state.")
@click.option(
    "--every",
    type=click.IntRange(1, SECONDS_MAX),
    default=5,
    show_default=True,
    metavar="SECONDS",
    help="How often --follow looks for new entries.",
)
@ledger_options("A ledger's folder, for example a copy; without it, this installation's.")
@json_option
@click.pass_context
def export(ctx: click.Context, /, **asked: Any) -> None:
    """Write entries for another system, oldest first; each is proved to be under the signed checkpoint before it goes.

    Clients stay pseudonyms unless --name-clients is given. An export of this installation's ledger is recorded in it
    before anything goes. With --state nothing is left out, and after a crash at most
    the last thousand entries go again; exit code 1 if what has gone is not in the ledger any more.
    """
    _refuse_contradictions(asked)
    opened, question = _opener(ctx, asked), question_of(ctx, asked)
    names = partial(_names, ctx) if asked["name_clients"] else None
    tell = partial(_record, ctx, question, asked)
    if asked["form"] == PARQUET:
        count, reader = _write_parquet(opened, question, names, asked["out"], tell)
    else:
        count, reader = _send(opened, question, names, asked, tell)
    target = asked["out"] or asked["to"]
    if asked["as_json"]:
        origin, size = reader.checkpoint.origin, reader.size
        print_json({"format": asked["form"], "to": str(target), "log": origin, "entries": count, "size": size})
    elif target is not None:
        echo(f"exported {count} of {reader.size} entries of {reader.checkpoint.origin} as {asked['form']} to {target}")


def _refuse_contradictions(asked: dict[str, Any]) -> None:
    """Raises click's UsageError on options that do not go together."""
    address: Address | None = asked["to"]
    of_tls = any(asked[name] is not None for name in ("tls_ca", "tls_certificate", "tls_key"))
    refusals = (
        (asked["out"] and address, "--out and --to both say where to: name one of them"),
        (asked["follow"] and not asked["state"], "--follow needs --state, the file that keeps the place"),
        (asked["follow"] and asked["as_json"], "--json says what was done, and --follow is never done"),
        (asked["as_json"] and not (asked["out"] or address), "--json needs --out or --to: else entries are printed"),
        (asked["form"] == PARQUET and not asked["out"], "--format parquet needs --out: it is a file"),
        (asked["form"] == PARQUET and asked["state"], "a Parquet file is written whole: --state is for other formats"),
        (of_tls and not (address and address.tls), "certificates are for --to tls://host:port"),
        (asked["tls_key"] and not asked["tls_certificate"], "--tls-key needs --tls-certificate"),
    )
    for refused, reason in refusals:
        if refused:
            raise click.UsageError(reason)


def _opener(ctx: click.Context, asked: dict[str, Any]) -> _Open:
    """Opens the ledger at its last checkpoint, each time anew, and says where its entries come from."""
    from palladion.export.item import Source
    from palladion.intel.store import FOLDER
    from palladion.ledger.reader import LedgerReader
    from palladion.watch.taxonomy import load_table, shipped

    own = asked["directory"] is None
    folder = find_installation(ctx).paths.ledger if own else asked["directory"]
    key = asked["key"] or find_installation(ctx).ledger_key()
    host = asked["host"] or socket.gethostname()
    table = load_table(find_installation(ctx).paths.directory / FOLDER) if own else shipped()

    def opened() -> "tuple[LedgerReader, Source]":
        reader = LedgerReader(folder, key)
        witnessed, witnesses = _witnessed(ctx, key) if own else (0, ())
        found = reader.checkpoint
        proved = (found.origin, str(key), found.size, found.root.hex(), host, witnessed, witnesses)
        return reader, Source(*proved, techniques=table)

    return opened


def _witnessed(ctx: click.Context, key: "VerifierKey") -> tuple[int, tuple[str, ...]]:
    from palladion.lifecycle.witnesses import read_witnessed, witnesses_of

    installation = find_installation(ctx)
    policy = installation.policy.ledger
    known = [witness.key for witness in witnesses_of(policy)]
    found = read_witnessed(installation.paths.ledger, key, known, policy.witness_quorum) if known else None
    return (0, ()) if found is None else (found[1].size, tuple(sorted(witness.name for witness in found[2])))


def _names(ctx: click.Context) -> dict[str, str]:
    """Organisation and name of every client, by pseudonym."""
    from palladion.access.pseudonyms import pseudonym

    installation = find_installation(ctx)
    key = installation.open_gate_root().derive("pseudonyms")
    with installation.open_registry() as registry, registry.read() as records:
        return {pseudonym(key, item.id): f"{item.organisation}/{item.name}" for item in records.clients.all()}


def _encoder(asked: dict[str, Any]) -> "Encode":
    from palladion.export.formats import FORMS, line_of

    form = FORMS[asked["form"]]
    if asked["to"] is not None:
        return lambda item, source: form.framed(form.message(item, source))
    return lambda item, source: line_of(form.line(item, source))


def _record(ctx: click.Context, question: "Question", asked: dict[str, Any], first: int, size: int | None) -> None:
    """Tell the ledger that entries of it go; it is on the disk when this returns. Of another ledger nobody is told."""
    from palladion.export.recorded import exported_record

    if asked["directory"] is not None:
        return
    installation = find_installation(ctx)
    record = exported_record(
        question,
        form=asked["form"],
        to=str(asked["out"] or asked["to"] or "standard output"),
        first=first,
        size=size,
        named=asked["name_clients"],
        actor=actor(),
        origin=installation.policy.ledger.origin,
        now=installation.clock.now(),
    )
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        ledger.append([record])


def _send(
    opened: _Open, question: "Question", names: "_Named | None", asked: dict[str, Any], tell: _Tell
) -> "tuple[int, LedgerReader]":
    from palladion.export import follow
    from palladion.export.position import Position

    wanted = follow.Wanted(question, _encoder(asked), names)
    position = Position(asked["state"]) if asked["state"] is not None else None
    with ExitStack() as stack:
        if position is not None:
            stack.enter_context(position.held())
        # what it is asked for has to be there before it is recorded
        reader, source = opened()
        first = (position.next(reader) if position is not None else None) or 0
        tell(first, None if asked["follow"] else reader.size)
        destination = stack.enter_context(_destination(asked))
        if asked["follow"] and position is not None:
            follow.follow(opened, wanted, destination, position, seconds=asked["every"])
        return follow.export(reader, source, wanted, destination, position).entries, reader


def _write_parquet(
    opened: _Open, question: "Question", names: "_Named | None", path: Path, tell: _Tell
) -> "tuple[int, LedgerReader]":
    from palladion.export.parquet import write_parquet
    from palladion.export.take import take

    reader, source = opened()
    tell(0, reader.size)
    items = take(reader, question, names=names() if names is not None else None)
    return write_parquet(path, items, source), reader


@contextmanager
def _destination(asked: dict[str, Any]) -> "Iterator[Destination]":
    from palladion.export.destination import TRIES_MAX, File, Receiver, Stream, tls_context

    address: Address | None = asked["to"]
    if address is not None:
        context = tls_context(asked["tls_ca"], asked["tls_certificate"], asked["tls_key"]) if address.tls else None
        tries_max = None if asked["follow"] else TRIES_MAX
        with closing(Receiver(address, context=context, tries_max=tries_max, told=warn)) as receiver:
            yield receiver
    elif asked["out"] is None:
        yield Stream(sys.stdout.buffer)
    elif asked["state"] is not None:
        with closing(File(asked["out"])) as file:
            yield file
    else:
        # a whole file or none: what was there stays where an entry cannot be proved
        with files.atomic_writer(asked["out"]) as stream:
            yield Stream(stream)
