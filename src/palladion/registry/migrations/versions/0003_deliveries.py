"""Deliveries: which recipient got which copy of which version."""

import sqlalchemy as sa

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Make the table; it is history."""
    from alembic import op

    op.create_table(
        "delivery",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("recipient", sa.String(64), nullable=False),
        sa.Column("public_key", sa.Text, nullable=False),
        sa.Column("fingerprinted", sa.Boolean, nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("header_digest", sa.String(64), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_delivery")),
        sa.ForeignKeyConstraint(
            ["model", "number"], ["version.model", "version.number"], name=op.f("fk_delivery_model_number")
        ),
        sa.ForeignKeyConstraint(["recipient"], ["recipient.name"], name=op.f("fk_delivery_recipient")),
    )
    op.create_index(op.f("ix_delivery_model_number"), "delivery", ["model", "number"])
    op.create_index(op.f("ix_delivery_recipient"), "delivery", ["recipient"])
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER delivery_no_{verb.lower()} BEFORE {verb} ON delivery "
            f"BEGIN SELECT RAISE(ABORT, 'rows of delivery never change: {verb} refused'); END"
        )
