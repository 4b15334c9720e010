"""The first tables. Text that never changes again: later changes go into later files.

There is no way down: `palladion backup` before an upgrade is the way back.
"""

import sqlalchemy as sa

revision = "0001"
down_revision = None

# Rows of these are only ever added. On a database other than SQLite, the migration that admits it brings its triggers.
_APPEND_ONLY = ("version", "version_tensor", "sealed_file", "promotion", "standing_change", "incident_event")


def upgrade() -> None:
    """Make every table, index and trigger."""
    _models()
    _history_of_versions()
    _recipients_and_operators()
    _clients()
    _incidents()
    _triggers()


def _models() -> None:
    from alembic import op

    op.create_table(
        "model",
        _slug("name"),
        sa.Column("owner", sa.String(200), nullable=False),
        _slug("format"),
        _moment("created"),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_model")),
    )
    op.create_table(
        "version",
        _slug("model"),
        _number("number"),
        sa.Column("parent", sa.Integer),
        _digest("content_digest"),
        sa.Column("graph_digest", sa.String(64)),
        _slug("format"),
        sa.Column("publisher", sa.String(128), nullable=False),
        sa.Column("marks", sa.Text, nullable=False),
        _note("note"),
        _moment("created"),
        sa.PrimaryKeyConstraint("model", "number", name=op.f("pk_version")),
        sa.ForeignKeyConstraint(["model"], ["model.name"], name=op.f("fk_version_model")),
        sa.ForeignKeyConstraint(
            ["model", "parent"], ["version.model", "version.number"], name=op.f("fk_version_model_parent")
        ),
        sa.UniqueConstraint("model", "content_digest", name=op.f("uq_version_model_content_digest")),
        sa.CheckConstraint("number >= 1", name=op.f("ck_version_number")),
        sa.CheckConstraint("parent < number", name=op.f("ck_version_parent")),
    )
    op.create_table(
        "version_tensor",
        _slug("model"),
        _number("number"),
        sa.Column("name", sa.Text, nullable=False),
        _slug("dtype"),
        sa.Column("shape", sa.Text, nullable=False),
        _digest("digest"),
        sa.Column("byte_count", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("model", "number", "name", name=op.f("pk_version_tensor")),
        _of_version("version_tensor"),
    )


def _history_of_versions() -> None:
    from alembic import op

    op.create_table(
        "sealed_file",
        sa.Column("id", sa.Integer, nullable=False),
        _slug("model"),
        sa.Column("number", sa.Integer, nullable=False),
        _word("kind"),
        sa.Column("path", sa.String(1024), nullable=False),
        _digest("digest"),
        _digest("header_digest"),
        _moment("at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_sealed_file")),
        _of_version("sealed_file"),
        sa.CheckConstraint("kind IN ('served', 'original')", name=op.f("ck_sealed_file_kind")),
    )
    op.create_index(op.f("ix_sealed_file_model_number"), "sealed_file", ["model", "number"])
    op.create_table(
        "promotion",
        sa.Column("id", sa.Integer, nullable=False),
        _slug("model"),
        sa.Column("number", sa.Integer, nullable=False),
        _word("kind"),
        _actor(),
        _moment("at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_promotion")),
        _of_version("promotion"),
        sa.CheckConstraint("kind IN ('promote', 'rollback')", name=op.f("ck_promotion_kind")),
    )
    op.create_index(op.f("ix_promotion_model"), "promotion", ["model"])


def _recipients_and_operators() -> None:
    from alembic import op

    op.create_table(
        "recipient",
        _slug("name"),
        _slug("kind"),
        sa.Column("public_key", sa.Text, nullable=False),
        _note("note"),
        _moment("created"),
        sa.Column("revoked_at", sa.String(27)),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_recipient")),
        sa.UniqueConstraint("public_key", name=op.f("uq_recipient_public_key")),
    )
    op.create_table(
        "operator",
        _slug("name"),
        _word("role"),
        sa.Column("identity", sa.Text, nullable=False),
        _moment("created"),
        sa.Column("revoked_at", sa.String(27)),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_operator")),
        sa.UniqueConstraint("identity", name=op.f("uq_operator_identity")),
        sa.CheckConstraint(
            "role IN ('viewer', 'analyst', 'approver', 'admin', 'auditor')", name=op.f("ck_operator_role")
        ),
    )


def _clients() -> None:
    from alembic import op

    op.create_table(
        "client",
        _id("id"),
        _slug("organisation"),
        _slug("name"),
        sa.Column("scopes", sa.Text, nullable=False),
        _moment("created"),
        sa.Column("revoked_at", sa.String(27)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_client")),
        sa.UniqueConstraint("organisation", "name", name=op.f("uq_client_organisation_name")),
    )
    op.create_table(
        "client_key",
        sa.Column("prefix", sa.String(64), nullable=False),
        _id("client"),
        sa.Column("hash", sa.LargeBinary(32), nullable=False),
        _moment("created"),
        sa.Column("expires", sa.String(27)),
        sa.Column("revoked_at", sa.String(27)),
        sa.PrimaryKeyConstraint("prefix", name=op.f("pk_client_key")),
        sa.ForeignKeyConstraint(["client"], ["client.id"], name=op.f("fk_client_key_client")),
        sa.UniqueConstraint("hash", name=op.f("uq_client_key_hash")),
    )
    op.create_index(op.f("ix_client_key_client"), "client_key", ["client"])
    op.create_table(
        "standing_change",
        sa.Column("id", sa.Integer, nullable=False),
        _id("client"),
        _word("standing"),
        _note("reason"),
        _actor(),
        _moment("at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_standing_change")),
        sa.ForeignKeyConstraint(["client"], ["client.id"], name=op.f("fk_standing_change_client")),
        sa.CheckConstraint(
            "standing IN ('trusted', 'watched', 'throttled', 'degraded', 'suspended')",
            name=op.f("ck_standing_change_standing"),
        ),
    )
    op.create_index(op.f("ix_standing_change_client"), "standing_change", ["client"])


def _incidents() -> None:
    from alembic import op

    op.create_table(
        "incident",
        _id("id"),
        sa.Column("title", sa.String(200), nullable=False),
        _word("state"),
        _moment("opened_at"),
        sa.Column("closed_at", sa.String(27)),
        sa.Column("finding", sa.String(2000)),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident")),
        sa.CheckConstraint("state IN ('open', 'acknowledged', 'closed')", name=op.f("ck_incident_state")),
        sa.CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name=op.f("ck_incident_closed")),
    )
    op.create_table(
        "incident_client",
        _id("incident"),
        _id("client"),
        sa.PrimaryKeyConstraint("incident", "client", name=op.f("pk_incident_client")),
        sa.ForeignKeyConstraint(["incident"], ["incident.id"], name=op.f("fk_incident_client_incident")),
        sa.ForeignKeyConstraint(["client"], ["client.id"], name=op.f("fk_incident_client_client")),
    )
    op.create_index(op.f("ix_incident_client_client"), "incident_client", ["client"])
    op.create_table(
        "incident_event",
        sa.Column("id", sa.Integer, nullable=False),
        _id("incident"),
        _word("kind"),
        _note("text"),
        _actor(),
        _moment("at"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_incident_event")),
        sa.ForeignKeyConstraint(["incident"], ["incident.id"], name=op.f("fk_incident_event_incident")),
        sa.CheckConstraint(
            "kind IN ('opened', 'acknowledged', 'noted', 'acted', 'closed')", name=op.f("ck_incident_event_kind")
        ),
    )
    op.create_index(op.f("ix_incident_event_incident"), "incident_event", ["incident"])


def _triggers() -> None:
    from alembic import op

    if op.get_bind().dialect.name != "sqlite":
        raise NotImplementedError("append-only tables are guarded on SQLite only so far")
    for table in _APPEND_ONLY:
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER {table}_no_{verb.lower()} BEFORE {verb} ON {table} "
                f"BEGIN SELECT RAISE(ABORT, 'rows of {table} never change: {verb} refused'); END"
            )


def _slug(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(64), nullable=False)


def _digest(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(64), nullable=False)


def _id(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(16), nullable=False)


def _word(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(16), nullable=False)


def _note(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(2000), nullable=False)


def _moment(name: str) -> sa.Column[str]:
    return sa.Column(name, sa.String(27), nullable=False)


def _actor() -> sa.Column[str]:
    return sa.Column("actor", sa.String(200), nullable=False)


def _number(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, autoincrement=False, nullable=False)


def _of_version(table: str) -> sa.ForeignKeyConstraint:
    return sa.ForeignKeyConstraint(
        ["model", "number"], ["version.model", "version.number"], name=f"fk_{table}_model_number"
    )
