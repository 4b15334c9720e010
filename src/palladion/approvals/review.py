"""Reviews of broken glass: what somebody else, an approver, found afterwards (docs/approvals.md)."""

from datetime import datetime
from typing import Any, Literal

import msgspec

from palladion import canonical
from palladion.approvals.documents import Id, Moment, Name, document_of, read_document, read_moment
from palladion.approvals.roster import Approver, Statement
from palladion.approvals.signing import ApproverKey, ApproverSigner, KeyText, SignatureText, unmatched
from palladion.clock import timestamp
from palladion.errors import ApprovalError

_REVIEW = b"palladion/v1/approval-review"


class Review(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an approver found of the broken glass `id`."""

    v: Literal[1]
    id: Id
    origin: Name
    key: KeyText
    finding: Name
    at: Moment


class SignedReview(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A review and its signature. `verified` says whose it is."""

    review: Review
    signature: SignatureText

    def verified(self, statement: Statement, *, broken: str, by: str) -> Approver:
        """The approver who reviewed `broken`, which `by` broke. Raises ApprovalError, TamperError."""
        review = self.review
        approver = statement.with_key(review.key)
        if approver is None:
            raise unmatched(ApproverKey.parse(review.key))
        if by in approver.identities:
            raise ApprovalError(
                f"{approver.name} broke the glass himself: somebody else reviews it", reason="requester"
            )
        if (review.id, review.origin) != (broken, statement.origin):
            raise ApprovalError("the review is about something else", reason="altered")
        message = _REVIEW + canonical.encode(document_of(review))
        ApproverKey.parse(review.key).verify(message, bytes.fromhex(self.signature), what=f"the review of {broken}")
        return approver


def review(broken: str, finding: str, signer: ApproverSigner, *, origin: str, at: datetime) -> SignedReview:
    """Sign what was found. Raises FormatError for a finding that is no line of text."""
    made = Review(v=1, id=broken, origin=origin, key=str(signer.key), finding=finding, at=timestamp(at))
    checked = read_document(document_of(made), Review, what="the review")
    return SignedReview(checked, signer.sign(_REVIEW + canonical.encode(document_of(checked))).hex())


def read_review(document: Any, *, what: str) -> SignedReview:
    """A signed review of a document, not verified. Raises FormatError."""
    found = read_document(document, SignedReview, what=what)
    read_moment(found.review.at, what=what)
    return found
