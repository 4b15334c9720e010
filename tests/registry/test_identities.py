"""Identities of clients: each names one client while it counts, and stays listed afterwards."""

import pytest
from sqlalchemy.exc import IntegrityError

from palladion.clock import ManualClock
from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.registry import Registry
from palladion.registry.identities import LIVE_MAX, VALUE_CHARACTERS_MAX
from palladion.registry.rows import IdentityKind

ID = "spiffe://example.org/scoring"


def _client(registry: Registry, name: str = "acme") -> str:
    with registry.write() as records:
        return records.clients.add(name, organisation=name, actor="ada").id


def test_an_identity_is_listed_with_its_client(registry: Registry, clock: ManualClock) -> None:
    client = _client(registry)
    with registry.write() as records:
        made = records.identities.add(client, "spiffe", ID)
    assert (made.client, made.kind, made.value, made.created, made.revoked_at) == (
        *(client, "spiffe", ID),
        *(clock.now(), None),
    )
    with registry.read() as records:
        assert records.identities.live() == records.identities.of(client) == [made]


def test_an_identity_names_one_client(registry: Registry) -> None:
    first, second = _client(registry), _client(registry, "globex")
    with registry.write() as records:
        records.identities.add(first, "spiffe", ID)
    for client in (first, second):
        with registry.write() as records, pytest.raises(ConflictError, match="already"):
            records.identities.add(client, "spiffe", ID)
    with registry.write() as records:
        # the same text of another kind is another identity
        assert records.identities.add(second, "jwt", ID).client == second


def test_the_database_itself_keeps_two_clients_apart(registry: Registry) -> None:
    first, second = _client(registry), _client(registry, "globex")
    with registry.write() as records:
        records.identities.add(first, "spiffe", ID)
    with registry.write() as records:
        records.identities._find = lambda *_: []  # type: ignore[method-assign]
        with pytest.raises(IntegrityError):
            records.identities.add(second, "spiffe", ID)


def test_a_revoked_identity_stays_listed_and_can_be_given_again(registry: Registry, clock: ManualClock) -> None:
    first, second = _client(registry), _client(registry, "globex")
    with registry.write() as records:
        records.identities.add(first, "spiffe", ID)
        revoked = records.identities.revoke("spiffe", ID)
    assert revoked.revoked_at == clock.now()
    with registry.write() as records, pytest.raises(ConflictError, match="was revoked"):
        records.identities.revoke("spiffe", ID)
    with registry.write() as records:
        again = records.identities.add(second, "spiffe", ID)
        assert records.identities.live() == [again]
        assert records.identities.of(first) == [revoked]


def test_what_nobody_has_cannot_be_revoked(registry: Registry) -> None:
    with registry.write() as records, pytest.raises(NotFoundError, match="no client has the jwt"):
        records.identities.revoke("jwt", "https://issuer.example svc")


def test_a_client_that_is_unknown_or_revoked_gets_none(registry: Registry) -> None:
    client = _client(registry)
    with registry.write() as records:
        records.clients.revoke(client)
    with registry.write() as records, pytest.raises(ConflictError, match="gets no identity"):
        records.identities.add(client, "spiffe", ID)
    with registry.write() as records, pytest.raises(NotFoundError):
        records.identities.add("0" * 16, "spiffe", ID)
    with registry.read() as records, pytest.raises(NotFoundError):
        records.identities.of("0" * 16)


@pytest.mark.parametrize("value", ["", "a\nb", "v" * (VALUE_CHARACTERS_MAX + 1)])
def test_what_is_no_line_is_no_identity(registry: Registry, value: str) -> None:
    client = _client(registry)
    with registry.write() as records, pytest.raises(PalladionError, match="a line"):
        records.identities.add(client, "jwt", value)


def test_a_kind_that_there_is_not_is_refused(registry: Registry) -> None:
    client = _client(registry)
    kind: IdentityKind = "password"  # type: ignore[assignment]
    with registry.write() as records, pytest.raises(PalladionError, match="kind"):
        records.identities.add(client, kind, "x")


@pytest.mark.slow
def test_a_client_has_so_many_and_no_more(registry: Registry) -> None:
    client = _client(registry)
    with registry.write() as records:
        for number in range(LIVE_MAX):
            records.identities.add(client, "spiffe", f"{ID}-{number}")
        with pytest.raises(ConflictError, match="already"):
            records.identities.add(client, "spiffe", ID)
        records.identities.revoke("spiffe", f"{ID}-0")
        records.identities.add(client, "spiffe", ID)
