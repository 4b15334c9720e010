"""Approvals: requests, what was said to them, and that they were used."""

import sqlalchemy as sa

revision = "0012"
down_revision = "0011"


def upgrade() -> None:
    """Make the tables; they are history."""
    from alembic import op

    op.create_table(
        "approval_request",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("proposal", sa.Text, nullable=False),
        sa.Column("requester", sa.String(200), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("expires", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval_request")),
    )
    op.create_table(
        "approval_event",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("request", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_approval_event")),
        sa.ForeignKeyConstraint(["request"], ["approval_request.id"], name=op.f("fk_approval_event_request")),
        sa.CheckConstraint("kind IN ('granted', 'denied', 'revoked')", name=op.f("ck_approval_event_kind")),
    )
    op.create_index(op.f("ix_approval_event_request"), "approval_event", ["request"])
    op.create_table(
        "approval_use",
        sa.Column("request", sa.String(16), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("request", name=op.f("pk_approval_use")),
        sa.ForeignKeyConstraint(["request"], ["approval_request.id"], name=op.f("fk_approval_use_request")),
    )
    for table in ("approval_request", "approval_event", "approval_use"):
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'rows of {table} never change: {verb} refused'); END"
            )
