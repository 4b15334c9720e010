"""Identities of clients that others vouch for: subjects of tokens, SPIFFE ids and certificates."""

import sqlalchemy as sa

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Make the table; of the identities that count, each names one client."""
    from alembic import op

    op.create_table(
        "client_identity",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("client", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("value", sa.String(2500), nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("revoked_at", sa.String(27)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client_identity")),
        sa.ForeignKeyConstraint(["client"], ["client.id"], name=op.f("fk_client_identity_client")),
        sa.CheckConstraint("kind IN ('jwt', 'spiffe', 'certificate')", name=op.f("ck_client_identity_kind")),
    )
    op.create_index(op.f("ix_client_identity_client"), "client_identity", ["client"])
    op.create_index(
        op.f("ix_client_identity_kind_value"),
        "client_identity",
        ["kind", "value"],
        unique=True,
        sqlite_where=sa.text("revoked_at IS NULL"),
        postgresql_where=sa.text("revoked_at IS NULL"),
    )
