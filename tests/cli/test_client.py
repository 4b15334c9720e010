"""`palladion client`: what it repeats of the registry without loading it."""

from typing import get_args

from palladion.cli.client import STANDINGS
from palladion.registry.rows import Standing


def test_the_standings_are_those_of_the_registry() -> None:
    assert get_args(Standing) == STANDINGS
