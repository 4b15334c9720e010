"""Changes who approves, and how many are needed: signed by the owner and, once there are enough, approved by them."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from hashlib import sha256

import msgspec

from palladion.approvals.documents import document_of
from palladion.approvals.request import Request, SignedRequest
from palladion.approvals.roster import (
    Approver,
    Change,
    SignedStatement,
    Statement,
    next_statement,
    read_statement,
    sign_statement,
    verify_statement,
)
from palladion.errors import ApprovalError, ConflictError, TamperError
from palladion.keys import Recipient, Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.approval_board import agreed_to, drill_key, read_board
from palladion.lifecycle.approvals import Asking, Desk, at_desk, put, require_clock, use, without_revoked
from palladion.lifecycle.installation import Installation


@dataclass(frozen=True)
class Changed:
    """What a change came to: the statement, in force if `request` is None, else once that request is approved."""

    statement: Statement
    request: Request | None
    receipt: Receipt


def approver_of(installation: Installation, name: str, key: str, *, also: Collection[str] = ()) -> Approver:
    """The operator of that name as an approver. Raises NotFoundError, ConflictError if he is revoked."""
    with installation.open_registry() as registry, registry.read() as records:
        operator = records.operators.get(name)
    if operator.revoked_at is not None:
        raise ConflictError(f"operator {name!r} was revoked on {operator.revoked_at:%Y-%m-%d}")
    if operator.role not in {"approver", "admin"}:
        raise ConflictError(f"operator {name!r} is {operator.role}", f"palladion operator role {name} approver")
    return Approver(name, tuple(dict.fromkeys((operator.identity, *also))), key)


def escrow_of(installation: Installation) -> tuple[str, ...]:
    """The escrow recipients that the policy names, as statements do."""
    return tuple(sorted(named(recipient) for recipient in installation.escrow_recipients()))


def named(recipient: Recipient) -> str:
    """A recipient as statements name it: kind, and SHA-256 of the whole text that palladion.toml names it by.

    Not its key id: of a key in a token that is a number that another token may give to another key.
    """
    return f"{recipient.kind} {sha256(str(recipient).encode()).hexdigest()}"


def has_account(approver: Approver) -> bool:
    """Whether the list names an account of this machine of his, under which requests are made: `user:NAME`."""
    return any(identity.startswith("user:") for identity in approver.identities)


def change_approvers(
    installation: Installation, owner: Root, change: Change, *, reason: str, actor: str, hours: int | None = None
) -> Changed:
    """Change who approves: at once while there are too few approvers, else as a request that they have to approve.

    Until there are enough, number and break-glass are those of the policy. Raises ApprovalError, TamperError.
    """
    with at_desk(installation) as desk:
        current, origin = desk.board.statement, desk.board.origin
        if owner.public().keys["publisher"] != desk.board.owner_key:
            raise TamperError(
                "the owner root signs with another key than the ledger has from its first day",
                "one of the two was replaced: restore it from a backup",
            )
        armed = current is not None and current.armed
        if not armed:
            policy = installation.policy.approvals
            change = replace(
                change,
                needed=policy.needed if change.needed is None else change.needed,
                break_glass=policy.break_glass if change.break_glass is None else change.break_glass,
                escrow=escrow_of(installation),
            )
        statement = next_statement(current, change, origin=origin, at=installation.clock.now())
        signed = sign_statement(statement, owner.signer("publisher"))
        if not armed:
            receipt = desk.ledger.append([_in_force(desk, signed, request="", actor=actor)])[0]
            return Changed(statement, None, receipt)
        asking = Asking("approvers", "approvers", reason, content=statement.digest)
        request, receipt = put(desk, asking, actor=actor, hours=hours, proposal=document_of(signed))
        return Changed(statement, request, receipt)


def apply_change(installation: Installation, request: str, *, actor: str) -> Changed:
    """Put a change of approvers in force that enough of them approved. Raises ApprovalError, TamperError."""
    with at_desk(installation) as desk:
        case, current = desk.board.case(request), desk.board.statement
        if case.used_by:
            raise ApprovalError(f"request {case.request.id} was used by {case.used_by}", reason="used")
        if current is None:
            raise ApprovalError("there is no statement of approvers yet", reason="approvers")
        require_clock(desk, case)
        if case.request.is_drill(drill_key(desk.gate)):
            raise ApprovalError(f"request {case.request.id} was a drill: nothing is changed", reason="drill")
        signed, now = _proposal(desk, case.request.id), installation.clock.now()
        among = without_revoked(current, desk.records)
        agreed = agreed_to(desk.board, case, signed.statement, at=now, needed=desk.needed, among=among)
        # in one append: a crash between the two would leave a request that is used up for nothing
        used = use(desk, case, agreed, actor=actor)
        receipt = desk.ledger.append([used, _in_force(desk, signed, request=case.request.id, actor=actor)])[1]
        return Changed(signed.statement, None, receipt)


def with_proposal(installation: Installation, signed: SignedRequest) -> SignedRequest:
    """A request as approvers get it: with the change that it is about, if it is about one."""
    with installation.open_registry() as registry, registry.read() as records:
        proposal = records.approvals.get(signed.request.id).proposal
    found = read_statement(dict(proposal), what="the statement") if proposal else None
    return msgspec.structs.replace(signed, proposal=found)


def require_escrow(installation: Installation, gate: Root) -> None:
    """Raise ApprovalError if the policy names an escrow recipient to whom the approvers have not agreed.

    Without this, whoever writes to palladion.toml would be given what approvals keep.
    """
    statement = read_board(installation, gate).statement
    if statement is None or not statement.armed:
        return
    strangers = set(escrow_of(installation)) - set(statement.escrow)
    if strangers:
        raise ApprovalError(
            f"the policy names an escrow recipient that the approvers do not know: {sorted(strangers)[0]}",
            "palladion approval change --escrow asks them",
            reason="escrow",
        )


def _proposal(desk: Desk, request: str) -> SignedStatement:
    proposal = desk.records.approvals.get(request).proposal
    if not proposal:
        raise ApprovalError(f"request {request} changes no approvers", reason="purpose")
    signed = read_statement(dict(proposal), what="the statement")
    verify_statement(signed, desk.board.statement, owner=desk.board.owner_key, origin=desk.board.origin)
    return signed


def _in_force(desk: Desk, signed: SignedStatement, *, request: str, actor: str) -> Record:
    details = {**document_of(signed), "request": request}
    subject = f"approvals:{signed.statement.sequence}"
    return Record("approvals.changed", desk.installation.clock.now(), actor, subject, details)
