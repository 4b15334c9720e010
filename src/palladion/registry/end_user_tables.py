"""Tables of clients that resell: which ones do, what the ids of their end users are made with, and who these are.

Beside the table of clients, not in it: SQLite changes a table by making it anew, and clients have a million rows.
"""

from sqlalchemy import Column, ForeignKey, LargeBinary, Table

from palladion.registry.tables import Moment, metadata

reseller = Table(
    "reseller",
    metadata,
    Column("client", ForeignKey("client.id"), primary_key=True),
    Column("at", Moment, nullable=False),
)

# It outlives that a client resells: else whoever was lowered would be somebody new when it resells again.
reseller_secret = Table(
    "reseller_secret",
    metadata,
    Column("client", ForeignKey("client.id"), primary_key=True),
    Column("secret", LargeBinary, nullable=False),
)

end_user = Table(
    "end_user",
    metadata,
    Column("client", ForeignKey("client.id"), primary_key=True),
    Column("reseller", ForeignKey("client.id"), nullable=False, index=True),
)
