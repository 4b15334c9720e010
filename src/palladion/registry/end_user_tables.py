"""Tables of clients that resell: which ones do, and which clients are their end users.

Beside the table of clients, not in it: SQLite changes a table by making it anew, and clients have a million rows.
"""

from sqlalchemy import Column, ForeignKey, Table

from palladion.registry.tables import Moment, metadata

reseller = Table(
    "reseller",
    metadata,
    Column("client", ForeignKey("client.id"), primary_key=True),
    Column("at", Moment, nullable=False),
)

end_user = Table(
    "end_user",
    metadata,
    Column("client", ForeignKey("client.id"), primary_key=True),
    Column("reseller", ForeignKey("client.id"), nullable=False, index=True),
)
