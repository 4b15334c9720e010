"""What tests spare themselves: waiting for the disk, in the default suite alone, and the same migrations again.

Two in five of its seconds went into making registries: all migrations each, and waiting for the disk at every commit.
Here the migrations run once in a process, and what they made is told again statement by statement, triggers and all.
A run with `--hypothesis-profile thorough` waits for the disk, and tests of registries that are half made migrate.
"""

import functools
import gc
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sqlalchemy import Connection, Engine


def pretend_durable() -> None:
    """Every write of ours is as good as on the disk: a power cut is tested without one."""
    os.fsync = os.fdatasync = lambda fd: None


# tests of these migrate each time in a thorough run: they fail in the midst of it
MIGRATING = ("tests/registry/", "tests/lifecycle/test_create.py", "tests/lifecycle/test_restore.py")


def take_registries(*, thorough: bool) -> None:
    """Take the ways around migrations and disk, if some test that was collected needs a registry at all."""
    if "palladion.registry.registry" not in sys.modules:
        return
    from palladion.registry import schema, sqlite

    migrating = MIGRATING if thorough else ()
    schema.upgrade = _remembering(schema.upgrade, migrating)  # type: ignore[assignment]  # its argument's name is lost
    if not thorough:
        sqlite.make_engine = _hasty(sqlite.make_engine)


def settle() -> None:
    """Keep what collection made, half a million objects that stay to the end, out of every search for garbage."""
    gc.freeze()


def _remembering(
    upgrade: "Callable[[Connection], None]", migrating: tuple[str, ...] = ()
) -> "Callable[[Connection], None]":
    made: dict[tuple[Path, tuple[str, ...]], list[str]] = {}

    @functools.wraps(upgrade)
    def tell(connection: "Connection") -> None:
        from palladion.registry import schema

        started = connection.exec_driver_sql("SELECT count(*) FROM sqlite_master").scalar_one() > 0
        if started or os.environ.get("PYTEST_CURRENT_TEST", "").startswith(migrating):
            upgrade(connection)
            return
        # tests of migrations put others in their place
        which = (schema.MIGRATIONS, schema.REVISIONS)
        driver: Any = connection.connection.driver_connection
        if which in made:
            for statement in made[which]:
                driver.execute(statement)
            return
        upgrade(connection)
        made[which] = [line for line in driver.iterdump() if line not in ("BEGIN TRANSACTION;", "COMMIT;")]

    return tell


def _hasty(make_engine: "Callable[..., Engine]") -> "Callable[..., Engine]":
    @functools.wraps(make_engine)
    def make(*arguments: Any, **options: Any) -> "Engine":
        from sqlalchemy import event

        engine = make_engine(*arguments, **options)
        # before the engine's own settings, which write, and after them, since they ask for durability
        event.listen(engine, "connect", _do_not_wait, insert=True)
        event.listen(engine, "connect", _do_not_wait_any_more)
        return engine

    return make


def _do_not_wait(connection: Any, _record: Any) -> None:
    connection.execute("PRAGMA synchronous = OFF").close()


def _do_not_wait_any_more(connection: Any, record: Any) -> None:
    _do_not_wait(connection, record)
