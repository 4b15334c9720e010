"""The directory: who is let in and who is not, and that a reload never undoes what the watch decided."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from palladion.access.identity import KEY_CHARACTERS_MAX, SHOWN_CHARACTERS, new_api_key
from palladion.gate.directory import WATCH, Directory, Roll, read_roll
from palladion.gate.problems import Problem
from palladion.lifecycle.clients import revoke_client, revoke_key, set_standing
from palladion.registry import StandingChange
from palladion.registry.rows import Standing
from tests.lifecycle.installations import ACTOR, NOW

from .gates import MODEL, OTHER_MODEL, House, at


def _roll(house: House) -> Roll:
    with house.installation.open_registry() as registry, registry.read() as records:
        return read_roll(records)


@pytest.fixture
def directory(house: House) -> Directory:
    loaded = Directory(house.root.derive("client-key-pepper"))
    assert loaded.load(_roll(house)) == []
    return loaded


def _refusal(directory: Directory, headers: Mapping[bytes, bytes], now: datetime = NOW) -> bytes:
    with pytest.raises(Problem) as caught:
        directory.identify(headers, now)
    assert caught.value.kind == "unauthenticated"
    return caught.value.body()


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b"authorization", "Bearer {}"),
        (b"authorization", "bearer {}"),
        (b"authorization", "BEARER   {} "),
        (b"x-api-key", "{}"),
    ],
)
def test_a_key_lets_its_client_in(directory: Directory, house: House, header: bytes, text: str) -> None:
    caller = directory.identify({header: text.format(house.keys["acme"]).encode()}, NOW)
    assert (caller.id, caller.client.name, caller.standing) == (house.ids["acme"], "acme", "trusted")


KEY = new_api_key("test").text


@pytest.mark.parametrize(
    ("headers", "detail"),
    [
        pytest.param({}, b"Authorization: Bearer KEY was expected", id="no key"),
        pytest.param({b"x-api-key": b""}, b"Bearer KEY was expected", id="an empty key"),
        pytest.param({b"authorization": b"Bearer"}, b"Bearer KEY was expected", id="a scheme alone"),
        pytest.param({b"authorization": b"Bearer x", b"x-api-key": b"x"}, b"not both", id="both headers"),
        pytest.param({b"authorization": b"Basic YTpi"}, b"Bearer KEY was expected", id="another scheme"),
        pytest.param({b"authorization": KEY.encode()}, b"Bearer KEY was expected", id="no scheme"),
        pytest.param({b"x-api-key": b"hello"}, b"this is not an API key", id="malformed"),
        pytest.param({b"x-api-key": KEY[:-1].encode()}, b"this is not an API key", id="cut"),
        pytest.param({b"x-api-key": KEY[:20].encode() + b"\xff" * 9}, b"this is not an API key", id="not ASCII"),
        pytest.param({b"x-api-key": b"k" * (KEY_CHARACTERS_MAX + 1)}, b"this is not an API key", id="too long"),
        pytest.param({b"x-api-key": KEY.replace("_test_", "_live_").encode()}, b"typing error", id="a typing error"),
    ],
)
def test_what_is_no_key_is_refused_with_what_is_wrong(
    directory: Directory, headers: dict[bytes, bytes], detail: bytes
) -> None:
    assert detail in _refusal(directory, headers)


def test_an_unknown_an_expired_and_a_revoked_key_cannot_be_told_apart(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    revoke_client(mine.installation, "acme", "acme", actor=ACTOR)
    revoke_key(mine.installation, mine.keys["globex"][: len("pall_test_") + SHOWN_CHARACTERS], actor=ACTOR)
    directory = Directory(mine.root.derive("client-key-pepper"))
    directory.load(_roll(mine))
    keys = [KEY, *(mine.keys[name] for name in ("acme", "globex", "brief"))]
    refusals = {_refusal(directory, {b"x-api-key": key.encode()}, at(2)) for key in keys}
    assert len(refusals) == 1


def test_nothing_of_a_key_is_repeated(directory: Directory) -> None:
    for key in (KEY, KEY[:-1], KEY.replace("_test_", "_live_")):
        assert KEY[10:20].encode() not in _refusal(directory, {b"x-api-key": key.encode()})


def test_a_key_lives_until_its_minute(directory: Directory, house: House) -> None:
    headers = {b"x-api-key": house.keys["brief"].encode()}
    assert directory.identify(headers, at(0.99)).client.name == "brief"
    assert _refusal(directory, headers, at(1)) == _refusal(directory, {b"x-api-key": KEY.encode()})


def test_scopes_say_which_models_a_client_may_ask(directory: Directory, house: House) -> None:
    callers = {caller.client.name: caller for caller in directory.callers.values()}
    assert [callers["acme"].may_ask(model) for model in (MODEL, OTHER_MODEL)] == [True, True]
    assert [callers["initech"].may_ask(model) for model in (MODEL, OTHER_MODEL)] == [False, True]


def test_a_client_stands_as_the_registry_says(house: House, tmp_path: Path) -> None:
    mine = house.copy(tmp_path)
    set_standing(mine.installation, "acme", "acme", "degraded", reason="they asked too much", actor=ACTOR)
    caller = _roll(mine).callers[mine.ids["acme"]]
    assert (caller.standing, caller.since, caller.decided_by) == ("degraded", NOW, ACTOR)


def _change(house: House, standing: Standing, hours: float, actor: str = WATCH) -> StandingChange:
    return StandingChange(house.ids["acme"], standing, "for the test", actor, at(hours))


def _with(roll: Roll, change: StandingChange) -> Roll:
    """What the registry says once it has a change."""
    known = roll.callers[change.client]
    caller = replace(known, standing=change.standing, since=change.at, decided_by=change.actor)
    return Roll(roll.keys, {**roll.callers, change.client: caller})


def test_a_change_counts_at_once(directory: Directory, house: House) -> None:
    directory.change(_change(house, "throttled", 1))
    caller = directory.identify({b"x-api-key": house.keys["acme"].encode()}, NOW)
    assert (caller.standing, caller.since, caller.decided_by) == ("throttled", at(1), WATCH)


def test_a_change_of_a_client_that_is_gone_is_no_change(directory: Directory, house: House) -> None:
    before = dict(directory.callers)
    directory.change(replace(_change(house, "throttled", 1), client="gone"))
    directory.put(replace(before[house.ids["acme"]], client=replace(before[house.ids["acme"]].client, id="gone")))
    assert directory.callers == before


def test_a_reload_tells_who_was_raised_and_nobody_else(directory: Directory, house: House) -> None:
    roll = _roll(house)
    assert directory.load(_with(roll, _change(house, "suspended", 1))) == []
    assert directory.load(_with(roll, _change(house, "watched", 2, ACTOR))) == [house.ids["acme"]]
    assert directory.load(_with(roll, _change(house, "watched", 2, ACTOR))) == []


def test_a_reload_does_not_undo_what_is_not_written_yet(directory: Directory, house: House) -> None:
    change = _change(house, "degraded", 1)
    directory.change(change)
    assert directory.load(_roll(house), [change]) == []
    assert directory.callers[change.client].standing == "degraded"


def test_of_several_unwritten_changes_the_last_one_counts(directory: Directory, house: House) -> None:
    changes = [_change(house, "throttled", 1), _change(house, "degraded", 2)]
    directory.load(_roll(house), changes)
    assert directory.callers[house.ids["acme"]].standing == "degraded"


def test_what_a_person_decided_later_counts_more_than_what_is_not_written_yet(
    directory: Directory, house: House
) -> None:
    change = _change(house, "degraded", 1)
    directory.change(change)
    by_hand = _change(house, "trusted", 2, ACTOR)
    assert directory.load(_with(_roll(house), by_hand), [change]) == [change.client]
    assert directory.callers[change.client].standing == "trusted"


def test_what_a_person_decided_earlier_does_not(directory: Directory, house: House) -> None:
    change = _change(house, "degraded", 2)
    directory.load(_with(_roll(house), _change(house, "watched", 1, ACTOR)), [change])
    assert directory.callers[change.client].standing == "degraded"


def test_a_client_that_was_revoked_is_gone_with_the_reload(directory: Directory, house: House) -> None:
    roll = _roll(house)
    gone = {name: caller for name, caller in roll.callers.items() if name != house.ids["acme"]}
    keys = {key_hash: key for key_hash, key in roll.keys.items() if key.client in gone}
    directory.load(Roll(keys, gone), [_change(house, "degraded", 1)])
    assert house.ids["acme"] not in directory.callers
    _refusal(directory, {b"x-api-key": house.keys["acme"].encode()})
