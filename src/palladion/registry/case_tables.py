"""Tables of what cases turned out to be: the verdict on a case, and the clients that were found to be honest.

Both are history: what was found is not rewritten. A case that was misjudged gets a new one that says so.
"""

from typing import get_args

from sqlalchemy import CheckConstraint, Column, ForeignKey, String, Table

from palladion.registry import rows
from palladion.registry.tables import metadata

_VERDICTS = ", ".join(f"'{verdict}'" for verdict in get_args(rows.CaseVerdict))

incident_verdict = Table(
    "incident_verdict",
    metadata,
    Column("incident", ForeignKey("incident.id"), primary_key=True),
    Column("verdict", String(16), nullable=False),
    CheckConstraint(f"verdict IN ({_VERDICTS})", name="verdict"),
)

incident_cleared = Table(
    "incident_cleared",
    metadata,
    Column("incident", ForeignKey("incident.id"), primary_key=True),
    Column("client", ForeignKey("client.id"), primary_key=True, index=True),
)
