"""Decoys that are sealed files: two more kinds. SQLite cannot change a check, so the table is made anew."""

import sqlalchemy as sa

revision = "0014"
down_revision = "0013"

_COLUMNS = (
    "id, kind, label, organisation, model, prefix, hash, data, count, actor, created, retired_at, touches, touched_at, "
    "incident"
)


def upgrade() -> None:
    """Make the table anew, with all that is in it."""
    from alembic import op

    op.rename_table("decoy", "decoy_before")
    op.drop_index(op.f("ix_decoy_incident"), "decoy_before")
    op.create_table(
        "decoy",
        sa.Column("id", sa.String(16), nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("label", sa.String(200), nullable=False),
        sa.Column("organisation", sa.String(64)),
        sa.Column("model", sa.String(64)),
        sa.Column("prefix", sa.String(64)),
        sa.Column("hash", sa.LargeBinary(32)),
        sa.Column("data", sa.LargeBinary),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("actor", sa.String(200), nullable=False),
        sa.Column("created", sa.String(27), nullable=False),
        sa.Column("retired_at", sa.String(27)),
        sa.Column("touches", sa.Integer, nullable=False),
        sa.Column("touched_at", sa.String(27)),
        sa.Column("incident", sa.String(16)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_decoy")),
        sa.ForeignKeyConstraint(["incident"], ["incident.id"], name=op.f("fk_decoy_incident")),
        sa.UniqueConstraint("hash", name=op.f("uq_decoy_hash")),
        sa.CheckConstraint("kind IN ('key', 'rows', 'texts', 'file', 'backup')", name=op.f("ck_decoy_kind")),
    )
    op.create_index(op.f("ix_decoy_incident"), "decoy", ["incident"])
    op.execute(f"INSERT INTO decoy ({_COLUMNS}) SELECT {_COLUMNS} FROM decoy_before")  # noqa: S608 (no text of others)
    op.drop_table("decoy_before")
