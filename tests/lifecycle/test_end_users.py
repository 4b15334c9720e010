"""Declaring a reseller, finding one of its end users by name, and erasing what is kept of one: each on record."""

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

from palladion.access.pseudonyms import pseudonym
from palladion.access.users import end_user_id
from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.ledger.record import Record, decode_record
from palladion.lifecycle.client_forget import forget_client
from palladion.lifecycle.clients import add_client, revoke_client
from palladion.lifecycle.end_users import declare_reseller, find_end_user, forget_end_user
from palladion.lifecycle.installation import Installation
from palladion.registry import Client

from .installations import ACTOR, NOW, make


@dataclass(frozen=True)
class House:
    """An installation with a reseller, acme, that asked for ann and bob, and a client that does not resell."""

    installation: Installation
    acme: Client
    key: bytes

    def id_of(self, user: str) -> str:
        return end_user_id(self.key, self.acme.secret, self.acme.id, user)

    @property
    def last(self) -> Record:
        return [decode_record(data, what="it") for _, data in self.installation.read_ledger().entries()][-1]


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An installation as `House` describes it."""
    installation = make(tmp_path_factory.mktemp("end-users")).installation
    for name, reseller in (("acme", True), ("globex", False)):
        add_client(
            installation, name, name, models=[], reseller=reseller, environment="live", expires=None, actor=ACTOR
        )
    house = _house(installation)
    users = [
        Client(user, "acme", f"acme~{user}", (), "trusted", NOW, None, parent=house.acme.id)
        for user in map(house.id_of, ("ann", "bob"))
    ]
    with installation.open_registry() as registry, registry.write() as records:
        records.end_users.enrol(users, most=9)
        records.gate_states.save("suspicion", {house.acme.id: b"whole", users[0].id: b"ann", users[1].id: b"bob"})
    return installation.paths.home


@pytest.fixture
def house(template: Path, tmp_path: Path) -> House:
    """A copy of it."""
    return _house(Installation.find(shutil.copytree(template, tmp_path / "home"), ManualClock(NOW), exact=True))


def _house(installation: Installation) -> House:
    with installation.open_registry() as registry, registry.read() as records:
        acme = records.clients.named("acme", "acme")
    return House(installation, acme, installation.open_gate_root().derive("pseudonyms"))


def _states(house: House) -> set[str]:
    with house.installation.open_registry() as registry, registry.read() as records:
        return set(records.gate_states.load("suspicion"))


def test_a_client_is_declared_a_reseller_on_record(house: House) -> None:
    client, _ = declare_reseller(house.installation, "globex", "globex", resells=True, actor="user:ada")
    assert client.reseller
    assert (house.last.kind, house.last.actor, house.last.details) == ("client.reseller", "user:ada", {"resells": True})
    assert house.last.subject == pseudonym(house.key, client.id)
    client, _ = declare_reseller(house.installation, "globex", "globex", resells=False, actor="user:ada")
    assert not client.reseller
    assert house.last.details == {"resells": False}


def test_what_is_so_already_is_refused_and_not_recorded(house: House) -> None:
    before = house.last
    with pytest.raises(ConflictError):
        declare_reseller(house.installation, "acme", "acme", resells=True, actor=ACTOR)
    with pytest.raises(ConflictError):
        declare_reseller(house.installation, "globex", "globex", resells=False, actor=ACTOR)
    assert house.last == before


@pytest.mark.parametrize("user", ["ann", "ANN", "acme~{id}", "~{id}"])
def test_an_end_user_is_found_by_name_and_by_what_it_is_called_here(house: House, user: str) -> None:
    found = find_end_user(house.installation, "acme", "acme", user.format(id=house.id_of("ann")))
    assert (found.id, found.parent) == (house.id_of("ann"), house.acme.id)


@pytest.mark.parametrize(
    ("name", "user"), [("acme", "carol"), ("globex", "ann"), ("acme", "~0123456789abcdef"), ("acme", "~{acme}")]
)
def test_nobody_else_is_found(house: House, name: str, user: str) -> None:
    with pytest.raises(NotFoundError, match="has no end user of that name") as caught:
        find_end_user(house.installation, name, name, user.format(acme=house.acme.id))
    assert "carol" not in caught.value.message


def test_what_is_no_name_is_told(house: House) -> None:
    with pytest.raises(PalladionError, match="a user's name"):
        find_end_user(house.installation, "acme", "acme", "")


def test_what_is_kept_of_an_end_user_is_erased_on_record(house: House) -> None:
    done = forget_end_user(house.installation, "acme", "acme", "ann", actor="user:ada")
    assert (done.states, done.listed) == (1, False)
    assert _states(house) == {house.acme.id, house.id_of("bob")}
    assert house.last.kind == "client.end-user-forgotten"
    assert house.last.subject == pseudonym(house.key, house.id_of("ann"))
    assert house.last.details == {"states": 1, "reseller": pseudonym(house.key, house.acme.id)}
    with pytest.raises(NotFoundError):
        find_end_user(house.installation, "acme", "acme", "ann")


def test_nobody_gets_rid_of_a_standing_by_being_forgotten(house: House) -> None:
    with house.installation.open_registry() as registry, registry.write() as records:
        records.standings.change(house.id_of("ann"), "suspended", reason="odd", actor="watch")
    assert forget_end_user(house.installation, "acme", "acme", "ann", actor=ACTOR).listed
    assert find_end_user(house.installation, "acme", "acme", "ann").standing == "suspended"
    assert house.id_of("ann") not in _states(house)


def test_a_reseller_that_is_forgotten_takes_its_end_users_along(house: House) -> None:
    revoke_client(house.installation, "acme", "acme", actor=ACTOR)
    assert forget_client(house.installation, "acme", "acme", actor=ACTOR).states == 3
    assert _states(house) == set()
    with pytest.raises(NotFoundError):
        find_end_user(house.installation, "acme", "acme", "bob")


def test_with_its_reseller_forgotten_nobody_can_hold_a_name_against_an_id(house: House) -> None:
    with house.installation.open_registry() as registry, registry.write() as records:
        records.standings.change(house.id_of("ann"), "suspended", reason="odd", actor="watch")
    revoke_client(house.installation, "acme", "acme", actor=ACTOR)
    assert find_end_user(house.installation, "acme", "acme", "ann").id == house.id_of("ann")
    forget_client(house.installation, "acme", "acme", actor=ACTOR)
    with pytest.raises(NotFoundError):
        find_end_user(house.installation, "acme", "acme", "ann")
    # what it is called here still leads to it, as it says nothing
    assert find_end_user(house.installation, "acme", "acme", f"~{house.id_of('ann')}").standing == "suspended"
    assert house.acme.secret not in house.installation.paths.registry.read_bytes()


def test_who_resells_again_has_the_end_users_that_it_had(house: House) -> None:
    for resells in (False, True):
        declare_reseller(house.installation, "acme", "acme", resells=resells, actor=ACTOR)
        assert find_end_user(house.installation, "acme", "acme", "ann").id == house.id_of("ann")


@pytest.mark.parametrize("user", ["~ann", "acme~x", "~0123456789abcdef", "acme~0123456789abcdef", "~"])
def test_a_name_that_looks_like_an_id_is_a_name_all_the_same(house: House, user: str) -> None:
    known = house.id_of(user)
    row = Client(known, "acme", f"acme~{known}", (), "trusted", NOW, None, parent=house.acme.id)
    with house.installation.open_registry() as registry, registry.write() as records:
        records.end_users.enrol([row], most=9)
    assert find_end_user(house.installation, "acme", "acme", user).id == known
