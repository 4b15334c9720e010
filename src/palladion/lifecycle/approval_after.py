"""What comes after broken glass and after a drill: the review of it by an approver, and who fell for the drill."""

from palladion.approvals.documents import document_of
from palladion.approvals.review import SignedReview
from palladion.errors import ApprovalError
from palladion.ledger.writer import Receipt
from palladion.lifecycle.approval_board import BrokenGlass, Drill, drill_key
from palladion.lifecycle.approvals import at_desk, in_force
from palladion.lifecycle.installation import Installation


def record_review(installation: Installation, signed: SignedReview, *, actor: str) -> tuple[BrokenGlass, Receipt]:
    """Take what an approver found of broken glass. Raises ApprovalError if he broke it himself, or it is reviewed."""
    with at_desk(installation) as desk:
        broken = desk.board.broken.get(signed.review.id)
        if broken is None or broken.reviewed_by:
            said = f"was reviewed by {broken.reviewed_by} already" if broken else "is not on record"
            raise ApprovalError(f"broken glass {signed.review.id} {said}", "palladion approval list", reason="unknown")
        approver = signed.verified(in_force(desk), broken=broken.id, by=broken.by)
        details = {"review": document_of(signed), "approver": approver.name}
        broken.reviewed_by, broken.finding = approver.name, signed.review.finding
        return broken, desk.record("approval.reviewed", broken.id, actor, details)


def end_drill(installation: Installation, request: str, *, actor: str) -> tuple[Drill, Receipt]:
    """End a drill and put on record who approved it: whoever began it does.

    Raises ApprovalError for what is none, has ended, or is somebody else's, without saying which: else anybody could
    find out which requests are drills.
    """
    with at_desk(installation) as desk:
        case = desk.board.case(request)
        request_id, statement = case.request.id, desk.board.statement
        if case.used_by or actor != case.request.requester or not case.request.is_drill(drill_key(desk.gate)):
            raise ApprovalError(f"request {request_id} is no drill of yours that goes on", reason="drill")
        by_key = {item.key: item.name for item in (statement.approvers if statement else ())}
        said: dict[str, list[str]] = {"grant": [], "deny": []}
        for signed in case.decisions:
            said[signed.decision.verdict].append(by_key.get(signed.decision.key, "somebody who left"))
        ended = Drill(request_id, installation.clock.now(), tuple(sorted(said["grant"])), tuple(sorted(said["deny"])))
        details = {
            "granted": list(ended.granted),
            "denied": list(ended.denied),
            "approvers": len(by_key),
        }
        return ended, desk.record("approval.drilled", request_id, actor, details)
