"""Copies of clients: which clients another gate registered, and what was last heard of that gate."""

import sqlalchemy as sa

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """Make both tables."""
    from alembic import op

    op.create_table(
        "client_source",
        sa.Column("gate", sa.String(16), nullable=False),
        sa.Column("publisher", sa.String(64), nullable=False),
        sa.Column("issued", sa.String(27), nullable=False),
        sa.Column("pepper", sa.Text, nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("gate", name=op.f("pk_client_source")),
    )
    op.create_table(
        "client_copy",
        sa.Column("client", sa.String(16), nullable=False),
        sa.Column("gate", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("client", name=op.f("pk_client_copy")),
        sa.ForeignKeyConstraint(["client"], ["client.id"], name=op.f("fk_client_copy_client")),
        sa.ForeignKeyConstraint(["gate"], ["client_source.gate"], name=op.f("fk_client_copy_gate")),
    )
    op.create_index(op.f("ix_client_copy_gate"), "client_copy", ["gate"])
