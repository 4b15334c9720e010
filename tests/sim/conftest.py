"""The house that every simulation is over."""

import pytest

from tests.gate.gates import House, make_house


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory) -> House:
    return make_house(tmp_path_factory.mktemp("house"))
