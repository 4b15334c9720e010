"""Touches of decoys on disk: who tried to open one, or read it in a bucket; told to the ledger, then to a case.

The gate tells of keys and queries (`palladion.gate.touches`); here it is commands that notice.
"""

import posixpath
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from urllib.parse import unquote, urlsplit

from palladion.access.decoy_files import file_hash, open_places
from palladion.clock import timestamp
from palladion.errors import BusyError, PalladionError
from palladion.ledger.record import Record
from palladion.ledger.remote import LedgerWriter
from palladion.lifecycle.access_logs import Log, Reading
from palladion.lifecycle.installation import Installation
from palladion.registry import Decoy, Incident, Records, names
from palladion.registry.decoys import FILES
from palladion.seal.reader import inspect_file

CAUSE = "decoy-model"
TRIES_MAX = 3  # of a check, where others tell of the same decoys meanwhile
BUSY_SECONDS_MAX = 10.0  # that a touch is kept waiting for another command, which has the ledger for less
_PAUSE_SECONDS = 0.05
TOUCHERS_MAX = 8  # that are told of by themselves; the rest is counted


@dataclass
class Touches:
    """What is to be told of one decoy: when, how often, and by whom, as (address, program, name)."""

    first: datetime
    last: datetime
    by: dict[tuple[str, str, str], int] = field(default_factory=dict)
    others: int = 0

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.by.values()) + self.others

    def add(self, at: datetime, address: str, agent: str, who: str) -> None:
        """Count one."""
        self.first, self.last = min(self.first, at), max(self.last, at)
        toucher = address, agent, who
        if toucher in self.by or len(self.by) < TOUCHERS_MAX:
            self.by[toucher] = self.by.get(toucher, 0) + 1
        else:
            self.others += 1


@dataclass(frozen=True)
class Told:
    """What came of touches: the decoy as it is now, its case, and how many of them were new."""

    decoy: Decoy
    incident: Incident
    touches: int


@dataclass(frozen=True)
class Checked:
    """What a check of access logs found: what was told, and how many lines were read, and were none of any log."""

    told: tuple[Told, ...]
    lines: int
    others: int


def notice_file_id(installation: Installation, file_id: str, *, actor: str, what: str) -> Told | None:
    """Somebody asks for the key of a sealed file: where that is a decoy, a case; None where it is none.

    For whoever opens sealed files, or gives out their keys, before it tries. `what` says what was asked, in words.
    """
    gate = installation.open_gate_root()
    hashed = file_hash(gate.derive("decoys"), file_id)
    with installation.open_registry() as registry, registry.read() as records:
        if records.decoys.of_file(hashed) is None:
            return None
    now = installation.clock.now()
    touches = Touches(now, now)
    touches.add(now, "", "", actor)
    until = time.monotonic() + BUSY_SECONDS_MAX
    while True:
        try:
            with installation.recording(gate) as (ledger, records):
                decoy = records.decoys.of_file(hashed)
                return None if decoy is None else _tell(ledger, records, decoy, touches, actor=actor, what=what)
        except BusyError:
            # one that was turned away would be a touch that nobody knows of
            if time.monotonic() >= until:
                raise
        time.sleep(_PAUSE_SECONDS)


def notice_sealed(installation: Installation, path: Path, *, actor: str) -> Told | None:
    """`notice_file_id` for a sealed file that is to be opened; None, too, for what is no whole sealed file."""
    try:
        info = inspect_file(path)
    except PalladionError:
        return None  # whoever opens it says so
    return notice_file_id(installation, info.header.file_id, actor=actor, what="somebody tried to open it")


def check_logs(installation: Installation, paths: Sequence[Path], *, own: Sequence[str], actor: str) -> Checked:
    """Look for reads of planted files in access logs, and open cases for those that are new.

    New is what is later than the last touch that is known of a decoy. `own` are addresses, and names of who reads, that
    do not count. Raises FormatError, StorageError.
    """
    for _ in range(TRIES_MAX):
        checked = _check(installation, paths, own=own, actor=actor)
        if checked is not None:
            return checked
    raise BusyError("others check logs of the same decoys", "run it again when they have done so")


def _check(installation: Installation, paths: Sequence[Path], *, own: Sequence[str], actor: str) -> Checked | None:
    """`check_logs` once; None where somebody told of one of these decoys meanwhile, maybe of the same reads."""
    gate = installation.open_gate_root()
    key = gate.derive("decoys")
    with installation.open_registry() as registry, registry.read() as records:
        planted = [item for item in records.decoys.all(retired=False) if item.kind in FILES]
        at = {place: item for item in planted for place in _names(key, item, records.decoys.data(item.id))}
    found: dict[str, Touches] = {}
    lines = others = 0
    for path in paths:
        log = Log(path)
        for reading in log.readings():
            decoy = at.get(reading.place) or at.get(_served(reading.place))
            if decoy is not None and _counts(decoy, reading, own):
                touches = found.setdefault(decoy.id, Touches(reading.at, reading.at))
                touches.add(reading.at, reading.address, reading.agent, reading.who)
        lines, others = lines + log.lines, others + log.others
    told = []
    if found:
        known = {item.id: item.touched_at for item in planted}
        with installation.recording(gate) as (ledger, records):
            now = {decoy: records.decoys.get(decoy) for decoy in sorted(found)}
            if any(item.touched_at != known[decoy] for decoy, item in now.items()):
                return None
            told = [
                _tell(ledger, records, item, found[decoy], actor=actor, what="it was read")
                for decoy, item in now.items()
            ]
    return Checked(tuple(told), lines, others)


def _served(place: str) -> str:
    """The path of which a web server takes another for an equal one: //a/./b, /x/../a/b."""
    return posixpath.normpath("/" + place.lstrip("/")) if place.startswith("/") else place


def _counts(decoy: Decoy, reading: Reading, own: Iterable[str]) -> bool:
    if reading.address in own or reading.who in own:
        return False
    # what was planted was looked at by its planter: a touch is later than that
    return reading.at > (decoy.touched_at or decoy.created)


def _names(key: bytes, decoy: Decoy, data: bytes) -> set[str]:
    """How logs may name the places of a decoy: an object by its bucket, or by the path that a server is asked for."""
    found: set[str] = set()
    for place in open_places(key, decoy.id, data):
        scheme, separator, rest = place.partition("://")
        if separator and scheme == "s3":
            found |= {place, f"/{rest}", f"/{rest.partition('/')[2]}"}
        elif separator and scheme in {"http", "https"}:
            found.add(_served(unquote(urlsplit(place).path)))
        elif separator:
            found |= {place, f"/{rest}"}
        else:
            found.add(place)
    return found - {"", "/"}


def _tell(ledger: LedgerWriter, records: Records, decoy: Decoy, touches: Touches, *, actor: str, what: str) -> Told:
    """The record, then the case: the decoy's open one, or a new one."""
    by = [
        {"address": address, "user_agent": agent, "name": who, "touches": count}
        for (address, agent, who), count in touches.by.items()
    ]
    details = {
        "cause": CAUSE,
        "touches": touches.count,
        "first": timestamp(touches.first),
        "last": timestamp(touches.last),
        "by": by,
        "others": touches.others,
    }
    told = [Record("decoy.touched", touches.last, actor, f"decoy:{decoy.id}", details)]
    known = None if decoy.incident is None else records.incidents.get(decoy.incident)
    text = _sentence(decoy, touches, what)
    if known is not None and known.state != "closed":
        records.incidents.record(known.id, "noted", text, actor=actor)
        case = known
    else:
        title = f"decoy touched: {decoy.label}"[: names.LABEL_CHARACTERS_MAX]
        case = records.incidents.open(title, actor=actor, text=text)
        opened = {"clients": 0, "accounts": [], "cause": CAUSE}
        told.append(Record("incident.opened", case.opened_at, actor, f"incident:{case.id}", opened))
    ledger.append(told)
    after = records.decoys.touch(decoy.id, touches.count, at=touches.last, incident=case.id)
    return Told(after, records.incidents.get(case.id), touches.count)


def _sentence(decoy: Decoy, touches: Touches, what: str) -> str:
    when = timestamp(touches.first)
    if touches.count > 1:
        when = f"{touches.count} times from {when} to {timestamp(touches.last)}"
    by = [
        f"{who or 'nobody who is named'}, {address or 'on this machine'} ({agent or 'no program named'}): {count}"
        if address or agent
        else f"{who}: {count}"
        for (address, agent, who), count in touches.by.items()
    ]
    more = [f"others: {touches.others}"] if touches.others else []
    text = f"decoy {decoy.id}: {what} {when}. By {'; '.join([*by, *more])}"
    return text if len(text) <= names.NOTE_CHARACTERS_MAX else f"{text[: names.NOTE_CHARACTERS_MAX - 1]}…"
