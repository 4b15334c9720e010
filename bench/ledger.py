"""What does a ledger record cost: appended, on disk, verified and proved, beside hashing and syncing the same bytes?"""

import os
import random
import tempfile
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from http.client import HTTPConnection
from itertools import count, cycle
from pathlib import Path
from unittest.mock import patch

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from bench.gate_house import honest_rows, make_house, predict_body, serving
from bench.report import Report, interleaved, main
from palladion.keys import Ed25519Signer
from palladion.ledger import audit
from palladion.ledger.audit import verify_ledger
from palladion.ledger.checkpoint import VerifierKey
from palladion.ledger.index import INDEX_FILE, Index
from palladion.ledger.proof import encode_proof, verify_proof
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record, decode_record, encode_record
from palladion.ledger.writer import Ledger

ORIGIN = "ledger.example/bench"
SIGNER = Ed25519Signer(bytes(range(32)))
JOURNAL_KEY = bytes(range(32, 64))
KEY = VerifierKey(ORIGIN, SIGNER.public_key)
START = datetime(2026, 11, 24, tzinfo=UTC)
BATCH = 1000
ANSWERS, ANSWER_INPUTS = 200, 28  # of a small model, as in the gate's bench: what it is asked is not in the record
HASH_BYTES, DAY_SECONDS = 32, 86_400
SINGLE = 50  # of what is done one at a time: so many to one reading of the clock


def measure(report: Report) -> None:
    """Fill the report."""
    size = 5000 if report.smoke else 20_000 if report.quick else 300_000
    generator = random.Random(report.seed)
    records = [_record(number, generator) for number in range(size)]
    entries = [encode_record(record) for record in records]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _append(report, root, records, entries)
        _append_one(report, root, records)
        directory = root / "kept"
        _write(directory, records)
        _space(report, directory, entries)
        _verify(report, directory, entries)
        _prove(report, directory, entries, generator)
        _answers(report, root / "gate")


def _record(number: int, generator: random.Random) -> Record:
    """What `model.opened` says about a version: a digest, a file id, and the host."""
    details = {
        "version": number % 50,
        "digest": generator.randbytes(32).hex(),
        "file": generator.randbytes(16).hex(),
        "host": f"host-{number % 20}",
    }
    return Record("model.opened", START + timedelta(milliseconds=number), "user:bench", f"fraud@{number % 50}", details)


def _append(report: Report, root: Path, records: Sequence[Record], entries: Sequence[bytes]) -> None:
    names = (root / f"written {number}" for number in count())
    times = interleaved(
        {
            "ledger": lambda: _write(next(names), records),
            "indexed": lambda: _write_indexed(next(names), records),
            "bare": lambda: _write_bare(root / "bare", entries),
            "encode": lambda: [encode_record(record) for record in records],
        },
        repeats=3 if report.quick else 5,
    )
    size = len(records)
    bare, encode, ledger = times["bare"], times["encode"], times["ledger"]
    report.add(
        f"SHA-256 of each entry, fdatasync every {BATCH}", size / bare.median, "entries/s CPU", reference=bare.noise
    )
    reference = encode.beside(ledger, "appending them")
    report.add("encode records, without writing", size / encode.median, "records/s CPU", reference=reference)
    reference = ledger.beside(bare, "SHA-256 and fdatasync alone")
    name = f"append in batches of {BATCH}, tree and checkpoints included"
    report.at_least(name, size / ledger.median, "records/s CPU", 50_000, reference=reference)
    reference = times["indexed"].beside(ledger, "appending them alone")
    report.at_least(
        f"{name}, and indexed for queries", size / times["indexed"].median, "records/s CPU", 50_000, reference=reference
    )


def _append_one(report: Report, root: Path, records: Sequence[Record]) -> None:
    """One record, one sync: the latency of an operation that must be on record before it is answered."""
    ours, theirs = cycle(records), cycle(map(encode_record, records[:BATCH]))
    bare = os.open(root / "one by one, bare", os.O_WRONLY | os.O_CREAT)
    with Ledger.create(root / "one by one", ORIGIN, SIGNER, JOURNAL_KEY) as ledger:

        def append() -> None:
            for _ in range(SINGLE):
                ledger.append([next(ours)])

        def append_bare() -> None:
            for _ in range(SINGLE):
                entry = next(theirs)
                sha256(entry).digest()
                os.write(bare, entry)
                os.fdatasync(bare)

        for wall, unit in ((False, "ms CPU"), (True, "ms wall time")):
            times = interleaved({"ledger": append, "bare": append_bare}, repeats=9, wall=wall)
            reference = times["ledger"].beside(times["bare"], "SHA-256, write and fdatasync of one")
            report.add("append one record, synced", times["ledger"].median * 1000 / SINGLE, unit, reference=reference)
    os.close(bare)


def _space(report: Report, directory: Path, entries: Sequence[bytes]) -> None:
    on_disk = sum(path.stat().st_blocks * 512 for path in directory.rglob("*") if path.is_file())
    alone = sum(map(len, entries)) / len(entries)
    per_record = on_disk / len(entries)
    reference = f"{per_record / alone:.2f}x the {alone:.0f} bytes of its JSON"
    report.add("a record on disk, tree included", per_record, "bytes", reference=reference)


def _answers(report: Report, folder: Path) -> None:
    """What a gate records of an answer, as it comes to lie on the disk."""
    house = make_house(folder, {"fraud": ANSWER_INPUTS}, report.seed)
    house.configure([{"model": "fraud", "mode": "enforce"}])
    answers = 50 if report.quick else ANSWERS
    rows = honest_rows(ANSWER_INPUTS, answers, house.generator)
    with serving(house) as (_, port), closing(HTTPConnection("127.0.0.1", port)) as connection:
        for number, row in enumerate(rows):
            key = house.keys[number % len(house.keys)]
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
            connection.request("POST", "/v1/models/fraud/predict", predict_body(row), headers)
            connection.getresponse().read()
    found = [
        (len(data), record)
        for index, data in house.installation.read_ledger().entries()
        if (record := decode_record(data, what=f"entry {index}")).kind == "answer.given"
    ]
    if len(found) != answers:
        raise RuntimeError(f"{len(found)} answers are on record, {answers} were given")
    size = sum(length for length, _ in found) / answers
    before = [replace(record, details={**record.details}) for _, record in found]
    for record in before:
        record.details.pop("network")
    without = sum(len(encode_record(record)) for record in before) / answers
    report.add("a gate's record of an answer", size, "bytes", reference=f"{without:.0f} without the client's network")
    # two bytes of length before an entry, its hash, and 1/255 of a hash above it
    on_disk = size + 2 + HASH_BYTES * 256 / 255
    name = "records of 1,000 answers a second, tree included"
    report.add(name, on_disk * 1000 * DAY_SECONDS / 1e9, "GB/day", reference=f"{on_disk:.0f} bytes each")


def _verify(report: Report, directory: Path, entries: Sequence[bytes]) -> None:
    size = len(entries)
    # in one process: what others use is not counted
    with patch.object(audit, "SHARED_MIN", size + 1):
        times = interleaved(
            {
                "ledger": lambda: verify_ledger(directory, KEY),
                "bare": lambda: [sha256(entry).digest() for entry in entries],
            },
            repeats=3 if report.quick else 5,
        )
    name = f"verify a ledger of 1,000,000 entries, extrapolated from {size:,}"
    reference = times["ledger"].beside(times["bare"], "SHA-256 of its entries")
    report.add(name, times["ledger"].median * 1e6 / size, "s CPU", reference=reference)
    wall = interleaved({"ledger": lambda: verify_ledger(directory, KEY)}, repeats=3, wall=True)["ledger"]
    report.at_most(name, wall.median * 1e6 / size, "s wall time", 5.0, reference=f"{_cores()} cores; {wall.noise}")


def _cores() -> int:
    return len(os.sched_getaffinity(0))


def _prove(report: Report, directory: Path, entries: Sequence[bytes], generator: random.Random) -> None:
    size = len(entries)
    indices = [generator.randrange(size) for _ in range(SINGLE)]
    reader = LedgerReader(directory, KEY)
    proofs = {index: encode_proof(index, reader.inclusion_proof(index), reader.note) for index in indices}
    public_key = Ed25519PublicKey.from_public_bytes(SIGNER.public_key)
    signature = SIGNER.sign(reader.note)
    signatures = "verifying an Ed25519 signature"
    rows: dict[str, Callable[[int], object]] = {
        f"prove one of {size:,} entries, ledger opened for it": lambda index: LedgerReader(
            directory, KEY
        ).inclusion_proof(index),
        "prove one, ledger open and its tiles in memory": reader.inclusion_proof,
        "verify a proof, without the ledger": lambda index: verify_proof(proofs[index], entries[index], KEY),
        signatures: lambda _index: public_key.verify(signature, reader.note),
    }
    times = interleaved({name: _each(indices, run) for name, run in rows.items()}, repeats=9)
    for name, timing in times.items():
        reference = timing.noise if name == signatures else timing.beside(times[signatures], signatures)
        report.add(name, timing.median * 1000 / SINGLE, "ms CPU", reference=reference)


def _each(indices: Sequence[int], run: Callable[[int], object]) -> Callable[[], object]:
    return lambda: [run(index) for index in indices]


def _write(directory: Path, records: Sequence[Record]) -> None:
    with Ledger.create(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        for start in range(0, len(records), BATCH):
            ledger.append(records[start : start + BATCH])


def _write_indexed(directory: Path, records: Sequence[Record]) -> None:
    _write(directory, records)
    with closing(Index(directory / INDEX_FILE)) as index:
        index.update(LedgerReader(directory, KEY))


def _write_bare(path: Path, entries: Sequence[bytes]) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    try:
        for start in range(0, len(entries), BATCH):
            batch = entries[start : start + BATCH]
            for entry in batch:
                sha256(entry).digest()
            os.write(descriptor, b"".join(batch))
            os.fdatasync(descriptor)
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main("ledger", __doc__ or "", measure)
