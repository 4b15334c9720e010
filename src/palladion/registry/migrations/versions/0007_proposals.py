"""Proposals of operators, and what a second person decided about each."""

import sqlalchemy as sa

revision = "0007"
down_revision = "0006"


def upgrade() -> None:
    """Make both tables; they are history."""
    from alembic import op

    op.create_table(
        "proposal",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("change", sa.Text, nullable=False),
        sa.Column("reason", sa.String(2000), nullable=False),
        sa.Column("proposer", sa.String(200), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("expires", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_proposal")),
    )
    op.create_table(
        "proposal_decision",
        sa.Column("proposal", sa.String(16), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.Column("reason", sa.String(2000), nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("proposal", name=op.f("pk_proposal_decision")),
        sa.ForeignKeyConstraint(["proposal"], ["proposal.id"], name=op.f("fk_proposal_decision_proposal")),
        sa.CheckConstraint(
            "verdict IN ('approved', 'rejected', 'withdrawn')", name=op.f("ck_proposal_decision_verdict")
        ),
    )
    for table in ("proposal", "proposal_decision"):
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'rows of {table} never change: {verb} refused'); END"
            )
