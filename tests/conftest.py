"""The default suite is run often: few examples for Hypothesis, no waiting for the disk, nothing imported in vain."""

import gc
import inspect
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import settings

from tests import selection, shortcuts

# no deadline: the machines that run this are shared, and a slow example is no bug
settings.register_profile("quick", max_examples=20, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("quick")


def _is_thorough(config: pytest.Config) -> bool:
    return bool(config.getoption("--hypothesis-profile", default=None) == "thorough")


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--part 1/2` and `--part 2/2` are together the whole; two processes share it so without reading it twice."""
    parser.addoption("--part", metavar="K/N", type=_part, help="run the K-th of N parts of the test files")


def _part(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    if not 1 <= int(part) <= int(parts):
        raise ValueError
    return int(part), int(parts)


def pytest_configure(config: pytest.Config) -> None:
    """Without `--hypothesis-profile thorough`, pretend that every write is durable: a third of the time goes there."""
    if not _is_thorough(config):
        shortcuts.pretend_durable()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """What collection makes stays: searching it for garbage over and over takes a quarter of its time."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()


def pytest_collection_finish(session: pytest.Session) -> None:
    """Now it is known what is imported."""
    shortcuts.settle()
    shortcuts.take_registries(thorough=_is_thorough(session.config))


@pytest.fixture
def durable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Registries that wait for the disk, for tests of exactly that."""
    from palladion.registry import sqlite

    monkeypatch.setattr(sqlite, "make_engine", inspect.unwrap(sqlite.make_engine))


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out the files of other parts, and those whose every test is left out: torch alone takes 20 s to import."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    part = config.getoption("part")
    if part and not selection.is_in_part(collection_path.relative_to(config.rootpath), *part):
        return True
    text = collection_path.read_text(encoding="utf-8")
    return True if selection.runs_nothing(text, str(config.getoption("markexpr"))) else None
