"""One house for all tests of the gate: making it takes a second."""

import pytest

from .gates import House, make_house


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("house"))
