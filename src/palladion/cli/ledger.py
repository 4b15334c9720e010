"""`palladion ledger …`: verify the log, prove an entry, check a proof."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from palladion import files
from palladion.cli.ledger_expire import expire
from palladion.cli.ledger_export import export
from palladion.cli.ledger_prune import prune
from palladion.cli.ledger_query import query
from palladion.cli.ledger_witness import witness
from palladion.cli.output import (
    VERIFIER_KEY,
    WITNESS_KEY,
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
from palladion.ledger.checkpoint import NOTE_BYTES_MAX, Checkpoint, VerifierKey
from palladion.ledger.cosignature import WitnessKey
from palladion.ledger.record import decode_record
from palladion.ledger.tiles import ENTRY_BYTES_MAX

if TYPE_CHECKING:
    from palladion.ledger.reader import LedgerReader

key_option = click.option(
    "--key",
    type=VERIFIER_KEY,
    metavar="KEY",
    help="The log's verifier key (palladion key list), for a log that is not this installation's.",
)
ledger_option = click.option(
    "--ledger",
    "directory",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="A ledger's folder, for example a copy; without it, this installation's.",
)


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
        log_key = _key(ctx, key)
        saved = files.read_limited(against, size_max=NOTE_BYTES_MAX, what="the checkpoint") if against else None
        witnessed = _witnessed(ctx, log_key) if directory is None else None
        if directory is None and witnessed is None and find_installation(ctx).policy.ledger.witnesses:
            warn("too few of the witnesses in palladion.toml have cosigned, or what they cosigned was removed")
        notes = [note for note in (saved, witnessed[0] if witnessed else None) if note is not None]
        report = verify_ledger(_directory(ctx, directory), log_key, against=notes, progress=bar)
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
    entries = [(index, _document(index, data)) for index, data in _reader(ctx, directory, key).tail(count)]
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
    print_json(_document(index, _reader(ctx, directory, key).entry(index)))


@ledger.command(epilog="Example: palladion ledger prove 12 --out evidence")
@click.argument("index", type=click.IntRange(min=0))
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Where the two files go. Default: here.",
)
@ledger_option
@key_option
@json_option
@click.pass_context
def prove(
    ctx: click.Context, index: int, out: Path, directory: Path | None, key: VerifierKey | None, as_json: bool
) -> None:
    """Write entry INDEX and the proof that it is in the log; both together convince a stranger.

    The proof is a c2sp.org/tlog-proof: whoever has the log's verifier key checks it without us.
    """
    from palladion.ledger.evidence import evidence_of, write_evidence
    from palladion.ledger.proof import verify_proof
    from palladion.ledger.reader import LedgerReader

    log_key = _key(ctx, key)
    reader, witnessed_by = _reader(ctx, directory, log_key), list[str]()
    if directory is None:
        witnessed = _witnessed(ctx, log_key)
        if witnessed is not None and index < witnessed[1].size:
            reader, witnessed_by = LedgerReader(reader.directory, log_key, note=witnessed[0]), witnessed[2]
    entry, proof = evidence_of(reader, index)
    # as the stranger will: what is written convinces
    verify_proof(proof, entry, log_key)
    entry_path, proof_path = write_evidence(out, index, entry, proof)
    if as_json:
        document = {"entry": str(entry_path), "proof": str(proof_path), "size": reader.size}
        print_json({**document, "witnesses": witnessed_by})
    else:
        echo(f"wrote {entry_path} and {proof_path}, proved in a log of {reader.size} entries{_seen_by(witnessed_by)}")


@ledger.command(epilog="Example: palladion ledger check entry-12.tlog-proof entry-12.json --key ledger.example+…")
@click.argument("proof", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("entry", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@key_option
@click.option(
    "--witness",
    "witnesses",
    type=WITNESS_KEY,
    multiple=True,
    metavar="KEY",
    help="The key of a witness that has to have cosigned. May be repeated.",
)
@click.option(
    "--quorum", type=click.IntRange(min=1), metavar="N", help="How many of these are enough. Default: all of them."
)
@json_option
@click.pass_context
def check(
    ctx: click.Context,
    proof: Path,
    entry: Path,
    key: VerifierKey | None,
    witnesses: tuple[WitnessKey, ...],
    quorum: int | None,
    as_json: bool,
) -> None:
    """Check that PROOF shows ENTRY to be in the log. Exit code 1 if it does not. Needs no log and no network.

    Without witnesses the log's own word is believed that it tells everybody the same.
    """
    from palladion.ledger.cosignature import verify_witnessed
    from palladion.ledger.proof import PROOF_BYTES_MAX, verify_proof

    with finding_as_json(as_json):
        proof_bytes = files.read_limited(proof, size_max=PROOF_BYTES_MAX, what="the proof")
        entry_bytes = files.read_limited(entry, size_max=ENTRY_BYTES_MAX, what="the entry")
        log_key = _key(ctx, key)
        parsed, checkpoint = verify_proof(proof_bytes, entry_bytes, log_key)
        needed = len(witnesses) if quorum is None else quorum
        _, cosigned = verify_witnessed(parsed.note, log_key, witnesses, needed)
    times = {witness.name: timestamp(time) for witness, time in cosigned.items()}
    if as_json:
        document = {"ok": True, "origin": checkpoint.origin, "index": parsed.index, "size": checkpoint.size}
        print_json({**document, "witnesses": times})
    else:
        echo(
            f"{entry} is entry {parsed.index} of {checkpoint.origin}, as signed at {checkpoint.size} entries"
            f"{_seen_by(list(times))}"
        )


@ledger.command(epilog="Example: palladion ledger checkpoint > another-machine/checkpoint.txt")
@ledger_option
@key_option
@click.pass_context
def checkpoint(ctx: click.Context, directory: Path | None, key: VerifierKey | None) -> None:
    """Print the signed checkpoint. Saved elsewhere, it shows later if the tail was cut or the log rewritten."""
    for line in _reader(ctx, directory, key).note.decode().removesuffix("\n").split("\n"):
        echo(line)


ledger.add_command(query)
ledger.add_command(export)
ledger.add_command(expire)
ledger.add_command(prune)
ledger.add_command(witness)


def _document(index: int, data: bytes) -> dict[str, Any]:
    """The record of an entry as JSON. Raises FormatError, naming the entry, if it is none."""
    decode_record(data, what=f"entry {index}")
    document: dict[str, Any] = msgspec.json.decode(data)
    return document


def _witnessed(ctx: click.Context, key: VerifierKey) -> tuple[bytes, Checkpoint, list[str]] | None:
    """This installation's last witnessed note, its checkpoint, and who cosigned it; None without witnesses."""
    from palladion.lifecycle.witnesses import read_witnessed, witnesses_of

    installation = find_installation(ctx)
    policy = installation.policy.ledger
    known = [witness.key for witness in witnesses_of(policy)]
    found = read_witnessed(installation.paths.ledger, key, known, policy.witness_quorum) if known else None
    return None if found is None else (found[0], found[1], [witness.name for witness in found[2]])


def _seen_by(witnesses: Sequence[str]) -> str:
    return f" and cosigned by {', '.join(witnesses)}" if witnesses else ""


def _directory(ctx: click.Context, directory: Path | None) -> Path:
    return directory if directory is not None else find_installation(ctx).paths.ledger


def _key(ctx: click.Context, key: VerifierKey | None) -> VerifierKey:
    return key if key is not None else find_installation(ctx).ledger_key()


def _reader(ctx: click.Context, directory: Path | None, key: VerifierKey | None) -> "LedgerReader":
    from palladion.ledger.reader import LedgerReader

    return LedgerReader(_directory(ctx, directory), _key(ctx, key))
