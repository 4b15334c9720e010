"""`palladion ledger query`: entries of a kind, a client, a version or a time, each proved, with proofs on request."""

from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from palladion.cli.ledger_options import ledger_options, question_of, question_options
from palladion.cli.output import echo, find_installation, json_option, print_json, print_table, progress
from palladion.clock import timestamp

if TYPE_CHECKING:
    from palladion.ledger.index import Question
    from palladion.ledger.reader import LedgerReader
    from palladion.ledger.record import Record

LIMIT_MAX = 1_000_000


@click.command(epilog="Example: palladion ledger query --client acme/web --kind answer.given --since 7d --limit 20")
@question_options
@click.option("--limit", type=click.IntRange(1, LIMIT_MAX), default=100, show_default=True, help="How many at most.")
@click.option("--newest", is_flag=True, help="The newest first.")
@click.option("--count", "only_count", is_flag=True, help="Say how many there are, and show none.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="FOLDER",
    help="Write each entry there with its proof, for a stranger (palladion ledger check).",
)
@click.option("--scan", is_flag=True, help="Read every entry, and believe no index.")
@ledger_options("A ledger's folder, for example a copy, which is scanned; without it, this installation's.")
@json_option
@click.pass_context
def query(ctx: click.Context, /, **asked: Any) -> None:
    """Find entries, oldest first; each is proved to be under the signed checkpoint before it is shown.

    An index beside the ledger is brought up to date first. It proves nothing: --scan finds what an index that somebody
    changed would hide.
    """
    from palladion.ledger.evidence import write_all
    from palladion.ledger.reader import LedgerReader
    from palladion.ledger.record import document_of

    directory, key = asked["directory"], asked["key"]
    folder = directory or find_installation(ctx).paths.ledger
    reader = LedgerReader(folder, key or find_installation(ctx).ledger_key())
    question = question_of(ctx, asked)
    scanned = asked["scan"] or directory is not None
    with closing(_Found(reader, question, scanned=scanned, newest=asked["newest"])) as found:
        if asked["only_count"]:
            _say_count(sum(1 for _ in found), as_json=asked["as_json"])
            return
        entries = list(islice(found, asked["limit"] + 1))
    more = len(entries) > asked["limit"]
    entries = entries[: asked["limit"]]
    if asked["out"] is not None:
        write_all(reader, asked["out"], [number for number, _ in entries])
    if asked["as_json"]:
        print_json({"entries": [{"index": number, **document_of(record)} for number, record in entries], "more": more})
        return
    rows = [(number, timestamp(item.time), item.kind, item.subject, item.actor) for number, item in entries]
    print_table(("entry", "time", "kind", "subject", "actor"), rows)
    if more:
        echo(f"… and more: --limit {asked['limit']} was reached")
    if asked["out"] is not None:
        echo(f"entries written to {asked['out']}, each with its proof: {len(entries)}")


class _Found:
    """The entries that fit, one after the other, from the index or from a scan."""

    def __init__(self, reader: "LedgerReader", question: "Question", *, scanned: bool, newest: bool) -> None:
        from palladion.ledger.index import INDEX_FILE, Index, scan

        self._index: Index | None = None
        if scanned:
            entries = scan(reader, question)
            # a scan goes forward: the newest first means to hold all of them
            self._entries: Iterator[tuple[int, Record]] = iter(list(entries)[::-1]) if newest else entries
            return
        self._index = Index(reader.directory / INDEX_FILE)
        with progress("index") as bar:
            self._index.update(reader, bar)
        self._entries = self._index.find(reader, question, newest_first=newest)

    def __iter__(self) -> Iterator[tuple[int, "Record"]]:
        return self._entries

    def close(self) -> None:
        if self._index is not None:
            self._index.close()


def _say_count(count: int, *, as_json: bool) -> None:
    if as_json:
        print_json({"count": count})
    else:
        echo(f"{count} entries")
