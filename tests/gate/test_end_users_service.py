"""A gate that runs keeps end users apart: over real HTTP, over a restart, and as a person decides."""

from pathlib import Path

import pytest

from palladion.lifecycle.clients import set_standing
from palladion.lifecycle.end_users import declare_reseller, find_end_user, forget_end_user
from palladion.policy import RoutePolicy
from tests.lifecycle.installations import ACTOR

from .gates import MODEL, PATH, ROW, House, add_calibration, tiny_calibration
from .reselling import id_of
from .service import Answered, Service, configure, serving, wait_until

pytestmark = pytest.mark.service


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    copied = house.copy(tmp_path)
    configure(copied, RoutePolicy(model=MODEL, mode="enforce"))
    return copied


def _ask(service: Service, user: str | None, rows: int = 1) -> Answered:
    connection = service.connect()
    try:
        named = {} if user is None else {"palladion-end-user": user}
        headers = {"authorization": f"Bearer {service.house.keys['acme']}", "content-type": "application/json", **named}
        connection.request("POST", PATH, body=f'{{"inputs": {[ROW] * rows}}}', headers=headers)
        response = connection.getresponse()
        return Answered(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def _known(house: House) -> dict[str, str]:
    status = house.installation.server_status()
    assert status is not None
    return {item["client"]: item["standing"] for item in status["clients"]}


def _saved(house: House, client: str) -> bool:
    with house.installation.open_registry() as registry, registry.read() as records:
        return any(
            client in records.gate_states.load(f"suspicion:{row.model}:{row.digest[:16]}")
            for row in records.calibrations.all()
        )


def test_end_users_are_held_alone_and_found_again(mine: House) -> None:
    with mine.installation.open_registry() as registry, registry.read() as records:
        content = records.versions.get(MODEL, 1).content_digest
    add_calibration(mine.installation, tiny_calibration(content))
    with serving(mine) as service:
        # whoever does not resell yet has none
        assert _ask(service, "ann").status == 200
        assert len(_known(mine)) == len(mine.ids)
        declare_reseller(mine.installation, "acme", "acme", resells=True, actor=ACTOR)
        assert [_ask(service, user).status for user in ("ann", "bob", None)] == [200, 200, 200]
        wait_until(lambda: len(_known(mine)) == len(mine.ids) + 2)
        # within a second they are in the registry, where a person finds them
        wait_until(lambda: _exists(mine, "ann") and _exists(mine, "bob"))
        ann = find_end_user(mine.installation, "acme", "acme", "ann")
        set_standing(mine.installation, ann.name, ann.name, "suspended", reason="for the test", actor=ACTOR)
        assert _ask(service, "ann").problem == "suspended"
        assert [_ask(service, user).status for user in ("bob", None)] == [200, 200]
        wait_until(lambda: _saved(mine, ann.id))
        assert service.terminate() == 0
        assert service.complaints == ""
    with serving(mine) as service:
        assert _ask(service, "ANN").problem == "suspended"
        assert _ask(service, "bob").status == 200
        assert _known(mine)[f"acme/{ann.name}"] == "suspended"
        bob = find_end_user(mine.installation, "acme", "acme", "bob")
        assert not forget_end_user(mine.installation, "acme", "acme", "bob", actor=ACTOR).listed
        assert f"acme/{bob.name}" not in _known(mine)
        assert forget_end_user(mine.installation, "acme", "acme", ann.name, actor=ACTOR).listed
        assert not _saved(mine, ann.id)
        assert _ask(service, "ann").problem == "suspended"
        assert service.terminate() == 0
        assert service.complaints == ""


def _exists(house: House, user: str) -> bool:
    with house.installation.open_registry() as registry, registry.read() as records:
        return records.clients.find_id(id_of(house, user)) is not None
