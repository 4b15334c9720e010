"""Verdicts on cases, and the clients that were found to be honest."""

import sqlalchemy as sa

revision = "0010"
down_revision = "0009"


def upgrade() -> None:
    """Make both tables; they are history."""
    from alembic import op

    op.create_table(
        "incident_verdict",
        sa.Column("incident", sa.String(16), nullable=False),
        sa.Column("verdict", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("incident", name=op.f("pk_incident_verdict")),
        sa.ForeignKeyConstraint(["incident"], ["incident.id"], name=op.f("fk_incident_verdict_incident")),
        sa.CheckConstraint(
            "verdict IN ('theft', 'false-alarm', 'test', 'unclear')", name=op.f("ck_incident_verdict_verdict")
        ),
    )
    op.create_table(
        "incident_cleared",
        sa.Column("incident", sa.String(16), nullable=False),
        sa.Column("client", sa.String(16), nullable=False),
        sa.PrimaryKeyConstraint("incident", "client", name=op.f("pk_incident_cleared")),
        sa.ForeignKeyConstraint(["incident"], ["incident.id"], name=op.f("fk_incident_cleared_incident")),
        sa.ForeignKeyConstraint(["client"], ["client.id"], name=op.f("fk_incident_cleared_client")),
    )
    op.create_index(op.f("ix_incident_cleared_client"), "incident_cleared", ["client"])
    for table in ("incident_verdict", "incident_cleared"):
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'rows of {table} never change: {verb} refused'); END"
            )
