"""Turns the entries of a case into the rows of a dossier, and notes which entries they cite."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from palladion.clock import timestamp
from palladion.incident.custody import RECORDED as CUSTODY
from palladion.incident.dossier.document import (
    Account,
    CommitmentRow,
    Comparison,
    CustodyRow,
    Event,
    GateRow,
    LinkRow,
    ModelRow,
    SeenMeasure,
    described,
)
from palladion.incident.dossier.history import RULES, Entry, History
from palladion.incident.dossier.names import Names
from palladion.incident.dossier.words import found, said
from palladion.incident.links import links_said
from palladion.incident.measures import ENDED, RECORDED, measure_document, register
from palladion.registry import Client, Incident
from palladion.watch import why

TIMELINE_MAX = 2000  # lines; of more, the first and the last half stand in the dossier
SAYS_CHARACTERS_MAX = 400
REASONS_MAX = 20  # of each account, the last ones

# what happened in the case, and what its times and its numbers of answers have to be read with
_TIMELINE = ("incident.", "custody.", "standing.", "client.", "dossier.", "decoy.", "clock.", "ledger.pruned")
_OF_VERSIONS = frozenset({"model.canary", "model.promoted", "model.rolled-back", "signature.stamped"})
_COMMITMENTS = {
    "commitment": "ownership mark: commitment to its key",
    "tensor_keys": "ownership mark: root over the keys of single tensors",
    "root": "triggers: root over their secrets",
}


@dataclass(frozen=True)
class Registered:
    """What the registry says of a case: clients by pseudonym, and how many keys and identities each has had."""

    case: Incident
    names: Names
    clients: dict[str, Client]
    credentials: dict[str, tuple[int, int]]
    models: list[ModelRow]


class Telling:
    """Turns entries into rows, and notes which entries are cited."""

    def __init__(self, registered: Registered, history: History, now: datetime) -> None:
        self.cited: dict[int, Entry] = {}
        self._case = registered.case
        self._registered = registered
        self._history = history
        self._names = registered.names
        self._now = now
        self._custody = list(history.of(CUSTODY))
        self._contents = {str(entry.record.details.get("content")) for entry in self._custody} - {"None"}
        self._sources = {str(entry.record.details.get("source")) for entry in self._custody}
        acquired = [entry.index for entry in self._custody if entry.record.details.get("step") == "acquired"]
        self._acquired = min(acquired, default=None)

    def models(self) -> list[ModelRow]:
        """The models, with the entries of their versions."""
        names = {model.name for model in self._registered.models}
        wanted = {version.entry for model in self._registered.models for version in model.versions}
        for entry in self._history.entries:
            if entry.index in wanted or (
                entry.record.kind in _OF_VERSIONS and entry.record.subject.partition("@")[0] in names
            ):
                self._cite(entry)
        return self._registered.models

    def commitments(self) -> list[CommitmentRow]:
        """What the ledger fixed of each version before anybody could know a suspect."""
        subjects = {version.version for model in self._registered.models for version in model.versions}
        rows = []
        for entry in self._history.of("model.protected", "model.sealed"):
            record = entry.record
            if record.subject not in subjects:
                continue
            rows.append(self._commitment(entry, "content of the version", record.details.get("content")))
            marks = record.details.get("marks")
            for mark in marks if isinstance(marks, list) else ():
                found = mark if isinstance(mark, dict) else {}
                rows += [
                    self._commitment(entry, what, found[name]) for name, what in _COMMITMENTS.items() if name in found
                ]
        return rows

    def measures(self) -> list[SeenMeasure]:
        """Measures that records show."""
        rows = []
        for rule, tally in zip(RULES, self._history.tallies, strict=True):
            if tally.first is None or tally.last is None:
                continue
            shown = list({entry.index: entry for entry in (tally.first, tally.last)}.values())
            first, last = timestamp(tally.first.record.time), timestamp(tally.last.record.time)
            before = tally.first.record.time <= self._case.opened_at
            cited = [self._cite(item) for item in shown]
            rows.append(SeenMeasure(rule.measure, tally.count, first, last, cited, before))
        return rows

    def controls(self) -> list[dict[str, Any]]:
        """Controls that people recorded, with how each stood when the case was opened, and now."""
        recorded = list(self._history.of(RECORDED, ENDED))
        for entry in recorded:
            self._cite(entry)
        rows = []
        for item in register((entry.index, entry.record) for entry in recorded):
            told = {**measure_document(item, self._now), "state_at_opening": item.state(self._case.opened_at)}
            # the times of entries are no words of anybody, whatever clients are called
            times = {name: told[name] for name in ("recorded", "ended")}
            rows.append({**self._names.value(told), **times})
        return rows

    def gate(self) -> GateRow | None:
        """What the gate was set to when the case was opened: its last start before that."""
        started = self._history.before("gate.started", self._case.opened_at)
        if started is None:
            return None
        told = self._names.value(started.record.details)
        routes = told.get("routes")
        words = [described(route, SAYS_CHARACTERS_MAX) for route in (routes if isinstance(routes, list) else [])]
        return GateRow(self._cite(started), timestamp(started.record.time), str(told.get("policy", "–")), words)

    def timeline(self) -> tuple[list[Event], int]:
        """What happened in the case and to its accounts, and how many lines are left out."""
        found = [entry for entry in self._history.entries if entry.record.kind.startswith(_TIMELINE)]
        for tallies in (self._history.answers, self._history.refusals):
            found += [entry for tally in tallies.values() for entry in (tally.first, tally.last) if entry is not None]
        ordered = sorted({entry.index: entry for entry in found}.items())
        left_out = max(0, len(ordered) - TIMELINE_MAX)
        if left_out:
            ordered = [*ordered[: TIMELINE_MAX // 2], *ordered[-TIMELINE_MAX // 2 :]]
        return [self._event(entry) for _, entry in ordered], left_out

    def accounts(self) -> list[Account]:
        """The accounts of the case."""
        rows = []
        for name, client in sorted(self._registered.clients.items()):
            answers, refusals = self._history.answers.get(name), self._history.refusals.get(name)
            keys, identities = self._registered.credentials[name]
            first, last = (answers.first, answers.last) if answers else (None, None)
            standings = [entry for entry in self._history.of("standing.changed") if entry.record.subject == name]
            for entry in standings[-REASONS_MAX:]:
                self._cite(entry)
            rows.append(
                Account(
                    name,
                    self._names.accounts.get(name),
                    timestamp(client.created),
                    timestamp(client.revoked_at) if client.revoked_at else None,
                    [self._names.covered(scope) for scope in client.scopes],
                    client.standing,
                    keys,
                    identities,
                    answers.units if answers else 0,
                    refusals.units if refusals else 0,
                    timestamp(first.record.time) if first else None,
                    timestamp(last.record.time) if last else None,
                    [self._says(entry) for entry in standings[-REASONS_MAX:]],
                )
            )
        return rows

    def comparison(self) -> list[Comparison]:
        """Every test from the opening of the case on, and older ones of what is in custody, whatever they found."""
        rows = []
        for entry in self._history.of("mark.tested"):
            record, told = entry.record, entry.record.details
            exhibit = str(told.get("suspect")) in self._contents or record.subject in self._sources
            if record.time < self._case.opened_at and not exhibit:
                continue
            digest = told.get("suspect")
            rows.append(
                Comparison(
                    self._cite(entry),
                    timestamp(record.time),
                    self._names.covered(record.actor),
                    self._names.covered(record.subject),
                    digest if isinstance(digest, str) else None,
                    str(told.get("looked_for", "")),
                    told["tested"] if isinstance(told.get("tested"), int) else 0,
                    self._results(told),
                    exhibit,
                )
            )
        return rows

    def custody(self) -> list[CustodyRow]:
        """Every handling of what was acquired."""
        rows = []
        for entry in self._custody:
            told: dict[str, Any] = self._names.value(entry.record.details)
            step, by, place, at, note, source = (
                str(told.get(name, "")) for name in ("step", "by", "place", "at", "note", "source")
            )
            rows.append(
                CustodyRow(
                    self._cite(entry),
                    timestamp(entry.record.time),
                    self._names.covered(entry.record.actor),
                    step,
                    by,
                    place,
                    at,
                    note,
                    source,
                    told.get("content"),
                    told.get("server"),
                    told.get("files", []),
                )
            )
        return rows

    def _cite(self, entry: Entry) -> int:
        self.cited[entry.index] = entry
        return entry.index

    def _commitment(self, entry: Entry, what: str, value: object) -> CommitmentRow:
        precedes = None if self._acquired is None else self._cite(entry) < self._acquired
        record = entry.record
        return CommitmentRow(self._cite(entry), timestamp(record.time), record.subject, what, str(value), precedes)

    def _event(self, entry: Entry) -> Event:
        record = entry.record
        return Event(
            self._cite(entry),
            timestamp(record.time),
            record.kind,
            self._names.covered(record.actor),
            self._names.covered(record.subject),
            self._says(entry),
        )

    def links(self) -> list[LinkRow]:
        """What the accounts share, as the ledger has it from when the case was opened or grew."""
        rows = []
        for entry in self._history.of("incident.opened", "incident.acted"):
            if words := links_said(entry.record.details):
                keyed = [
                    f"{item.get('kind')} {name}"
                    for item in entry.record.details["links"]
                    if isinstance(item, dict) and isinstance(item.get("keyed"), list)
                    for name in item["keyed"]
                ]
                rows.append(LinkRow(self._cite(entry), timestamp(entry.record.time), words, keyed))
        return rows

    def _says(self, entry: Entry) -> str:
        told: dict[str, Any] = self._names.value(entry.record.details)
        words = said(entry.record.kind, told)
        if words is None:
            return described(told, SAYS_CHARACTERS_MAX) if told else ""
        more = [why.said(told, words=why.FEATURES_MAX), links_said(told), self._content(entry)]
        return "; ".join([words, *filter(None, more)])

    def _content(self, entry: Entry) -> str:
        """Which digest the version has that an answer is of, and by which entry."""
        if entry.record.kind not in {"answer.given", "answer.begun"}:
            return ""
        for model in self._registered.models:
            for version in model.versions:
                if version.version == entry.record.subject and version.entry is not None:
                    return f"by {version.version}, content {version.content} (entry {version.entry})"
        return ""

    def _results(self, told: Mapping[str, Any]) -> list[str]:
        covered: dict[str, Any] = self._names.value(dict(told))
        versions = covered.get("versions")
        if not isinstance(versions, list) or not all(isinstance(item, dict) for item in versions):
            return [described(covered, SAYS_CHARACTERS_MAX)]
        return [found(item) for item in versions]
