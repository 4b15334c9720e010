"""Feeds the watch of one model with live logs: requests in, alerts and records of the ledger out; enforces nothing.

Each alert is recorded as `standing.proposed`, through the process that serves if one runs. A record is durable before
what led to it is kept, so that a crash repeats an alert and never swallows one.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from palladion.access.pseudonyms import pseudonym
from palladion.errors import BusyError, FormatError
from palladion.gate.callers import WATCH
from palladion.gate.curves import load_curve
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import BATCH_MAX
from palladion.lifecycle.clients import standing_record
from palladion.lifecycle.installation import Installation
from palladion.redteam.answering import AT_ONCE, Answering, Subject
from palladion.redteam.replay import Roster, of_model
from palladion.registry import StandingChange
from palladion.watch.feed import Alert, Feed
from palladion.watch.feed_store import FeedStore
from palladion.watch.follow import Line, Position
from palladion.watch.recorded import Layout, Recorded, in_order, parse_line
from palladion.watch.watch import Asker

SAVE_SECONDS = 5.0  # a crash takes in again what came since
PENDING_MAX = 10_000  # alerts that wait for the ledger; then the log waits as well
ROUTE = "feed:"  # before the model: what records name in place of a route


class Feeding:
    """One feed that runs: lines in, alerts out."""

    def __init__(
        self,
        installation: Installation,
        root: Root,
        subject: Subject,
        *,
        answering: Answering,
        roster: Roster,
        store: FeedStore,
        layout: Layout,
        log: Path | None,
        alert: Callable[[Alert, str], None],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`alert` is told of each alert, and the client's name, once it is recorded. `log` is the file that is read."""
        self.broken = 0
        self.first_broken: FormatError | None = None
        self.requests = 0
        self._installation = installation
        self._root = root
        self._subject = subject
        self._answering = answering
        self._roster = roster
        self._store = store
        self._layout = layout
        self._log = log
        self._alert = alert
        self._now = now
        self._pending: list[Alert] = []
        self._lines = 0
        self._position: Position | None = None
        self._saved_at = now()
        kept = store.load(subject.row.digest)
        self._feed = Feed(
            subject.version.model,
            subject.calibration,
            installation.policy.watch,
            known=kept.known,
            shelf=store,
            latest=kept.latest,
            curve=load_curve(subject.row),
        )

    @property
    def left_out(self) -> int:
        """Requests of clients that were too many to be watched."""
        return self._feed.left_out

    @property
    def waiting(self) -> int:
        """Alerts that are not recorded yet, because another command writes."""
        return len(self._pending)

    def run(self, lines: Iterable[Line | None], pause: Callable[[], None]) -> None:
        """Take all lines; `pause` is called where there is nothing new. Saves now and then, and at the end."""
        batch: list[Line] = []
        for line in lines:
            if line is not None:
                batch.append(line)
            if batch and (line is None or len(batch) >= AT_ONCE):
                self.take(batch)
                batch = []
            if self._now() - self._saved_at >= SAVE_SECONDS:
                self.save()
            while len(self._pending) > PENDING_MAX and not self.save():
                pause()
            if line is None:
                self._record()
                pause()
        self.take(batch)
        self.finish(pause)

    def finish(self, pause: Callable[[], None]) -> None:
        """Record and keep everything, however long another command writes."""
        while not self.save():
            pause()

    def take(self, lines: Sequence[Line]) -> None:
        """Observe the requests of some lines. Those that cannot be used are counted."""
        for shown in self._answering.shown(in_order(self._for_the_model(lines), strict=False)):
            if shown.fault is not None:
                self.broken += 1
                self.first_broken = self.first_broken or shown.fault
                continue
            self.requests += 1
            if not shown.fits:
                continue  # the model has refused it where it was asked
            request = shown.request
            client = self._roster.client(request)
            links = (request.address, request.payment, request.device, request.tls)
            asker = Asker(client.id, client.organisation, *links)
            alerts = self._feed.take(asker, shown.inputs, shown.scores, at=request.at)
            self._pending += alerts
        if lines:
            self._position = lines[-1].position

    def save(self) -> bool:
        """Record what waits and keep what changed; False where the ledger is busy, and then nothing is kept."""
        self._saved_at = self._now()
        if not self._record():
            return False
        self._store.save(
            self._feed.changes(),
            latest=self._feed.latest,
            log=self._log,
            position=self._position,
        )
        return True

    def _record(self) -> bool:
        while self._pending:
            some = self._pending[:BATCH_MAX]
            try:
                with self._installation.open_ledger(self._root) as ledger:
                    ledger.append([self._record_of(alert) for alert in some])
            except BusyError:
                return False
            del self._pending[: len(some)]
            for alert in some:
                self._alert(alert, self._roster.name(alert.client))
        return True

    def _record_of(self, alert: Alert) -> Record:
        moment = self._installation.clock.now()
        change = StandingChange(alert.client, alert.standing, alert.reason, WATCH, moment)
        subject = pseudonym(self._root.derive("pseudonyms"), alert.client)
        made = standing_record(
            change, before=alert.before, subject=subject, route=f"{ROUTE}{self._subject.version.model}"
        )
        return Record("standing.proposed", made.time, made.actor, made.subject, made.details)

    def _for_the_model(self, lines: Iterable[Line]) -> Iterator[Recorded]:
        return of_model(self._parsed(lines), self._subject, self._installation.policy)

    def _parsed(self, lines: Iterable[Line]) -> Iterator[Recorded]:
        for line in lines:
            self._lines += 1
            try:
                request = parse_line(line.data, self._lines, self._layout)
            except FormatError as error:
                self.broken += 1
                self.first_broken = self.first_broken or error
                continue
            if request is not None:
                yield request
