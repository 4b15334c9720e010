"""Tables of approvals: requests, what was said to them, and that they were used. All of it is history.

The ledger decides what counts; these rows list it, and keep a request from being used twice at the same moment.
"""

from typing import Literal, get_args

from sqlalchemy import CheckConstraint, Column, ForeignKey, Integer, String, Table

from palladion.registry.tables import CanonicalJson, Moment, metadata

ApprovalEventKind = Literal["granted", "denied", "revoked"]
_KINDS = ", ".join(f"'{kind}'" for kind in get_args(ApprovalEventKind))

approval_request = Table(
    "approval_request",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("document", CanonicalJson, nullable=False),
    Column("proposal", CanonicalJson, nullable=False),
    Column("requester", String(200), nullable=False),
    Column("at", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
)

approval_event = Table(
    "approval_event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("request", ForeignKey("approval_request.id"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("document", CanonicalJson, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("at", Moment, nullable=False),
    CheckConstraint(f"kind IN ({_KINDS})", name="kind"),
)

approval_use = Table(
    "approval_use",
    metadata,
    Column("request", ForeignKey("approval_request.id"), primary_key=True),
    Column("actor", String(200), nullable=False),
    Column("at", Moment, nullable=False),
)
