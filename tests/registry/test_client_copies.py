"""Copies of clients: the same ids, dates and hashes, and only as many other gates as are looked through per request."""

from datetime import UTC, datetime, timedelta

import pytest

from palladion.errors import ConflictError, PalladionError
from palladion.registry import Client, ClientKey, Registry
from palladion.registry.client_copies import PEPPER_CHARACTERS_MAX, SOURCES_MAX

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
GATE, PUBLISHER = "a" * 16, "f" * 64
CLIENT = Client("1" * 16, "acme", "web", ("predict:fraud",), "watched", NOW - timedelta(days=9), None)


def test_a_copy_is_the_same_client(registry: Registry) -> None:
    with registry.write() as records:
        copies = records.client_copies
        copies.put_source(GATE, publisher=PUBLISHER, issued=NOW, pepper="{}")
        copies.add(CLIENT, GATE, reason="there", actor="ada")
        key = ClientKey("pall_live_1", CLIENT.id, CLIENT.created, None, None)
        copies.add_key(key, b"k" * 32)
        copies.add_identity(CLIENT.id, "jwt", "iss sub", created=CLIENT.created, revoked_at=None)
        assert records.clients.all() == []
        copies.flush()
        copies.flush()
    with registry.read() as records:
        assert records.clients.all() == [CLIENT]
        assert records.clients.authenticate(b"k" * 32) == CLIENT
        assert records.client_copies.origins() == {CLIENT.id: GATE}
        assert records.client_copies.hashes() == {"pall_live_1": b"k" * 32}
        assert records.client_copies.all_keys() == [key]
        assert [row.value for row in records.client_copies.identities()] == ["iss sub"]
        assert records.standings.current()[CLIENT.id].reason == "there"


def test_what_ends_ends_when_it_was_decided(registry: Registry) -> None:
    then = NOW - timedelta(days=1)
    with registry.write() as records:
        copies = records.client_copies
        copies.add(CLIENT, None, reason="", actor="ada")
        copies.add_key(ClientKey("pall_live_1", CLIENT.id, NOW, None, None), b"k" * 32)
        copies.add_identity(CLIENT.id, "jwt", "iss sub", created=NOW, revoked_at=None)
        copies.flush()
        copies.revoke_key("pall_live_1", then)
        copies.revoke_identity(copies.identities()[0].id, then)
        copies.revoke(CLIENT.id, then)
        assert copies.rescope(CLIENT.id, ["predict:other"]).scopes == ("predict:other",)
    with registry.read() as records:
        assert records.client_copies.origins() == {}
        assert records.clients.get(CLIENT.id).revoked_at == then
        assert records.clients.keys(CLIENT.id)[0].revoked_at == then
        assert records.identities.of(CLIENT.id)[0].revoked_at == then


def test_of_a_gate_the_newest_counts_and_there_are_only_so_many(registry: Registry) -> None:
    with registry.write() as records:
        copies = records.client_copies
        for number in range(SOURCES_MAX):
            copies.put_source(f"{number:016x}", publisher=PUBLISHER, issued=NOW, pepper="{}")
        later = copies.put_source(f"{0:016x}", publisher=PUBLISHER, issued=NOW + timedelta(1), pepper="")
        assert copies.sources()[0] == later
        assert len(copies.sources()) == SOURCES_MAX
        with pytest.raises(ConflictError, match="the most that is allowed"):
            copies.put_source(GATE, publisher=PUBLISHER, issued=NOW, pepper="{}")


def test_what_is_no_row_is_refused(registry: Registry) -> None:
    with registry.write() as records:
        copies = records.client_copies
        with pytest.raises(ValueError, match="a key's hash has 32 bytes, got 3"):
            copies.add_key(ClientKey("p", CLIENT.id, NOW, None, None), b"abc")
        with pytest.raises(ValueError, match="an identity is a line"):
            copies.add_identity(CLIENT.id, "jwt", "\n", created=NOW, revoked_at=None)
        with pytest.raises(ValueError, match="a wrapped pepper has"):
            copies.put_source(GATE, publisher=PUBLISHER, issued=NOW, pepper="x" * (PEPPER_CHARACTERS_MAX + 1))
        with pytest.raises(PalladionError, match="the name of a client"):
            copies.add(Client("1" * 16, "acme", "A b", (), "trusted", NOW, None), None, reason="", actor="ada")
