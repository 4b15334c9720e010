"""Migrations: from nothing to what `tables` says, from old to new, and never from the future."""

import re
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from palladion.clock import ManualClock
from palladion.errors import FormatError, InstallationError, StorageError
from palladion.registry import Registry, schema, tables
from tests.registry.factories import add_model, dump

NEXT = """
from alembic import op
revision = "9999"
down_revision = "{newest}"
def upgrade():
    op.execute("CREATE TABLE extra (id INTEGER)")
    op.execute("{statement}")
"""


def _shape(connection: sqlite3.Connection) -> dict[str, list[str]]:
    """Every table as its sorted column and constraint lines, and every index, however they are spaced."""
    rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql NOT NULL")
    lines = {name: re.sub(r"\s+", " ", sql.replace("\n", "\0")).split("\0") for name, sql in rows}
    return {
        name: sorted(
            line.strip(" ,").replace('"', "") for part in sql for line in part.split("\t") if line.strip(" ,)")
        )
        for name, sql in lines.items()
        if name != "alembic_version"
    }


def test_migrated_tables_are_those_of_the_metadata(registry: Registry) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    with registry._engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, tables.metadata) == []


def test_migrated_constraints_are_those_of_the_metadata(registry: Registry, tmp_path: Path) -> None:
    engine = create_engine(f"sqlite:///{tmp_path / 'direct.sqlite'}")
    tables.metadata.create_all(engine)
    migrated, direct = sqlite3.connect(registry.path), sqlite3.connect(tmp_path / "direct.sqlite")
    assert _shape(migrated) == _shape(direct)
    assert _shape(direct).keys() > tables.metadata.tables.keys()
    migrated.close()
    direct.close()
    engine.dispose()


def test_every_append_only_table_has_its_triggers(registry: Registry) -> None:
    connection = sqlite3.connect(registry.path)
    found = {row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")}
    connection.close()
    assert found == {f"{table}_no_{verb}" for table in tables.APPEND_ONLY for verb in ("update", "delete")}


def test_the_known_revisions_are_the_files_in_order() -> None:
    files = sorted(path.name for path in (schema.MIGRATIONS / "versions").glob("[0-9]*.py"))
    assert tuple(name.partition("_")[0] for name in files) == schema.REVISIONS


def _next_revision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, statement: str) -> None:
    """Pretend that the code has one more migration."""
    shutil.copytree(schema.MIGRATIONS, tmp_path / "100% new")
    (tmp_path / "100% new" / "versions" / "9999_next.py").write_text(
        NEXT.format(statement=statement, newest=schema.REVISIONS[-1])
    )
    monkeypatch.setattr(schema, "MIGRATIONS", tmp_path / "100% new")
    monkeypatch.setattr(schema, "REVISIONS", (*schema.REVISIONS, "9999"))


def test_an_older_registry_is_brought_up_and_keeps_its_rows(
    registry: Registry, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with registry.write() as records:
        add_model(records, "digits", "a")
    registry.close()
    _next_revision(tmp_path, monkeypatch, "ALTER TABLE model ADD COLUMN site VARCHAR(64)")
    with Registry.open(registry.path, clock) as newer:
        with newer.read() as records:
            assert records.versions.get("digits", 1).number == 1
        with newer._engine.connect() as connection:
            assert connection.execute(text("SELECT version_num FROM alembic_version")).scalar_one() == "9999"
            assert connection.execute(text("SELECT site FROM model")).scalar_one() is None


def test_a_migration_that_fails_leaves_the_old_schema(
    registry: Registry, tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = dump(registry)
    registry.close()
    _next_revision(tmp_path, monkeypatch, "ALTER TABLE missing ADD COLUMN site VARCHAR(64)")
    with pytest.raises(FormatError, match="no such table"):
        Registry.open(registry.path, clock)
    assert dump(registry) == before


def test_a_registry_of_a_newer_palladion_is_refused(registry: Registry, clock: ManualClock) -> None:
    registry.close()
    connection = sqlite3.connect(registry.path)
    with connection:
        connection.execute("UPDATE alembic_version SET version_num = '0042'")
    connection.close()
    newer = f"schema revision '0042', newer than '{schema.REVISIONS[-1]}'"
    with pytest.raises(InstallationError, match=newer) as caught:
        Registry.open(registry.path, clock)
    assert caught.value.hints == ("a newer palladion wrote it: upgrade this one",)


@pytest.mark.parametrize("statement", ["DELETE FROM alembic_version", "INSERT INTO alembic_version VALUES ('0000')"])
def test_a_registry_without_exactly_one_revision_is_refused(
    registry: Registry, clock: ManualClock, statement: str
) -> None:
    registry.close()
    connection = sqlite3.connect(registry.path)
    with connection:
        connection.execute(statement)
    connection.close()
    with pytest.raises(FormatError, match="schema revisions, one was expected"):
        Registry.open(registry.path, clock)


@pytest.mark.parametrize("script", ["", "CREATE TABLE photos (name TEXT)"])
def test_a_database_of_something_else_is_refused(tmp_path: Path, clock: ManualClock, script: str) -> None:
    connection = sqlite3.connect(tmp_path / "other.sqlite")
    connection.executescript(script)
    connection.close()
    with pytest.raises(FormatError, match="not a Palladion registry"):
        Registry.open(tmp_path / "other.sqlite", clock)


def test_a_migration_that_fails_at_first_leaves_no_file(
    tmp_path: Path, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    _next_revision(tmp_path, monkeypatch, "ALTER TABLE missing ADD COLUMN site VARCHAR(64)")
    folder = tmp_path / "new"
    folder.mkdir()
    with pytest.raises((FormatError, StorageError)):
        Registry.open(folder / "registry.sqlite", clock)
    assert list(folder.iterdir()) == []


OPEN = """
import sys
from pathlib import Path
from palladion.clock import SystemClock
from palladion.registry import Registry
with Registry.open(Path(sys.argv[1]), SystemClock()) as registry, registry.read() as records:
    records.models.all()
print("alembic" in sys.modules)
"""


@pytest.mark.slow
def test_opening_a_current_registry_does_not_load_alembic(registry: Registry) -> None:
    result = subprocess.run(
        [sys.executable, "-c", OPEN, str(registry.path)], check=True, capture_output=True, text=True
    )
    assert result.stdout.strip() == "False"


@pytest.mark.slow
def test_processes_that_make_the_registry_at_once_agree_on_one(tmp_path: Path) -> None:
    path = tmp_path / "registry.sqlite"
    makers = [subprocess.Popen([sys.executable, "-c", OPEN, str(path)], stdout=subprocess.DEVNULL) for _ in range(3)]
    assert [maker.wait(timeout=60) for maker in makers] == [0, 0, 0]
    assert [item.name for item in tmp_path.iterdir()] == ["registry.sqlite"]
