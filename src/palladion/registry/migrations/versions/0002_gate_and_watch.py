"""Calibrations of the watch, and what the gate has to find again after a restart."""

import sqlalchemy as sa

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Make both tables, and the triggers of the one that is history."""
    from alembic import op

    op.create_table(
        "calibration",
        sa.Column("id", sa.Integer, nullable=False),
        sa.Column("model", sa.String(64), nullable=False),
        sa.Column("number", sa.Integer, nullable=False),
        sa.Column("path", sa.String(1024), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("simulated", sa.Boolean, nullable=False),
        sa.Column("clients", sa.Integer, nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_calibration")),
        sa.ForeignKeyConstraint(
            ["model", "number"], ["version.model", "version.number"], name=op.f("fk_calibration_model_number")
        ),
        sa.UniqueConstraint("path", name=op.f("uq_calibration_path")),
    )
    op.create_index(op.f("ix_calibration_model_number"), "calibration", ["model", "number"])
    for verb in ("UPDATE", "DELETE"):
        op.execute(
            f"CREATE TRIGGER calibration_no_{verb.lower()} BEFORE {verb} ON calibration "
            f"BEGIN SELECT RAISE(ABORT, 'rows of calibration never change: {verb} refused'); END"
        )
    op.create_table(
        "gate_state",
        sa.Column("client", sa.String(16), nullable=False),
        sa.Column("purpose", sa.String(128), nullable=False),
        sa.Column("data", sa.LargeBinary(16384), nullable=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.PrimaryKeyConstraint("client", "purpose", name=op.f("pk_gate_state")),
        sa.ForeignKeyConstraint(["client"], ["client.id"], name=op.f("fk_gate_state_client")),
    )
