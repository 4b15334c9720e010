"""What is told again is what the migrations made, and where tests are of migrations they run."""

import inspect
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, create_engine

from palladion.registry import schema
from tests import shortcuts

migrate = inspect.unwrap(schema.upgrade)


def _made(path: Path, upgrade: Callable[[Connection], None]) -> tuple[list[str], list[object]]:
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        upgrade(connection)
    engine.dispose()
    with sqlite3.connect(path) as opened:
        pragmas = [
            opened.execute(f"PRAGMA {name}").fetchone() for name in ("user_version", "application_id", "encoding")
        ]
        return list(opened.iterdump()), pragmas


@pytest.fixture
def counted() -> tuple[Callable[[Connection], None], list[int]]:
    runs: list[int] = []

    def upgrade(connection: Connection) -> None:
        runs.append(1)
        migrate(connection)

    return upgrade, runs


def test_a_registry_that_is_told_again_is_the_one_that_was_migrated(
    tmp_path: Path, counted: tuple[Callable[[Connection], None], list[int]]
) -> None:
    upgrade, runs = counted
    quick = shortcuts._remembering(upgrade)
    first, again = (_made(tmp_path / name, quick) for name in ("first", "again"))
    assert first == again
    assert len(first[0]) > 20
    assert len(runs) == 1


@pytest.mark.slow
def test_tests_of_migrations_migrate(
    tmp_path: Path, counted: tuple[Callable[[Connection], None], list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    upgrade, runs = counted
    quick = shortcuts._remembering(upgrade, shortcuts.MIGRATING)
    for number, test in enumerate(("tests/registry/test_schema.py::test_a", "tests/lifecycle/test_create.py::test_b")):
        monkeypatch.setenv("PYTEST_CURRENT_TEST", f"{test} (call)")
        _made(tmp_path / str(number), quick)
    assert len(runs) == 2


def test_what_migrates_each_time_exists() -> None:
    assert all((Path(__file__).parents[1] / place).exists() for place in shortcuts.MIGRATING)
