"""How much of models has left within a day, and whether more may: counted from the ledger, so that no restart forgets.

Counts whole models: a plaintext written by `unseal`, a copy made by `deliver`. What a limit is worth depends on the
model's size, which `Line` says for a line of 1 Mbit/s: a small model is through before anybody looks.
"""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Literal

from palladion import files
from palladion.errors import ConflictError
from palladion.ledger.record import Record
from palladion.ledger.since import records_since
from palladion.lifecycle.doctor import Check
from palladion.lifecycle.installation import Installation
from palladion.registry import Version

NAME = "egress"
DAY = timedelta(hours=24)
LOCK = "egress.lock"  # in the installation's folder: nothing else leaves between the count and its record
PLAINTEXT = "plaintext_bytes"  # in the details of a model that was opened onto a disk
ONE = 1.0  # model
SLACK = 1e-9  # of sums of ones
MBIT_BYTES = 125_000  # that 1 Mbit/s carries in a second
SLOW_SECONDS = 24 * 3600.0  # what leaves faster at 1 Mbit/s, no limit of a line holds up until somebody looks

Channel = Literal["unseal", "deliver"]
_KINDS = frozenset({"model.opened", "model.delivered"})


@dataclass(frozen=True)
class Left:
    """What has left within 24 hours, in models: by operator, by recipient, and in all."""

    by_operator: Counter[str]
    by_recipient: Counter[str]

    @property
    def all(self) -> int:
        """Of everybody."""
        return self.by_operator.total() + self.by_recipient.total()


@dataclass(frozen=True)
class Line:
    """A model of so many bytes on a line of so many megabits a second."""

    size: int
    mbit: float = 1.0

    @property
    def seconds(self) -> float:
        """How long all of it takes."""
        return self.size / (self.mbit * MBIT_BYTES)

    @property
    def is_held_up(self) -> bool:
        """Whether a limit of the line gives anybody a day to notice it."""
        return self.seconds >= SLOW_SECONDS

    def __str__(self) -> str:
        return f"{said_bytes(self.size)}, which {self.mbit:g} Mbit/s carries in {said_seconds(self.seconds)}"


def left(installation: Installation) -> Left:
    """What has left within 24 hours, by the ledger. Raises TamperError where it does not hold."""
    found = Left(Counter(), Counter())
    since = installation.clock.now() - DAY
    for record in records_since(installation.read_ledger(), since, _KINDS):
        if record.kind == "model.delivered":
            found.by_recipient[str(record.details.get("recipient"))] += 1
        elif PLAINTEXT in record.details:
            found.by_operator[record.actor] += 1
    return found


@contextmanager
def leaving(installation: Installation, channel: Channel, whose: str, *, subject: str, actor: str) -> Iterator[None]:
    """Let one model leave within the block, which records it; `whose` is the operator, or the recipient of a copy.

    Without limits in the policy it does nothing. Raises ConflictError where a limit would be passed, which is recorded;
    BusyError while another one leaves.
    """
    policy = installation.policy.egress
    own = policy.unseal_per_day if channel == "unseal" else policy.deliver_per_day
    if not own and not policy.all_per_day:
        yield
        return
    with files.exclusive_lock(installation.paths.directory / LOCK, what="something that leaves"):
        _require(installation, channel, whose, own, subject=subject, actor=actor)
        yield


def in_plaintext(record: Record, size: int) -> Record:
    """The record of a model that was opened, as that of one that comes to lie on a disk."""
    return replace(record, details=record.details | {PLAINTEXT: size})


def _require(installation: Installation, channel: Channel, whose: str, own: float, *, subject: str, actor: str) -> None:
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        ledger.checkpoint()  # what a gate that serves has just written counts as well
        found = left(installation)
        spent = (found.by_operator if channel == "unseal" else found.by_recipient)[whose]
        setting = f"egress.{channel}_per_day"
        limits = (
            (setting, whose, spent, own),
            ("egress.all_per_day", "all", found.all, installation.policy.egress.all_per_day),
        )
        for name, who, already, limit in limits:
            if limit and already + ONE > limit + SLACK:
                details = {"channel": channel, "whose": who, "setting": name, "left": already, "limit": f"{limit:g}"}
                ledger.append([Record("egress.refused", installation.clock.now(), actor, subject, details)])
                raise ConflictError(
                    f"{already} models have left within 24 hours for {who}, and {name} is {limit:g}",
                    "wait, or have somebody else change palladion.toml: the refusal is on record",
                )


def size_of(installation: Installation, version: Version) -> int:
    """Bytes of the sealed file that is served; 0 where it is not here."""
    try:
        return (installation.paths.sealed / version.served.path).stat().st_size
    except OSError:
        return 0


def useless(installation: Installation, version: Version) -> str | None:
    """Why the policy's limits do nothing for a version, in a sentence; None where it sets none, or they do."""
    policy, line = installation.policy.egress, Line(size_of(installation, version))
    if line.is_held_up or not (policy.unseal_per_day or policy.deliver_per_day or policy.all_per_day):
        return None
    return f"limits of what leaves do little for {version.model}@{version.number}: it has {line}"


def look(installation: Installation) -> Iterator[Check]:
    """What limits of egress are worth for the promoted models, the smallest first, and what has left within a day."""
    with installation.open_registry() as registry, registry.read() as records:
        served = [records.promotions.current(model.name) for model in records.models.all()]
    sizes = sorted((size_of(installation, item), f"{item.model}@{item.number}") for item in served if item is not None)
    sizes = [item for item in sizes if item[0]]
    policy = installation.policy.egress
    if sizes:
        size, name = sizes[0]
        line = Line(size)
        worth = (
            "a limit of the line gives days to notice it"
            if line.is_held_up
            else "no limit of what leaves holds it up: keep it sealed, and mark every copy"
        )
        yield Check(NAME, "ok", f"{name} has {line} (10.8 GB a day): {worth}")
    if policy.unseal_per_day or policy.deliver_per_day or policy.all_per_day:
        found = left(installation)
        yield Check(NAME, "ok", f"{found.all} models have left within 24 hours, in plaintext or as copies")


def said_bytes(size: float) -> str:
    """Bytes for people, in powers of ten as lines are sold."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.3g} {unit}"
        size /= 1000
    return f"{size:.3g} TB"


def said_seconds(seconds: float) -> str:
    """A duration for people."""
    for unit, length in (("days", 86_400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{seconds:.2g} s"
