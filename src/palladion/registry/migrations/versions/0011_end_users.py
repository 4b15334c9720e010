"""Clients that resell, and their end users."""

import sqlalchemy as sa

revision = "0011"
down_revision = "0010"


def upgrade() -> None:
    """Make the tables."""
    from alembic import op

    op.create_table(
        "reseller",
        sa.Column("client", sa.String(16), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("client", name=op.f("pk_reseller")),
        sa.ForeignKeyConstraint(["client"], ["client.id"], name=op.f("fk_reseller_client")),
    )
    op.create_table(
        "reseller_secret",
        sa.Column("client", sa.String(16), nullable=False),
        sa.Column("secret", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("client", name=op.f("pk_reseller_secret")),
        sa.ForeignKeyConstraint(["client"], ["client.id"], name=op.f("fk_reseller_secret_client")),
    )
    op.create_table(
        "end_user",
        sa.Column("client", sa.String(16), nullable=False),
        sa.Column("reseller", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("client", name=op.f("pk_end_user")),
        sa.ForeignKeyConstraint(["client"], ["client.id"], name=op.f("fk_end_user_client")),
        sa.ForeignKeyConstraint(["reseller"], ["client.id"], name=op.f("fk_end_user_reseller")),
    )
    op.create_index(op.f("ix_end_user_reseller"), "end_user", ["reseller"])
