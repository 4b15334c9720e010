"""One entry on its way out, and what all forms ask of it: who, which model, how grave. Values in, values out."""

import re
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cached_property
from types import MappingProxyType

import palladion
from palladion.ledger.merkle import leaf_hash
from palladion.ledger.record import KINDS, Record
from palladion.watch.taxonomy import Table, cause_of, ids_of, shipped

PRODUCT = "Palladion"
VERSION = palladion.__version__
CLIENT = "client:"  # how a pseudonym begins (access.pseudonyms)
_VERSIONED = re.compile(r"(.+)@([0-9]{1,9})", re.DOTALL)
_OF_MODELS = frozenset({"answer", "model", "watch"})  # first words of kinds whose subject is a model
# what ends a line for some reader (str.splitlines, syslog daemons), steers a terminal, or turns text around
_BREAKING = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]")


class Severity(IntEnum):
    """How grave, in OCSF's numbers."""

    INFORMATIONAL = 1
    LOW = 2
    MEDIUM = 3
    HIGH = 4


_SEVERITIES = MappingProxyType(
    {
        "answer.refused": Severity.LOW,
        "answer.broken": Severity.LOW,
        "standing.proposed": Severity.LOW,
        "operator.refused": Severity.MEDIUM,
        "clock.set": Severity.MEDIUM,
        "watch.drifted": Severity.MEDIUM,
        "watch.newcomers": Severity.MEDIUM,
        "backup.restored": Severity.MEDIUM,
        "incident.opened": Severity.HIGH,
        "decoy.touched": Severity.HIGH,
    }
)
_STANDINGS = MappingProxyType(
    {
        "trusted": Severity.INFORMATIONAL,
        "watched": Severity.LOW,
        "throttled": Severity.MEDIUM,
        "degraded": Severity.MEDIUM,
        "suspended": Severity.HIGH,
    }
)


@dataclass(frozen=True)
class Source:
    """Where entries come from: the log, the checkpoint that they were proved under, and the host that sends them."""

    origin: str
    authority: str  # the log's verifier key as text
    size: int  # entries under the checkpoint
    root: str  # its root, hexadecimal
    host: str = "-"
    witnessed: int = 0  # so many of them are under a checkpoint that witnesses cosigned
    witnesses: tuple[str, ...] = ()
    techniques: Table = field(default_factory=shipped)  # what the ids of causes are called


@dataclass(frozen=True)
class Item:
    """A proved entry: its number and exact bytes, what they say, and the client's name where it may be told."""

    number: int
    data: bytes
    record: Record
    name: str | None = None

    @cached_property
    def leaf(self) -> str:
        """The entry's leaf hash in the tree (RFC 6962 §2.1), hexadecimal."""
        return leaf_hash(self.data).hex()

    @property
    def milliseconds(self) -> int:
        """The record's time since 1970."""
        moment = self.record.time
        # of integers: the float of `timestamp` may round up into the next millisecond
        return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000

    @cached_property
    def client(self) -> str | None:
        """The pseudonym of the client that did this, or to whom it was done."""
        return pseudonym_of(self.record)

    @cached_property
    def model(self) -> tuple[str | None, int | None]:
        """Name and version of the model that this is about, as far as the record says."""
        subject = self.record.subject
        if self.record.kind.partition(".")[0] not in _OF_MODELS or subject.startswith(CLIENT):
            return None, None
        found = _VERSIONED.fullmatch(subject)
        return (found[1], int(found[2])) if found else (subject or None, None)

    @property
    def route(self) -> str | None:
        """The route that was asked."""
        return self.detail("route")

    @property
    def standing(self) -> str | None:
        """The client's standing at that time; of a change, the new one."""
        return self.detail("to" if self.record.kind.startswith("standing.") else "standing")

    @property
    def severity(self) -> Severity:
        """How grave it is. What a person did is information, and so is a kind that is not known here."""
        if self.record.kind == "standing.changed":
            return _STANDINGS.get(self.standing or "", Severity.MEDIUM)
        return _SEVERITIES.get(self.record.kind, Severity.INFORMATIONAL)

    @property
    def title(self) -> str:
        """A sentence for a person on what kinds like this one mean."""
        return KINDS.get(self.record.kind, self.record.kind)

    @cached_property
    def cause(self) -> str:
        """What it is a sign of, a key of `watch.taxonomy.DETECTIONS`; empty for what is no detection."""
        return cause_of(self.record.kind, self.record.details)

    @property
    def techniques(self) -> tuple[str, ...]:
        """The ids of the cause in MITRE ATLAS and OWASP."""
        return ids_of(self.cause)

    def detail(self, name: str) -> str | None:
        """A member of the details that is text."""
        found = self.record.details.get(name)
        return found if isinstance(found, str) else None

    def count(self, name: str) -> int | None:
        """A member of the details that is a number."""
        found = self.record.details.get(name)
        return found if isinstance(found, int) and not isinstance(found, bool) else None


def pseudonym_of(record: Record) -> str | None:
    """The client's pseudonym in a record, whichever side it stands on."""
    return next((text for text in (record.actor, record.subject) if text.startswith(CLIENT)), None)


def visible(text: str, *, keep: str = "") -> str:
    r"""`text` in one line, whoever splits it: what ends a line, steers a terminal or turns text is written as \uXXXX.

    Characters of `keep` stay, for a form that has a spelling of its own for them.
    """
    # nearly every text: looking for what breaks takes ten times as long
    if text.isprintable():
        return text
    return _BREAKING.sub(lambda found: found[0] if found[0] in keep else f"\\u{ord(found[0]):04x}", text)


def shortened(text: str, characters_max: int) -> str:
    """`text`, or its beginning and a mark that there was more. The whole of it is in the ledger."""
    return text if len(text) <= characters_max else f"{text[: characters_max - 1]}…"
