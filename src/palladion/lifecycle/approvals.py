"""Asks for approvals, takes decisions, and lets what was approved happen once; on record before any key is used.

What counts is what the ledger says (`approval_board`); the registry lists it, and keeps two from using one request.
"""

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime

import msgspec

from palladion.approvals.documents import document_of
from palladion.approvals.quorum import Wanted, granted, require_decidable, require_quorum, require_same
from palladion.approvals.request import (
    CLOCK_TOLERANCE,
    Purpose,
    Request,
    SignedDecision,
    new_request,
    sign_request,
)
from palladion.approvals.roster import Approver, Statement
from palladion.errors import ApprovalError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.remote import LedgerWriter
from palladion.ledger.writer import Receipt
from palladion.lifecycle.approval_board import RESUMABLE, Board, Case, drill_key, read_board
from palladion.lifecycle.installation import Installation
from palladion.registry import Records, names
from palladion.registry.approval_tables import ApprovalEventKind

TITLE_CHARACTERS_MAX = names.LABEL_CHARACTERS_MAX


@dataclass(frozen=True)
class Permit:
    """What somebody brings who wants something done: the id of a request, or a reason for doing without."""

    request: str = ""
    break_glass: str = ""


NOTHING = Permit()


@dataclass(frozen=True)
class Desk:
    """Ledger and registry, open for a change that is recorded before it takes effect, and what the ledger says."""

    installation: Installation
    gate: Root
    ledger: LedgerWriter
    records: Records
    board: Board

    @property
    def needed(self) -> int:
        """How many approvals are needed now."""
        return self.board.needed(self.installation.policy.approvals.needed)

    def record(self, kind: str, who: str, actor: str, details: Mapping[str, object]) -> Receipt:
        """Put something about a request, or about broken glass, on record."""
        record = Record(kind, self.installation.clock.now(), actor, f"approval:{who}", dict(details))
        return self.ledger.append([record])[0]


@contextmanager
def at_desk(installation: Installation, board: Board | None = None) -> Iterator[Desk]:
    """A desk, which nobody else has meanwhile; `board` is what was read before, which saves reading it again."""
    gate = installation.open_gate_root()
    # before the registry is locked, which gates write to: a long ledger takes seconds
    before = read_board(installation, gate) if board is None else board
    with installation.recording(gate) as (ledger, records):
        yield Desk(installation, gate, ledger, records, read_board(installation, gate, since=before))


@dataclass(frozen=True)
class Approved:
    """What was let happen: the request and who agreed, or neither where the glass was broken, and the record of it.

    `board` is what the ledger said then.
    """

    request: Request | None
    approvers: tuple[str, ...]
    receipt: Receipt
    board: Board | None = field(default=None, repr=False, compare=False)


@dataclass(frozen=True)
class Asking:
    """What somebody asks for, beside who he is: see `Request`."""

    subject: str
    purpose: Purpose
    reason: str
    file_id: str = ""
    content: str = ""
    recipient: str = ""
    recipient_key: str = ""
    evidence: str = ""


def ask(
    installation: Installation, asking: Asking, *, actor: str, hours: int | None = None, drill: bool = False
) -> tuple[Request, Receipt]:
    """Make a request and put it on record. A drill looks like any other and never lets anything happen.

    Raises ApprovalError for hours that are not allowed, ConflictError if too many wait.
    """
    with at_desk(installation) as desk:
        return put(desk, asking, actor=actor, hours=hours, drill=drill)


def put(
    desk: Desk,
    asking: Asking,
    *,
    actor: str,
    hours: int | None = None,
    drill: bool = False,
    proposal: Mapping[str, object] | None = None,
) -> tuple[Request, Receipt]:
    """The same at a desk; `proposal` is the statement that the request is about."""
    policy = desk.installation.policy.approvals
    request = new_request(
        drill_key(desk.gate),
        origin=desk.board.origin,
        owner=desk.board.owner,
        subject=asking.subject,
        purpose=asking.purpose,
        requester=actor,
        reason=names.label(asking.reason, what="the reason"),
        created=desk.installation.clock.now(),
        hours=policy.hours if hours is None else hours,
        file_id=asking.file_id,
        content=asking.content,
        recipient=asking.recipient,
        recipient_key=asking.recipient_key,
        evidence=asking.evidence,
        drill=drill,
    )
    signed = document_of(sign_request(request, desk.gate.signer("checkpoint")))
    desk.records.approvals.add(request.id, signed, requester=actor, expires=request.ends_at, proposal=proposal)
    details = {"request": signed, **({"proposal": dict(proposal)} if proposal else {})}
    return request, desk.record("approval.requested", request.id, actor, details)


def decide(installation: Installation, signed: SignedDecision, *, actor: str) -> tuple[Case, Approver, Receipt]:
    """Take an approver's signed decision, whoever brings it. Raises ApprovalError where it would not count."""
    with at_desk(installation) as desk:
        case, now = desk.board.case(signed.decision.id), installation.clock.now()
        _require_open(case)
        approver = require_decidable(case.request, signed, in_force(desk), owner=desk.board.owner, at=now)
        if any(item.decision.key == signed.decision.key for item in case.decisions):
            raise ApprovalError(f"{approver.name} has decided on request {case.request.id} already", reason="twice")
        document = document_of(signed)
        said: ApprovalEventKind = "granted" if signed.decision.verdict == "grant" else "denied"
        desk.records.approvals.say(case.request.id, said, document, actor=actor)
        details = {"decision": document, "approver": approver.name}
        receipt = desk.record(f"approval.{said}", case.request.id, actor, details)
        case.decisions.append(signed)
        return case, approver, receipt


def withdraw(installation: Installation, request: str, *, reason: str, actor: str) -> tuple[Request, Receipt]:
    """Take a request back, with every approval it has; anybody may, since it only keeps something from happening."""
    with at_desk(installation) as desk:
        case = desk.board.case(request)
        _require_open(case)
        details = {"reason": names.label(reason, what="the reason")}
        desk.records.approvals.say(case.request.id, "revoked", details, actor=actor)
        return case.request, desk.record("approval.revoked", case.request.id, actor, details)


def authorise(
    installation: Installation,
    permit: Permit,
    wanted: Wanted,
    *,
    subject: str,
    hint: str,
    actor: str,
    publisher: str | None = None,
) -> Approved | None:
    """Let something happen if nobody has to agree, or enough did, or the glass is broken; else raise ApprovalError.

    None where no approvals are needed. To be called before any key is touched; the record of what was done has to say
    what `conclude` says, which uses the request up. Until then, whoever began may begin again. `hint` is the command
    that asks for what is wanted. With `publisher`, files of others are let through.
    """
    board = read_board(installation, installation.open_gate_root())
    needed = board.needed(installation.policy.approvals.needed)
    # by the ledger: where the owner's keyring is not here, his files are still his
    if needed == 0 or publisher not in {None, board.owner}:
        return None
    if permit.break_glass:
        return _break_glass(installation, permit.break_glass, wanted, subject=subject, actor=actor, board=board)
    if not permit.request:
        raise ApprovalError(
            f"to {wanted.purpose} {subject} needs {needed} approval{'s' if needed > 1 else ''}",
            hint,
            "then again with --approval ID",
            reason="needed",
        )
    return require_approved(
        installation,
        permit.request,
        file_id=wanted.file_id,
        recipient=wanted.recipient,
        purpose=wanted.purpose,
        at=installation.clock.now(),
        recipient_key=wanted.recipient_key,
        actor=actor,
        subject=wanted.subject,
        board=board,
        resumable=True,
    )


def conclude(installation: Installation, gate: Root, approved: Approved | None) -> dict[str, str]:
    """What the record of an act has to say of its request, in its details; with that record the request is used up.

    To be called by who holds the ledger, so that of two who began with one request one ends. Raises ApprovalError if
    another did, or if somebody took the request back or said no meanwhile: then nothing may leave.
    """
    if approved is None or approved.request is None:
        return {}
    board = read_board(installation, gate, since=approved.board)
    case = board.case(approved.request.id)
    _require_open(case, case.used_by)
    if board.statement is not None:
        granted(case.request, case.decisions, board.statement, at=installation.clock.now())
    return {"approval": case.request.id}


def approvals_needed(installation: Installation) -> int:
    """How many approvals are needed before something leaves; 0 if none. Reads the ledger."""
    board = read_board(installation, installation.open_gate_root())
    return board.needed(installation.policy.approvals.needed)


def require_approved(
    installation: Installation,
    request_id: str,
    *,
    file_id: str,
    recipient: str,
    purpose: Purpose,
    at: datetime,
    recipient_key: str = "",
    evidence: str = "",
    actor: str | None = None,
    subject: str | None = None,
    board: Board | None = None,
    resumable: bool = False,
) -> Approved:
    """Use a request that enough people approved for exactly this, once and for good, and put that on record.

    A request that names a recipient's key or a machine's evidence (SHA-256) is refused unless the same is given here.
    Raises ApprovalError, whose `reason` names the check, after putting the refusal on record; TamperError. Without
    `actor` whoever asked counts as who uses it: a broker has to know that by itself. `subject` is compared where it is
    given; `board` is what was read of the ledger a moment ago. `resumable` is for who calls `conclude`: a crash before
    that leaves a request with which the same person can begin again.
    """
    with at_desk(installation, board) as desk:
        case = desk.board.case(request_id)
        who = actor or case.request.requester
        wanted = Wanted(purpose, file_id, recipient, recipient_key, evidence, actor, subject=subject)
        try:
            agreed = _require(desk, case, wanted, at, again=who if resumable else "")
        except ApprovalError as error:
            details = {
                "reason": error.reason,
                "purpose": purpose,
                "file_id": file_id,
                "recipient": recipient,
            }
            desk.record("approval.refused", case.request.id, who, details)
            raise
        receipt = desk.ledger.append([use(desk, case, agreed, actor=who, resumable=resumable)])[0]
        return Approved(case.request, tuple(item.name for item in agreed), receipt, desk.board)


def _require(desk: Desk, case: Case, wanted: Wanted, at: datetime, *, again: str) -> tuple[Approver, ...]:
    request, now = case.request, desk.installation.clock.now()
    # 1. the clock
    require_clock(desk, case)
    # 2. nothing against it
    _require_open(case, again)
    if request.is_drill(drill_key(desk.gate)):
        raise ApprovalError(f"request {request.id} was a drill: nothing is let out", reason="drill")
    # 3. exactly this
    require_same(request, wanted)
    # 4. enough people; the later time of both: who says what time it is must not choose an earlier one
    moment, owner = max(at, now), desk.board.owner
    return require_quorum(request, case.decisions, in_force(desk), owner=owner, needed=desk.needed, at=moment)


def require_clock(desk: Desk, case: Case) -> None:
    """Raise ApprovalError if the clock is behind the ledger: a machine that was set back would let old requests in.

    Every record since the request counts, not the last one alone: that may be of this very refusal. Those before it do
    not, else one record of a wrong time would end approvals for good.
    """
    now, latest = desk.installation.clock.now(), desk.board.latest_after(case.entry)
    if latest is not None and now < latest - CLOCK_TOLERANCE:
        raise ApprovalError(
            f"this machine's clock says {now:%Y-%m-%d %H:%M} UTC, and the ledger has a record of "
            f"{latest:%Y-%m-%d %H:%M}",
            "set the clock right",
            reason="clock",
        )


def use(desk: Desk, case: Case, agreed: Sequence[Approver], *, actor: str, resumable: bool = False) -> Record:
    """Mark a request to which these people agreed as used in the registry; its record is for the caller to append."""
    request, approvals = case.request, desk.records.approvals
    # where it was begun before, a crash may have come before the row or behind it
    if not case.used_by or approvals.get(request.id).used_at is None:
        approvals.use(request.id, actor=actor)
    details: dict[str, object] = {
        "approvers": [item.name for item in agreed],
        "purpose": request.purpose,
        "what": request.subject,
        "file_id": request.file_id,
        "recipient": request.recipient,
    }
    if resumable:
        details[RESUMABLE] = True
    return Record("approval.used", desk.installation.clock.now(), actor, f"approval:{request.id}", details)


def _break_glass(
    installation: Installation, reason: str, wanted: Wanted, *, subject: str, actor: str, board: Board
) -> Approved:
    """Let it happen without approvals: a case is opened, everybody is alerted, and somebody has to review it."""
    names.label(reason, what="the reason for breaking the glass")
    with at_desk(installation, board) as desk:
        statement = desk.board.statement
        if not installation.policy.approvals.break_glass or (statement is not None and not statement.break_glass):
            raise ApprovalError(
                "nobody may break the glass here",
                "approvals.break_glass in palladion.toml and the owner's statement both have to allow it",
                reason="break-glass",
            )
        title = f"the glass was broken: {wanted.purpose} of {subject}"[:TITLE_CHARACTERS_MAX]
        case = desk.records.incidents.open(title, actor=actor, text=reason)
        details = {
            "reason": reason,
            "purpose": wanted.purpose,
            "what": subject,
            "file_id": wanted.file_id,
            "recipient": wanted.recipient,
            "case": case.id,
        }
        receipt = desk.record("approval.broken-glass", secrets.token_hex(8), actor, details)
        opened = {"clients": 0, "accounts": []}
        desk.ledger.append([Record("incident.opened", case.opened_at, actor, f"incident:{case.id}", opened)])
        return Approved(None, (), receipt)


def without_revoked(statement: Statement, records: Records) -> Statement:
    """A statement less the approvers whom the registry has revoked: rows can take away, and never give."""
    revoked = {item.name for item in records.operators.all() if item.revoked_at is not None}
    live = tuple(item for item in statement.approvers if item.name not in revoked)
    return statement if live == statement.approvers else msgspec.structs.replace(statement, approvers=live)


def in_force(desk: Desk) -> Statement:
    """The statement in force, less those who were revoked as operators since."""
    if desk.board.statement is None:
        raise ApprovalError("nobody is registered who could approve", "palladion approval key add", reason="approvers")
    return without_revoked(desk.board.statement, desk.records)


def _require_open(case: Case, again: str | None = None) -> None:
    """Raise ApprovalError if the request is over. One that was begun is so, except for `again`, who began.

    None stands for who wants to say something to it: that can be done until it is used up.
    """
    request = case.request
    if case.finished or (case.used_by and again is not None and again != case.used_by):
        raise ApprovalError(
            f"request {request.id} was used by {case.used_by}", "each request is used once", reason="used"
        )
    if case.withdrawn:
        raise ApprovalError(f"request {request.id} was withdrawn by {case.withdrawn}", reason="withdrawn")
