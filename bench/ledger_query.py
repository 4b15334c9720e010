"""How long does an answer with proofs take from a large ledger, and what does its index cost?"""

import random
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from datetime import timedelta
from itertools import islice
from pathlib import Path

from bench.ledger import JOURNAL_KEY, KEY, ORIGIN, SIGNER, START
from bench.report import Report, interleaved, main
from palladion.ledger.index import INDEX_FILE, Index, Question, scan
from palladion.ledger.proof import encode_proof, verify_proof
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record
from palladion.ledger.writer import BATCH_MAX, Ledger

SIZE, QUICK_SIZE = 10_000_000, 60_000
CLIENTS = 5_000
ASKED = 20  # entries in an answer


def measure(report: Report) -> None:
    """Fill the report."""
    size = QUICK_SIZE if report.quick else SIZE
    generator = random.Random(report.seed)
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "ledger"
        _write(directory, size, generator)
        reader = LedgerReader(directory, KEY)
        with closing(Index(directory / INDEX_FILE)) as index:
            began, cpu = time.perf_counter(), time.process_time()
            index.update(reader)
            wall, cpu = time.perf_counter() - began, time.process_time() - cpu
            report.add(f"indexing {size:,} entries, each", 1e6 * cpu / size, "us CPU", reference=f"{wall:.0f} s in all")
            per_entry = (directory / INDEX_FILE).stat().st_size / size
            on_disk = sum(path.stat().st_size for path in (directory / "tile" / "entries").rglob("*") if path.is_file())
            reference = f"entries: {on_disk / size:.0f} bytes"
            report.add("the index on disk, an entry", per_entry, "bytes", reference=reference)
            _ask(report, index, directory, size, generator)
            began = time.perf_counter()
            found = sum(1 for _ in islice(scan(reader, Question(actor="client:7")), ASKED))
            wall = time.perf_counter() - began
            report.add(
                f"one client's oldest {ASKED} by reading all entries before them",
                wall,
                "s wall time",
                reference=f"{found}",
            )


def _ask(report: Report, index: Index, directory: Path, size: int, generator: random.Random) -> None:
    middle = START + timedelta(milliseconds=size // 2)
    questions = {
        "one client's": lambda: Question(actor=f"client:{generator.randrange(CLIENTS)}"),
        "one client's of one kind in the second half": lambda: Question(
            kinds=("answer.refused",), actor=f"client:{generator.randrange(CLIENTS)}", since=middle
        ),
        "one version's": lambda: Question(subject=f"fraud@{generator.randrange(50)}", kinds=("answer.refused",)),
        "one digest's among one client's": lambda: Question(
            actor=f"client:{generator.randrange(CLIENTS)}", details=(("digest", "none"),)
        ),
    }
    runs = {name: _answer(index, directory, made) for name, made in questions.items()}
    for name, timing in interleaved(runs, repeats=9, wall=True).items():
        what = f"{name} newest {ASKED}, each with its proof"
        if "digest" in name:
            # none has it, so each of that client's entries is read, from a bundle of its own
            report.add(what, timing.median, "s wall time", reference=timing.noise)
        else:
            report.at_most(what, timing.median, "s wall time", 1.0, reference=timing.noise)


def _answer(index: Index, directory: Path, made: Callable[[], Question]) -> Callable[[], object]:
    def answer() -> int:
        # as a command does: the ledger is opened for it, and what is written convinces a stranger
        reader, count = LedgerReader(directory, KEY), 0
        for number, _ in islice(index.find(reader, made(), newest_first=True), ASKED):
            proof = encode_proof(number, reader.inclusion_proof(number), reader.note)
            verify_proof(proof, reader.entry(number), KEY)
            count += 1
        return count

    return answer


def _write(directory: Path, size: int, generator: random.Random) -> None:
    digests = [generator.randbytes(32).hex() for _ in range(1000)]
    with Ledger.create(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        for start in range(0, size, BATCH_MAX):
            ledger.append(
                [_record(number, digests, generator) for number in range(start, min(size, start + BATCH_MAX))]
            )


def _record(number: int, digests: list[str], generator: random.Random) -> Record:
    kind = "answer.refused" if generator.random() < 0.02 else "answer.given"
    details = {"n": number, "digest": digests[number % 1000], "route": "/v1/fraud"}
    actor, subject = f"client:{generator.randrange(CLIENTS)}", f"fraud@{generator.randrange(50)}"
    return Record(kind, START + timedelta(milliseconds=number), actor, subject, details)


if __name__ == "__main__":
    main("ledger_query", __doc__ or "", measure)
