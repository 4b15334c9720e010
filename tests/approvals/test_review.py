"""Reviews of broken glass: by an approver who did not break it, of exactly that."""

import msgspec
import pytest

from palladion.approvals.documents import document_of
from palladion.approvals.review import SignedReview, read_review, review
from palladion.errors import ApprovalError, FormatError, TamperError

from .people import KEYS, NOW, ORIGIN, statement

BROKEN = "0f" * 8


def _verified(signed: SignedReview, *, broken: str = BROKEN, by: str = "user:ada") -> str:
    return signed.verified(statement("ada", "bob"), broken=broken, by=by).name


def test_another_approver_reviews() -> None:
    signed = review(BROKEN, "the court did ask", KEYS["bob"], origin=ORIGIN, at=NOW)
    assert _verified(signed) == "bob"
    assert read_review(document_of(signed), what="it") == signed


def test_nobody_reviews_what_he_did_or_without_being_an_approver() -> None:
    with pytest.raises(ApprovalError, match="himself"):
        _verified(review(BROKEN, "fine", KEYS["ada"], origin=ORIGIN, at=NOW))
    with pytest.raises(ApprovalError, match="key of no approver"):
        _verified(review(BROKEN, "fine", KEYS["zoe"], origin=ORIGIN, at=NOW))


def test_a_review_of_something_else_or_that_was_altered_is_refused() -> None:
    signed = review(BROKEN, "a theft", KEYS["bob"], origin=ORIGIN, at=NOW)
    with pytest.raises(ApprovalError, match="something else"):
        _verified(signed, broken="00" * 8)
    with pytest.raises(ApprovalError, match="something else"):
        _verified(review(BROKEN, "fine", KEYS["bob"], origin="other.example", at=NOW))
    with pytest.raises(TamperError, match="was altered"):
        _verified(SignedReview(msgspec.structs.replace(signed.review, finding="fine"), signed.signature))


@pytest.mark.parametrize("finding", ["", "two\nlines", "\x1b[2J"])
def test_a_finding_is_one_line(finding: str) -> None:
    with pytest.raises(FormatError):
        review(BROKEN, finding, KEYS["bob"], origin=ORIGIN, at=NOW)
