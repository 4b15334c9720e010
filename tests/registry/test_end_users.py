"""End users of resellers: registered once, kept up to a number, and never rid of a standing by making room."""

from datetime import timedelta

import pytest

from palladion.access.users import SECRET_BYTES
from palladion.clock import ManualClock
from palladion.errors import ConflictError, PalladionError
from palladion.registry import Client, Records, Registry
from palladion.registry.end_user_tables import end_user
from palladion.registry.end_users import DECIDED_PART, KEPT, RESELLER_NAME_MAX
from palladion.registry.tables import metadata
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


def test_clients_are_listed_with_those_end_users_who_matter(registry: Registry, reseller: Client) -> None:
    _enrol(registry, reseller, 1, 2)
    with registry.write() as records:
        records.standings.change(f"{1:016x}", "throttled", reason="odd", actor="watch")
        records.standings.change(reseller.id, "watched", reason="odd", actor="watch")
        decided = {item.id: item.standing for item in records.clients.decided()}
        assert decided == {reseller.id: "watched", f"{1:016x}": "throttled"}
        ids = [f"{number:016x}" for number in range(2, 2002)]
        assert [item.id for item in records.clients.among([*ids, reseller.id])] == [f"{2:016x}", reseller.id]


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
    assert _enrol(registry, reseller, 1) == [f"{1:016x}"]
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


def test_the_secret_of_a_reseller_is_drawn_once_and_outlives_that_it_resells(registry: Registry) -> None:
    with registry.write() as records:
        one, other = _reseller(records), _reseller(records, "other")
        assert len(one.secret) == SECRET_BYTES
        assert one.secret != other.secret
        assert one.secret.hex() not in repr(one)
        assert records.end_users.withdraw(one.id).secret == one.secret
        assert records.end_users.declare(one.id).secret == one.secret
        assert add_client(records, "plain").secret == b""


def test_a_secret_is_erased_of_who_is_let_in_no_more(registry: Registry, reseller: Client) -> None:
    with registry.write() as records:
        with pytest.raises(ConflictError, match="is let in"):
            records.end_users.forget_secret(reseller.id)
        records.clients.revoke(reseller.id)
        records.end_users.forget_secret(reseller.id)
        assert records.clients.get(reseller.id).secret == b""


def test_whoever_is_in_a_case_stays_and_keeps_nobody_else_out(registry: Registry, reseller: Client) -> None:
    _enrol(registry, reseller, 1, 2)
    with registry.write() as records:
        case = records.incidents.open("odd", actor="ada", clients=[f"{1:016x}"], text="x")
    assert _enrol(registry, reseller, 3, 4, most=2) == [f"{2:016x}"]
    with registry.write() as records:
        assert records.end_users.forget(f"{1:016x}") == []
        assert records.end_users.forget(reseller.id) == [f"{3:016x}", f"{4:016x}"]
        assert records.incidents.get(case.id).clients == (f"{1:016x}",)


def test_every_table_of_clients_says_what_becomes_of_its_rows_when_one_is_dropped() -> None:
    referring = {
        table.name
        for table in metadata.tables.values()
        for key in table.foreign_keys
        if key.target_fullname == "client.id"
    }
    deleted = {end_user.name, "gate_state"}
    of_others = {"reseller", "reseller_secret", "client_key", "client_copy"}  # an end user has no row in these
    assert referring == deleted | of_others | {table.name for table in KEPT}


def _watch_them(registry: Registry, *numbers: int) -> None:
    with registry.write() as records:
        for number in numbers:
            records.standings.change(f"{number:016x}", "watched", reason="odd", actor="watch")


def test_whoever_has_a_history_takes_the_room_of_nobody_else(registry: Registry, reseller: Client) -> None:
    _enrol(registry, reseller, 1, 2, 3)
    _watch_them(registry, 1, 2, 3)
    assert _enrol(registry, reseller, 4, 5, most=3) == []
    assert _enrol(registry, reseller, 6, 7, most=3) == [f"{4:016x}"]
    assert _ids(registry, reseller) == [1, 2, 3, 5, 6, 7]


def test_where_too_many_have_a_history_nobody_new_is_taken(registry: Registry, reseller: Client) -> None:
    decided: dict[str, int] = {}
    _enrol(registry, reseller, *range(1, DECIDED_PART + 1))
    _watch_them(registry, *range(1, DECIDED_PART + 1))
    with registry.write() as records:
        new = [_end_user(reseller, number) for number in (20, 21, 22)]
        assert records.end_users.enrol(new[:2], most=1, decided=decided) == [f"{20:016x}"]
        assert decided == {reseller.id: DECIDED_PART}
        # about the last of them something was decided already
        gone = records.end_users.enrol([*new[1:], _end_user(reseller, 23)], most=1, decided=decided, spare={new[2].id})
    assert gone == [f"{23:016x}", f"{21:016x}"]
    assert _ids(registry, reseller) == [*range(1, DECIDED_PART + 1), 22]


def test_whoever_is_spared_is_not_dropped_though_it_asked_longest_ago(registry: Registry, reseller: Client) -> None:
    _enrol(registry, reseller, 1, 2, 3)
    with registry.write() as records:
        new = [_end_user(reseller, number) for number in (4, 5)]
        gone = records.end_users.enrol(new, most=3, spare={f"{1:016x}", f"{2:016x}"})
    assert gone == [f"{3:016x}", f"{4:016x}"]


def test_whoever_is_spared_is_registered_though_its_client_resells_no_more(
    registry: Registry, reseller: Client
) -> None:
    with registry.write() as records:
        records.end_users.withdraw(reseller.id)
        assert records.end_users.enrol([_end_user(reseller, 1)], most=3, spare={f"{1:016x}"}) == []
        records.clients.revoke(reseller.id)
        # its name would be that of a client that can be forgotten
        assert records.end_users.enrol([_end_user(reseller, 2)], most=3, spare={f"{2:016x}"}) == [f"{2:016x}"]
