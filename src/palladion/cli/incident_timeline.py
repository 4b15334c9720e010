"""`palladion incident timeline`: what the ledger has of a case, each line with its entries, and proofs on request."""

from collections.abc import Sequence
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.ledger_options import MOMENT
from palladion.cli.output import echo, find_installation, json_option, print_json, print_table, progress
from palladion.clock import timestamp

if TYPE_CHECKING:
    from palladion.incident.timeline import Line, Subjects
    from palladion.ledger.reader import LedgerReader


@click.command("timeline", epilog="Example: palladion incident timeline 3f2a --out evidence")
@click.argument("id")
@click.option("--since", type=MOMENT, metavar="TIME", help="From then on: 2026-11-24, 2026-11-24T09:30, or 7d ago.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write each entry that is named there with its proof, for a stranger (palladion ledger check).",
)
@click.option("--scan", is_flag=True, help="Read every entry, and believe no index.")
@json_option
@click.pass_context
def timeline(
    ctx: click.Context,
    id: str,  # noqa: A002 (click names arguments so)
    since: datetime | timedelta | None,
    out: Path | None,
    scan: bool,
    as_json: bool,
) -> None:
    """Put together what the ledger has of a case: standings, decoys, actions; answers and refusals by the hour.

    Every entry is proved to be under the signed checkpoint before it is shown. As far as that covers the ledger.
    """
    from palladion.incident.cases import find_case
    from palladion.incident.timeline import subjects_of, write_proofs

    installation = find_installation(ctx)
    key = installation.open_gate_root().derive("pseudonyms")
    with installation.open_registry() as registry, registry.read() as records:
        case = find_case(records, id)
        subjects = subjects_of(records, case, key)
    begin = installation.clock.now() - since if isinstance(since, timedelta) else since
    reader = installation.read_ledger()
    lines = _read(reader, subjects, begin, scan=scan)
    written = write_proofs(reader, out, lines) if out is not None else None
    documents = [_document(line, subjects) for line in lines]
    if as_json:
        print_json({"incident": case.id, "entries": reader.size, "timeline": documents, "written": written})
        return
    echo(f"incident {case.id}, from {reader.size} entries of the ledger")
    columns = ("entries", "time", "kind", "client", "by", "said")
    print_table(columns, [_row(document) for document in documents])
    if out is not None:
        echo(f"wrote {written} entries and their proofs to {out}")


def _read(reader: "LedgerReader", subjects: "Subjects", since: datetime | None, *, scan: bool) -> "list[Line]":
    from palladion.incident.timeline import read_timeline
    from palladion.ledger.index import INDEX_FILE, Index
    from palladion.ledger.index import scan as read_all

    if scan:
        return read_timeline(subjects, lambda question: read_all(reader, question), since=since, scan=True)
    with closing(Index(reader.directory / INDEX_FILE)) as index:
        with progress("index") as bar:
            index.update(reader, bar)
        return read_timeline(subjects, lambda question: index.find(reader, question), since=since)


def _document(line: "Line", subjects: "Subjects") -> dict[str, Any]:
    return {
        "entries": list(line.entries),
        "count": line.count,
        "time": timestamp(line.time),
        "kind": line.kind,
        "by": subjects.accounts.get(line.actor, line.actor),
        "client": subjects.accounts.get(line.account) if line.account else None,
        "account": line.account,
        "said": line.said,
        "figures": dict(line.figures),
    }


def _row(document: dict[str, Any]) -> Sequence[object]:
    entries = " … ".join(map(str, document["entries"]))
    return [entries, document["time"], document["kind"], document["client"], document["by"], document["said"]]
