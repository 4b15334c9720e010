"""Touches of decoys: counted at once, told to ledger and cases soon, and no oftener than somebody wants to read them.

Whoever has a decoy key can send it as fast as the network takes it. So what is kept of one decoy between two tellings
has a fixed size, and there is one telling in ten minutes, whatever comes.
"""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from palladion.access.certificates import Certificate
from palladion.clock import timestamp
from palladion.gate.requests import Peer, Request
from palladion.incident.cases import OPEN_STATES
from palladion.ledger.record import Record
from palladion.policy import WatchPolicy
from palladion.registry import Decoy, Incident, Records, names
from palladion.watch.response import Evidence, Verdict
from palladion.watch.watch import Observation
from palladion.watch.why import Why

TOLD_EVERY = timedelta(minutes=10)  # of one decoy, after a first touch that is told at once
TOUCHERS_MAX = 8  # strangers that are told of by themselves, by address and program; the rest is counted
CLIENTS_MAX = 64  # clients that are told of by themselves: nobody makes these up, and none is to hide behind others
AGENT_CHARACTERS_MAX = 120
AGENT_BYTES_MAX = 2 * AGENT_CHARACTERS_MAX  # the longest key is shorter than what is cut off beyond: none stays in part
ADDRESS_CHARACTERS_MAX = 64
_KEYS = re.compile(r"pall_\w+", re.ASCII)  # a key that somebody put where a program's name belongs

# of a request that the watch has not seen yet
UNOBSERVED = Observation(
    evidence=Evidence(),
    verdict=Verdict("trusted", None, "not observed"),
    distinct=0,
    new_buckets=0,
    quiet_hours=0.0,
    calibrated=False,
)


class Toucher(NamedTuple):
    """Who touched a decoy: a client, by id, if one is known; from which address, with which program."""

    client: str | None
    address: str | None
    agent: str


@dataclass(eq=False)
class Touched:
    """What is to be told of one decoy. `others` counts touches by more touchers than are told of.

    A client is in `by` once, with the address and program that it came with first. `key` says that a key was used, and
    not that its queries were asked.
    """

    decoy: str
    first: datetime
    last: datetime
    by: dict[Toucher, int] = field(default_factory=dict)
    others: int = 0
    key: bool = False

    @property
    def touches(self) -> int:
        """How many there were."""
        return sum(self.by.values()) + self.others

    @property
    def clients(self) -> list[str]:
        """The clients among those who are told of, by id."""
        return [who.client for who in self.by if who.client is not None]

    def add(self, who: Toucher, count: int = 1) -> None:
        """Count touches by one."""
        known = self._known(who)
        if known is None:
            self.others += count
        else:
            self.by[known] = self.by.get(known, 0) + count

    def _known(self, who: Toucher) -> Toucher | None:
        """As whom touches by `who` are told; None where there is no room for more."""
        if who in self.by:
            return who
        if who.client is None:
            return who if len(self.by) - len(self.clients) < TOUCHERS_MAX else None
        same = next((other for other in self.by if other.client == who.client), None)
        return who if same is None and len(self.clients) < CLIENTS_MAX else same


@dataclass(eq=False, slots=True)
class _Came:
    """How often somebody came whom nobody has looked up yet, and how the first time."""

    address: str | None
    agent: bytes
    peer: Peer
    count: int = 1


@dataclass(eq=False, slots=True)
class _Aside:
    """Touches of one decoy since the last look."""

    first: datetime
    last: datetime
    certified: dict[Certificate, _Came] = field(default_factory=dict)
    strangers: dict[tuple[str | None, bytes], _Came] = field(default_factory=dict)
    others: int = 0


class Touches:
    """Those that were not told yet. For one event loop."""

    def __init__(self, certified: Callable[[Peer], str | None]) -> None:
        """`certified` looks up the client, by id, whose certificate a peer has shown."""
        self._certified = certified
        self._waiting: dict[str, Touched] = {}
        self._told: dict[str, datetime] = {}
        self._aside: dict[str | None, _Aside] = {}

    def put_aside(self, decoy: str | None, request: Request, now: datetime) -> None:
        """Count one soon: for a key, whose user must not notice that something is done about it.

        None is for a key that is no decoy. It is forgotten, but takes as long: a little counting, whoever comes and
        however many there were. What takes longer is done when it is told.
        """
        aside = self._aside.get(decoy)
        if aside is None:
            aside = self._aside[decoy] = _Aside(now, now)
        aside.last = now
        address = None if request.address is None else request.address[:ADDRESS_CHARACTERS_MAX]
        agent = request.headers.get(b"user-agent", b"")[:AGENT_BYTES_MAX]
        certificate = request.peer.certificate
        if certificate is None:
            came = aside.strangers.get((address, agent))
            if came is None and len(aside.strangers) < TOUCHERS_MAX:
                aside.strangers[address, agent] = _Came(address, agent, request.peer)
                return
        else:
            came = aside.certified.get(certificate)
            if came is None and len(aside.certified) < CLIENTS_MAX:
                aside.certified[certificate] = _Came(address, agent, request.peer)
                return
        if came is None:
            aside.others += 1
        else:
            came.count += 1

    def _take_in(self) -> None:
        self._aside.pop(None, None)
        for decoy, aside in list(self._aside.items()):
            if decoy is None:
                continue
            # looked up before anything is counted: what fails is tried again as a whole
            everybody = (*aside.certified.values(), *aside.strangers.values())
            found = [(_shown(self._certified(came.peer), came.address, came.agent), came.count) for came in everybody]
            del self._aside[decoy]
            known = self._of(decoy, aside.first)
            known.key = True
            known.last = aside.last
            known.others += aside.others
            for who, count in found:
                known.add(who, count)

    def add(self, decoy: str, who: Toucher, now: datetime) -> None:
        """Count one."""
        known = self._of(decoy, now)
        known.last = now
        known.add(who)

    def _of(self, decoy: str, first: datetime) -> Touched:
        known = self._waiting.get(decoy)
        if known is None:
            known = self._waiting[decoy] = Touched(decoy, first, first)
        return known

    def due(self, now: datetime, *, every: bool = False) -> list[Touched]:
        """What is to be told now, or `every` touch; it is not kept here any more.

        Raises what looking up a certificate raises, and then has lost nothing.
        """
        self._take_in()
        if not self._waiting:
            return []
        self._told = {decoy: at for decoy, at in self._told.items() if now - at < TOLD_EVERY}
        due = [item for item in self._waiting.values() if every or item.decoy not in self._told]
        for item in due:
            del self._waiting[item.decoy]
            self._told[item.decoy] = now
        return due

    def give_back(self, touched: Touched) -> None:
        """Keep what could not be told; it is due at once."""
        self._told.pop(touched.decoy, None)
        later = self._waiting.get(touched.decoy)
        if later is not None:
            for who, count in later.by.items():
                touched.add(who, count)
            touched.others += later.others
            touched.last = later.last
        self._waiting[touched.decoy] = touched


def toucher(request: Request | None, client: str | None) -> Toucher:
    """Who sent a request, in texts that anybody may print: no more of them than is told, and never a key."""
    if request is None:
        return Toucher(client, None, "")
    return _shown(client, request.address, request.headers.get(b"user-agent", b""))


def _shown(client: str | None, address: str | None, program: bytes) -> Toucher:
    agent = program[:AGENT_BYTES_MAX].decode("latin-1")
    shown = _KEYS.sub("pall_…", "".join(letter if " " <= letter <= "~" else "?" for letter in agent))
    return Toucher(client, address and address[:ADDRESS_CHARACTERS_MAX], shown[:AGENT_CHARACTERS_MAX])


def verdict_on(decoys: Sequence[str], policy: WatchPolicy) -> Verdict:
    """What follows for a client that asked what stands only in `decoys`."""
    more = f" and {len(decoys) - 1} more" if len(decoys) > 1 else ""
    return Verdict(policy.decoys, "decoy", f"asked what stands only in decoy {decoys[0]}{more}")


def why_touched(touched: Touched) -> Why:
    """What it is a sign of."""
    return Why("decoy-key" if touched.key else "decoy-query", "decoy")


def touched_record(touched: Touched, *, actor: str, name: Callable[[str], str]) -> Record:
    """The ledger record of touches; clients by the pseudonyms that `name` gives, others by where they came from."""
    by: list[dict[str, Any]] = []
    for who, count in touched.by.items():
        told = {"client": name(who.client)} if who.client else {"address": who.address, "user_agent": who.agent}
        by.append({**told, "touches": count})
    details = {
        "cause": why_touched(touched).cause,
        "touches": touched.touches,
        "first": timestamp(touched.first),
        "last": timestamp(touched.last),
        "by": by,
        "others": touched.others,
    }
    return Record("decoy.touched", touched.last, actor, f"decoy:{touched.decoy}", details)


def keep_touches(records: Records, every: Iterable[Touched], *, actor: str) -> list[Incident]:
    """Count touches in the registry and add them to cases; returns the cases that are new.

    Those of clients go to each client's open case, or to a new one of all that have none; those of strangers to the
    decoy's open case, or to a new one. Raises NotFoundError.
    """
    opened: list[Incident] = []
    for touched in every:
        decoy = records.decoys.get(touched.decoy)
        opened += _of_clients(records, decoy, touched, actor)
        case = None
        if touched.others or any(who.client is None for who in touched.by):
            case, new = _of_strangers(records, decoy, touched, actor)
            opened += [case] if new else []
        records.decoys.touch(decoy.id, touched.touches, at=touched.last, incident=None if case is None else case.id)
    return opened


def _of_clients(records: Records, decoy: Decoy, touched: Touched, actor: str) -> list[Incident]:
    text, without = _sentence(records, decoy, touched), []
    noted: set[str] = set()
    for client in touched.clients:
        open_ones = [case for case in records.incidents.of_client(client) if _open(case)]
        if not open_ones:
            without.append(client)
        elif open_ones[0].id not in noted:
            noted.add(open_ones[0].id)
            records.incidents.record(open_ones[0].id, "noted", text, actor=actor)
    if not without:
        return []
    return [records.incidents.open(_title(decoy), actor=actor, clients=without, text=text)]


def _of_strangers(records: Records, decoy: Decoy, touched: Touched, actor: str) -> tuple[Incident, bool]:
    text = _sentence(records, decoy, touched)
    known = None if decoy.incident is None else records.incidents.get(decoy.incident)
    if known is not None and _open(known):
        records.incidents.record(known.id, "noted", text, actor=actor)
        return known, False
    return records.incidents.open(_title(decoy), actor=actor, text=text), True


def _open(case: Incident) -> bool:
    return case.state in OPEN_STATES


def _title(decoy: Decoy) -> str:
    return _shortened(f"decoy touched: {decoy.label}", names.LABEL_CHARACTERS_MAX)


def _sentence(records: Records, decoy: Decoy, touched: Touched) -> str:
    what = {"key": "its API key was used", "rows": "its rows were asked", "texts": "its prompts were asked"}[decoy.kind]
    when = timestamp(touched.first)
    if touched.touches > 1:
        when = f"{touched.touches} times from {when} to {timestamp(touched.last)}"
    clients_first = sorted(touched.by.items(), key=lambda item: item[0].client is None)
    by = [f"{_who(records, who)}: {count}" for who, count in clients_first]
    more = [f"others: {touched.others}"] if touched.others else []
    return _shortened(f"decoy {decoy.id}: {what} {when}. By {'; '.join([*by, *more])}", names.NOTE_CHARACTERS_MAX)


def _who(records: Records, who: Toucher) -> str:
    where = f"{who.address or 'an unknown address'} ({who.agent or 'no user agent'})"
    if who.client is None:
        return where
    client = records.clients.get(who.client)
    return f"{client.organisation}/{client.name}, {where}"


def _shortened(text: str, characters_max: int) -> str:
    return text if len(text) <= characters_max else f"{text[: characters_max - 1]}…"
