"""What the ledger has of a case, put into order: each step by its entry, answers and refusals counted by the hour.

The registry knows what people wrote into a case; this is what can be proved to others. A line names its entry, or the
first and the last of those that it counts.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from palladion.access.pseudonyms import pseudonym
from palladion.errors import PalladionError
from palladion.incident.cases import label
from palladion.incident.links import links_said
from palladion.ledger.evidence import write_all
from palladion.ledger.index import Question
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record
from palladion.registry import Incident, Records
from palladion.watch import why
from palladion.watch.taxonomy import cause_of, ids_of

LINES_MAX = 50_000  # nobody reads more, and each is held in memory

_OF_ACCOUNTS = ("client.", "standing.")  # where their subject is an account of the case
_PROPOSALS = ("proposal.made", "proposal.decided")
_TOUCHED = "decoy.touched"
_REFUSED = "answer.refused"
_ANSWERS = ("answer.given", "answer.broken")  # what a stream begins with is not counted twice
_VERSIONS = ("model.protected", "model.sealed")  # which bind a version's number to what it holds
NETWORKS_MAX = 10_000  # of an account in an hour that are told apart

Find = Callable[[Question], Iterable[tuple[int, Record]]]


@dataclass(frozen=True)
class Subjects:
    """Whom and what a case is about: its id, accounts by pseudonym with their names, and ids of decoys."""

    case: str
    accounts: Mapping[str, str]
    decoys: frozenset[str] = frozenset()

    def questions(self, since: datetime | None) -> Iterator[Question]:
        """What to ask an index for; some entries fit several."""
        yield Question(subject=f"incident:{self.case}", since=since)
        yield Question(kinds=(_TOUCHED,), since=since)
        yield Question(kinds=_PROPOSALS, since=since)
        yield Question(kinds=_VERSIONS)
        for account in self.accounts:
            yield Question(subject=account, since=since)
            yield Question(kinds=_ANSWERS, actor=account, since=since)


@dataclass(frozen=True)
class Line:
    """One line: when, what, about which account, and the entries that show it: one, or the first and last of `count`.

    `figures` are what was counted; `said` is all of it as a sentence.
    """

    entries: tuple[int, ...]
    count: int
    time: datetime
    kind: str
    actor: str
    account: str | None
    said: str
    figures: Mapping[str, Any] = field(default_factory=dict)


def subjects_of(records: Records, case: Incident, key: bytes) -> Subjects:
    """Whom and what a case is about; `key` is the gate root's "pseudonyms"."""
    clients = [records.clients.get(client) for client in case.clients]
    decoys = frozenset(f"decoy:{item.id}" for item in records.decoys.all() if item.incident == case.id)
    return Subjects(case.id, {pseudonym(key, client.id): label(client) for client in clients}, decoys)


def read_timeline(subjects: Subjects, find: Find, *, since: datetime | None = None, scan: bool = False) -> list[Line]:
    """The lines of a case, oldest first. `find` gives the entries that fit a question, proved; from a `scan` all.

    Raises PalladionError beyond `LINES_MAX`, TamperError at an entry that cannot be proved.
    """
    taken = _Timeline(subjects)
    # versions are older than what is asked for
    scans = [Question(since=since), *([Question(kinds=_VERSIONS)] if since is not None else [])]
    for question in scans if scan else subjects.questions(since):
        for number, record in find(question):
            taken.take(number, record)
    return taken.lines()


def write_proofs(reader: LedgerReader, folder: Path, lines: Iterable[Line]) -> int:
    """Write the entries that lines name into a folder, each with its proof; returns how many."""
    numbers = sorted({number for line in lines for number in line.entries})
    write_all(reader, folder, numbers)
    return len(numbers)


@dataclass
class _Hour:
    """Answers to an account, or refusals, within an hour."""

    kind: str
    account: str
    first: tuple[int, datetime]
    last: int
    actor: str
    entries: int = 0
    requests: int = 0
    queries: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    disclosed: Counter[str] = field(default_factory=Counter)
    versions: Counter[str] = field(default_factory=Counter)
    networks: set[str] = field(default_factory=set)
    p_value: float | None = None

    def add(self, number: int, record: Record) -> None:
        told = record.details
        self.first, self.last = min(self.first, (number, record.time)), max(self.last, number)
        self.entries += 1
        if len(self.networks) < NETWORKS_MAX:
            network = told.get("network")
            self.networks.update(_texts(network if isinstance(network, list) else [network]))
        if self.kind == _REFUSED:
            requests = _whole(told, "requests")
            self.requests += requests
            self.reasons[str(told.get("reason"))] += requests
            return
        self.requests += 1
        self.queries += _whole(told, "queries")
        self.disclosed[str(told.get("disclosed"))] += 1
        self.versions[record.subject] += 1
        p_value = _small(told.get("p_value"))
        if p_value is not None and (self.p_value is None or p_value < self.p_value):
            self.p_value = p_value

    def line(self, contents: Mapping[str, tuple[int, str]]) -> Line:
        """The line; `contents` are entry and digest of versions."""
        figures: dict[str, Any] = {"requests": self.requests}
        if self.kind == _REFUSED:
            figures["reasons"] = dict(sorted(self.reasons.items()))
            said = f"{self.requests} requests refused within the hour: {_counted(self.reasons)}"
        else:
            figures |= {"queries": self.queries, "disclosed": dict(sorted(self.disclosed.items()))}
            figures["p_value_min"] = self.p_value
            said = f"{self.requests} answers within the hour, {self.queries} queries: {_counted(self.disclosed)}"
            said += "" if self.p_value is None else f"; p down to {self.p_value:.2g}"
            known = {name: contents[name] for name in sorted(self.versions) if name in contents}
            if known:
                named = known.items()
                figures["versions"] = {name: {"entry": entry, "content": digest} for name, (entry, digest) in named}
            said += "".join(f"; {name} is {digest} (entry {entry})" for name, (entry, digest) in known.items())
        if self.networks:
            figures["networks"] = len(self.networks)
            said += f"; from {len(self.networks)} network{'' if len(self.networks) == 1 else 's'}"
        entries = tuple(dict.fromkeys((self.first[0], self.last)))
        return Line(entries, self.entries, self.first[1], self.kind, self.actor, self.account, said, figures)


class _Timeline:
    """What was taken in so far."""

    def __init__(self, subjects: Subjects) -> None:
        self._subjects = subjects
        self._lines: dict[int, Line] = {}
        self._hours: dict[tuple[str, str, datetime], _Hour] = {}
        self._proposals: set[str] = set()
        self._contents: dict[str, tuple[int, str]] = {}

    def take(self, number: int, record: Record) -> None:
        """Take in an entry if it belongs to the case."""
        if record.kind in _ANSWERS and record.actor in self._subjects.accounts:
            self._count("answer.given", record.actor, number, record)
        elif record.kind == _REFUSED and record.subject in self._subjects.accounts:
            self._count(_REFUSED, record.subject, number, record)
        elif record.kind in _VERSIONS:
            # of a number there is one version, and the first record of it
            if isinstance(content := record.details.get("content"), str):
                self._contents.setdefault(record.subject, (number, content))
        elif number not in self._lines and self._concerns(record):
            account = record.subject if record.subject in self._subjects.accounts else None
            said = told(record, self._subjects.accounts)
            self._lines[number] = Line(
                (number,), 1, record.time, record.kind, record.actor, account, said, _figures(record)
            )
        if len(self._lines) + len(self._hours) > LINES_MAX:
            raise PalladionError(f"the case has more than {LINES_MAX} lines", "name a later --since")

    def lines(self) -> list[Line]:
        """What was taken in, in the order of the ledger."""
        counted = [hour.line(self._contents) for hour in self._hours.values()]
        return sorted([*self._lines.values(), *counted], key=lambda line: line.entries)

    def _count(self, kind: str, account: str, number: int, record: Record) -> None:
        hour = record.time.replace(minute=0, second=0, microsecond=0)
        place = (kind, account, hour)
        if place not in self._hours:
            self._hours[place] = _Hour(kind, account, (number, record.time), number, record.actor)
        self._hours[place].add(number, record)

    def _concerns(self, record: Record) -> bool:
        accounts = self._subjects.accounts
        if record.subject == f"incident:{self._subjects.case}":
            return True
        if record.kind.startswith(_OF_ACCOUNTS):
            return record.subject in accounts
        if record.kind == _TOUCHED:
            return record.subject in self._subjects.decoys or bool(_touchers(record) & accounts.keys())
        if record.kind == "proposal.made" and _proposed_for(record) & accounts.keys():
            self._proposals.add(record.subject)
        return record.kind in _PROPOSALS and record.subject in self._proposals


def told(record: Record, accounts: Mapping[str, str]) -> str:
    """What a record says, as a sentence, with its cause; clients by their names where they are of the case."""
    return "; ".join(
        words for words in (_told(record, accounts), why.said(record.details), links_said(record.details)) if words
    )


def _told(record: Record, accounts: Mapping[str, str]) -> str:
    details = record.details
    match record.kind:
        case "standing.changed":
            return f"{details.get('from')} → {details.get('to')}: {details.get('reason')}"
        case "standing.proposed":
            return f"{details.get('from')} → {details.get('to')}, asked for and not done: {details.get('reason')}"
        case "decoy.touched":
            who = sorted(accounts.get(name, name) for name in _touchers(record))
            return f"{record.subject} was touched {details.get('touches')} times, by {', '.join(who) or 'strangers'}"
        case "incident.opened":
            return f"opened; clients: {details.get('clients')}"
        case "proposal.made" | "proposal.decided":
            return f"{record.subject} {details.get('verdict', 'made')}: {details.get('reason')}"
        case _ if record.kind.startswith("incident."):
            what = [str(details[name]) for name in ("change", "verdict", "to") if name in details]
            named = [accounts.get(name, str(name)) for name in _texts(details.get("clients"))]
            words = [*what, *named, *([str(details["text"])] if details.get("text") else [])]
            return ", ".join(words)
        case _:
            return ", ".join(f"{name} {value}" for name, value in sorted(details.items()) if isinstance(value, str))


def _figures(record: Record) -> dict[str, Any]:
    cause = cause_of(record.kind, record.details)
    return {"cause": cause, "techniques": list(ids_of(cause))} if cause else {}


def _touchers(record: Record) -> set[str]:
    by = record.details.get("by")
    return (
        {str(who["client"]) for who in by if isinstance(who, dict) and "client" in who}
        if isinstance(by, list)
        else set()
    )


def _proposed_for(record: Record) -> set[str]:
    change = record.details.get("change")
    if not isinstance(change, dict):
        return set()
    return {*_texts(change.get("clients")), *_texts([change.get("client")])}


def _texts(value: object) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _whole(details: Mapping[str, Any], name: str) -> int:
    value = details.get(name)
    return value if isinstance(value, int) else 0


def _small(value: object) -> float | None:
    if not isinstance(value, str):
        return None
    try:
        return float(value)
    except ValueError:
        return None  # of a release that wrote it otherwise


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
