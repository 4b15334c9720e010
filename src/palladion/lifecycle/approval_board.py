"""What the ledger says of approvals: who approves, what was asked, decided and used. The registry decides nothing.

Statements, decisions and reviews are verified as they are read; one that does not hold counts for nothing.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from types import MappingProxyType
from typing import Any

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palladion.approvals.quorum import granted, require_decidable, require_quorum
from palladion.approvals.request import Request, SignedDecision, SignedRequest, read_decision, read_request
from palladion.approvals.review import read_review
from palladion.approvals.roster import Approver, Statement, read_statement, verify_statement
from palladion.clock import parse_timestamp
from palladion.errors import ApprovalError, FormatError, NotFoundError, PalladionError, TamperError
from palladion.keys import Root
from palladion.ledger import merkle
from palladion.ledger.journal import JournalContent, read_journal
from palladion.ledger.reader import LedgerReader
from palladion.ledger.record import Record, decode_record
from palladion.ledger.writer import JOURNAL_FILE
from palladion.lifecycle.approval_index import indexed_entries, read_index, write_index
from palladion.lifecycle.installation import Installation
from palladion.seal.sign import publisher_id

OWNER_ENTRY = 1  # where `create_installation` records the owner root
_ABOUT_APPROVALS = b'"kind":"approval'  # in every record of such a kind, which is canonical JSON
_BY_APPROVAL = b'"approval":"'  # in every record of what was done by a request, and in some others
RESUMABLE = "resumable"  # in the details of a use: a record of what is done by it will follow
_TIME = slice(-35, -8)  # of every record, in canonical JSON: 27 characters before `","v":1}`


@dataclass
class Case:
    """A request and what became of it, as far as the ledger is read.

    `used_by` began what it is about, and is the only one who can; `finished` once that is done, or nobody may again.
    """

    signed: SignedRequest
    entry: int
    decisions: list[SignedDecision] = field(default_factory=list)
    withdrawn: str = ""
    used_by: str = ""
    used_at: datetime | None = None
    finished: bool = False

    @property
    def request(self) -> Request:
        """The request."""
        return self.signed.request


@dataclass
class BrokenGlass:
    """What was done without approvals, and what was found of it."""

    id: str
    by: str
    at: datetime
    reason: str
    purpose: str
    subject: str
    case: str
    reviewed_by: str = ""
    finding: str = ""


@dataclass
class Drill:
    """A drill that was ended: who approved it, and who did not."""

    id: str
    at: datetime
    granted: tuple[str, ...]
    denied: tuple[str, ...]


@dataclass
class Board:
    """All of it. `statement` is the one in force; `refused` names what is in the ledger and does not hold.

    `published` is the size and root of the ledger that was read, `waiting` what was acknowledged behind that, `entries`
    the numbers of the records that this was read from.
    """

    origin: str
    owner_key: bytes
    ledger_key: bytes
    statement: Statement | None = None
    cases: dict[str, Case] = field(default_factory=dict)
    broken: dict[str, BrokenGlass] = field(default_factory=dict)
    drills: list[Drill] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    published: tuple[int, bytes] = (0, merkle.EMPTY_ROOT)
    waiting: list[bytes] = field(default_factory=list)
    entries: list[int] = field(default_factory=list)
    _times: list[tuple[int, bytes]] = field(default_factory=list)

    def note_time(self, index: int, entry: bytes) -> None:
        """Keep when an entry was written, if no later one is of a later time."""
        moment = entry[_TIME]
        while self._times and self._times[-1][1] <= moment:
            self._times.pop()
        self._times.append((index, moment))

    @property
    def times(self) -> tuple[tuple[int, bytes], ...]:
        """Number and time of each entry that is later than all behind it, as they stand in the records."""
        return tuple(self._times)

    def resume_times(self, times: Iterable[tuple[int, bytes]]) -> None:
        """Go on from what `times` was when all entries up to here had been noted."""
        self._times = list(times)

    def latest_after(self, entry: int) -> datetime | None:
        """The latest time of all entries behind `entry`, whatever the last one says. Raises TamperError."""
        moment = next((moment for index, moment in self._times if index > entry), None)
        if moment is None:
            return None
        try:
            return parse_timestamp(moment.decode("ascii"))
        except ValueError:
            raise TamperError("the ledger has a record without a time") from None

    @property
    def owner(self) -> str:
        """The id of the owner's key, as requests name it."""
        return publisher_id(self.owner_key)

    @property
    def unreviewed(self) -> list[BrokenGlass]:
        """Broken glass that nobody has reviewed."""
        return [item for item in self.broken.values() if not item.reviewed_by]

    def case(self, text: str) -> Case:
        """The case whose id is `text`, or the only one whose id begins with it. Raises ApprovalError."""
        found = [case for key, case in self.cases.items() if text and key.startswith(text)]
        if len(found) != 1:
            raise ApprovalError(
                f"no request with the id {text!r} is on record" if not found else f"{len(found)} requests begin so",
                "palladion approval list",
                reason="unknown",
            )
        return found[0]

    def needed(self, wished: int) -> int:
        """How many approvals are needed where the policy says `wished`: a policy that says less lowers nothing."""
        return max(wished, self.statement.needed if self.statement else 0)

    def state(self, case: Case, at: datetime, *, wished: int) -> str:
        """In a word how a request stands: used, withdrawn, denied, expired, begun, approved or waiting."""
        if case.finished or case.withdrawn:
            return "used" if case.finished else "withdrawn"
        try:
            agreed = granted(case.request, case.decisions, self.statement, at=at) if self.statement else ()
        except PalladionError:
            return "denied"
        if at >= case.request.ends_at:
            return "used" if case.used_by else "expired"
        if case.used_by:
            return "begun"
        return "approved" if 0 < self.needed(wished) <= len(agreed) else "waiting"


def read_board(installation: Installation, gate: Root, *, since: Board | None = None, whole: bool = False) -> Board:
    """Read the ledger, with what is acknowledged and not published yet. Raises TamperError where it does not hold.

    Reads what an index names and what is behind that (`approval_index`). Without one, or for `whole`, proves every
    entry of the ledger, which takes as long as reading it: some 3 µs each. Where `since`, a board that was read before,
    is given, it is continued, and only what is behind it is read.
    """
    journal = read_journal(installation.paths.ledger / JOURNAL_FILE, gate.derive("journal"))
    reader = installation.read_ledger()
    board = since if since is not None and _continues(since, reader, journal) else None
    if board is None:
        board = _published(reader, gate, _owner_key(reader, journal.entries), whole=whole)
        start = reader.size
    else:
        start = board.published[0] + len(board.waiting)
    for index, entry in _entries(reader, journal, start):
        board.note_time(index, entry)
        _take(board, index, entry)
    board.published = (reader.size, reader.checkpoint.root)
    board.waiting = journal.entries[max(0, reader.size - journal.first) :]
    return board


def hidden_by_index(installation: Installation, gate: Root, board: Board) -> list[int]:
    """The records of a board that was read whole, and that an index which the gate root made leaves out."""
    index = read_index(installation.read_ledger(), gate)
    return sorted({number for number in board.entries if number < index.size} - set(index.entries)) if index else []


def _published(reader: LedgerReader, gate: Root, owner_key: bytes, *, whole: bool) -> Board:
    """What the published ledger says; by the index, if one holds."""
    ledger_key = gate.public().keys["checkpoint"]
    index = None if whole else read_index(reader, gate)
    board = Board(reader.checkpoint.origin, owner_key, ledger_key)
    if index is not None:
        try:
            for number, entry in indexed_entries(reader, index):
                _take(board, number, entry)
            board.resume_times(index.times)
        except (TamperError, FormatError, NotFoundError):
            # whatever is wrong, reading all of it says so
            index, board = None, Board(reader.checkpoint.origin, owner_key, ledger_key)
    known = index.size if index is not None else 0
    for number, entry in reader.entries(known):
        board.note_time(number, entry)
        _take(board, number, entry)
    if not whole:  # who reads all of it compares it with the index that is there
        write_index(reader, gate, board.entries, board.times, known=known)
    return board


def _take(board: Board, number: int, entry: bytes) -> None:
    """Read one entry, if it is about approvals."""
    if _ABOUT_APPROVALS not in entry and _BY_APPROVAL not in entry:
        return
    record = decode_record(entry, what=f"entry {number}")
    read = _READERS.get(record.kind)
    if read is None:
        return
    board.entries.append(number)
    try:
        read(board, record, number)
    except (PalladionError, KeyError, TypeError) as error:
        why = error.message if isinstance(error, PalladionError) else "it lacks something"
        board.refused.append(f"entry {number}, {record.kind}: {why}")


def _continues(board: Board, reader: LedgerReader, journal: JournalContent) -> bool:
    """Whether everything that the board was read from still is what the ledger begins with.

    False where it was not published as it waited: then all is read again. Raises TamperError where it was published.
    """
    size, root = board.published
    merkle.verify_consistency(size, reader.size, root, reader.checkpoint.root, reader.consistency_proof(size))
    now = [entry for _, entry in _entries(reader, journal, size)]
    return now[: len(board.waiting)] == board.waiting


def drill_key(gate: Root) -> bytes:
    """The secret by which this installation tells its drills from requests, 32 bytes."""
    return HKDF(SHA256(), 32, salt=None, info=b"palladion/v1/gate/approvals/drill").derive(gate.derive("journal"))


def _owner_key(reader: LedgerReader, waiting: list[bytes]) -> bytes:
    """The owner's public key as the ledger has it from its first day: files and policy can be exchanged, it cannot."""
    entry = reader.lasting_entry(OWNER_ENTRY) if reader.size > OWNER_ENTRY else waiting[OWNER_ENTRY]
    record = decode_record(entry, what=f"entry {OWNER_ENTRY}")
    key = record.details.get("publisher")
    if (record.kind, record.subject) != ("keys.created", "owner root") or not isinstance(key, str):
        raise TamperError("the ledger does not begin with the owner root: this installation was not made by palladion")
    return bytes.fromhex(key)


def _entries(reader: LedgerReader, journal: JournalContent, start: int) -> Iterator[tuple[int, bytes]]:
    """Index and bytes of every acknowledged entry from `start` on."""
    if start < reader.size:
        yield from reader.entries(start)
    for index, entry in enumerate(journal.entries, journal.first):
        if index >= max(reader.size, start):
            yield index, entry


def _requested(board: Board, record: Record, index: int) -> None:
    signed = read_request(record.details["request"], what="the request")
    request = signed.verified(board.ledger_key)
    if request.id in board.cases:
        raise FormatError(f"request {request.id} is there already")
    if request.requester != record.actor:
        raise TamperError(f"request {request.id} names another requester than the one on record")
    board.cases[request.id] = Case(signed, index)


def _decided(board: Board, record: Record, _index: int) -> None:
    signed = read_decision(record.details["decision"], what="the decision")
    case = board.case(signed.decision.id)
    if board.statement is None:
        raise FormatError("nobody was an approver then")
    require_decidable(case.request, signed, board.statement, owner=board.owner, at=record.time)
    case.decisions.append(signed)


def _withdrawn(board: Board, record: Record, _index: int) -> None:
    _exact(board, _id_of(record)).withdrawn = record.actor


def _used(board: Board, record: Record, _index: int) -> None:
    case = _exact(board, _id_of(record))
    case.used_by, case.used_at = record.actor, record.time
    # else no record will say that it was done: those of earlier versions, of changes of approvers
    case.finished = case.finished or record.details.get(RESUMABLE) is not True


def _acted(board: Board, record: Record, _index: int) -> None:
    case = board.cases.get(str(record.details.get("approval")))
    if case is not None:
        case.finished = True


def _changed(board: Board, record: Record, _index: int) -> None:
    signed = read_statement(
        {"statement": record.details["statement"], "signature": record.details["signature"]}, what="the statement"
    )
    before = board.statement
    statement = verify_statement(signed, before, owner=board.owner_key, origin=board.origin)
    if before is not None and before.armed:
        case = _exact(board, str(record.details["request"]))
        agreed_to(board, case, statement, at=record.time, needed=before.needed)
    board.statement = statement


def agreed_to(
    board: Board, case: Case, statement: Statement, *, at: datetime, needed: int, among: Statement | None = None
) -> tuple[Approver, ...]:
    """The approvers who agreed to `statement` in place of the one in force. Raises ApprovalError."""
    before = among or board.statement
    if before is None:
        raise ApprovalError("there is no statement of approvers yet", reason="approvers")
    if case.withdrawn:
        raise ApprovalError(f"request {case.request.id} was withdrawn by {case.withdrawn}", reason="withdrawn")
    if (case.request.purpose, case.request.content) != ("approvers", statement.digest):
        raise ApprovalError(f"request {case.request.id} was approved for another change", reason="altered")
    return require_quorum(case.request, case.decisions, before, owner=board.owner, needed=needed, at=at)


def _broken(board: Board, record: Record, _index: int) -> None:
    if _id_of(record) in board.broken:
        # else somebody could take what he did upon another, and review it himself
        raise FormatError(f"broken glass {_id_of(record)} is there already")
    said = {name: str(record.details[name]) for name in ("reason", "purpose", "what", "case")}
    board.broken[_id_of(record)] = BrokenGlass(
        _id_of(record), record.actor, record.time, said["reason"], said["purpose"], said["what"], said["case"]
    )


def _reviewed(board: Board, record: Record, _index: int) -> None:
    broken = board.broken[_id_of(record)]
    signed = read_review(record.details["review"], what="the review")
    if board.statement is None:
        raise FormatError("nobody was an approver then")
    broken.reviewed_by = signed.verified(board.statement, broken=broken.id, by=broken.by).name
    broken.finding = signed.review.finding


def _drilled(board: Board, record: Record, _index: int) -> None:
    who: dict[str, Any] = record.details
    case = _exact(board, _id_of(record))
    case.used_by, case.used_at, case.finished = record.actor, record.time, True
    board.drills.append(Drill(_id_of(record), record.time, tuple(who["granted"]), tuple(who["denied"])))


def _exact(board: Board, request: str) -> Case:
    """The case of exactly this id: people may shorten one, records may not."""
    if request not in board.cases:
        raise FormatError(f"no request {request[:16]} is on record")
    return board.cases[request]


def _id_of(record: Record) -> str:
    return record.subject.removeprefix("approval:")


_READERS: Mapping[str, Callable[[Board, Record, int], None]] = MappingProxyType(
    {
        "approval.requested": _requested,
        "approval.granted": _decided,
        "approval.denied": _decided,
        "approval.revoked": _withdrawn,
        "approval.used": _used,
        "approval.broken-glass": _broken,
        "approval.reviewed": _reviewed,
        "approval.drilled": _drilled,
        "approvals.changed": _changed,
        "model.delivered": _acted,
        "model.opened": _acted,
        "model.rewrapped": _acted,
        "broker.released": _acted,
    }
)
