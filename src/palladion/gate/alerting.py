"""A running gate's alerts: follows the ledger, keeps what is due in the outbox, and sends it, each channel by itself.

Nothing that answers requests waits for this: the ledger is read a second later from what was published, and whatever
talks to other machines does so in threads. What cannot be done now is done with the next look, also after a restart.
"""

import asyncio
import logging
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from palladion.access.pseudonyms import pseudonym
from palladion.clock import Clock
from palladion.errors import PalladionError, TamperError
from palladion.gate.keeper import Keeper
from palladion.gate.recorder import Recorder
from palladion.gate.stages import Journal
from palladion.gate.witnessing import Witnessing
from palladion.incident.alerts.alert import Alert, Event, alert_id
from palladion.incident.alerts.channels import Channel, open_channels
from palladion.incident.alerts.events import HEARD, event_of
from palladion.incident.alerts.messages import Message
from palladion.incident.alerts.outbox import FILE, Outbox
from palladion.incident.alerts.routing import Routing
from palladion.incident.alerts.sending import Outcome, send_due
from palladion.incident.alerts.topics import OpenCase, Topic
from palladion.keys import Root
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.installation import Installation
from palladion.registry import Records, Registry

LOOK_SECONDS = 1.0
ENTRIES_AT_ONCE = 20_000  # of one look; more are read with the next
OLD = timedelta(days=7)  # what is on record for longer is no alert any more: whoever comes back then reads the cases
NAMED_MAX = 3
FAILING_AFTER = 3  # attempts that failed one after the other, until a channel counts as one that takes nothing
CLOSE_SECONDS = 12.0  # for what is being sent; a channel's own limit is shorter
_DEAF = "alerts do not follow the ledger"
# every entry whose kind means something has one of these bytes in it; others need not be decoded
_HEARD = re.compile(b"|".join(re.escape(f'"kind":"{kind}"'.encode()) for kind in sorted(HEARD)))

log = logging.getLogger("palladion.gate")


@dataclass(frozen=True)
class _Read:
    """What was read of the ledger, and where the next look begins."""

    events: tuple[Event, ...]
    place: tuple[str, int] | None


class Alerting:
    """Of one gate, used from one event loop."""

    def __init__(
        self,
        outbox: Outbox,
        channels: Sequence[Channel],
        routing: Routing,
        clock: Clock,
        *,
        ledger: Callable[[], LedgerReader],
        cases: Callable[[], "asyncio.Future[Mapping[str, OpenCase]]"],
        journal: Journal,
        actor: str,
        subject: str,
        sound: Callable[[], bool] = lambda: True,
        contradicted: Callable[[], bool] = lambda: False,
    ) -> None:
        """`ledger` opens it at its last checkpoint, `cases` reads the open ones; escalations go into the `journal`.

        `sound` says whether the ledger takes records, `contradicted` whether a witness has seen another history of it.
        """
        self._outbox = outbox
        self._channels = {channel.policy.name: channel for channel in channels}
        self._routing = routing
        self._clock = clock
        self._ledger = ledger
        self._cases = cases
        self._journal = journal
        self._actor, self._subject = actor, subject
        self._sound, self._contradicted = sound, contradicted
        self._told: set[str] = set()
        self._failures: dict[str, int] = {}
        self._looking: asyncio.Future[None] | None = None
        self._sending: dict[str, asyncio.Task[None]] = {}
        # one for each channel, so that none waits for another, and one for the outbox
        self._threads = ThreadPoolExecutor(len(self._channels) + 1, thread_name_prefix="alerts")

    @property
    def faults(self) -> list[str]:
        """What keeps alerts from being sent, for the health page."""
        deaf = [f"{_DEAF}: the log says why"] if _DEAF in self._told else []
        failing = sorted(name for name, count in self._failures.items() if count >= FAILING_AFTER)
        return deaf + [f"alerts cannot be sent by {name}" for name in failing]

    async def run(self) -> None:
        """Look again and again, until it is cancelled."""
        while True:
            # what was begun goes on: its threads cannot be stopped, and must not meet those of a later look
            self._looking = asyncio.ensure_future(self.look())
            await asyncio.shield(self._looking)
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Hear what is new, put down what is due, and have it sent; whatever fails is tried with the next look."""
        steps = {
            _DEAF: self._hear,
            "what is wrong with the ledger cannot be told": self._tell_of_the_ledger,
            "alerts cannot be put down": self._plan,
        }
        for part, step in steps.items():
            try:
                await step()
            except PalladionError as error:
                self._complain(part, error)
            except Exception:
                log.exception("alerts failed")
            else:
                self._told.discard(part)
        for name, channel in self._channels.items():
            if name not in self._sending:
                self._sending[name] = asyncio.create_task(self._send(name, channel))

    async def close(self) -> None:
        """Look once more, wait for what is being sent, and close the outbox, which keeps the rest."""
        if self._looking is not None:
            await self._looking
        await self.look()
        if self._sending:
            await asyncio.wait(list(self._sending.values()), timeout=CLOSE_SECONDS)
        for task in self._sending.values():
            task.cancel()
        await asyncio.get_running_loop().run_in_executor(None, partial(self._threads.shutdown, wait=True))
        self._outbox.close()

    async def _hear(self) -> None:
        try:
            read = await self._thread(self._read)
        except TamperError:
            if "tampered" not in self._told:
                await self._cry(_of_ledger(self._clock.now(), self._subject, "tampered"))
                self._told.add("tampered")
            raise
        if read.place is None:
            return
        cases = await self._cases() if read.events else {}
        await self._take_in(read.events, cases, place=read.place)

    def _read(self) -> _Read:
        ledger, now = self._ledger(), self._clock.now()
        origin = ledger.checkpoint.origin
        start = self._outbox.place(origin)
        if start is None:
            # what was before is no news
            return _Read((), (origin, ledger.size))
        if start == ledger.size:
            return _Read((), None)
        # a ledger that was restored from a backup may end before where we were
        end = min(ledger.size, start + ENTRIES_AT_ONCE)
        events: list[Event] = []
        for index, data in ledger.entries(start, end):
            if _HEARD.search(data) is None:
                continue
            record = decode_record(data, what=f"entry {index}")
            event = event_of(record, index) if now - record.time <= OLD else None
            if event is not None:
                events.append(event)
        return _Read(tuple(events), (origin, end))

    async def _tell_of_the_ledger(self) -> None:
        """What is wrong with the ledger itself: a contradiction is recorded; that nothing can be, can only be said."""
        if self._contradicted() and "contradicted" not in self._told:
            await self._journal.append([Record("ledger.contradicted", self._clock.now(), self._actor, self._subject)])
            self._told.add("contradicted")
        if not self._sound() and "unsound" not in self._told:
            await self._cry(_of_ledger(self._clock.now(), self._subject, "unsound"))
            self._told.add("unsound")

    async def _cry(self, alert: Alert) -> None:
        """Have an alert sent that is not on record; at once, and once, where the outbox cannot be written either."""
        try:
            await self._take_in((alert,), {}, place=None)
        except PalladionError as error:
            self._complain("alerts cannot be kept", error)
            message = Message(Topic.of(alert, self._clock.now()), "alert", 1, self._routing.oncall.link)
            levels = self._routing.level(1, alert) if self._routing.levels else ()
            for name in {*self._routing.direct(alert), *levels}:
                try:
                    await self._thread(partial(self._channels[name].send, message))
                except PalladionError as failure:
                    log.error("alerts: %s", failure.message)  # noqa: TRY400

    async def _plan(self) -> None:
        for topic in await self._thread(partial(self._outbox.plan, self._routing, self._clock.now())):
            await self._journal.append([self._escalated(topic, level) for level in topic.unrecorded])
            await self._thread(partial(self._outbox.recorded, topic.id, topic.unrecorded))

    async def _send(self, name: str, channel: Channel) -> None:
        try:
            link = self._routing.oncall.link
            self._look_at(name, await self._thread(partial(send_due, self._outbox, channel, self._clock, link=link)))
        except PalladionError as error:
            self._complain(f"alerts cannot be sent by {name}", error)
        except Exception:
            log.exception("sending alerts failed")
        finally:
            self._sending.pop(name, None)

    def _look_at(self, name: str, outcomes: Sequence[Outcome]) -> None:
        for outcome in outcomes:
            if not outcome.error:
                if self._failures.pop(name, 0):
                    log.warning("alerts are sent by %s again", name)
                continue
            self._failures[name] = self._failures.get(name, 0) + 1
            if self._failures[name] == 1:
                log.error("alerts: %s", outcome.error)
            if outcome.lost:
                log.error("alerts: %s took nothing for days: an alert was given up", name)

    def _escalated(self, topic: Topic, level: int) -> Record:
        last = level > self._routing.levels
        details: dict[str, Any] = {
            "alert": topic.id,
            "level": min(level, self._routing.levels),
            "channels": list(self._routing.level(level, topic.alert)),
            "last": last,
        }
        return Record("incident.escalated", self._clock.now(), self._actor, f"incident:{topic.alert.case}", details)

    async def _take_in(
        self, events: Sequence[Event], cases: Mapping[str, OpenCase], *, place: tuple[str, int] | None
    ) -> None:
        now, repeat = self._clock.now(), self._routing.repeat
        await self._thread(partial(self._outbox.take_in, events, cases, place=place, now=now, repeat=repeat))

    async def _thread(self, work: Callable[[], Any]) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)

    def _complain(self, part: str, error: PalladionError) -> None:
        """Say it once, not every second."""
        if part not in self._told:
            self._told.add(part)
            log.error("%s: %s", part, error.message)


def open_alerting(
    installation: Installation,
    root: Root,
    keeper: Keeper,
    recorder: Recorder,
    witnessing: Witnessing | None,
    *,
    actor: str,
) -> Alerting | None:
    """What sends the alerts of a policy; None where it names no channel. Raises PolicyError, MissingExtraError.

    Raises FormatError on a damaged outbox, StorageError on one that cannot be written.
    """
    policy, home = installation.policy, installation.paths.home
    if not policy.alert:
        return None
    channels = open_channels(policy.alert, home, installation.clock, source=home.name)
    named = any(channel.names for channel in policy.alert)
    key = root.derive("pseudonyms")
    return Alerting(
        Outbox.open(installation.paths.directory / FILE),
        channels,
        Routing(policy.alert, policy.oncall),
        installation.clock,
        ledger=installation.read_ledger,
        cases=lambda: asyncio.ensure_future(keeper.run(partial(_read_cases, key, named))),
        journal=recorder,
        actor=actor,
        subject=home.name,
        sound=lambda: recorder.sound,
        contradicted=lambda: witnessing is not None and witnessing.contradicted,
    )


def open_cases(records: Records, key: bytes, *, named: bool) -> dict[str, OpenCase]:
    """The cases that are not closed, by id and by what they concern: pseudonyms of clients, and decoys."""
    touched: dict[str, set[str]] = {}
    for decoy in records.decoys.all():
        if decoy.incident is not None:
            touched.setdefault(decoy.incident, set()).add(f"decoy:{decoy.id}")
    found: dict[str, OpenCase] = {}
    for case in (*records.incidents.all(state="open"), *records.incidents.all(state="acknowledged")):
        subjects = {pseudonym(key, client) for client in case.clients} | touched.get(case.id, set())
        name = _names(records, case.clients) if named else ""
        taken = case.state == "acknowledged"
        item = OpenCase(case.id, frozenset(subjects), several=len(case.clients) > 1, taken=taken, name=name)
        # a client of two cases is told of in the older one, as the gate adds to that
        found |= {subject: item for subject in subjects if subject not in found}
        found[case.id] = item
    return found


def _read_cases(key: bytes, named: bool, registry: Registry) -> dict[str, OpenCase]:
    with registry.read() as records:
        return open_cases(records, key, named=named)


def _names(records: Records, clients: Sequence[str]) -> str:
    named = [f"{client.organisation}/{client.name}" for client in map(records.clients.get, clients[:NAMED_MAX])]
    more = f" and {len(clients) - NAMED_MAX} more" if len(clients) > NAMED_MAX else ""
    return f"{', '.join(named)}{more}"


_OF_LEDGER = {
    "unsound": (
        "the ledger takes nothing more: no request is answered",
        "answers are withheld, because they could not be recorded",
        "look at the disk and at the gate's log, then restart it",
    ),
    "tampered": (
        "the ledger on the disk is not what was signed: it was changed",
        "",
        "palladion ledger verify says where; keep a copy of the folder before anything else",
    ),
}


def _of_ledger(now: datetime, subject: str, thread: str) -> Alert:
    """What cannot be on record, because it is about the record."""
    sentence, done, next_step = _OF_LEDGER[thread]
    return Alert(
        id=alert_id(thread, "ledger", int(now.timestamp())),
        kind="ledger",
        severity="critical",
        thread=thread,
        subject=subject,
        sentence=sentence,
        time=now,
        done=done,
        next=next_step,
    )
