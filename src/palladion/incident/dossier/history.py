"""One pass over the ledger for what a dossier speaks of: the case's own records, models, tests, custody and measures.

Answers are counted, and the first and the last of each account kept: there can be millions. Every entry is proved as it
is read, so what is skipped was not changed either. Answers that were pruned are not counted; that they were is kept.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from palladion.errors import PalladionError
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record, decode_record

KEPT_MAX = 50_000  # entries; each is decoded, and up to 64 KiB
PROGRESS_EVERY = 4096

_ANSWER = b'"kind":"answer.'
_ACCOUNT = re.compile(rb'"(?:actor|subject)":"(client:[0-9a-f]+)"')
# About the installation as a whole, kept one by one: each says something of its own.
_KEPT = frozenset(
    {
        "bundle.signed",
        "clock.set",
        "gate.started",
        "keys.created",
        "ledger.created",
        "ledger.pruned",
        "mark.disclosed",
        "mark.tested",
        "measure.ended",
        "measure.recorded",
        "model.canary",
        "model.promoted",
        "model.protected",
        "model.resealed",
        "model.revoked",
        "model.rolled-back",
        "model.sealed",
        "policy.changed",
        "signature.stamped",
    }
)
_OF_ACCOUNTS = ("client.", "standing.")  # kept where their subject is an account of the case
_OF_CASE = ("incident.", "custody.", "dossier.")  # kept where their subject is the case


@dataclass(frozen=True)
class Entry:
    """An entry of the ledger: its number, its bytes, and the record that they are."""

    index: int
    data: bytes
    record: Record


@dataclass
class Tally:
    """How often something happened, and the first and the last time; `units` are the queries or requests in it."""

    count: int = 0
    units: int = 0
    first: Entry | None = None
    last: Entry | None = None

    def add(self, entry: Entry) -> None:
        """Count one more."""
        told = entry.record.details
        units = told.get("queries", told.get("requests", 1))
        self.count += 1
        self.units += units if isinstance(units, int) else 1
        self.first = self.first or entry
        self.last = entry


@dataclass(frozen=True)
class Rule:
    """A measure that software sees: what it is, and the records that show it was in force when they were made."""

    measure: str
    kinds: frozenset[str]
    holds: Callable[[Record], bool] = lambda _record: True


RULES = (
    Rule(
        "Models are kept encrypted and signed; only named recipients can open them",
        frozenset({"model.protected", "model.sealed"}),
    ),
    Rule(
        "Ownership marks are put into models before they leave",
        frozenset({"model.protected"}),
        lambda record: bool(record.details.get("marks")),
    ),
    Rule("Every delivery of a copy is recorded, with its recipient", frozenset({"model.delivered"})),
    Rule(
        "Delivered copies carry a fingerprint of their recipient",
        frozenset({"model.delivered"}),
        lambda record: bool(record.details.get("fingerprinted")),
    ),
    Rule("Copies are used under signed licences", frozenset({"license.issued", "license.renewed"})),
    Rule("Copies and recipients can be revoked, and were", frozenset({"model.revoked", "recipient.revoked"})),
    Rule(
        "Callers of the interface are known, each by a key or an identity of its own",
        frozenset({"client.key-added", "client.identity-added"}),
    ),
    Rule("Access was withdrawn from callers", frozenset({"client.revoked", "client.key-revoked"})),
    Rule(
        "Operators are known, each with a role",
        frozenset({"operator.added", "operator.changed"}),
    ),
    Rule("Changes that lower protection are decided by a second person", frozenset({"proposal.decided"})),
    Rule(
        "A gate stands before the model, which records each answer in a tamper-evident log",
        frozenset({"gate.started"}),
    ),
    Rule(
        "The gate limits callers under suspicion by itself",
        frozenset({"gate.started"}),
        lambda record: any(
            isinstance(route, dict) and route.get("mode") == "enforce" for route in record.details.get("routes", ())
        ),
    ),
    Rule("The watch for extraction is calibrated on honest callers", frozenset({"watch.calibrated"})),
    Rule("Standings of callers were lowered or restored", frozenset({"standing.changed"})),
    Rule("Changes of the policy are recorded", frozenset({"policy.changed"})),
    Rule("Decoys are laid out that no honest caller touches", frozenset({"decoy.added"})),
    Rule("Encrypted backups are made", frozenset({"backup.made"})),
    Rule("Suspects are tested for marks", frozenset({"mark.tested"})),
)
_COUNTED = frozenset(kind for rule in RULES for kind in rule.kinds)


@dataclass
class History:
    """What one pass found: entries in the order of the ledger, and tallies by account and by rule.

    `answers` and `refusals` are by pseudonym, `tallies` in the order of `RULES`.
    """

    entries: list[Entry] = field(default_factory=list)
    answers: dict[str, Tally] = field(default_factory=dict)
    refusals: dict[str, Tally] = field(default_factory=dict)
    tallies: list[Tally] = field(default_factory=lambda: [Tally() for _ in RULES])

    def of(self, *kinds: str) -> Iterator[Entry]:
        """The kept entries of these kinds."""
        return (entry for entry in self.entries if entry.record.kind in kinds)

    def before(self, kind: str, moment: datetime) -> Entry | None:
        """The last kept entry of a kind that happened before `moment`."""
        found = [entry for entry in self.of(kind) if entry.record.time <= moment]
        return found[-1] if found else None


def read_history(
    reader: LedgerReader,
    case: str,
    accounts: frozenset[str],
    progress: Callable[[str, int, int], None] = lambda _stage, _done, _total: None,
) -> History:
    """What the ledger has of a case (by id), of its accounts (pseudonyms), and of the installation.

    Raises TamperError at an entry that cannot be proved, PalladionError beyond `KEPT_MAX`.
    """
    history, subject = History(), f"incident:{case}"
    for index, data in reader.entries():
        if index % PROGRESS_EVERY == 0:
            progress("read the ledger", index, reader.size)
        # to whom it was given acts; of whom it was refused is the subject
        if _ANSWER in data and not any(found.decode() in accounts for found in _ACCOUNT.findall(data)):
            continue
        _take(history, Entry(index, data, decode_record(data, what=f"entry {index}")), subject, accounts)
        if len(history.entries) > KEPT_MAX:
            raise PalladionError(f"the case and its models have more than {KEPT_MAX} entries in the ledger")
    return history


def _take(history: History, entry: Entry, subject: str, accounts: frozenset[str]) -> None:
    record = entry.record
    if record.kind in _COUNTED:
        for rule, tally in zip(RULES, history.tallies, strict=True):
            if record.kind in rule.kinds and rule.holds(record):
                tally.add(entry)
    if record.kind.startswith("answer."):
        if record.kind == "answer.refused" and record.subject in accounts:
            history.refusals.setdefault(record.subject, Tally()).add(entry)
        elif record.kind in {"answer.given", "answer.begun"} and record.actor in accounts:
            history.answers.setdefault(record.actor, Tally()).add(entry)
    elif (
        record.kind in _KEPT
        or (record.kind.startswith(_OF_ACCOUNTS) and record.subject in accounts)
        or (record.kind.startswith(_OF_CASE) and record.subject == subject)
        or (record.kind == "decoy.touched" and any(name.encode() in entry.data for name in accounts))
    ):
        history.entries.append(entry)
