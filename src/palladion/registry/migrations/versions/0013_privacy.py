"""What was stated of a version's training, and what answers have spent of a privacy budget."""

import sqlalchemy as sa

revision = "0013"
down_revision = "0012"


def upgrade() -> None:
    """Make the tables; statements are history."""
    from alembic import op

    op.create_table(
        "version_privacy",
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("signature", sa.String(128), nullable=False),
        sa.PrimaryKeyConstraint("model", "number", name=op.f("pk_version_privacy")),
        sa.ForeignKeyConstraint(
            ["model", "number"], ["version.model", "version.number"], name=op.f("fk_version_privacy_model_number")
        ),
    )
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER version_privacy_no_{verb.lower()} BEFORE {verb} ON version_privacy "
            f"BEGIN SELECT RAISE(ABORT, 'rows of version_privacy never change: {verb} refused'); END"
        )
    op.create_table(
        "privacy_spent",
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("client", sa.String(64), nullable=False),
        sa.Column("answers", sa.Integer, nullable=False),
        sa.Column("epsilon", sa.Float, nullable=False),
        sa.Column("rho", sa.Float, nullable=False),
        sa.PrimaryKeyConstraint("model", "client", name=op.f("pk_privacy_spent")),
        sa.CheckConstraint("answers >= 0 AND epsilon >= 0 AND rho >= 0", name=op.f("ck_privacy_spent_spent")),
    )
