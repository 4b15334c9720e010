"""Looking up single rows: what a lookup finds is what a transaction finds, as of now or as of a mark."""

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from palladion.clock import ManualClock
from palladion.errors import FormatError, StorageError
from palladion.registry import Registry, lookup
from palladion.registry.lookup import Lookup, Marked
from palladion.registry.rows import Client, ClientKey, Standing
from tests.registry.factories import add_client

HASH, ID = b"h" * 32, "spiffe://example.org/scoring"


@pytest.fixture
def look(registry: Registry) -> Iterator[Lookup]:
    opened = Lookup(registry.path)
    yield opened
    opened.close()


def _client(registry: Registry, name: str = "scoring", **changes: Any) -> str:
    with registry.write() as records:
        return add_client(records, name, **changes).id


def _put(registry: Registry, client: str, standing: Standing) -> None:
    with registry.write() as records:
        records.standings.change(client, standing, reason="seen", actor="watch")


def _revoke(registry: Registry, client: str) -> None:
    with registry.write() as records:
        records.clients.revoke(client)


def _change(registry: Registry, statement: str, *values: Any) -> None:
    """By hand, past everything that keeps a registry in order."""
    connection = sqlite3.connect(registry.path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def test_a_client_and_how_it_stands_are_what_a_transaction_finds(registry: Registry, look: Lookup) -> None:
    client = _client(registry, scopes=["model:fraud"])
    _put(registry, client, "watched")
    mark = look.mark().mark
    with registry.read() as records:
        expected = records.clients.get(client), records.standings.current()[client]
    assert look.caller(client, mark) == look.named("acme", "scoring", mark) == expected
    assert list(look.callers(mark)) == [expected]
    assert (look.organisation(client), look.is_organisation("acme")) == ("acme", True)


@pytest.mark.slow
def test_standings_are_as_of_the_mark(registry: Registry, look: Lookup) -> None:
    client = _client(registry)
    before = look.mark().mark
    _put(registry, client, "watched")
    after = look.mark().mark
    stood = [found[1].standing for mark in (before, after) if (found := look.caller(client, mark)) is not None]
    assert stood == ["trusted", "watched"]
    assert [found[0].standing for found in look.callers(before)] == ["trusted"]


def test_who_came_after_the_mark_is_not_there_yet(registry: Registry, look: Lookup) -> None:
    mark = look.mark().mark
    client = _client(registry)
    assert look.caller(client, mark) is None
    assert list(look.callers(mark)) == []


def test_a_mark_counts_standings_and_says_who_stood_otherwise(registry: Registry, look: Lookup) -> None:
    first, second = _client(registry, "one"), _client(registry, "two")
    _client(registry, "three")
    _put(registry, first, "watched")
    before = look.mark().mark
    _put(registry, first, "throttled")
    _put(registry, first, "degraded")
    _client(registry, "four")
    found = look.mark(before)
    # who was not there at the mark before stood nowhere
    assert found == Marked(found.mark, {"trusted": 3, "degraded": 1}, {first: "watched"})
    assert second not in found.restood
    assert look.mark(found.mark).restood == {}


def test_an_empty_registry_has_a_mark(look: Lookup) -> None:
    assert look.mark() == Marked(0, {}, {})


def test_a_key_is_found_by_its_hash_until_it_is_revoked(registry: Registry, look: Lookup, clock: ManualClock) -> None:
    client = _client(registry)
    expires = clock.now() + timedelta(days=1)
    with registry.write() as records:
        records.clients.add_key(client, prefix="pall_live_a", key_hash=HASH, expires=expires)
        records.clients.add_key(client, prefix="pall_live_b", key_hash=b"i" * 32)
    assert look.key(HASH) == ClientKey("pall_live_a", client, clock.now(), expires, None)
    assert look.key(b"i" * 32) == ClientKey("pall_live_b", client, clock.now(), None, None)
    assert look.key(b"j" * 32) is None
    with registry.write() as records:
        records.clients.revoke_key("pall_live_a")
    assert look.key(HASH) is None


def test_an_identity_is_found_by_its_kind_until_it_is_revoked(registry: Registry, look: Lookup) -> None:
    client = _client(registry)
    with registry.write() as records:
        records.identities.add(client, "spiffe", ID)
    assert look.identity("spiffe", ID) == client
    assert look.identity("jwt", ID) is None
    with registry.write() as records:
        records.identities.revoke("spiffe", ID)
    assert look.identity("spiffe", ID) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    "ask",
    [
        lambda look, client, mark: look.key(HASH),
        lambda look, client, mark: look.identity("spiffe", ID),
        lambda look, client, mark: look.caller(client, mark),
        lambda look, client, mark: look.named("acme", "scoring", mark),
        lambda look, client, mark: list(look.callers(mark)),
        lambda look, client, mark: look.is_organisation("acme"),
        lambda look, client, mark: look.states("limit", "acme"),
        lambda look, client, mark: look.mark().counts,
    ],
    ids=["key", "identity", "caller", "named", "callers", "organisation", "states", "counts"],
)
def test_a_revoked_client_is_not_found_by_anything(
    registry: Registry, look: Lookup, ask: Callable[[Lookup, str, int], Any]
) -> None:
    client = _client(registry)
    with registry.write() as records:
        records.clients.add_key(client, prefix="pall_live_a", key_hash=HASH)
        records.identities.add(client, "spiffe", ID)
        records.gate_states.save("limit", {client: b"state"})
    mark = look.mark().mark
    assert ask(look, client, mark)
    _revoke(registry, client)
    assert not ask(look, client, mark)


def test_states_are_those_of_their_purpose(registry: Registry, look: Lookup) -> None:
    first, second, other = (
        _client(registry, name, organisation=of) for name, of in (("one", "acme"), ("two", "acme"), ("one", "globex"))
    )
    with registry.write() as records:
        records.gate_states.save("limit", {first: b"1", second: b"2", other: b"3"})
        records.gate_states.save("suspicion:digits", {first: b"4"})
    assert look.state("limit", first) == ("acme", b"1")
    assert look.state("suspicion:digits", first) == ("acme", b"4")
    assert look.state("suspicion:digits", second) is None
    assert sorted(look.states("limit", "acme")) == sorted([(first, b"1"), (second, b"2")])
    assert dict(look.saved("limit")) == {first: b"1", second: b"2", other: b"3"}


def test_many_are_handed_out_in_parts_without_losing_any(
    registry: Registry, look: Lookup, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lookup, "CALLERS_AT_ONCE", 2)
    clients = sorted(_client(registry, f"c{number}") for number in range(4))
    with registry.write() as records:
        records.gate_states.save("limit", dict.fromkeys(clients, b"state"))
    assert [found.id for found, _ in look.callers(look.mark().mark)] == clients
    assert [client for client, _ in look.saved("limit")] == clients


def test_what_others_commit_is_seen_while_a_lookup_is_open(registry: Registry, look: Lookup) -> None:
    assert not look.is_organisation("acme")
    _client(registry)
    assert look.is_organisation("acme")


def test_it_can_write_nothing(registry: Registry, look: Lookup) -> None:
    client = _client(registry)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        look._connection.execute("DELETE FROM client")
    assert look.organisation(client) == "acme"


def test_a_moment_that_somebody_else_wrote_is_one_of_our_errors(registry: Registry, look: Lookup) -> None:
    client = _client(registry)
    mark = look.mark().mark
    for wrong in ("2026-11-24", "2026-11-24T09:30:00.000000+00:0", "x" * 26 + "Z", 7):
        _change(registry, "UPDATE client SET created = ? WHERE id = ?", wrong, client)
        with pytest.raises(FormatError, match="where a timestamp was expected"):
            look.caller(client, mark)


def test_a_moment_is_in_utc(registry: Registry, look: Lookup) -> None:
    client = _client(registry)
    _change(registry, "UPDATE client SET created = ? WHERE id = ?", "2026-01-02T03:04:05.000006Z", client)
    found = look.caller(client, look.mark().mark)
    assert found is not None
    assert found[0].created == datetime(2026, 1, 2, 3, 4, 5, 6, UTC)


def test_a_registry_that_cannot_be_read_is_one_of_our_errors(registry: Registry, look: Lookup) -> None:
    _change(registry, "DROP TABLE client_identity")
    with pytest.raises(FormatError, match="has other tables"):
        look.identity("spiffe", ID)
    with pytest.raises(StorageError):
        Lookup(registry.path.with_name("no.sqlite"))


def test_an_end_user_is_looked_up_as_a_transaction_finds_it_and_judged_alone(registry: Registry, look: Lookup) -> None:
    client = _client(registry)
    user = f"{1:016x}"
    with registry.write() as records:
        reseller = records.end_users.declare(client)
        made = Client(user, "acme", f"scoring~{user}", (), "trusted", reseller.created, None, parent=client)
        records.end_users.enrol([made], most=9)
        records.gate_states.save("suspicion", {client: b"whole", user: b"part"})
    before = look.mark().mark
    with registry.read() as records:
        expected = records.clients.get(user), records.standings.current()[user]
    assert look.caller(user, before) == look.named("acme", f"scoring~{user}", before) == expected
    assert expected[0].parent == client
    found = look.caller(client, before)
    assert found is not None
    assert found[0].reseller
    # what is judged together is what `Client.judged_with` says, in both directions
    alone = expected[0].judged_with
    assert (look.organisation(user), look.organisation(client)) == (alone, "acme")
    assert look.state("suspicion", user) == (alone, b"part")
    assert (look.states("suspicion", alone), look.states("suspicion", "acme")) == (
        [(user, b"part")],
        [(client, b"whole")],
    )
    assert look.states("suspicion", f"~{client}") == []
    assert look.mark() == Marked(before, {"trusted": 2}, {})
    _put(registry, user, "suspended")
    assert look.mark(before).counts == {"trusted": 1, "suspended": 1}
    stood = [item[1].standing for mark in (before, look.mark().mark) if (item := look.caller(user, mark)) is not None]
    assert stood == ["trusted", "suspended"]
