"""Callers without a registry, for tests of limits."""

from palladion.gate.callers import Caller
from palladion.registry import Client
from tests.lifecycle.installations import NOW


def caller(name: str = "web", organisation: str = "acme", *, user: str | None = None) -> Caller:
    """A client of an organisation, on whose behalf `user` asks."""
    client = Client(f"id-{organisation}-{name}", organisation, name, (), "trusted", NOW, None)
    return Caller(client, "trusted", NOW, "user:test", user=user)
