"""A roll that looks up who asks: it lets in the same as one read in one piece, and made-up keys leave nothing."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from palladion.access.cedar import read_policies
from palladion.access.identity import new_api_key
from palladion.gate import rolls as module
from palladion.gate.callers import WATCH
from palladion.gate.directory import Directory
from palladion.gate.problems import Problem
from palladion.gate.rolls import LookedUp, Recent, read_looked_up
from palladion.lifecycle.clients import add_client, revoke_client, revoke_key, set_standing
from palladion.lifecycle.identities import add_identity
from palladion.registry import Registry, StandingChange
from palladion.registry.lookup import Lookup
from palladion.registry.rows import Standing
from tests.gate.rolls import read_roll
from tests.lifecycle.installations import ACTOR, NOW

from .gates import House, at


@pytest.fixture
def mine(house: House, tmp_path: Path) -> House:
    return house.copy(tmp_path)


@pytest.fixture
def registry(mine: House) -> Iterator[Registry]:
    with mine.installation.open_registry() as opened:
        yield opened


@pytest.fixture
def read(registry: Registry) -> Iterator[Callable[..., LookedUp]]:
    lookup = Lookup(registry.path)
    yield lambda before=None: read_looked_up(registry, lookup=lookup, before=before)
    lookup.close()


@pytest.fixture
def directory(mine: House, read: Callable[..., LookedUp]) -> Directory:
    made = Directory(mine.root.derive("client-key-pepper"))
    assert made.load(read()) == []
    return made


def _headers(house: House, name: str) -> dict[bytes, bytes]:
    return {b"x-api-key": house.keys[name].encode()}


def _standing(directory: Directory, house: House, name: str = "acme") -> Standing:
    return directory.identify(_headers(house, name), NOW).standing


def test_it_lets_in_whom_a_roll_that_was_read_in_one_piece_lets_in(
    directory: Directory, registry: Registry, mine: House
) -> None:
    with registry.read() as records:
        whole = read_roll(records)
    for name in mine.keys:
        assert directory.identify(_headers(mine, name), NOW) == whole.callers[mine.ids[name]]
    assert dict(directory.callers) == dict(whole.callers)
    assert sorted(directory.snapshot(), key=lambda caller: caller.id) == sorted(
        whole.callers.values(), key=lambda caller: caller.id
    )
    assert len(directory.callers) == len(whole.callers)
    assert directory.standings() == {"trusted": len(whole.callers)}


def test_a_made_up_key_is_refused_and_leaves_nothing_behind(directory: Directory, mine: House) -> None:
    directory.identify(_headers(mine, "acme"), NOW)
    held = len(directory._keys)
    for _ in range(50):
        with pytest.raises(Problem, match="unauthenticated"):
            directory.identify({b"x-api-key": new_api_key("test").text.encode()}, NOW)
    assert len(directory._keys) == held == 1


def test_of_many_clients_the_latest_are_kept(monkeypatch: pytest.MonkeyPatch, mine: House, registry: Registry) -> None:
    monkeypatch.setattr(module, "CALLERS_MAX", 2)
    lookup = Lookup(registry.path)
    directory = Directory(mine.root.derive("client-key-pepper"))
    directory.load(read_looked_up(registry, lookup=lookup))
    for name in (*mine.keys, *mine.keys):
        assert directory.identify(_headers(mine, name), NOW).id == mine.ids[name]
        assert len(directory._keys) <= 2
    lookup.close()


def test_who_is_revoked_is_out_with_the_reload_and_a_client_who_did_not_ask_before_it_at_once(
    directory: Directory, mine: House, read: Callable[..., LookedUp]
) -> None:
    directory.identify(_headers(mine, "acme"), NOW)
    revoke_client(mine.installation, "acme", "acme", actor=ACTOR)
    revoke_client(mine.installation, "globex", "globex", actor=ACTOR)
    with pytest.raises(Problem, match="unauthenticated"):
        directory.identify(_headers(mine, "globex"), NOW)

    directory.load(read(directory.mark))

    with pytest.raises(Problem, match="unauthenticated"):
        directory.identify(_headers(mine, "acme"), NOW)
    assert len(directory.callers) == len(mine.keys) - 2


def test_a_revoked_key_lets_nobody_in_after_the_reload(
    directory: Directory, mine: House, read: Callable[..., LookedUp]
) -> None:
    directory.identify(_headers(mine, "acme"), NOW)
    revoke_key(mine.installation, mine.keys["acme"][:16], actor=ACTOR)
    directory.load(read(directory.mark))
    with pytest.raises(Problem, match="unauthenticated"):
        directory.identify(_headers(mine, "acme"), NOW)


def test_a_client_that_was_added_is_let_in_with_the_reload(
    directory: Directory, mine: House, read: Callable[..., LookedUp]
) -> None:
    _, key, _ = add_client(mine.installation, "late", "late", models=[], environment="test", expires=None, actor=ACTOR)
    headers = {b"x-api-key": key.text.encode()}
    with pytest.raises(Problem, match="unauthenticated"):
        directory.identify(headers, NOW)
    directory.load(read(directory.mark))
    assert directory.identify(headers, NOW).client.name == "late"


def test_a_standing_that_a_person_changed_counts_with_the_reload_which_tells_who_was_raised(
    directory: Directory, mine: House, read: Callable[..., LookedUp]
) -> None:
    change = StandingChange(mine.ids["acme"], "degraded", "odd", WATCH, at(1))
    directory.change(change)
    assert _standing(directory, mine) == "degraded"
    assert directory.standings() == {"trusted": len(mine.keys) - 1, "degraded": 1}
    assert directory.changed == 1
    set_standing(mine.installation, "globex", "globex", "suspended", reason="for the test", actor=ACTOR)
    assert _standing(directory, mine, "globex") == "trusted"

    assert directory.load(read(directory.mark), [change]) == []
    assert (_standing(directory, mine), _standing(directory, mine, "globex")) == ("degraded", "suspended")
    set_standing(mine.installation, "globex", "globex", "watched", reason="for the test", actor=ACTOR)
    assert directory.load(read(directory.mark), [change]) == [mine.ids["globex"]]
    # the watch's change never was written, and nobody says any more that it will be
    assert directory.load(read(directory.mark)) == [mine.ids["acme"]]
    assert directory.changed == 0


def test_a_change_of_somebody_who_did_not_ask_for_long_still_counts(
    monkeypatch: pytest.MonkeyPatch, mine: House, registry: Registry
) -> None:
    monkeypatch.setattr(module, "CALLERS_MAX", 2)
    lookup = Lookup(registry.path)
    directory = Directory(mine.root.derive("client-key-pepper"))
    directory.load(read_looked_up(registry, lookup=lookup))
    directory.change(StandingChange(mine.ids["acme"], "suspended", "odd", WATCH, at(1)))
    for name in ("globex", "initech", "brief", "globex", "initech"):
        directory.identify(_headers(mine, name), NOW)
    assert _standing(directory, mine) == "suspended"
    lookup.close()


def test_identities_are_looked_up_as_well(directory: Directory, mine: House, read: Callable[..., LookedUp]) -> None:
    add_identity(mine.installation, "acme", "acme", "certificate", "ab" * 32, actor=ACTOR)
    directory.load(read(directory.mark))
    assert directory._identities.get(("certificate", "ab" * 32)) == mine.ids["acme"]
    assert directory._identities.get(("spiffe", "ab" * 32)) is None


def test_clients_are_found_by_name(directory: Directory, mine: House) -> None:
    found = directory.named("acme", "acme")
    assert found is not None
    assert found.id == mine.ids["acme"]
    assert directory.named("acme", "globex") is None
    assert (directory._has_organisation("acme"), directory._has_organisation("nobody")) == (True, False)


def test_a_damaged_timestamp_is_no_client(directory: Directory, mine: House, registry: Registry) -> None:
    caller = directory.identify(_headers(mine, "acme"), NOW + timedelta(seconds=1))
    assert replace(caller.client, standing=caller.standing) == caller.client


def test_recent_values_are_those_that_were_used_last() -> None:
    recent: Recent[int, str] = Recent(4)
    for number in range(4):
        recent.put(number, str(number))
        assert recent.get(0) == "0"
    for number in range(10, 20):
        recent.put(number, str(number))
        assert recent.get(0) == "0"
        assert len(recent) <= 4
    assert recent.get(10) is None


def test_other_access_policies_hold_for_those_who_are_looked_up_and_changed(directory: Directory, mine: House) -> None:
    directory.change(StandingChange(mine.ids["acme"], "watched", "for the test", WATCH, at(1)))
    assert directory.identify(_headers(mine, "globex"), NOW).access is None
    mark, counts = directory.mark, directory.standings()
    access = read_policies(b"forbid(principal, action, resource);", "a")
    directory.renew_access(access)
    for name in ("acme", "globex", "initech"):
        caller = directory.identify(_headers(mine, name), NOW)
        assert (caller.access, caller.standing) == (access, "watched" if name == "acme" else "trusted")
    assert (directory.mark, directory.standings(), directory.changed) == (mark, counts, 1)
