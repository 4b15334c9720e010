"""The default suite is run often: few examples for Hypothesis, no waiting for the disk, nothing imported in vain."""

import os
import re
from pathlib import Path

import pytest
from hypothesis import settings

# no deadline: the machines that run this are shared, and a slow example is no bug
settings.register_profile("quick", max_examples=30, deadline=None)
settings.register_profile("thorough", max_examples=100, deadline=None)
settings.load_profile("quick")


def pytest_configure(config: pytest.Config) -> None:
    """Without `--hypothesis-profile thorough`, pretend that every write is durable: a third of the time goes there."""
    if config.getoption("--hypothesis-profile", default=None) != "thorough":
        os.fsync = lambda fd: None


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave out modules whose every test is left out by `-m`: torch and the clouds' libraries take 20 s to import."""
    if collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    line = re.search(r"^pytestmark = .*", collection_path.read_text(encoding="utf-8"), re.MULTILINE)
    marks = re.findall(r"pytest\.mark\.(\w+)", line[0]) if line else []
    left_out = any(f"not {mark}" in str(config.getoption("markexpr")) for mark in marks)
    return True if left_out else None
