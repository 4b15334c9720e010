"""What an installation shows at a moment: its policy, its registry, and the newest ledger entry of each kind.

Entries are found by the ledger's index and proved as they are read; who mistrusts the index lets it be made anew
(`palladion ledger query --scan` reads past it). Nothing is decrypted, and no model opened.
"""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

from palladion import keys
from palladion.errors import PalladionError
from palladion.incident.measures import ENDED, RECORDED, Measure, register
from palladion.ledger.index import INDEX_FILE, Index, Progress, Question
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record
from palladion.lifecycle.audits import AUDITED, is_audit
from palladion.lifecycle.installation import Installation
from palladion.policy import Policy
from palladion.purposes import RootName
from palladion.registry import Records, Version
from palladion.seal.reader import inspect_file

KINDS = (
    "approval.broken-glass",
    "approval.drilled",
    "approval.reviewed",
    "approvals.changed",
    "backup.made",
    "broker.released",
    "client.added",
    "decoy.added",
    "federation.round",
    "gate.started",
    "incident.acted",
    "incident.closed",
    "ledger.created",
    "ledger.exported",
    "license.issued",
    "mark.tested",
    "model.delivered",
    "model.promoted",
    "model.protected",
    "model.sealed",
    "operator.added",
    "proposal.decided",
    "standing.changed",
    "storage.scanned",
    "watch.calibrated",
)
HARDENED = "harden"  # the stage of such a record, whose subject is a model without a number
_ROOTS: tuple[RootName, ...] = ("owner", "gate")


@dataclass(frozen=True)
class Seen:
    """An entry of the ledger that shows something: its number, and the record."""

    index: int
    record: Record

    def __str__(self) -> str:
        """As evidence is written down."""
        return f"entry {self.index} of {self.record.time:%Y-%m-%d} ({self.record.kind})"


@dataclass(frozen=True)
class View:
    """Everything that the checks look at. `served` are the promoted versions of the policy's routes.

    `wraps` are the kinds of recipients that a root or a served file is wrapped to; `audits` the newest finished audit
    of each served version, by its name; `hardened` the hardening that each came of, or else the last one that was
    tried for its model; `calibrated` the served versions with a calibration, and whether real clients
    made it; `unreviewed` what was done without approvals and has no review, oldest first.
    """

    policy: Policy
    moment: datetime
    served: tuple[Version, ...] = ()
    versions: int = 0
    operators: int = 0
    decoys: int = 0
    wraps: frozenset[str] = frozenset()
    newest: Mapping[str, Seen] = field(default_factory=dict)
    audits: Mapping[str, Seen] = field(default_factory=dict)
    calibrated: Mapping[str, bool] = field(default_factory=dict)
    measures: tuple[Measure, ...] = ()
    hardened: Mapping[str, Seen] = field(default_factory=dict)
    unreviewed: tuple[Seen, ...] = ()

    def in_force(self, *categories: str) -> list[Measure]:
        """What people recorded of these categories, and is in force."""
        return [item for item in self.measures if item.category in categories and item.state(self.moment) == "in force"]

    def over(self, *categories: str) -> list[Measure]:
        """What people recorded of these categories, and has expired."""
        return [item for item in self.measures if item.category in categories and item.state(self.moment) == "expired"]


def look_over(installation: Installation, progress: Progress | None = None) -> View:
    """Read the installation. Raises PalladionError where policy, registry or ledger cannot be read or proved."""
    reader = installation.read_ledger()
    with closing(Index(reader.directory / INDEX_FILE)) as index:
        index.update(reader, progress)
        newest = {kind: seen for kind in KINDS if (seen := _newest(index, reader, kind)) is not None}
        controls = tuple(register(index.find(reader, Question(kinds=(RECORDED, ENDED)))))
        with installation.open_registry() as registry, registry.read() as records:
            served = _served(installation, records)
            rows = {name_of(version): records.calibrations.newest(version.model, version.number) for version in served}
            return View(
                installation.policy,
                installation.clock.now(),
                served,
                sum(len(records.versions.all(model.name)) for model in records.models.all()),
                sum(operator.revoked_at is None for operator in records.operators.all()),
                len(records.decoys.all(retired=False)),
                _wraps(installation, served),
                newest,
                {name: seen for name in rows if (seen := _audit(index, reader, name)) is not None},
                {name: not row.simulated for name, row in rows.items() if row is not None},
                controls,
                {name_of(item): seen for item in served if (seen := _hardening(index, reader, item)) is not None},
                _unreviewed(index, reader),
            )


def _served(installation: Installation, records: Records) -> tuple[Version, ...]:
    models = sorted({route.model for route in installation.policy.route})
    return tuple(
        version
        for model in models
        if records.models.find(model) is not None and (version := records.promotions.current(model)) is not None
    )


def name_of(version: Version) -> str:
    """A version as commands and records name it."""
    return f"{version.model}@{version.number}"


def _newest(index: Index, reader: LedgerReader, kind: str) -> Seen | None:
    for number, record in index.find(reader, Question(kinds=(kind,)), newest_first=True):
        return Seen(number, record)
    return None


def _unreviewed(index: Index, reader: LedgerReader) -> tuple[Seen, ...]:
    """Everything that was done without approvals, less what a review is about."""
    about = {record.subject for _, record in index.find(reader, Question(kinds=("approval.reviewed",)))}
    broken = index.find(reader, Question(kinds=("approval.broken-glass",)))
    return tuple(Seen(number, record) for number, record in broken if record.subject not in about)


def _audit(index: Index, reader: LedgerReader, name: str) -> Seen | None:
    """The newest audit of a version: one that broke off, or of its mark or its surface alone, is none."""
    for number, record in index.find(reader, Question(kinds=(AUDITED,), subject=name), newest_first=True):
        if is_audit(record):
            return Seen(number, record)
    return None


def came_of(version: Version, seen: Seen) -> bool:
    """Whether a version is what that hardening made, by the digest that both state: its own, or of what was marked."""
    digests = {version.content_digest, *(mark.get("original") for mark in version.marks)}
    stated = seen.record.details.get("hardened")
    return stated is not None and stated in digests


def _hardening(index: Index, reader: LedgerReader, version: Version) -> Seen | None:
    """The hardening that a version came of; else the newest that was tried for its model."""
    newest: Seen | None = None
    for number, record in index.find(reader, Question(kinds=(AUDITED,), subject=version.model), newest_first=True):
        if record.details.get("stage") != HARDENED:
            continue
        seen = Seen(number, record)
        if came_of(version, seen):
            return seen
        newest = newest or seen
    return newest


def _wraps(installation: Installation, served: Sequence[Version]) -> frozenset[str]:
    found: set[str] = set()
    for root in _ROOTS:
        try:
            wraps = keys.read_wraps(installation.keyring(root), what=f"the {root} keyring")
        except PalladionError:
            continue  # the owner root may be on a disk that is not here; what is not seen is not claimed
        found |= {wrap.kind for wrap in wraps}
    for version in served:
        place = installation.paths.sealed / version.served.path
        found |= {wrap.kind for wrap in inspect_file(place).wraps}
    return frozenset(found)
