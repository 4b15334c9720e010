"""End users of resellers: registered once, kept up to a number, and never rid of a standing by making room."""

from datetime import timedelta

import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, PalladionError
from palladion.registry import Client, Records, Registry
from palladion.registry.end_users import RESELLER_NAME_MAX
from tests.registry.factories import add_client


def _end_user(reseller: Client, number: int) -> Client:
    user = f"{number:016x}"
    created = reseller.created + timedelta(seconds=number)
    return Client(user, "acme", f"{reseller.name}~{user}", (), "trusted", created, None, parent=reseller.id)


def _reseller(records: Records, name: str = "scoring") -> Client:
    return records.end_users.declare(add_client(records, name).id)


@pytest.fixture
def reseller(registry: Registry) -> Client:
    with registry.write() as records:
        return _reseller(records)


def _enrol(registry: Registry, reseller: Client, *numbers: int, most: int = 100) -> list[str]:
    with registry.write() as records:
        return records.end_users.enrol([_end_user(reseller, number) for number in numbers], most=most)


def _ids(registry: Registry, reseller: Client) -> list[int]:
    with registry.read() as records:
        return sorted(int(item.id, 16) for item in records.end_users.of(reseller.id, most=100))


def test_a_client_resells_until_it_does_no_more(registry: Registry, reseller: Client) -> None:
    assert reseller.reseller
    with registry.write() as records:
        with pytest.raises(ConflictError, match="is a reseller already"):
            records.end_users.declare(reseller.id)
        assert not records.end_users.withdraw(reseller.id).reseller
        with pytest.raises(ConflictError, match="is no reseller"):
            records.end_users.withdraw(reseller.id)


def test_a_name_that_leaves_no_room_for_an_id_is_no_resellers(registry: Registry) -> None:
    with registry.write() as records:
        long, longest = (add_client(records, (RESELLER_NAME_MAX + more) * "a").id for more in (1, 0))
        with pytest.raises(PalladionError, match="at most 47 characters"):
            records.end_users.declare(long)
        assert records.end_users.declare(longest).reseller


def test_an_end_user_is_a_client_that_nobody_lists_among_those_who_were_registered(
    registry: Registry, reseller: Client
) -> None:
    assert _enrol(registry, reseller, 1, 2) == []
    with registry.read() as records:
        first = records.clients.named("acme", f"scoring~{1:016x}")
        assert (first.parent, first.standing, first.reseller) == (reseller.id, "trusted", False)
        assert [item.id for item in records.clients.registered()] == [reseller.id]
        assert len(records.clients.all()) == 3
        assert records.end_users.count(reseller.id) == 2
        assert [item.id for item in records.end_users.of(reseller.id, most=1)] == [f"{2:016x}"]


def test_an_end_user_is_found_by_its_own_name_alone(registry: Registry, reseller: Client) -> None:
    # commands take the name of a client for its organisation where none is given
    _enrol(registry, reseller, 1)
    with registry.write() as records:
        records.clients.add("acme", organisation="acme", actor="ada")
        found = records.clients.find(f"acme~{1:016x}", f"scoring~{1:016x}")
    assert found is not None
    assert found.organisation == "acme"


def test_whoever_is_known_already_is_registered_once(registry: Registry, reseller: Client) -> None:
    _enrol(registry, reseller, 1)
    assert _enrol(registry, reseller, 1, 1, 2) == []
    assert _ids(registry, reseller) == [1, 2]


@pytest.mark.parametrize("ending", ["withdrawn", "revoked"])
def test_end_users_of_who_resells_no_more_are_left_out(registry: Registry, reseller: Client, ending: str) -> None:
    with registry.write() as records:
        if ending == "revoked":
            records.clients.revoke(reseller.id)
        else:
            records.end_users.withdraw(reseller.id)
    assert _enrol(registry, reseller, 1) == []
    assert _ids(registry, reseller) == []


def test_who_asked_longest_ago_makes_room(registry: Registry, reseller: Client, clock: ManualClock) -> None:
    _enrol(registry, reseller, 1, 2, 3)
    with registry.write() as records:
        # the first of them has asked since
        clock.advance(timedelta(hours=1))
        records.gate_states.save("suspicion", {f"{1:016x}": b"state"})
    assert _enrol(registry, reseller, 4, most=3) == [f"{2:016x}"]
    assert _ids(registry, reseller) == [1, 3, 4]
    with registry.read() as records:
        assert records.gate_states.load("suspicion") == {f"{1:016x}": b"state"}


def test_room_is_made_for_some_more_at_once_and_their_states_go_with_them(registry: Registry, reseller: Client) -> None:
    with registry.write() as records:
        other = _reseller(records, "other")
    _enrol(registry, other, 1000)
    _enrol(registry, reseller, *range(1, 33))
    with registry.write() as records:
        records.gate_states.save("limits", {f"{1:016x}": b"state"})
    dropped = _enrol(registry, reseller, 33, most=32)
    assert len(dropped) == 1 + 32 // 16
    assert _ids(registry, other) == [1000]
    with registry.write() as records:
        records.gate_states.save("limits", dict.fromkeys(dropped, b"state"))
        assert dropped[0] not in records.gate_states.load("limits")


def test_no_room_is_made_by_who_was_ever_put_into_another_standing(registry: Registry, reseller: Client) -> None:
    _enrol(registry, reseller, 1, 2)
    with registry.write() as records:
        records.standings.change(f"{1:016x}", "suspended", reason="odd", actor="watch")
    assert f"{1:016x}" not in _enrol(registry, reseller, 3, 4, most=1)
    assert 1 in _ids(registry, reseller)
    with registry.read() as records:
        assert records.clients.get(f"{1:016x}").standing == "suspended"


def test_end_users_are_revoked_with_their_reseller_and_never_alone(registry: Registry, reseller: Client) -> None:
    _enrol(registry, reseller, 1)
    with registry.write() as records:
        with pytest.raises(ConflictError, match="no access of its own"):
            records.clients.revoke(f"{1:016x}")
        with pytest.raises(ConflictError, match="no key of its own"):
            records.clients.add_key(f"{1:016x}", prefix="pall_x", key_hash=bytes(32))
        with pytest.raises(ConflictError, match="is an end user"):
            records.end_users.declare(f"{1:016x}")
        records.clients.revoke(reseller.id)
        assert records.clients.get(f"{1:016x}").revoked_at is not None


def test_a_reseller_that_is_forgotten_takes_its_end_users_along(registry: Registry, reseller: Client) -> None:
    _enrol(registry, reseller, 1, 2)
    with registry.write() as records:
        records.standings.change(f"{1:016x}", "watched", reason="odd", actor="watch")
        records.gate_states.save("suspicion", {reseller.id: b"a", f"{1:016x}": b"b", f"{2:016x}": b"c"})
        records.clients.revoke(reseller.id)
        assert records.gate_states.forget(reseller.id) == 3
        assert records.end_users.forget(reseller.id) == [f"{2:016x}"]
        erased = records.clients.erase_name(reseller.id)
        left = records.clients.get(f"{1:016x}")
    # what was decided stays, and says of nobody whose it is
    assert (left.organisation, left.name) == ("erased", f"{erased.name}~{1:016x}")


def test_one_end_user_is_forgotten_and_no_other(registry: Registry, reseller: Client) -> None:
    _enrol(registry, reseller, 1, 2)
    with registry.write() as records:
        assert records.end_users.forget(f"{1:016x}") == [f"{1:016x}"]
    assert _ids(registry, reseller) == [2]


def test_a_name_that_is_not_made_of_the_id_is_refused(registry: Registry, reseller: Client) -> None:
    wrong = Client("00ff", "acme", "ann@example.com", (), "trusted", reseller.created, None, parent=reseller.id)
    with registry.write() as records, pytest.raises(ValueError, match="called by its id"):
        records.end_users.enrol([wrong], most=9)


def test_an_end_user_stands_as_it_first_asked_until_something_is_decided(registry: Registry, reseller: Client) -> None:
    _enrol(registry, reseller, 1, 2)
    with registry.write() as records:
        records.standings.change(f"{1:016x}", "watched", reason="odd", actor="watch")
        assert [item.standing for item in records.standings.history(f"{1:016x}")] == ["trusted", "watched"]
        (first,) = records.standings.history(f"{2:016x}")
        current = records.standings.current()
    assert (first.standing, first.actor, first.at) == ("trusted", "watch", _end_user(reseller, 2).created)
    assert current[f"{2:016x}"] == first
    assert current[f"{1:016x}"].standing == "watched"
    assert current[reseller.id].reason == "registered"
