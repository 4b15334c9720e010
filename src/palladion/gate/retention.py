"""What a gate keeps of queries: those with marks before their answers leave, the others when there is time for it.

Nothing waits for a query without a mark, so it may cost little and may be lost: what one second brings is written
together, opening the files of clients that ask seldom takes a small part of the time, memory and disk are bounded, and
whatever is beyond is counted and let go. Also erases what has been kept for as long as the policy says.
"""

import asyncio
import logging
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from palladion.clock import Clock
from palladion.errors import PalladionError
from palladion.gate.decode import Feeds
from palladion.gate.marks import Retainer
from palladion.gate.repeating import every
from palladion.keys import Root
from palladion.ledger.bodies import ENTRY_BYTES_MAX, FOLDER, BodyWriter, retained_names
from palladion.ledger.body import Body
from palladion.ledger.expiry import Days, expire, expired_record, is_due
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from palladion.policy.watching import RetentionPolicy

MIB = 1024 * 1024
WAITING_BYTES_MAX = 32 * MIB  # of queries that wait to be written: a second of 10,000 requests with 784 numbers each
ROWS_A_SECOND = 500.0  # that are taken where more are asked, of all clients: some 2 % of a processor
ROW_BYTES = 512  # what a query takes beside its numbers, in memory
FREE_BYTES_MIN = 1024 * MIB  # of the disk, which is for the ledger: without it nothing is answered
OPENING_SHARE = 0.05  # of the time, at most, to open files of clients that did not ask lately
OPENING_SECONDS_MAX = 0.5  # of such time that is saved up
ROWS_AT_ONCE = 16  # some 0.3 ms, in which the interpreter runs nothing else
WRITE_SECONDS = 1.0  # a crash forgets at most so much of what nothing waits for
EXPIRY_SECONDS = 3600.0
EXPIRY_SHARE = 0.05  # of the time, at most, to look for what is to be erased

Append = Callable[[Sequence[Record]], Awaitable[object]]  # to the ledger
_Name = tuple[str, str]  # a client, by pseudonym, and a version
_NONE = np.zeros(0)

log = logging.getLogger("palladion.gate")


@dataclass(eq=False, slots=True)
class _Asked:
    """Queries of one request, with the model's answers."""

    request: str
    disclosed: str
    at: float
    feeds: Feeds
    scores: NDArray[Any] | None
    rows: int
    size: int
    first: int = 0  # which query of its request the first of these is

    def bodies(self) -> list[Body]:
        kept = []
        for row in range(self.rows):
            scores = _NONE if self.scores is None else self.scores[row]
            inputs = {name: array[row] for name, array in self.feeds.items()}
            place = self.first + row
            kept.append(Body(self.request, place, inputs, scores, b"", 0.0, self.disclosed, self.at))
        return kept


class Retention:
    """Of one gate, used from one event loop."""

    def __init__(self, folder: Path, key: bytes, policy: RetentionPolicy, clock: Clock) -> None:
        """`key` is the gate root's "body-cipher"; a policy that keeps nothing still erases."""
        self._writer = BodyWriter(folder, key, queries_max=max(1, policy.queries))
        self.retainer = Retainer(self._writer)
        self._handed = 0
        self.dropped = 0  # queries without marks that were not kept, for want of time, memory or disk
        self._unmarked = policy.unmarked and policy.queries > 0
        self.keeps_texts = policy.texts and policy.queries > 0
        self._folder, self._key, self._clock = folder, key, clock
        self._days = Days(policy.days, policy.marked_days)
        self._total_bytes_max = policy.total_mb * MIB
        self._waiting: dict[_Name, list[_Asked]] = {}
        self._waiting_bytes = 0  # also of what is being written
        self._writing = asyncio.Lock()
        self._asked, self._asked_since = 0, time.monotonic()
        self._share, self._credit = 1.0, 0.0  # of requests that are taken, by how much was asked a second before
        self._used_before = 0  # bytes on the disk before this writer
        self._opening_seconds, self._opened_at = OPENING_SECONDS_MAX, time.monotonic()
        self._erased, self._erased_of = 0, set[str]()  # and not recorded yet
        self._sound = True

    def keep(
        self,
        name: tuple[str, str],
        feeds: Feeds,
        scores: NDArray[Any] | None,
        rows: int,
        *,
        request: str,
        disclosed: str,
    ) -> None:
        """Keep the queries of a request without marks, if there is room; never raises, and nothing waits for it.

        `name` is the client, by pseudonym, and the version, `feeds` are (rows, …) each;
        `scores` (rows, …) are the model's own. Not kept are texts among inputs, and queries too large for one body.
        """
        if self._unmarked and all(array.dtype.kind in "biuf" for array in feeds.values()):
            self._take(name, _Asked(request, disclosed, self._clock.now().timestamp(), feeds, scores, rows, 0))

    def keep_text(
        self,
        name: tuple[str, str],
        feeds: Feeds,
        came: NDArray[Any],
        place: int,
        *,
        request: str,
        disclosed: str,
    ) -> None:
        """Keep one text that a language model was asked, the `place`-th of its request, as `chat.kept` has it.

        As `keep`, where the policy wants texts.
        """
        if self.keeps_texts:
            at = self._clock.now().timestamp()
            self._take(name, _Asked(request, disclosed, at, feeds, came, 1, 0, place))

    def _take(self, name: _Name, asked: _Asked) -> None:
        rows, size = asked.rows, ROW_BYTES * asked.rows
        for array in asked.feeds.values():
            size += array.nbytes
        if asked.scores is not None:
            size += asked.scores.nbytes
        if size > ENTRY_BYTES_MAX // 2 * rows:
            return
        asked.size = size
        self._asked += rows
        self._credit += self._share
        if self._credit < 1 or self._waiting_bytes + size > WAITING_BYTES_MAX:
            self.dropped += rows
            return
        self._credit -= 1
        self._handed += rows
        self._waiting_bytes += size
        self._waiting.setdefault(name, []).append(asked)

    @property
    def handed(self) -> int:
        """Queries since the start that were handed over to be kept, with marks and without."""
        return self.retainer.handed + self._handed

    async def write(self) -> None:
        """Write what waits, as far as there is time to open files."""
        # goes on whoever stops waiting, so that nothing is lost between here and the thread
        await asyncio.shield(self._write_waiting())

    async def settle(self) -> None:
        """Write what waits, and let go of what there is no time for: who asked it may be about to be forgotten."""
        await self.write()
        async with self._writing:
            self.dropped += _rows(self._waiting.values())
            self._waiting, self._waiting_bytes = {}, 0

    async def close(self) -> None:
        """Write all that waits, and end the thread. Raises PalladionError."""
        self._opening_seconds = float("inf")
        try:
            await self.write()
        finally:
            await self.retainer.close()

    async def run(self, append: Append, *, actor: str, subject: str) -> None:
        """Write what waits every second, and erase what is due every hour; until this is cancelled."""
        self._used_before = await asyncio.to_thread(_used, self._folder) - self._writer.grown
        await asyncio.gather(
            every(WRITE_SECONDS, self.write),
            every(EXPIRY_SECONDS, partial(self.erase, append, actor=actor, subject=subject), at_once=True),
        )

    async def erase(self, append: Append, *, actor: str, subject: str) -> None:
        """Erase what is due, and record how much, or the next time if that raises PalladionError."""
        try:
            for name in await asyncio.to_thread(retained_names, self._folder):
                begun = time.monotonic()
                erased = await self._erase(name)
                self._erased += erased
                self._erased_of |= {name[0]} if erased else set()
                await asyncio.sleep((time.monotonic() - begun) * (1 / EXPIRY_SHARE - 1))
        finally:
            if self._erased:
                await asyncio.shield(self._record_erased(append, actor=actor, subject=subject))
        self._used_before = await asyncio.to_thread(_used, self._folder) - self._writer.grown

    async def _record_erased(self, append: Append, *, actor: str, subject: str) -> None:
        bodies, clients, now = self._erased, len(self._erased_of), self._clock.now()
        await append([expired_record(bodies, clients, self._days, actor=actor, subject=subject, now=now)])
        self._erased, self._erased_of = 0, set()

    async def _erase(self, name: _Name) -> int:
        now = self._clock.now()
        try:
            if not await asyncio.to_thread(is_due, self._folder, self._key, name, self._days, now):
                return 0
            return await self.retainer.run(partial(self._expire, name))
        except PalladionError as error:
            # forgotten meanwhile, or damaged: the others are due all the same
            log.warning("retained queries of %s to %s cannot be looked through: %s", *name, error.message)
            return 0

    def _expire(self, name: _Name, writer: BodyWriter) -> int:
        writer.release(*name)
        return expire(self._folder, self._key, name, self._days, self._clock.now())

    async def _write_waiting(self) -> None:
        async with self._writing:
            self._pace()
            waiting, self._waiting = self._waiting, {}
            if not waiting:
                return
            left, lost, reason = await self.retainer.run(partial(self._write, waiting))
        for name, some in left.items():
            self._waiting[name] = [*some, *self._waiting.get(name, ())]
        kept = sum(item.size for some in left.values() for item in some)
        self._waiting_bytes -= sum(item.size for some in waiting.values() for item in some) - kept
        self.dropped += lost
        if reason and self._sound:
            log.warning("queries are not kept: %s", reason)
        self._sound = not reason

    def _pace(self) -> None:
        """Take as large a share of the requests as there is time for, if as many come as did since this was set."""
        now = time.monotonic()
        seconds = now - self._asked_since
        if seconds >= WRITE_SECONDS / 2:
            self._share = min(1.0, ROWS_A_SECOND * seconds / max(1, self._asked))
            self._asked, self._asked_since = 0, now

    def _write(
        self, waiting: dict[_Name, list[_Asked]], writer: BodyWriter
    ) -> tuple[dict[_Name, list[_Asked]], int, str]:
        """What is left for later, how many queries were lost, and why; in the thread that writes."""
        full = self._full(writer)
        if full:
            return {}, _rows(waiting.values()), full
        now = time.monotonic()
        saved = self._opening_seconds + (now - self._opened_at) * OPENING_SHARE
        self._opening_seconds, self._opened_at = min(saved, max(OPENING_SECONDS_MAX, self._opening_seconds)), now
        left: dict[_Name, list[_Asked]] = {}
        lost, reason, left_bytes = 0, "", 0
        # those whose files are open first, and then where opening one brings most
        order = sorted(waiting, key=lambda name: (not writer.is_open(*name), -_rows([waiting[name]])))
        for name in order:
            some = waiting[name]
            was_open, begun = writer.is_open(*name), time.monotonic()
            if not was_open and self._opening_seconds <= 0:
                left_bytes += sum(item.size for item in some)
                if left_bytes > WAITING_BYTES_MAX // 2:
                    lost += _rows([some])
                else:
                    left[name] = some
                continue
            try:
                _append(writer, name, some)
            except (PalladionError, ValueError) as error:
                lost, reason = lost + _rows([some]), str(error)
            if not was_open:
                self._opening_seconds -= time.monotonic() - begun
        return left, lost, reason

    def _full(self, writer: BodyWriter) -> str:
        """Why there is no room on the disk, if there is none."""
        if self._used_before + writer.grown > self._total_bytes_max:
            return f"they take {self._total_bytes_max // MIB} MiB already (retention.total_mb)"
        try:
            found = os.statvfs(self._folder if self._folder.exists() else self._folder.parent)
        except OSError as error:
            return str(error)
        if found.f_bavail * found.f_frsize < FREE_BYTES_MIN:
            return f"less than {FREE_BYTES_MIN // MIB} MiB of the disk are free"
        return ""


def open_retention(installation: Installation, root: Root) -> Retention:
    """What the gate of an installation keeps, and erases; `root` is the gate root."""
    folder, policy = installation.paths.directory / FOLDER, installation.policy.retention
    return Retention(folder, root.derive("body-cipher"), policy, installation.clock)


def _append(writer: BodyWriter, name: _Name, some: Sequence[_Asked]) -> None:
    gathered: list[Body] = []
    for item in some:
        gathered += item.bodies()
        while len(gathered) >= ROWS_AT_ONCE:
            writer.append(*name, gathered[:ROWS_AT_ONCE])
            del gathered[:ROWS_AT_ONCE]
            time.sleep(0)  # requests have their turn
    if gathered:
        writer.append(*name, gathered)


def _rows(waiting: Iterable[Sequence[_Asked]]) -> int:
    return sum(item.rows for some in waiting for item in some)


def _used(folder: Path) -> int:
    """Bytes of all retained bodies on the disk."""
    found = 0
    for path in folder.glob("client-*/*.bodies"):
        try:
            found += path.stat().st_size
        except FileNotFoundError:
            continue  # erased meanwhile
    return found
