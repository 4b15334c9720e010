"""Learning curves: what coverage in the buckets of a calibration is worth to whoever learns the model."""

import sqlalchemy as sa

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    """Make the table; it is history."""
    from alembic import op

    op.create_table(
        "learning_curve",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("calibration", sa.String(1024), nullable=False),
        sa.Column("document", sa.Text, nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_learning_curve")),
        sa.ForeignKeyConstraint(["calibration"], ["calibration.path"], name=op.f("fk_learning_curve_calibration")),
    )
    op.create_index(op.f("ix_learning_curve_calibration"), "learning_curve", ["calibration"])
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER learning_curve_no_{verb.lower()} BEFORE {verb} ON learning_curve "
            f"BEGIN SELECT RAISE(ABORT, 'rows of learning_curve never change: {verb} refused'); END"
        )
