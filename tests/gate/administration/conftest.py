"""A desk with its staff, over a copy of the house."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.gate.gates import House

from .bench import Bench


@pytest.fixture
def bench(house: House, tmp_path: Path) -> Iterator[Bench]:
    found = Bench(house, tmp_path)
    found.staff()
    yield found
    found.close()
