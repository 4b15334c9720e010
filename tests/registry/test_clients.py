"""Clients, their keys, and who is let in."""

from datetime import timedelta
from typing import Any

import pytest

from palladion.clock import ManualClock
from palladion.errors import ConflictError, KeysError, NotFoundError, PalladionError
from palladion.registry import Registry
from tests.registry.factories import add_client

HASH = b"h" * 32


def test_a_client_is_kept_with_organisation_scopes_and_standing(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        added = add_client(records, scopes=["query:digits"], standing="watched")
    with registry.read() as records:
        found = records.clients.named("acme", "scoring")
    assert found == added
    assert (found.organisation, found.name, found.scopes) == ("acme", "scoring", ("query:digits",))
    assert (found.standing, found.created, found.revoked_at) == ("watched", clock.now(), None)


def test_ids_are_random(registry: Registry) -> None:
    with registry.write() as records:
        ids = {add_client(records, f"client-{i}").id for i in range(20)}
    assert len(ids) == 20
    assert {len(client) for client in ids} == {16}


def test_a_name_is_taken_within_its_organisation_only(registry: Registry) -> None:
    with registry.write() as records:
        add_client(records)
        add_client(records, organisation="other")
        with pytest.raises(ConflictError, match="a client acme/scoring already"):
            add_client(records)
        assert [client.organisation for client in records.clients.all()] == ["acme", "other"]


def test_an_unknown_client_comes_with_a_suggestion(registry: Registry) -> None:
    with registry.write() as records:
        add_client(records)
        with pytest.raises(NotFoundError) as caught:
            records.clients.named("acme", "scorin")
        assert caught.value.hints == ("did you mean acme/scoring?",)
        with pytest.raises(NotFoundError, match="no client with the id 'x'"):
            records.clients.get("x")


def test_a_live_key_lets_its_client_in(registry: Registry) -> None:
    with registry.write() as records:
        client = add_client(records)
        add_client(records, "other")
        records.clients.add_key(client.id, prefix="pall_live_a", key_hash=HASH)
        assert records.clients.authenticate(HASH) == client


def test_two_keys_live_side_by_side_while_a_client_changes_them(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        client = add_client(records)
        records.clients.add_key(client.id, prefix="pall_live_b", key_hash=HASH)
        clock.advance(timedelta(days=1))
        records.clients.add_key(client.id, prefix="pall_live_a", key_hash=b"n" * 32)
        assert records.clients.authenticate(HASH) == records.clients.authenticate(b"n" * 32)
        records.clients.revoke_key("pall_live_b")
        assert [key.prefix for key in records.clients.keys(client.id)] == ["pall_live_b", "pall_live_a"]
        with pytest.raises(KeysError, match="pall_live_b… is revoked"):
            records.clients.authenticate(HASH)
        assert records.clients.authenticate(b"n" * 32) == client


def test_an_unknown_key_is_refused(registry: Registry) -> None:
    with registry.read() as records, pytest.raises(KeysError, match="not known here"):
        records.clients.authenticate(HASH)


def test_a_key_expires_at_its_minute(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        client = add_client(records)
        expires = clock.now() + timedelta(hours=1)
        records.clients.add_key(client.id, prefix="pall_live_a", key_hash=HASH, expires=expires)
        clock.advance(timedelta(hours=1, microseconds=-1))
        assert records.clients.authenticate(HASH) == client
        clock.advance(timedelta(microseconds=1))
        with pytest.raises(KeysError, match="expired on 2026-11-24 10:30 UTC"):
            records.clients.authenticate(HASH)


def test_a_revoked_client_gets_in_with_no_key_and_gets_no_new_one(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        client = add_client(records)
        records.clients.add_key(client.id, prefix="pall_live_a", key_hash=HASH)
        assert records.clients.revoke(client.id).revoked_at == clock.now()
        with pytest.raises(KeysError, match="is revoked"):
            records.clients.authenticate(HASH)
        with pytest.raises(ConflictError, match="gets no key"):
            records.clients.add_key(client.id, prefix="pall_live_b", key_hash=b"n" * 32)
        with pytest.raises(ConflictError, match="was revoked on"):
            records.clients.revoke(client.id)


def test_the_credentials_are_every_key_that_is_not_revoked(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        one, other = add_client(records, "one").id, add_client(records, "other").id
        expires = clock.now() + timedelta(hours=1)
        records.clients.add_key(one, prefix="pall_live_b", key_hash=b"b" * 32, expires=expires)
        records.clients.add_key(other, prefix="pall_live_a", key_hash=b"a" * 32)
        records.clients.add_key(other, prefix="pall_live_c", key_hash=b"c" * 32)
        records.clients.revoke_key("pall_live_c")
    clock.advance(timedelta(hours=2))
    with registry.read() as records:
        found = records.clients.credentials()
    # expired ones too: whoever looks them up has a clock of its own, and goes on long after this
    assert [(key_hash, key.prefix, key.client, key.expires) for key_hash, key in found] == [
        (b"a" * 32, "pall_live_a", other, None),
        (b"b" * 32, "pall_live_b", one, expires),
    ]


def test_a_revoked_clients_keys_are_still_listed_as_credentials(registry: Registry) -> None:
    with registry.write() as records:
        client = add_client(records).id
        records.clients.add_key(client, prefix="pall_live_a", key_hash=HASH)
        records.clients.revoke(client)
        assert [key.client for _, key in records.clients.credentials()] == [client]


def test_without_keys_there_are_no_credentials(registry: Registry) -> None:
    with registry.write() as records:
        add_client(records)
        assert records.clients.credentials() == []


def test_a_taken_prefix_or_hash_is_refused(registry: Registry) -> None:
    with registry.write() as records:
        client = add_client(records)
        records.clients.add_key(client.id, prefix="pall_live_a", key_hash=HASH)
        for prefix, key_hash in (("pall_live_a", b"n" * 32), ("pall_live_b", HASH)):
            with pytest.raises(ConflictError, match=f"begins with {prefix} already"):
                records.clients.add_key(client.id, prefix=prefix, key_hash=key_hash)


def test_a_key_that_would_be_dead_on_arrival_is_refused(registry: Registry, clock: ManualClock) -> None:
    with registry.write() as records:
        client = add_client(records)
        with pytest.raises(ConflictError, match="would have expired"):
            records.clients.add_key(client.id, prefix="pall_live_a", key_hash=HASH, expires=clock.now())


def test_a_hash_of_another_length_is_the_callers_mistake(registry: Registry) -> None:
    with registry.write() as records:
        client = add_client(records)
        with pytest.raises(ValueError, match="32 bytes, got 3"):
            records.clients.add_key(client.id, prefix="pall_live_a", key_hash=b"abc")


def test_a_key_is_revoked_once_and_by_a_known_prefix(registry: Registry) -> None:
    with registry.write() as records:
        client = add_client(records)
        records.clients.add_key(client.id, prefix="pall_live_a", key_hash=HASH)
        records.clients.revoke_key("pall_live_a")
        with pytest.raises(ConflictError, match="was revoked on"):
            records.clients.revoke_key("pall_live_a")
        with pytest.raises(NotFoundError, match="no API key begins with 'pall_live_b'"):
            records.clients.revoke_key("pall_live_b")


@pytest.mark.parametrize(
    "change",
    [
        {"organisation": "Acme Corp."},
        {"actor": ""},
        {"standing": "beloved"},
        {"scopes": ["query all"]},
        {"scopes": ["s"] * 65},
        {"scopes": ["s" * 257]},
    ],
)
def test_a_client_that_says_something_wrong_is_refused(registry: Registry, change: dict[str, Any]) -> None:
    with registry.write() as records, pytest.raises(PalladionError):
        add_client(records, **change)
