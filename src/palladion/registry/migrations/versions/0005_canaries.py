"""Canaries: which version a share of clients is served."""

import sqlalchemy as sa

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Make the table; it is history."""
    from alembic import op

    op.create_table(
        "canary",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("percent", sa.Integer, nullable=False),
        sa.Column("reason", sa.String(2000), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_canary")),
        sa.ForeignKeyConstraint(
            ["model", "number"], ["version.model", "version.number"], name=op.f("fk_canary_model_number")
        ),
        sa.CheckConstraint("kind IN ('begin', 'end')", name=op.f("ck_canary_kind")),
        sa.CheckConstraint("percent BETWEEN 1 AND 50", name=op.f("ck_canary_percent")),
    )
    op.create_index(op.f("ix_canary_model"), "canary", ["model"])
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER canary_no_{verb.lower()} BEFORE {verb} ON canary "
            f"BEGIN SELECT RAISE(ABORT, 'rows of canary never change: {verb} refused'); END"
        )
