"""Loads the newest good versions of feeds, again when there are newer ones, and fetches those due where it may.

Everything takes a thread of its own, never the event loop: a feed of a million networks takes seconds to read, and a
server of a feed may take a minute. What cannot be read or fetched changes nothing: the versions before count until
their end, and it is said and recorded once.
"""

import asyncio
import gc
import logging
import random
import sys
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar

from palladion.clock import Clock, timestamp
from palladion.errors import BusyError, PalladionError
from palladion.gate.intelligence.intelligence import ACTOR, Intelligence
from palladion.gate.intelligence.weights import PURPOSE, read_granted
from palladion.gate.repeating import every
from palladion.intel.indicators import LoadedFeed
from palladion.intel.refresh import Refreshed, due, reader, refresh, refreshed_record
from palladion.intel.store import FOLDER, LOADED_MAX, FeedStore, Version, ends
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from palladion.policy import Policy
from palladion.policy.intelligence import FeedPolicy
from palladion.registry import Registry

LOOK_SECONDS = 30.0  # between looks at what is on the disk, and at what is due
JITTER = 0.1  # of the hours between refreshes: gates that were started together do not ask together
FIRST_JITTER_SECONDS = 60.0  # of a feed that was never fetched
RETRY = timedelta(minutes=15)  # after a failure; twice that after the next one, and so on
RETRY_MAX = timedelta(days=1)
PENDING_MAX = 100  # records that wait for the ledger
SWITCH_SECONDS = 0.0005  # in which the thread lets the event loop go on, while it reads

TOLD_SECONDS = 10.0

_Result = TypeVar("_Result")
Append = Callable[[Sequence[Record]], Awaitable[object]]

log = logging.getLogger("palladion.gate")


class Feeds:
    """The feeds of one gate. For one event loop."""

    def __init__(
        self,
        installation: Installation,
        intelligence: Intelligence,
        *,
        append: Append,
        say: Callable[[str], None],
        generator: random.Random | None = None,
    ) -> None:
        """`append` writes to the ledger, and `say` gets a line for each version that is loaded."""
        self._store = FeedStore(installation.paths.directory / FOLDER)
        self._home: Path = installation.paths.home
        self._clock: Clock = installation.clock
        self._installation = installation
        self._intelligence = intelligence
        self._append = append
        self._say = say
        self._generator = generator or random.Random()  # noqa: S311 (it spreads requests, and guards nothing)
        self._loaded: dict[str, tuple[Version, LoadedFeed]] = {}
        self._unloaded: dict[str, str] = {}  # why, by feed
        self._unfetched: dict[str, str] = {}
        self._waits: dict[str, tuple[datetime, timedelta]] = {}  # until when, and for how long after a failure
        self._broken: dict[str, tuple[Version, PalladionError, datetime]] = {}  # not read again until then
        self._pending: list[Record] = []

    @property
    def faults(self) -> Mapping[str, str]:
        """Why a feed could not be loaded or fetched, by its name, until it can."""
        return {**self._unfetched, **self._unloaded}

    async def run(self) -> None:
        """Look after feeds, and tell of hits, until it is cancelled."""
        await asyncio.gather(
            every(LOOK_SECONDS, self.look, at_once=True),
            every(TOLD_SECONDS, self.tell),
            self._intelligence.signatures.run(),
        )

    async def tell(self) -> None:
        """Record hits that wait. Raises what the ledger raises."""
        await self._intelligence.record(self._append)

    async def close(self) -> None:
        """Record what waits, as far as the ledger takes it."""
        with suppress(PalladionError):
            while self._intelligence.waiting:
                await self.tell()
            await self._record()

    def shown(self, status: dict[str, Any]) -> dict[str, Any]:
        """What a gate says of itself, with the feeds, and with what they know of each of its `clients`."""
        clients = [{**client, "listed": self._intelligence.words(client["id"])} for client in status["clients"]]
        feeds = [
            {
                "feed": name,
                "version": version.digest,
                "items": version.items,
                "valid_until": timestamp(version.valid_until),
            }
            for name, (version, _) in self._loaded.items()
        ]
        return {**status, "clients": clients, "feeds": feeds, "feed_faults": dict(self.faults)}

    async def look(self) -> None:
        """Fetch what is due, if the policy lets the gate; load what is new; record. Raises what the ledger raises."""
        policy = self._installation.policy
        if policy.feed:
            if policy.intel.refresh:
                await self._refresh(policy)
            await self._load(policy)
        await self._record()

    async def _load(self, policy: Policy) -> None:
        loaded, failed = await _in_thread(partial(self._read, policy.feed, dict(self._loaded)))
        # another policy may have come meanwhile: it is looked at next time
        self._unloaded = {name: why for name, why in self._unloaded.items() if name in failed}
        for feed in policy.feed:
            if (error := failed.get(feed.name)) is not None:
                known = self._loaded.get(feed.name)
                version = None if known is None else known[0]
                self._fail(Refreshed(feed, version, changed=False, error=error), error, self._unloaded)
        before, self._loaded = self._loaded, loaded
        feeds = [loaded[feed.name][1] for feed in policy.feed if feed.name in loaded]
        if [*map(id, feeds)] != [*map(id, self._intelligence.feeds)]:
            self._intelligence.take(feeds)
        for name, (version, _) in loaded.items():
            if name not in before or before[name][0].digest != version.digest:
                until = timestamp(version.valid_until)
                self._say(f"feed {name}: {version.items} items, version {version.digest[:16]}, until {until}")

    def _read(
        self, feeds: Sequence[FeedPolicy], before: Mapping[str, tuple[Version, LoadedFeed]]
    ) -> tuple[dict[str, tuple[Version, LoadedFeed]], dict[str, PalladionError]]:
        """What is to be loaded now, and why a feed cannot be. In the thread."""
        found: dict[str, tuple[Version, LoadedFeed]] = {}
        failed: dict[str, PalladionError] = {}
        items = 0
        for feed in feeds:
            known = before.get(feed.name)
            try:
                version = self._store.current(feed.name)
                if version is None or (version.kind, version.format) != (feed.kind, feed.format):
                    continue
                items += version.items
                if items > LOADED_MAX:
                    raise BusyError(
                        f"all feeds together have more than {LOADED_MAX} items: this one is not loaded",
                        "leave out a feed, or put the ones that matter first",
                    )
                found[feed.name] = self._version(feed, version, known)
            except PalladionError as error:
                failed[feed.name] = error
                if known is not None and known[1].policy == feed and items <= LOADED_MAX:
                    found[feed.name] = known
        return found, failed

    def _version(
        self, feed: FeedPolicy, version: Version, known: tuple[Version, LoadedFeed] | None
    ) -> tuple[Version, LoadedFeed]:
        now = self._clock.now()
        broken = self._broken.pop(feed.name, None)
        if broken is not None and broken[0] == version and now < broken[2] <= now + RETRY:
            self._broken[feed.name] = broken
            raise broken[1]
        if known is not None and known[0].digest == version.digest and known[1].policy.kind == feed.kind:
            if known[0] == version and known[1].policy == feed:
                return known
            return version, known[1].renewed(feed, ends(feed, version))
        try:
            with _quietly():
                return version, self._store.load_version(feed, version)
        except PalladionError as error:
            # reading what is broken takes as long each time
            self._broken[feed.name] = version, error, now + RETRY
            raise

    async def _refresh(self, policy: Policy) -> None:
        for outcome in await _in_thread(partial(self._fetch, policy.feed)):
            self._refreshed(outcome)

    def _fetch(self, feeds: Sequence[FeedPolicy]) -> list[Refreshed]:
        """Fetch those whose time has come. In the thread."""
        now = self._clock.now()
        some = [feed for feed in feeds if self._is_due(feed, now)]
        try:
            return refresh(self._store, some, reader(self._home), now=now) if some else []
        except BusyError:
            return []  # a command does it

    def _refreshed(self, outcome: Refreshed) -> None:
        feed, now = outcome.feed, self._clock.now()
        if outcome.error is not None:
            _, before = self._waits.get(feed.name, (now, timedelta(0)))
            wait = min(max(RETRY, 2 * before), RETRY_MAX)
            self._waits[feed.name] = (now + wait * self._generator.uniform(1, 1 + JITTER), wait)
            self._fail(outcome, outcome.error, self._unfetched)
            return
        self._waits.pop(feed.name, None)
        self._unfetched.pop(feed.name, None)
        if outcome.changed:
            self._pend(refreshed_record(outcome, actor=ACTOR, now=now))

    def _is_due(self, feed: FeedPolicy, now: datetime) -> bool:
        """Whether it is to be fetched: when it is due, and a random time later."""
        waits = self._waits.get(feed.name)
        if waits is not None and now < waits[0] and waits[0] - now <= RETRY_MAX * (1 + JITTER):
            return False
        try:
            current = self._store.current(feed.name)
        except PalladionError:
            current = None  # fetched anew
        if not due(feed, current, now):
            return False
        if waits is None:
            hours = feed.refresh_hours * JITTER
            most = timedelta(seconds=FIRST_JITTER_SECONDS) if current is None else timedelta(hours=hours)
            self._waits[feed.name] = (now + most * self._generator.random(), timedelta(0))
            return False
        return True

    def _fail(self, outcome: Refreshed, error: PalladionError, told: dict[str, str]) -> None:
        """Say and record once that a feed could not be loaded or fetched."""
        name = outcome.feed.name
        if told.get(name) == error.message:
            return
        told[name] = error.message
        log.warning("feed %s: %s; what is loaded counts until its end", name, error.message)
        self._pend(refreshed_record(outcome, actor=ACTOR, now=self._clock.now()))

    def _pend(self, record: Record) -> None:
        self._pending = [*self._pending, record][-PENDING_MAX:]

    async def _record(self) -> None:
        if self._pending:
            some = self._pending
            await self._append(some)
            self._pending = self._pending[len(some) :]


def open_feeds(
    installation: Installation,
    intelligence: Intelligence,
    registry: Registry,
    append: Append,
    say: Callable[[str], None],
) -> Feeds:
    """Those of an installation, with the weights that earlier runs gave. Raises FormatError on what none wrote."""
    with registry.read() as records:
        intelligence.weights.restore(read_granted(records.gate_states.load(PURPOSE)))
    return Feeds(installation, intelligence, append=append, say=say)


@contextmanager
def _quietly() -> Iterator[None]:
    """Read much without holding up requests: the thread gives way soon, and no cycles are looked for.

    Millions of items have none, and requests leave hardly any in these seconds.
    """
    interval, collecting = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(SWITCH_SECONDS)
    gc.disable()
    try:
        yield
    finally:
        sys.setswitchinterval(interval)
        if collecting:
            gc.enable()


async def _in_thread(function: Callable[[], _Result]) -> _Result:
    """What a function returns, called in a thread that does not keep the process from ending."""
    loop = asyncio.get_running_loop()
    done: asyncio.Future[_Result] = loop.create_future()

    def tell(result: _Result | None, error: BaseException | None) -> None:
        if done.cancelled():
            return
        if error is not None:
            done.set_exception(error)
        else:
            done.set_result(result)  # type: ignore[arg-type]  # there was no error

    def run() -> None:
        result, failed = None, None
        try:
            result = function()
        except BaseException as error:  # noqa: BLE001 (who waits gets it)
            failed = error
        with suppress(RuntimeError):  # the loop is closed, and nobody waits
            loop.call_soon_threadsafe(tell, result, failed)

    Thread(target=run, name="feeds", daemon=True).start()
    return await done
