"""The tables of the registry. They change only through a new file in `migrations/versions`; a test compares both.

What is history (versions, their tensors, promotions, standings, timelines) is only ever added to: on SQLite, triggers
of the first migration refuse updates and deletions.
"""

from datetime import datetime
from typing import Any, get_args

from sqlalchemy import (
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    Dialect,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
    text,
)

from palladion import canonical
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError
from palladion.registry import rows

JSON_BYTES_MAX = 1024 * 1024  # marks, scopes and shapes take a few hundred bytes
APPEND_ONLY = (
    *("version", "version_tensor", "sealed_file", "promotion", "canary", "calibration", "delivery"),
    *("learning_curve", "standing_change", "incident_event", "proposal", "proposal_decision"),
    *("incident_verdict", "incident_cleared", "approval_request", "approval_event", "approval_use", "version_privacy"),
)


class Moment(TypeDecorator[datetime]):
    """An instant as its canonical timestamp: sorts as text, the same in every database."""

    impl = String(27)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> str | None:
        """The text that is stored."""
        return None if value is None else timestamp(value)

    def process_result_value(self, value: str | None, dialect: Dialect) -> datetime | None:
        """The instant of a stored text. Raises FormatError if somebody else wrote it."""
        try:
            return None if value is None else parse_timestamp(value)
        except (ValueError, TypeError):
            raise FormatError(f"the registry holds {value!r} where a timestamp was expected", RESTORE) from None


class CanonicalJson(TypeDecorator[Any]):
    """A list or object as canonical JSON text."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> str | None:
        """The text that is stored."""
        return canonical.encode(value).decode()

    def process_result_value(self, value: str | None, dialect: Dialect) -> Any:
        """The value of a stored text. Raises FormatError if it is not canonical."""
        return canonical.decode(str(value).encode(), size_max=JSON_BYTES_MAX, what="a value in the registry")


RESTORE = "palladion restore brings back the last backup"


def _one_of(column: str, choice: Any) -> CheckConstraint:
    values = ", ".join(f"'{value}'" for value in get_args(choice))
    return CheckConstraint(f"{column} IN ({values})", name=column)


metadata = MetaData(
    naming_convention={
        "pk": "pk_%(table_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
    }
)

model = Table(
    "model",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("owner", String(200), nullable=False),
    Column("format", String(64), nullable=False),
    Column("created", Moment, nullable=False),
)

version = Table(
    "version",
    metadata,
    Column("model", ForeignKey("model.name"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("parent", Integer),
    Column("content_digest", String(64), nullable=False),
    Column("graph_digest", String(64)),
    Column("format", String(64), nullable=False),
    Column("publisher", String(128), nullable=False),
    Column("marks", CanonicalJson, nullable=False),
    Column("note", String(2000), nullable=False),
    Column("created", Moment, nullable=False),
    ForeignKeyConstraint(["model", "parent"], ["version.model", "version.number"]),
    UniqueConstraint("model", "content_digest"),
    CheckConstraint("number >= 1", name="number"),
    CheckConstraint("parent < number", name="parent"),
)

version_tensor = Table(
    "version_tensor",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("name", Text, primary_key=True),
    Column("dtype", String(64), nullable=False),
    Column("shape", CanonicalJson, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("byte_count", BigInteger, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["version.model", "version.number"]),
)

sealed_file = Table(
    "sealed_file",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("path", String(1024), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("header_digest", String(64), nullable=False),
    Column("at", Moment, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["version.model", "version.number"]),
    _one_of("kind", rows.SealedKind),
    Index(None, "model", "number"),
)

promotion = Table(
    "promotion",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("at", Moment, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["version.model", "version.number"]),
    _one_of("kind", rows.PromotionKind),
    Index(None, "model"),
)

canary = Table(
    "canary",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("kind", String(16), nullable=False),
    Column("percent", Integer, nullable=False),
    Column("reason", String(2000), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("at", Moment, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["version.model", "version.number"]),
    _one_of("kind", rows.CanaryKind),
    CheckConstraint("percent BETWEEN 1 AND 50", name="percent"),
    Index(None, "model"),
)

recipient = Table(
    "recipient",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("kind", String(64), nullable=False),
    Column("public_key", Text, nullable=False, unique=True),
    Column("note", String(2000), nullable=False),
    Column("created", Moment, nullable=False),
    Column("revoked_at", Moment),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("recipient", ForeignKey("recipient.name"), nullable=False, index=True),
    Column("public_key", Text, nullable=False),
    Column("fingerprinted", Boolean, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("header_digest", String(64), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("at", Moment, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["version.model", "version.number"]),
    Index(None, "model", "number"),
)

client = Table(
    "client",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("organisation", String(64), nullable=False),
    Column("name", String(64), nullable=False),
    Column("scopes", CanonicalJson, nullable=False),
    Column("created", Moment, nullable=False),
    Column("revoked_at", Moment),
    UniqueConstraint("organisation", "name"),
)

client_key = Table(
    "client_key",
    metadata,
    Column("prefix", String(64), primary_key=True),
    Column("client", ForeignKey("client.id"), nullable=False, index=True),
    Column("hash", LargeBinary(32), nullable=False, unique=True),
    Column("created", Moment, nullable=False),
    Column("expires", Moment),
    Column("revoked_at", Moment),
)

client_identity = Table(
    "client_identity",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("client", ForeignKey("client.id"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("value", String(2500), nullable=False),
    Column("created", Moment, nullable=False),
    Column("revoked_at", Moment),
    _one_of("kind", rows.IdentityKind),
    # of those that count, each names one client; a revoked one may be given again
    Index(
        None,
        "kind",
        "value",
        unique=True,
        sqlite_where=text("revoked_at IS NULL"),
    ),
)

client_source = Table(
    "client_source",
    metadata,
    Column("gate", String(16), primary_key=True),
    Column("publisher", String(64), nullable=False),
    Column("issued", Moment, nullable=False),
    Column("pepper", Text, nullable=False),
    Column("at", Moment, nullable=False),
)

client_copy = Table(
    "client_copy",
    metadata,
    Column("client", ForeignKey("client.id"), primary_key=True),
    Column("gate", ForeignKey("client_source.gate"), nullable=False, index=True),
)

standing_change = Table(
    "standing_change",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("client", ForeignKey("client.id"), nullable=False, index=True),
    Column("standing", String(16), nullable=False),
    Column("reason", String(2000), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("at", Moment, nullable=False),
    _one_of("standing", rows.Standing),
)

calibration = Table(
    "calibration",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("model", String(64), nullable=False),
    Column("number", Integer, nullable=False),
    Column("path", String(1024), nullable=False, unique=True),
    Column("digest", String(64), nullable=False),
    Column("simulated", Boolean, nullable=False),
    Column("clients", Integer, nullable=False),
    Column("at", Moment, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["version.model", "version.number"]),
    Index(None, "model", "number"),
)

learning_curve = Table(
    "learning_curve",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("calibration", ForeignKey("calibration.path"), nullable=False, index=True),
    Column("document", CanonicalJson, nullable=False),
    Column("at", Moment, nullable=False),
)

gate_state = Table(
    "gate_state",
    metadata,
    Column("client", ForeignKey("client.id"), primary_key=True),
    Column("purpose", String(128), primary_key=True),
    Column("data", LargeBinary(16384), nullable=False),
    Column("at", Moment, nullable=False),
)

operator = Table(
    "operator",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("role", String(16), nullable=False),
    Column("identity", Text, nullable=False, unique=True),
    Column("created", Moment, nullable=False),
    Column("revoked_at", Moment),
    _one_of("role", rows.Role),
)

proposal = Table(
    "proposal",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("change", CanonicalJson, nullable=False),
    Column("reason", String(2000), nullable=False),
    Column("proposer", String(200), nullable=False),
    Column("at", Moment, nullable=False),
    Column("expires", Moment, nullable=False),
)

proposal_decision = Table(
    "proposal_decision",
    metadata,
    Column("proposal", ForeignKey("proposal.id"), primary_key=True),
    Column("verdict", String(16), nullable=False),
    Column("reason", String(2000), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("at", Moment, nullable=False),
    _one_of("verdict", rows.Verdict),
)

incident = Table(
    "incident",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("title", String(200), nullable=False),
    Column("state", String(16), nullable=False),
    Column("opened_at", Moment, nullable=False),
    Column("closed_at", Moment),
    Column("finding", String(2000)),
    _one_of("state", rows.IncidentState),
    CheckConstraint("(state = 'closed') = (closed_at IS NOT NULL)", name="closed"),
)

incident_client = Table(
    "incident_client",
    metadata,
    Column("incident", ForeignKey("incident.id"), primary_key=True),
    Column("client", ForeignKey("client.id"), primary_key=True, index=True),
)

incident_event = Table(
    "incident_event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("incident", ForeignKey("incident.id"), nullable=False, index=True),
    Column("kind", String(16), nullable=False),
    Column("text", String(2000), nullable=False),
    Column("actor", String(200), nullable=False),
    Column("at", Moment, nullable=False),
    _one_of("kind", rows.IncidentEventKind),
)

decoy = Table(
    "decoy",
    metadata,
    Column("id", String(16), primary_key=True),
    Column("kind", String(16), nullable=False),
    Column("label", String(200), nullable=False),
    Column("organisation", String(64)),
    Column("model", String(64)),
    Column("prefix", String(64)),
    Column("hash", LargeBinary(32), unique=True),
    Column("data", LargeBinary),
    Column("count", Integer, nullable=False),
    Column("actor", String(200), nullable=False),
    Column("created", Moment, nullable=False),
    Column("retired_at", Moment),
    Column("touches", Integer, nullable=False),
    Column("touched_at", Moment),
    Column("incident", ForeignKey("incident.id"), index=True),
    _one_of("kind", rows.DecoyKind),
)
