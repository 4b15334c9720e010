"""Whether a request may be used now: enough distinct approvers, none of whom asked, and nothing against it. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from palladion.approvals.request import CLOCK_TOLERANCE, Purpose, Request, SignedDecision
from palladion.approvals.roster import Approver, Statement
from palladion.errors import ApprovalError


@dataclass(frozen=True)
class Wanted:
    """What is about to happen, which the request has to have named, and nothing beside it.

    Where `actor`, `content` or `subject` is None, whoever asked, whatever the file holds and whatever is said of it
    is meant.
    """

    purpose: Purpose
    file_id: str
    recipient: str
    recipient_key: str = ""
    evidence: str = ""
    actor: str | None = None
    content: str | None = None
    subject: str | None = None


def require_quorum(
    request: Request,
    decisions: Sequence[SignedDecision],
    statement: Statement,
    *,
    owner: str,
    needed: int,
    at: datetime,
) -> tuple[Approver, ...]:
    """The approvers who agreed, at least `needed` of them. Raises ApprovalError, whose `reason` names the check.

    Only those count whom `statement`, the one in force now, lists: whoever was taken off it since agrees to nothing.
    """
    require_installation(request, origin=statement.origin, owner=owner)
    require_in_time(request, at)
    if needed < 1 or not statement.approvers:
        raise ApprovalError("nobody is registered who could approve", "palladion approval key add", reason="approvers")
    agreed = granted(request, decisions, statement, at=at)
    if len(agreed) < needed:
        raise ApprovalError(
            f"request {request.id} has {len(agreed)} of {needed} approvals"
            + (f": of {', '.join(item.name for item in agreed)}" if agreed else ""),
            f"palladion approval show {request.id} says who could still approve",
            reason="too-few",
        )
    return agreed


def granted(
    request: Request, decisions: Sequence[SignedDecision], statement: Statement, *, at: datetime
) -> tuple[Approver, ...]:
    """The distinct approvers who agreed. Raises ApprovalError if one denied; TamperError for a forged decision.

    `decisions` are of people who were approvers when they decided. A no of one who left since still is one: else
    whoever takes him off the list would take it back.
    """
    agreed: dict[str, Approver] = {}
    for signed in decisions:
        decision = signed.verified(request)
        approver = statement.with_key(decision.key)
        if decision.verdict == "deny":
            raise ApprovalError(
                f"request {request.id} was denied by {approver.name if approver else 'somebody who left'}"
                + (f": {decision.comment}" if decision.comment else ""),
                "one no is enough: make another request, if it is another case",
                reason="denied",
            )
        if approver is None:
            continue  # taken off the list since
        if request.requester in approver.identities:
            continue  # nobody approves what he asked for
        # a time that the approver's own clock could not have shown
        if not request.created_at - CLOCK_TOLERANCE <= decision.decided_at < request.ends_at:
            continue
        if decision.decided_at > at + CLOCK_TOLERANCE:
            continue
        agreed[approver.name] = approver
    return tuple(agreed[name] for name in sorted(agreed))


def require_decidable(
    request: Request, signed: SignedDecision, statement: Statement, *, owner: str, at: datetime
) -> Approver:
    """The approver whose decision this is, if it would count. Raises ApprovalError, TamperError."""
    require_installation(request, origin=statement.origin, owner=owner)
    require_in_time(request, at)
    decision = signed.verified(request)
    approver = statement.with_key(decision.key)
    if approver is None:
        raise ApprovalError(
            "the decision is signed by a key of no approver",
            "palladion approval key list shows whose keys count",
            reason="approver",
        )
    if request.requester in approver.identities and decision.verdict == "grant":
        raise ApprovalError(f"{approver.name} asked for this himself: somebody else has to approve", reason="requester")
    if decision.decided_at > at + CLOCK_TOLERANCE or decision.decided_at < request.created_at - CLOCK_TOLERANCE:
        raise ApprovalError(
            f"the decision of {approver.name} is of {decision.at}, and it is {at:%Y-%m-%d %H:%M} UTC here",
            "set the clock of one of the two machines right, and sign again",
            reason="clock",
        )
    return approver


def require_in_time(request: Request, at: datetime) -> None:
    """Raise ApprovalError unless the request holds at that moment."""
    if at >= request.ends_at:
        raise ApprovalError(f"request {request.id} ended at {request.expires}", "make a new one", reason="expired")
    if at < request.created_at - CLOCK_TOLERANCE:
        raise ApprovalError(
            f"request {request.id} is of {request.created}, and it is {at:%Y-%m-%d %H:%M} UTC by this machine's clock",
            "set the clock right",
            reason="clock",
        )


def require_installation(request: Request, *, origin: str, owner: str) -> None:
    """Raise ApprovalError unless the request is of this installation."""
    if (request.origin, request.owner) != (origin, owner):
        raise ApprovalError(f"request {request.id} is of {request.origin}, not of {origin}", reason="installation")


def require_same(request: Request, wanted: Wanted) -> None:
    """Raise ApprovalError unless the request is about exactly this."""
    for what, asked, found in (
        ("purpose", request.purpose, wanted.purpose),
        ("file", request.file_id, wanted.file_id),
        ("recipient", request.recipient, wanted.recipient),
        ("key of the recipient", request.recipient_key, wanted.recipient_key),
        ("requester", request.requester, wanted.actor),
        ("evidence of the machine", request.evidence, wanted.evidence),
        ("content", request.content, wanted.content),
        ("subject", request.subject, wanted.subject),
    ):
        if found is not None and asked != found:
            raise ApprovalError(
                f"request {request.id} was approved for the {what} {asked or 'none'}, not for {found or 'none'}",
                "make a request for what is to be done now",
                reason=what.partition(" ")[0],
            )
