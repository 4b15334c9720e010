"""Whom routes that only observe would have disturbed, and whom the others did, from the ledger's records. No files.

Takes one record after the other and holds a few numbers for each client, however many records there are.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, get_args

from palladion.ledger.record import Record
from palladion.registry.rows import Standing
from palladion.watch.response import rank
from palladion.watch.taxonomy import cause_of
from palladion.watch.why import said

KINDS = frozenset({"standing.proposed", "standing.changed", "answer.given", "answer.refused", "gate.started"})
WATCH = "watch"  # the actor of changes that no person decided
DISTURBING = rank("throttled")  # a watched client is answered as before


@dataclass(eq=False)
class Concern:
    """A client whom a route put into a standing, or would have: the worst one, since when, why, and how often.

    `cause` is what it is a sign of, and `said` on what it rests, in words; both are empty in older records.
    """

    client: str
    route: str
    enforced: bool
    standing: Standing
    since: datetime
    reason: str
    answers: int = 0  # while it stood worse than watched
    queries: int = 0
    cause: str = ""
    said: str = ""

    @property
    def disturbs(self) -> bool:
        """Whether the client notices."""
        return rank(self.standing) >= DISTURBING


@dataclass(eq=False)
class Traffic:
    """What one route answered in one mode."""

    answers: int = 0
    queries: int = 0
    unlike: int = 0  # answers that would have been refused, with rows too unlike honest ones
    clients: set[str] = field(default_factory=set)


@dataclass(frozen=True)
class RouteReport:
    """One route: its traffic, and of that what was disturbed, or would have been; `enforced` says which.

    `answers_unlike` would have been refused for rows too unlike honest ones; nobody counts as disturbed by that.
    """

    route: str
    model: str
    enforced: bool
    clients: int
    answers: int
    queries: int
    by_standing: Mapping[Standing, int]
    clients_disturbed: int
    answers_disturbed: int
    answers_unlike: int

    @property
    def share_of_clients(self) -> float | None:
        """Of the clients that asked; None where nobody did."""
        return self.clients_disturbed / self.clients if self.clients else None

    @property
    def share_of_answers(self) -> float | None:
        """Of the answers; None where there was none."""
        return self.answers_disturbed / self.answers if self.answers else None


class Report:
    """What the records taken so far come to."""

    def __init__(self, models: Mapping[str, str]) -> None:
        """`models` are those of the routes as they are now, by route; the records tell of earlier ones."""
        self.records = 0
        self.concerns: dict[tuple[str, str, bool], Concern] = {}
        self.traffic: dict[tuple[str, bool], Traffic] = {}
        self.refused: Counter[str] = Counter()
        self._models = dict(models)

    def take_all(self, records: Iterable[Record]) -> None:
        """Take in records, oldest first."""
        for record in records:
            self.records += 1
            match record.kind:
                case "standing.proposed" | "standing.changed":
                    self._standing(record)
                case "answer.given":
                    self._answer(record)
                case "answer.refused":
                    self.refused[str(record.details.get("reason"))] += _count(record.details, "requests")
                case "gate.started":
                    self._routes(record)

    def routes(self) -> list[RouteReport]:
        """Every route with traffic or with a client of concern, and whether it enforced, in order."""
        wanted = {(concern.route, concern.enforced) for concern in self.concerns.values()}
        wanted |= {(route, mode) for route in self._models for mode in (False, True) if (route, mode) in self.traffic}
        return [self._route(*key) for key in sorted(wanted)]

    def clients(self) -> list[Concern]:
        """The clients of concern, the worst first."""
        return sorted(self.concerns.values(), key=lambda item: (-rank(item.standing), item.since, item.client))

    def _route(self, route: str, enforced: bool) -> RouteReport:
        traffic = self.traffic.get((route, enforced), Traffic())
        concerns = [item for item in self.concerns.values() if (item.route, item.enforced) == (route, enforced)]
        return RouteReport(
            route,
            self._models.get(route, ""),
            enforced,
            clients=len(traffic.clients),
            answers=traffic.answers,
            queries=traffic.queries,
            by_standing=Counter(item.standing for item in concerns),
            clients_disturbed=sum(item.disturbs for item in concerns),
            answers_disturbed=sum(item.answers for item in concerns),
            answers_unlike=traffic.unlike,
        )

    def _standing(self, record: Record) -> None:
        route, standing = record.details.get("route"), _standing(record.details, "to")
        if not isinstance(route, str) or record.actor != WATCH:
            return  # what a person decided is no alarm
        enforced = record.kind == "standing.changed"
        key = (record.subject, route, enforced)
        known = self.concerns.get(key)
        if rank(standing) > (0 if known is None else rank(known.standing)):
            reason = str(record.details.get("reason"))
            concern = Concern(record.subject, route, enforced, standing, record.time, reason)
            concern.cause, concern.said = cause_of(record.kind, record.details), said(record.details)
            if known is not None:
                concern.answers, concern.queries = known.answers, known.queries
            self.concerns[key] = concern

    def _answer(self, record: Record) -> None:
        model, enforced = record.subject.partition("@")[0], record.details.get("mode") == "enforce"
        route = record.details.get("route")
        if isinstance(route, str):
            self._models.setdefault(route, model)
            routes = [route]
        else:  # records of before 2026-11-26 do not say: all routes of the model share their answers
            routes = [name for name, known in self._models.items() if known == model]
        for name in routes:
            self._answer_on(name, record, enforced=enforced)

    def _answer_on(self, route: str, record: Record, *, enforced: bool) -> None:
        queries = _count(record.details, "queries")
        traffic = self.traffic.setdefault((route, enforced), Traffic())
        traffic.answers += 1
        traffic.queries += queries
        traffic.unlike += "unlike" in record.details
        traffic.clients.add(record.actor)
        if enforced and rank(_standing(record.details, "standing")) < DISTURBING:
            return  # it stands better again
        concern = self.concerns.get((record.actor, route, enforced))
        if concern is not None and concern.disturbs:
            concern.answers += 1
            concern.queries += queries

    def _routes(self, record: Record) -> None:
        for item in record.details.get("routes", []):
            if isinstance(item, dict) and isinstance(item.get("path"), str):
                self._models.setdefault(item["path"], str(item.get("version")).partition("@")[0])


def _count(details: Mapping[str, Any], name: str) -> int:
    value = details.get(name, 1)
    return value if isinstance(value, int) else 1


def _standing(details: Mapping[str, Any], name: str) -> Standing:
    value = details.get(name)
    return next((standing for standing in get_args(Standing) if standing == value), "trusted")
