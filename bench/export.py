"""How much CPU does an entry cost on its way to a SIEM, form by form, and how much is a day of them?"""

import json
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

from bench.ledger import JOURNAL_KEY, KEY, ORIGIN, SIGNER
from bench.report import Report, interleaved, main, peak_bytes
from palladion.errors import MissingExtraError
from palladion.export.formats import FORMS, Encode
from palladion.export.item import Item, Source
from palladion.export.parquet import write_parquet
from palladion.export.take import take
from palladion.ledger.index import Question
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record, decode_record, encode_record
from palladion.ledger.writer import BATCH_MAX, Ledger

ENTRIES, QUICK_ENTRIES = 20_000, 4_000
STREAMED, QUICK_STREAMED = 1_000_000, 60_000  # into one Parquet file, for its memory
REQUESTS_PER_DAY = 1_000 * 86_400
START = datetime(2026, 11, 24, tzinfo=UTC)


def measure(report: Report) -> None:
    """Fill the report."""
    count = QUICK_ENTRIES if report.quick else ENTRIES
    repeats = 3 if report.quick else 7
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "ledger"
        records = [_answer(number) for number in range(count)]
        _write(directory, records)
        reader = LedgerReader(directory, KEY)
        source = Source(ORIGIN, str(KEY), reader.size, reader.checkpoint.root.hex(), "gate-1.example")
        items = list(take(reader, Question()))
        documents = [json.loads(item.data) for item in items]
        runs: dict[str, Callable[[], object]] = {
            "json.dumps": lambda: [json.dumps(document) for document in documents],
            "reading and proving": lambda: sum(1 for _ in take(LedgerReader(directory, KEY), Question())),
            **{name: _encoding(form.message, items, source) for name, form in FORMS.items()},
        }
        times = interleaved(runs, repeats=repeats)
        plain = times["json.dumps"]
        report.add("json.dumps of the records, each", 1e6 * plain.median / count, "us CPU", reference=plain.noise)
        for name, timing in times.items():
            if name != "json.dumps":
                beside = timing.beside(plain, "json.dumps")
                report.add(f"{name}, an entry", 1e6 * timing.median / count, "us CPU", reference=beside)
        read = times["reading and proving"]
        for name, form in FORMS.items():
            rate = count / (times[name].median + read.median)
            size = sum(len(form.framed(form.message(item, source))) for item in items) / count
            day = f"{size:.0f} bytes each; {size * REQUESTS_PER_DAY / 1e9:.0f} GB a day at 1,000 requests/s"
            report.add(f"{name}: read, proved and written", rate, "entries/s of CPU", reference=day)
        _parquet(report, Path(folder), items, source, repeats=repeats)


def _parquet(report: Report, folder: Path, items: list[Item], source: Source, *, repeats: int) -> None:
    path = folder / "entries.parquet"
    try:
        write_parquet(path, items[:10], source)
    except MissingExtraError as error:
        report.skip(f"the rows of Parquet: {error.hints[0]}")
        return
    written = interleaved({"parquet": lambda: write_parquet(path, items, source)}, repeats=repeats)["parquet"]
    each = path.stat().st_size / len(items)
    report.add("parquet, an entry", 1e6 * written.median / len(items), "us CPU", reference=written.noise)
    report.add(
        "parquet: an entry on the disk", each, "bytes", reference=f"{each * REQUESTS_PER_DAY / 1e9:.1f} GB a day"
    )
    many = QUICK_STREAMED if report.quick else STREAMED
    grown = peak_bytes(_quick_stream if report.quick else _stream, path, warm=folder / "warm.parquet")
    report.add(f"parquet: memory of {many:,} entries", grown / 1e6, "MB", reference="beyond those of a first file")


def _stream(path: Path) -> None:
    _write_stream(path, STREAMED)


def _quick_stream(path: Path) -> None:
    _write_stream(path, QUICK_STREAMED)


def _write_stream(path: Path, count: int) -> None:
    # a first one, so that the libraries' own memory is not counted, is small
    if path.name.startswith("warm"):
        count = 1000
    write_parquet(path, _items(count), Source(ORIGIN, str(KEY), count, "00" * 32))


def _items(count: int) -> Iterator[Item]:
    for number in range(count):
        data = encode_record(_answer(number))
        yield Item(number, data, decode_record(data, what="an entry"))


def _encoding(encode: Encode, items: list[Item], source: Source) -> Callable[[], object]:
    def run() -> None:
        for item in items:
            # anew: what an entry keeps of itself is part of what it costs
            encode(Item(item.number, item.data, item.record, item.name), source)

    return run


def _answer(number: int) -> Record:
    """As a gate writes them: its digests are as random to a compressor as these."""
    request, answer = (sha256(f"{side} {number}".encode()).hexdigest() for side in ("request", "answer"))
    details = {
        "request": request[::2],
        "route": "/v1/fraud",
        "queries": 1,
        "standing": "trusted",
        "disclosed": "full",
        "mode": "enforce",
        "p_value": None if number % 3 else "0.0317",
        "request_digest": request,
        "answer_digest": answer,
    }
    actor = f"client:{number % 500:020x}"
    return Record("answer.given", START + timedelta(milliseconds=number), actor, "fraud@3", details)


def _write(directory: Path, records: list[Record]) -> None:
    with Ledger.create(directory, ORIGIN, SIGNER, JOURNAL_KEY) as ledger:
        for start in range(0, len(records), BATCH_MAX):
            ledger.append(records[start : start + BATCH_MAX])


if __name__ == "__main__":
    main("export", __doc__ or "", measure)
