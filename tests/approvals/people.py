"""People who approve, and requests for them to decide, for the tests of approvals."""

from datetime import UTC, datetime, timedelta
from typing import Any

from palladion.approvals.request import Request, SignedDecision, Verdict, decide, new_request
from palladion.approvals.roster import Approver, Change, Statement, next_statement
from palladion.approvals.signing import HeldKey

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ORIGIN = "ledger.example.com/fraud"
OWNER_ID = "00112233445566aa"
SECRET = b"\x07" * 32
KEYS = {name: HeldKey(bytes([number]) * 32) for number, name in enumerate(("ada", "bob", "eve", "zoe"), 1)}


def person(name: str, *also: str) -> Approver:
    """An approver with a key of his own."""
    return Approver(name, (f"user:{name}", *also), str(KEYS[name].key))


def statement(*names: str, needed: int = 2, **rest: Any) -> Statement:
    """The statement that lists these people."""
    made = None
    for name in names:
        made = next_statement(made, Change(needed=0, add=person(name)), origin=ORIGIN, at=NOW)
    return next_statement(made, Change(needed=needed, **rest), origin=ORIGIN, at=NOW)


def request(**changed: Any) -> Request:
    """A request of `user:ada` to deliver a version to `lab`, which holds for eight hours."""
    fields: dict[str, Any] = {
        "origin": ORIGIN,
        "owner": OWNER_ID,
        "subject": "fraud@2",
        "purpose": "deliver",
        "requester": "user:ada",
        "reason": "the contract of May",
        "created": NOW,
        "hours": 8,
        "file_id": "0f" * 16,
        "recipient": "lab",
        "recipient_key": "pallr1xlab",
    }
    return new_request(SECRET, **(fields | changed))


def says(
    name: str, about: Request, verdict: Verdict = "grant", *, after: timedelta = timedelta(minutes=1)
) -> SignedDecision:
    """What somebody decides, so long after the request was made."""
    return decide(about, verdict, KEYS[name], at=about.created_at + after)
