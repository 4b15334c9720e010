"""Tables of privacy: what was stated of a version's training, and what answers have spent of a budget."""

from sqlalchemy import CheckConstraint, Column, Float, ForeignKeyConstraint, Integer, String, Table

from palladion.registry.tables import CanonicalJson, metadata

version_privacy = Table(
    "version_privacy",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("document", CanonicalJson, nullable=False),
    Column("signature", String(128), nullable=False),
    ForeignKeyConstraint(["model", "number"], ["version.model", "version.number"]),
)

# not history: one row of a client, and one of all together, whose client is empty; neither ever falls
privacy_spent = Table(
    "privacy_spent",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("client", String(64), primary_key=True),
    Column("answers", Integer, nullable=False),
    Column("epsilon", Float, nullable=False),
    Column("rho", Float, nullable=False),
    CheckConstraint("answers >= 0 AND epsilon >= 0 AND rho >= 0", name="spent"),
)
