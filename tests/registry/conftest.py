"""A new registry in a temporary folder, and a clock that stands still until a test moves it."""

import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from palladion.clock import ManualClock
from palladion.registry import Registry


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 11, 24, 9, 30, tzinfo=UTC))


@pytest.fixture(scope="session")
def new_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("registry") / "registry.sqlite"
    Registry.open(path, ManualClock(datetime(2026, 11, 24, tzinfo=UTC))).close()
    return path


@pytest.fixture
def registry(new_registry: Path, tmp_path: Path, clock: ManualClock) -> Iterator[Registry]:
    shutil.copy(new_registry, tmp_path)  # making one takes 20 ms, and most tests want one
    with Registry.open(tmp_path / new_registry.name, clock, create=False) as opened:
        yield opened
