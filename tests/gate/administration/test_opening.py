"""Where nobody could sign in, nothing of administration is there."""

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest

from palladion.errors import PalladionError, PolicyError
from palladion.gate.administration.opening import check_administration, open_administration
from palladion.gate.keeper import Keeper
from palladion.gate.operations.policies import Policies
from palladion.gate.recorder import Recorder
from palladion.policy import OperatorsPolicy
from tests.gate.gates import House

from .bench import SETTINGS

LOOK = """
import sys
import palladion.gate.administration.opening
print([name for name in sys.modules if name.startswith(("starlette", "palladion.gate.administration."))])
"""


class _Still:
    async def take_over(self, actor: str) -> Any:
        raise NotImplementedError


async def _nothing() -> Any:
    return {}


def _open(house: House, **operators: Any) -> Any:
    installation = house.with_policy(operators=operators, operations={"listen": "127.0.0.1:0"})
    return open_administration(
        installation,
        house.root,
        cast(Keeper, _Still()),
        cast(Recorder, _Still()),
        cast(Policies, _Still()),
        reload=_nothing,
        status=_nothing,
    )


def test_by_default_there_is_none(house: House) -> None:
    assert _open(house) is None


@pytest.mark.slow
def test_nothing_is_loaded_for_it() -> None:
    found = subprocess.run([sys.executable, "-c", LOOK], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "['palladion.gate.administration.opening']"


def test_where_operators_sign_in_it_listens_and_is_gone_afterwards(house: House, tmp_path: Path) -> None:
    place = tmp_path / "o.sock"
    found = _open(house, socket=str(place))

    async def work() -> bool:
        await found.start()
        there = place.is_socket()
        await found.close()
        await found.close()
        return there

    assert asyncio.run(work())
    assert not place.exists()
    assert [route.path for route in found.routes] == ["/v1/{rest:path}"]
    assert set(SETTINGS) >= {"socket"}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"issuer": "http://login.example.com", "client_id": "p"},
            "operators.issuer: http://login.example.com is not an",
        ),
        ({"issuer": "https://login.example.com", "client_id": "p", "ca": "no.pem"}, "no.pem"),
        ({"socket": "no/o.sock"}, "operators.socket: there is no folder"),
        ({"socket": "o.sock", "socket_group": "no-such-group"}, "operators.socket_group: there is no group"),
    ],
)
def test_what_could_not_be_opened_is_told_before(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(PalladionError, match=message):
        check_administration(OperatorsPolicy(**settings), tmp_path)


def test_what_could_be_is_not(tmp_path: Path) -> None:
    check_administration(OperatorsPolicy(), tmp_path)
    check_administration(OperatorsPolicy(issuer="https://login.example.com", client_id="p", socket="o.sock"), tmp_path)


def test_another_gates_socket_is_left_alone(house: House, tmp_path: Path) -> None:
    place = tmp_path / "o.sock"
    first, second = _open(house, socket=str(place)), _open(house, socket=str(place))

    async def work() -> bool:
        await first.start()
        with pytest.raises(PolicyError, match="another process answers"):
            await second.start()
        await second.close()
        there = place.is_socket()
        await first.close()
        return there

    assert asyncio.run(work())
