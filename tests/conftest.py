"""The default suite is run often: few examples for Hypothesis, no waiting for the disk, nothing imported in vain."""

import inspect
import re
from pathlib import Path

import pytest
from hypothesis import settings

from tests import shortcuts

# no deadline: the machines that run this are shared, and a slow example is no bug
settings.register_profile("quick", max_examples=20, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("quick")


def _is_thorough(config: pytest.Config) -> bool:
    return bool(config.getoption("--hypothesis-profile", default=None) == "thorough")


def pytest_configure(config: pytest.Config) -> None:
    """Without `--hypothesis-profile thorough`, pretend that every write is durable: a third of the time goes there."""
    if not _is_thorough(config):
        shortcuts.pretend_durable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Now it is known what is imported."""
    shortcuts.settle()
    if not _is_thorough(session.config):
        shortcuts.take_registries()


@pytest.fixture
def durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries that wait for the disk, for tests of exactly that."""
    from palladion.registry import sqlite

    monkeypatch.setattr(sqlite, "make_engine", inspect.unwrap(sqlite.make_engine))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out modules whose every test is left out by `-m`: torch and the clouds' libraries take 20 s to import."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    text = collection_path.read_text(encoding="utf-8")
    line = re.search(r"^pytestmark = (\[[^\]]*\]|.*)", text, re.MULTILINE)
    marks = re.findall(r"pytest\.mark\.(\w+)", line[0]) if line else []
    left_out = any(f"not {mark}" in str(config.getoption("markexpr")) for mark in marks)
    return True if left_out else None
