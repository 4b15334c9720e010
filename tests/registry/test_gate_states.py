"""Saved states: the last one of each client and purpose comes back."""

import pytest

from palladion.registry import Registry
from palladion.registry.gate_states import DATA_BYTES_MAX
from tests.registry.factories import add_client


def test_what_was_saved_last_comes_back_by_purpose(registry: Registry) -> None:
    with registry.write() as records:
        first, second = add_client(records, "one").id, add_client(records, "two").id
        records.gate_states.save("limit", {first: b"old", second: b"kept"})
        records.gate_states.save("suspicion:digits", {first: b"other"})
    with registry.write() as records:
        records.gate_states.save("limit", {first: b"new"})
    with registry.read() as records:
        assert records.gate_states.load("limit") == {first: b"new", second: b"kept"}
        assert records.gate_states.load("suspicion:digits") == {first: b"other"}
        assert records.gate_states.load("nothing") == {}


def test_a_state_is_bounded(registry: Registry) -> None:
    with registry.write() as records:
        client = add_client(records).id
        with pytest.raises(ValueError, match="more than"):
            records.gate_states.save("limit", {client: bytes(DATA_BYTES_MAX + 1)})


def test_a_client_that_is_gone_keeps_no_other_from_being_saved(registry: Registry) -> None:
    with registry.write() as records:
        client = add_client(records).id
        records.gate_states.save("limit", {"nobody": b"lost", client: b"kept"})
    with registry.read() as records:
        assert records.gate_states.load("limit") == {client: b"kept"}


def test_nothing_is_saved_of_a_client_that_is_revoked(registry: Registry) -> None:
    # a gate that serves still holds what it knew of one that was forgotten meanwhile
    with registry.write() as records:
        gone, client = add_client(records, "gone").id, add_client(records).id
        records.clients.revoke(gone)
        records.gate_states.forget(gone)
        records.gate_states.save("limit", {gone: b"back", client: b"kept"})
    with registry.read() as records:
        assert records.gate_states.load("limit") == {client: b"kept"}
