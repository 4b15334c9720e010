"""`palladion ledger prove` and `check`: an entry with its proof for a stranger, and what the stranger makes of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from palladion import files
from palladion.cli.ledger_options import (
    ENTRY,
    key_option,
    ledger_option,
    log_key_of,
    reader_of,
    witnessed_note,
)
from palladion.cli.output import (
    WITNESS_KEY,
    actor,
    echo,
    find_installation,
    finding_as_json,
    json_option,
    print_json,
    warn,
)
from palladion.clock import timestamp
from palladion.errors import NotFoundError
from palladion.ledger.tiles import ENTRY_BYTES_MAX

if TYPE_CHECKING:
    from palladion.ledger.checkpoint import VerifierKey
    from palladion.ledger.cosignature import WitnessKey

BODY_BYTES_MAX = 256 * 1024 * 1024  # far beyond what a gate takes or gives in one piece
_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(epilog="Example: palladion ledger prove ledger.example/fraud/12 --disclose --out evidence")
@click.argument("entry", type=ENTRY)
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path(),
    metavar="FOLDER",
    help="Where the two files go. Default: here.",
)
@click.option(
    "--disclose",
    is_flag=True,
    help="Tell the salt of its digests too, on record: whoever has request and answer can then show them.",
)
@ledger_option
@key_option
@json_option
@click.pass_context
def prove(
    ctx: click.Context,
    entry: tuple[str | None, int],
    out: Path,
    disclose: bool,
    directory: Path | None,
    key: "VerifierKey | None",
    as_json: bool,
) -> None:
    """Write ENTRY, a number or a receipt, and the proof that it is in the log; both together convince a stranger.

    The proof is a c2sp.org/tlog-proof: whoever has the log's verifier key checks it without us.
    """
    from palladion.ledger.evidence import PUBLIC_FILE, evidence_of, write_evidence
    from palladion.ledger.proof import verify_proof
    from palladion.ledger.reader import LedgerReader
    from palladion.lifecycle.salts import disclose_salt

    origin, index = entry
    if disclose and directory is not None:
        raise click.UsageError("--disclose is of this installation's ledger: the seeds of salts lie beside that")
    log_key = log_key_of(ctx, key)
    if origin not in {None, log_key.name}:
        raise NotFoundError(f"the receipt is of the log {origin}, this one is {log_key.name}")
    reader, witnessed_by = reader_of(ctx, directory, log_key), list[str]()
    if directory is None:
        witnessed = witnessed_note(ctx, log_key)
        if witnessed is not None and index < witnessed[1].size:
            reader, witnessed_by = LedgerReader(reader.directory, log_key, note=witnessed[0]), witnessed[2]
    data, proof = evidence_of(reader, index)
    if disclose:
        salt = disclose_salt(find_installation(ctx), index, data, actor=actor())
        data, proof = evidence_of(reader, index, salt=salt)
    # as the stranger will: what is written convinces
    verify_proof(proof, data, log_key)
    mode = files.PRIVATE_FILE if disclose else PUBLIC_FILE
    entry_path, proof_path = write_evidence(out, index, data, proof, mode=mode)
    if as_json:
        document = {"entry": str(entry_path), "proof": str(proof_path), "size": reader.size}
        print_json({**document, "witnesses": witnessed_by, "disclosed": disclose})
        return
    echo(f"wrote {entry_path} and {proof_path}, proved in a log of {reader.size} entries{_seen_by(witnessed_by)}")
    if disclose:
        warn(f"whoever has {proof_path} can try guesses of this one request and its answer")


@click.command(epilog="Example: palladion ledger check entry-12.tlog-proof entry-12.json --request asked.json")
@click.argument("proof", type=_FILE)
@click.argument("entry", type=_FILE)
@key_option
@click.option("--request", type=_FILE, metavar="FILE", help="The body that was sent; is it the one on record?")
@click.option("--answer", type=_FILE, metavar="FILE", help="The body that came back; is it the one on record?")
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
    key: "VerifierKey | None",
    request: Path | None,
    answer: Path | None,
    witnesses: "tuple[WitnessKey, ...]",
    quorum: int | None,
    as_json: bool,
) -> None:
    """Check that PROOF shows ENTRY to be in the log. Exit code 1 if it does not. Needs no log and no network.

    With --request or --answer also that these bytes are those of it, for which the proof has to be one with a salt
    (palladion ledger prove --disclose). Without witnesses the log's own word is believed that it tells everybody the
    same.
    """
    from palladion.ledger.cosignature import verify_witnessed
    from palladion.ledger.disclosed import verify_disclosed
    from palladion.ledger.proof import PROOF_BYTES_MAX, verify_proof
    from palladion.ledger.record import decode_record

    sides = {side: path for side, path in (("request", request), ("answer", answer)) if path is not None}
    with finding_as_json(as_json):
        proof_bytes = files.read_limited(proof, size_max=PROOF_BYTES_MAX, what="the proof")
        entry_bytes = files.read_limited(entry, size_max=ENTRY_BYTES_MAX, what="the entry")
        log_key = log_key_of(ctx, key)
        parsed, checkpoint = verify_proof(proof_bytes, entry_bytes, log_key)
        needed = len(witnesses) if quorum is None else quorum
        _, cosigned = verify_witnessed(parsed.note, log_key, witnesses, needed)
        for side, path in sides.items():
            record = decode_record(entry_bytes, what=f"entry {parsed.index}")
            verify_disclosed(parsed, record, side, _body(path), what=str(path))
    times = {witness.name: timestamp(time) for witness, time in cosigned.items()}
    if as_json:
        document = {"ok": True, "origin": checkpoint.origin, "index": parsed.index, "size": checkpoint.size}
        print_json({**document, "witnesses": times, "shown": sorted(sides)})
        return
    echo(
        f"{entry} is entry {parsed.index} of {checkpoint.origin}, as signed at {checkpoint.size} entries"
        f"{_seen_by(list(times))}"
    )
    for side, path in sides.items():
        echo(f"{path} is the {side} that it is of")


def _body(path: Path) -> bytes:
    # reading up to a limit would allocate as much, however short the file is
    with files.storage_errors(path):
        size = path.stat().st_size
    return files.read_limited(path, size_max=min(size, BODY_BYTES_MAX), what="the body")


def _seen_by(witnesses: Sequence[str]) -> str:
    return f" and cosigned by {', '.join(witnesses)}" if witnesses else ""
