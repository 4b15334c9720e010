"""What the ledger is told now and then, while nobody waits for it: cases, refused requests, traffic that changed.

What cannot be recorded is recorded with the next. When that is tried is the caller's affair.
"""

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from typing import Any

from palladion.clock import Clock, timestamp
from palladion.errors import NotFoundError, PalladionError
from palladion.gate.keeper import Keeper
from palladion.gate.stages import REFUSED_FROM_MAX, Journal, Stages
from palladion.gate.touches import Touched, keep_touches, touched_record, why_touched
from palladion.incident.cases import News, ask_case, joined_record, opened_record, shortened
from palladion.incident.links import LINKED_MAX, links_said
from palladion.ledger.record import Record
from palladion.ledger.writer import BATCH_MAX
from palladion.registry import Incident, Registry, StandingChange, names
from palladion.watch.drift import Drift
from palladion.watch.drift_store import Watched
from palladion.watch.newcomers import Alarm
from palladion.watch.why import said

UNTOLD_MAX = 1000  # touches that wait for a registry that cannot be written; the ledger has all of them

log = logging.getLogger("palladion.gate")


class Reports:
    """Of one gate, used from one event loop. Whoever stops waiting for one ends nothing: what was begun goes on."""

    def __init__(
        self,
        journal: Journal,
        stages: Stages,
        keeper: Keeper,
        clock: Clock,
        *,
        actor: str,
        say: Callable[[str], None],
        complain: Callable[[str, PalladionError], None],
    ) -> None:
        """`say` gets a line for each case; `complain` the part that failed, and why."""
        self._journal = journal
        self._stages = stages
        self._keeper = keeper
        self._clock = clock
        self._actor = actor
        self._say = say
        self._complain = complain
        self._cases: list[News] = []  # opened, or with new clients, and not recorded yet
        self._untold: list[Touched] = []  # recorded touches that the registry does not have yet
        self._news: list[News] = []  # from touches and suspensions that are for a person, and not said yet
        self._recording = asyncio.Lock()  # so that nothing is recorded twice

    async def close(self) -> None:
        """Record whatever waits."""
        await asyncio.shield(self._record_touches(every=True))
        await self.cases()
        await self.refusals()

    async def cases(self) -> None:
        """Record touches of decoys and the cases that were opened, by these and by suspensions, or took clients in."""
        await asyncio.shield(self._record_touches())
        await asyncio.shield(self._open_asked())
        opened = [*self._keeper.opened(), *self._news]
        self._news = []
        self._cases += opened
        for news in opened:
            self._say(f"incident {news.case.id}: {news.case.title}")
        if self._cases:
            await asyncio.shield(self._record_cases())

    async def refusals(self) -> None:
        """Record how often requests were refused, by client and reason."""
        # also where none waits now: what is being recorded may yet come back
        await asyncio.shield(self._record_refusals())

    async def drifts(self) -> None:
        """Say and record by which calibrations nothing is promised any more, each once."""
        if any(item.left and not item.left.told for item in self._stages.watch.drifts.watched.values()):
            await asyncio.shield(self._record_drifts())

    async def newcomers(self) -> None:
        """Say and record which newcomers together are unlike honest ones, each block of them once."""
        rate = self._stages.watch.policy.alpha_newcomers
        for item in list(self._stages.watch.drifts.watched.values()):
            if item.newcomers is not None and item.newcomers.alarm(rate) is not None:
                await asyncio.shield(self._record_newcomers(item, rate))

    async def _record_newcomers(self, item: Watched, rate: float) -> None:
        async with self._recording:
            alarm = None if item.newcomers is None else item.newcomers.alarm(rate)
            if alarm is None or item.drift is None:
                return
            record = _newcomers(item, alarm, actor=self._actor, name=self._stages.name)
            try:
                await self._journal.append([record])
            except PalladionError as error:
                self._complain("ledger", error)
                return
            item.drift.tell_newcomers(alarm)
            moved = "; ".join(record.details["moved"])
            log.warning("%d newcomers to %s are unlike honest ones together. %s", alarm.newcomers, item.subject, moved)
            self._say(f"warning: {alarm.newcomers} newcomers to {item.subject} are unlike honest ones together")

    async def _record_drifts(self) -> None:
        async with self._recording:
            for item in list(self._stages.watch.drifts.watched.values()):
                drift = item.left
                if drift is None or drift.told:
                    continue
                record = _drift(item, drift, actor=self._actor)
                try:
                    await self._journal.append([record])
                except PalladionError as error:
                    self._complain("ledger", error)
                    return
                drift.tell()
                moved = "; ".join(record.details["moved"])
                log.warning("traffic has left the calibration of %s: no rate is promised. %s", item.subject, moved)
                self._say(f"warning: traffic has left the calibration of {item.subject}: no rate is promised")

    async def _record_touches(self, *, every: bool = False) -> None:
        async with self._recording:
            for item in self._due(every=every):
                try:
                    await self._journal.append([touched_record(item, actor=self._actor, name=self._stages.name)])
                    self._untold.append(item)
                except PalladionError as error:
                    self._stages.touches.give_back(item)
                    self._complain("ledger", error)
            for item in self._untold[:]:
                try:
                    self._news += await self._keeper.run(partial(_keep_touches, item, self._actor))
                except NotFoundError as error:
                    # another time it is not there either, and others wait
                    log.error("touches of decoy %s are in the ledger alone: %s", item.decoy, error.message)  # noqa: TRY400
                except PalladionError as error:
                    self._complain("registry", error)
                    break
                self._untold.remove(item)
            del self._untold[:-UNTOLD_MAX]

    def _due(self, *, every: bool) -> list[Touched]:
        try:
            return self._stages.touches.due(self._clock.now(), every=every)
        except PalladionError as error:
            self._complain("registry", error)
            return []

    async def _open_asked(self) -> None:
        """Open cases of suspensions that a person has to decide, which are in the ledger as proposed."""
        async with self._recording:
            asked = self._stages.asked[:]
            if not asked:
                return
            try:
                self._news += await self._keeper.run(partial(_ask_cases, asked, self._actor))
                del self._stages.asked[: len(asked)]
            except PalladionError as error:
                self._complain("registry", error)

    async def _record_cases(self) -> None:
        async with self._recording:
            try:
                while self._cases:
                    case, record = self._cases[0].case, self._case(self._cases[0])
                    await self._journal.append([record])
                    del self._cases[0]
                    await self._note(case, record)
            except PalladionError as error:
                self._complain("ledger", error)

    async def _note(self, case: Incident, record: Record) -> None:
        """Tell people in the case what its record says of why it was opened, and of what links its clients."""
        told = "; ".join(words for words in (said(record.details), links_said(record.details)) if words)
        if not told:
            return
        try:
            await self._keeper.run(partial(_note_case, case.id, told, self._actor))
        except PalladionError as error:
            self._complain("registry", error)

    async def _record_refusals(self) -> None:
        async with self._recording:
            waiting, self._stages.refusals = self._stages.refusals, Counter()
            networks, self._stages.refused_from = self._stages.refused_from, {}
            try:
                everything = sorted(waiting.items())
                for start in range(0, len(everything), BATCH_MAX):
                    some = everything[start : start + BATCH_MAX]
                    await self._journal.append([self._refusal(*who, count, networks.get(who)) for who, count in some])
                    waiting -= Counter(dict(some))
            except PalladionError as error:
                self._complain("ledger", error)
            finally:
                self._stages.refusals.update(waiting)
                for who in waiting.keys() & networks.keys():
                    later = self._stages.refused_from.setdefault(who, set())
                    later.update(sorted(networks[who] - later)[: REFUSED_FROM_MAX - len(later)])

    def _case(self, news: News) -> Record:
        try:
            links = self._stages.links(news.case.clients[:LINKED_MAX])
        except PalladionError as error:
            links = []  # the case is told all the same
            self._complain("registry", error)
        why = news.why or self._stages.whys.of_case([*news.case.clients, *news.joined])
        if news.new:
            return opened_record(news.case, why=why, links=links)
        name, now = self._stages.name, self._clock.now()
        return joined_record(news.case, news.joined, name=name, actor=self._actor, now=now, links=links)

    def _refusal(self, client: str, reason: str, requests: int, networks: set[str] | None) -> Record:
        details: dict[str, Any] = {"reason": reason, "requests": requests}
        if networks:
            details["network"] = sorted(networks)
        return Record("answer.refused", self._clock.now(), self._actor, self._stages.name(client), details)


def _keep_touches(touched: Touched, actor: str, registry: Registry) -> list[News]:
    with registry.write() as records:
        return [News(case, True, (), why_touched(touched)) for case in keep_touches(records, [touched], actor=actor)]


def _note_case(case: str, text: str, actor: str, registry: Registry) -> None:
    with registry.write() as records:
        records.incidents.record(case, "noted", shortened(text, names.NOTE_CHARACTERS_MAX), actor=actor)


def _ask_cases(asked: list[StandingChange], actor: str, registry: Registry) -> list[News]:
    together: defaultdict[str, list[str]] = defaultdict(list)
    with registry.write() as records:
        for change in asked:
            with suppress(NotFoundError):  # whoever is gone needs no case
                together[change.reason].append(records.clients.get(change.client).id)
        cases = [ask_case(records, clients, reason=reason, actor=actor) for reason, clients in together.items()]
    return [news for news in cases if news.new or news.joined]


def _newcomers(item: Watched, alarm: Alarm, *, actor: str, name: Callable[[str], str]) -> Record:
    details = {
        "content": item.about.content,
        "calibrated": timestamp(item.about.created),
        "p_value": f"{alarm.p_value:.2g}",
        "newcomers": alarm.newcomers,
        "since": timestamp(datetime.fromtimestamp(alarm.since, UTC)),
        "named": list(map(name, alarm.named)),
        "cause": "campaign",
        "moved": alarm.moved(item.words),
    }
    return Record("watch.newcomers", datetime.fromtimestamp(alarm.until, UTC), actor, item.subject, details)


def _drift(item: Watched, drift: Drift, *, actor: str) -> Record:
    details = {
        "content": item.about.content,
        "calibrated": timestamp(item.about.created),
        "simulated": item.about.simulated,
        "clients": drift.clients,
        "moved": drift.moved(item.words),
    }
    return Record("watch.drifted", datetime.fromtimestamp(drift.left_at, UTC), actor, item.subject, details)
