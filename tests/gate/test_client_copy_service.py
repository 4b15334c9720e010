"""A gate that runs lets another one's clients in once they are taken over, and out once they are revoked."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest

from palladion.clock import SystemClock
from palladion.lifecycle.client_copy import export_clients, import_clients
from palladion.lifecycle.clients import add_client, revoke_key
from palladion.lifecycle.installation import Installation
from palladion.policy import RoutePolicy
from palladion.seal.sign import publisher_text
from tests.lifecycle.installations import ACTOR, OWNER, Made, make

from .gates import MODEL, House
from .service import Service, configure, serving

pytestmark = pytest.mark.service


@pytest.fixture
def service(house: House, tmp_path: Path) -> Iterator[Service]:
    """A gate of its own."""
    copied = house.copy(tmp_path)
    configure(copied, RoutePolicy(model=MODEL, mode="enforce"))
    with serving(copied) as running:
        yield running


def _trusting(installation: Installation, made: Made) -> Installation:
    text = publisher_text(made.owner.signer("publisher").public_key)
    trust = msgspec.structs.replace(installation.policy.trust, publishers=(*installation.policy.trust.publishers, text))
    policy = msgspec.structs.replace(installation.policy, trust=trust)
    return Installation(installation.paths, policy, SystemClock())


def test_another_gates_client_is_let_in_and_out_at_once(service: Service, tmp_path: Path) -> None:
    made = make(tmp_path / "other")
    here = _trusting(service.house.installation, made)
    _, key, _ = add_client(
        made.installation, "other", "other", models=[], environment="live", expires=None, actor=ACTOR
    )
    file, owner = tmp_path / "clients.sealed", made.installation.open_owner_root([OWNER])
    to = [here.stated_recipient("gate")]

    def pass_on() -> None:
        export_clients(made.installation, owner, file, to, actor=ACTOR, replace=True)
        import_clients(here, file, [], actor=ACTOR)
        made.clock.advance(timedelta(seconds=1))

    assert service.ask(key=key.text).status == 401
    pass_on()
    assert service.ask(key=key.text).status == 200
    assert service.ask(client="acme").status == 200
    revoke_key(made.installation, key.text[:16], actor=ACTOR)
    pass_on()
    assert service.ask(key=key.text).status == 401
