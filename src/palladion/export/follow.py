"""Moves entries from a ledger to a destination, once or for as long as the ledger grows, and keeps the place."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NoReturn

from palladion.export.destination import Destination
from palladion.export.item import Item, Source
from palladion.export.position import Position
from palladion.export.take import Names, take
from palladion.ledger.index import Question
from palladion.ledger.reader import LedgerReader

BATCH = 1000  # entries that go, and whose place is kept, together: at most so many go again after a crash

Encode = Callable[[Item, Source], bytes]  # with whatever tells one from the next


@dataclass(frozen=True)
class Wanted:
    """What goes, and how it is written."""

    question: Question
    encode: Encode
    names: Callable[[], Names] | None = None  # asked anew each time: clients are added while an export goes on


@dataclass(frozen=True)
class Exported:
    """What has gone: how many entries, and the first that has not been looked at."""

    entries: int
    next: int


def export(
    reader: LedgerReader, source: Source, wanted: Wanted, destination: Destination, position: Position | None = None
) -> Exported:
    """Send what fits of what `reader` has, from the kept place on. Raises TamperError, StorageError.

    A batch that went before an error went; the place says so.
    """
    start = (position.next(reader) if position is not None else None) or 0
    names = wanted.names() if wanted.names is not None else None
    items = take(reader, wanted.question, start=start, names=names)
    count = 0
    for batch in _batches(items):
        destination.send([wanted.encode(item, source) for item in batch])
        count += len(batch)
        if position is not None:
            position.keep(reader, batch[-1].number + 1)
    # what follows the last that fits was looked at too
    if position is not None and reader.size > start:
        position.keep(reader, reader.size)
    return Exported(count, reader.size)


def follow(
    open_ledger: Callable[[], tuple[LedgerReader, Source]],
    wanted: Wanted,
    destination: Destination,
    position: Position,
    *,
    seconds: float,
    sleep: Callable[[float], None] = time.sleep,
) -> NoReturn:
    """`export` again and again, every so many seconds, until an error or whoever calls `sleep` ends it."""
    while True:
        reader, source = open_ledger()
        export(reader, source, wanted, destination, position)
        sleep(seconds)


def _batches(items: Iterator[Item]) -> Iterator[list[Item]]:
    while batch := list(islice(items, BATCH)):
        yield batch
