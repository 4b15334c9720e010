"""`palladion ledger …`: verify the log, and show its entries. What else there is has files of its own."""

from pathlib import Path
from typing import Any

import click
import msgspec

from palladion import files
from palladion.cli.ledger_expire import expire
from palladion.cli.ledger_export import export
from palladion.cli.ledger_options import (
    directory_of,
    key_option,
    ledger_option,
    log_key_of,
    reader_of,
    witnessed_note,
)
from palladion.cli.ledger_prove import check, prove
from palladion.cli.ledger_prune import prune
from palladion.cli.ledger_query import query
from palladion.cli.ledger_witness import witness
from palladion.cli.output import (
    echo,
    find_installation,
    finding_as_json,
    json_option,
    print_fields,
    print_json,
    print_table,
    progress,
    warn,
)
from palladion.clock import timestamp
from palladion.ledger.checkpoint import NOTE_BYTES_MAX, VerifierKey
from palladion.ledger.record import decode_record


@click.group()
def ledger() -> None:
    """The tamper-evident log of everything that happened."""


@ledger.command(epilog="Example: palladion ledger verify --against checkpoint-of-monday.txt")
@click.option(
    "--against",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="A checkpoint saved earlier: finds a cut tail and a rewritten history.",
)
@ledger_option
@key_option
@json_option
@click.pass_context
def verify(
    ctx: click.Context, against: Path | None, directory: Path | None, key: VerifierKey | None, as_json: bool
) -> None:
    """Recompute the whole log from its entries. Exit code 1, naming the entry, if anything was changed."""
    from palladion.ledger.audit import verify_ledger

    with finding_as_json(as_json), progress("verify") as bar:
        log_key = log_key_of(ctx, key)
        saved = files.read_limited(against, size_max=NOTE_BYTES_MAX, what="the checkpoint") if against else None
        witnessed = witnessed_note(ctx, log_key) if directory is None else None
        if directory is None and witnessed is None and find_installation(ctx).policy.ledger.witnesses:
            warn("too few of the witnesses in palladion.toml have cosigned, or what they cosigned was removed")
        notes = [note for note in (saved, witnessed[0] if witnessed else None) if note is not None]
        report = verify_ledger(directory_of(ctx, directory), log_key, against=notes, progress=bar)
    if as_json:
        print_json(
            {
                "ok": True,
                "origin": report.origin,
                "entries": report.size,
                "root": report.root.hex(),
                "first": timestamp(report.first) if report.first else None,
                "last": timestamp(report.last) if report.last else None,
                "kinds": report.kinds,
                "pruned": {"until": report.pruned.until, "entry": report.pruned.record} if report.pruned else None,
                "against": report.against[0].size if saved else None,
                "witnessed": {"size": witnessed[1].size, "witnesses": witnessed[2]} if witnessed else None,
            }
        )
        return
    echo(f"the ledger is whole: {report.size} entries of {report.origin}")
    against_text = f"the checkpoint of {report.against[0].size} entries fits" if saved else None
    pruned_text = None
    if report.pruned is not None:
        found = report.pruned
        pruned_text = f"answers before entry {found.until}, as entry {found.record} says: {found.reason}"
    witnessed_text = f"{witnessed[1].size} entries, by {', '.join(witnessed[2])}" if witnessed else None
    print_fields(
        [
            ("root", report.root.hex()),
            ("from", timestamp(report.first) if report.first else None),
            ("to", timestamp(report.last) if report.last else None),
            ("against", against_text),
            ("witnessed", witnessed_text),
            ("pruned", pruned_text),
            ("entries", ", ".join(f"{count} {kind}" for kind, count in report.kinds.items())),
        ]
    )


@ledger.command(epilog="Example: palladion ledger tail -n 20")
@click.option(
    "-n", "--entries", "count", type=click.IntRange(1, 100_000), default=10, show_default=True, help="How many."
)
@ledger_option
@key_option
@json_option
@click.pass_context
def tail(ctx: click.Context, count: int, directory: Path | None, key: VerifierKey | None, as_json: bool) -> None:
    """Show the last entries, once each is proved to be under the signed checkpoint."""
    columns = ("time", "kind", "subject", "actor")
    entries = [(index, _document(index, data)) for index, data in reader_of(ctx, directory, key).tail(count)]
    if as_json:
        print_json({"entries": [{"index": index, **document} for index, document in entries]})
    else:
        rows = [(index, *(document[column] for column in columns)) for index, document in entries]
        print_table(("entry", *columns), rows)


@ledger.command(epilog="Example: palladion ledger show 12")
@click.argument("index", type=click.IntRange(min=0))
@ledger_option
@key_option
@click.pass_context
def show(ctx: click.Context, index: int, directory: Path | None, key: VerifierKey | None) -> None:
    """Print entry INDEX, all of it, as JSON, once it is proved to be under the signed checkpoint."""
    print_json(_document(index, reader_of(ctx, directory, key).entry(index)))


@ledger.command(epilog="Example: palladion ledger checkpoint > another-machine/checkpoint.txt")
@ledger_option
@key_option
@click.pass_context
def checkpoint(ctx: click.Context, directory: Path | None, key: VerifierKey | None) -> None:
    """Print the signed checkpoint. Saved elsewhere, it shows later if the tail was cut or the log rewritten."""
    for line in reader_of(ctx, directory, key).note.decode().removesuffix("\n").split("\n"):
        echo(line)


ledger.add_command(query)
ledger.add_command(export)
ledger.add_command(expire)
ledger.add_command(prove)
ledger.add_command(check)
ledger.add_command(prune)
ledger.add_command(witness)


def _document(index: int, data: bytes) -> dict[str, Any]:
    """The record of an entry as JSON. Raises FormatError, naming the entry, if it is none."""
    decode_record(data, what=f"entry {index}")
    document: dict[str, Any] = msgspec.json.decode(data)
    return document
