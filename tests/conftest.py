"""The default suite is run often: few examples for Hypothesis, and no waiting for the disk. CI does without neither."""

import os

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
