"""Which schema a registry has, and how it gets the newest one. Alembic is loaded only when there is something to do."""

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from palladion.errors import FormatError, InstallationError
from palladion.registry.tables import RESTORE

MIGRATIONS = Path(__file__).parent / "migrations"
# oldest first; the last one is read and written
REVISIONS = (
    *("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008", "0009", "0010"),
    *("0011", "0012", "0013", "0014"),
)


def is_current(connection: Connection, what: str) -> bool:
    """Whether the schema is the newest one; False if it is an older one that `upgrade` can bring up.

    Raises FormatError if this is not a registry, InstallationError if a newer Palladion wrote it.
    """
    if not inspect(connection).has_table("alembic_version"):
        raise FormatError(f"{what} is a database, but not a Palladion registry: it has no schema revision", RESTORE)
    found = connection.execute(text("SELECT version_num FROM alembic_version")).scalars().all()
    if len(found) != 1:
        raise FormatError(f"{what} has {len(found)} schema revisions, one was expected", RESTORE)
    if found[0] not in REVISIONS:
        raise InstallationError(
            f"{what} has schema revision {found[0]!r}, newer than {REVISIONS[-1]!r}, the newest that is known here",
            "a newer palladion wrote it: upgrade this one",
        )
    return bool(found[0] == REVISIONS[-1])


def upgrade(connection: Connection) -> None:
    """Run the missing migrations inside the transaction of `connection`: all of them or none take effect."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(MIGRATIONS).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    command.upgrade(config, "head")
