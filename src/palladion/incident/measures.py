"""Controls that software cannot see: training, agreements, locks, filings; who owns each, what shows it, until when.

The ledger is the register: what was in force on a day is read from it, and nobody can put a control in afterwards
without the entry's place saying so. Reading it costs one pass over the ledger.
"""

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, get_args

from palladion import files
from palladion.clock import timestamp
from palladion.errors import ConflictError, FormatError, NotFoundError, PalladionError
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record, decode_record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.registry import names

Category = Literal["agreement", "legal", "organisational", "physical", "technical", "training"]
State = Literal["in force", "not yet", "expired", "ended"]

CATEGORIES: tuple[Category, ...] = get_args(Category)
RECORDED, ENDED = "measure.recorded", "measure.ended"
EVIDENCE_BYTES_MAX = 1024**3  # a scan, a signed agreement, an export; only its digest is kept
_ID_BYTES = 4
_OF_MEASURES = b'"kind":"measure.'  # in every record of such a kind, which is canonical JSON


@dataclass(frozen=True)
class Measure:
    """A control as it stands in the ledger: days are inclusive, `entry` is where it was recorded, `ended` where it was.

    `evidence` says in words what shows it, `sha256` is the digest of the file that does, if one was given.
    """

    id: str
    control: str
    category: str
    owner: str
    evidence: str
    sha256: str | None
    since: date
    expires: date | None
    recorded: datetime
    entry: int
    ended: datetime | None = None
    ended_entry: int | None = None
    reason: str = ""

    def state(self, moment: datetime) -> State:
        """How it stood at `moment`."""
        day = moment.astimezone(UTC).date()
        if self.ended is not None and self.ended <= moment:
            return "ended"
        if day < self.since:
            return "not yet"
        return "expired" if self.expires is not None and self.expires < day else "in force"


def record_measure(
    installation: Installation,
    control: str,
    *,
    category: Category,
    owner: str,
    evidence: str,
    since: date,
    expires: date | None,
    file: Path | None,
    actor: str,
) -> tuple[str, Receipt]:
    """Put a control into the register; its id. Raises PalladionError on texts or days that cannot be."""
    names.label(control, what="the control")
    names.label(owner, what="the owner of a control")
    names.note(evidence, what="the evidence of a control")
    names.one_of(category, CATEGORIES, what="the category of a control")
    if expires is not None and expires < since:
        raise PalladionError(f"the control would end on {expires}, before it begins on {since}")
    if not evidence.strip() and file is None:
        raise PalladionError(
            "what shows the control is needed: words, or a file", "a control that nothing shows is none"
        )
    details: dict[str, Any] = {
        "control": control,
        "category": category,
        "owner": owner,
        "evidence": evidence,
        "sha256": _digest(file) if file is not None else None,
        "since": since.isoformat(),
        "expires": expires.isoformat() if expires else None,
    }
    made = secrets.token_hex(_ID_BYTES)
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        record = Record(RECORDED, installation.clock.now(), actor, f"measure:{made}", details)
        return made, ledger.append([record])[0]


def end_measure(installation: Installation, measure: str, reason: str, *, actor: str) -> tuple[Measure, Receipt]:
    """Say that a control is in force no more, and why. `measure` is an id or the beginning of one.

    Raises NotFoundError, ConflictError if it was ended before.
    """
    names.label(reason, what="the reason")
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        found = find_measure(measures(installation.read_ledger()), measure)
        if found.ended is not None:
            raise ConflictError(f"measure {found.id} was ended on {found.ended:%Y-%m-%d}")
        record = Record(ENDED, installation.clock.now(), actor, f"measure:{found.id}", {"reason": reason})
        receipt = ledger.append([record])[0]
    return replace(found, ended=record.time, ended_entry=receipt.index, reason=reason), receipt


def find_measure(known: Sequence[Measure], measure: str) -> Measure:
    """The measure whose id begins with `measure`. Raises NotFoundError if there is none, or more than one."""
    matching = [item for item in known if measure and item.id.startswith(measure)]
    if len(matching) != 1:
        hint = "palladion incident measure list shows them"
        raise NotFoundError(f"{len(matching) or 'no'} measures have an id that begins with {measure!r}", hint)
    return matching[0]


def measures(reader: LedgerReader) -> list[Measure]:
    """Every control that the ledger has, oldest first, each proved. Costs one reading of the ledger."""
    return list(register(_records(reader)))


def register(records: Iterator[tuple[int, Record]]) -> Iterator[Measure]:
    """The controls that numbered records, in the order of the ledger, tell of; those of other kinds are passed over.

    Raises FormatError at a record that is not as this code writes them.
    """
    found: dict[str, Measure] = {}
    for index, record in records:
        if record.kind == RECORDED:
            measure = _parsed(index, record)
            found.setdefault(measure.id, measure)
        elif record.kind == ENDED and (known := found.get(_id(record))) is not None and known.ended is None:
            reason = str(record.details.get("reason", ""))
            found[known.id] = replace(known, ended=record.time, ended_entry=index, reason=reason)
    yield from found.values()


def measure_document(measure: Measure, moment: datetime) -> dict[str, Any]:
    """A measure as JSON, with how it stood at `moment`."""
    return {
        "id": measure.id,
        "control": measure.control,
        "category": measure.category,
        "state": measure.state(moment),
        "owner": measure.owner,
        "evidence": measure.evidence,
        "sha256": measure.sha256,
        "since": measure.since.isoformat(),
        "expires": measure.expires.isoformat() if measure.expires else None,
        "recorded": timestamp(measure.recorded),
        "entry": measure.entry,
        "ended": timestamp(measure.ended) if measure.ended else None,
        "ended_entry": measure.ended_entry,
        "reason": measure.reason,
    }


def _records(reader: LedgerReader) -> Iterator[tuple[int, Record]]:
    for index, entry in reader.entries():
        if _OF_MEASURES in entry:
            yield index, decode_record(entry, what=f"entry {index}")


def _parsed(index: int, record: Record) -> Measure:
    told = record.details
    try:
        return Measure(
            _id(record),
            str(told["control"]),
            str(told["category"]),
            str(told["owner"]),
            str(told["evidence"]),
            told["sha256"],
            date.fromisoformat(told["since"]),
            date.fromisoformat(told["expires"]) if told["expires"] else None,
            record.time,
            index,
        )
    except (KeyError, TypeError, ValueError):
        raise FormatError(f"entry {index} is no measure that can be read") from None


def _id(record: Record) -> str:
    return record.subject.removeprefix("measure:")


def _digest(path: Path) -> str:
    return sha256(files.read_limited(path, size_max=EVIDENCE_BYTES_MAX, what="the evidence")).hexdigest()
