"""Shelves for tests: what a gate's registry does, in a dictionary."""

from collections.abc import Collection, Mapping

from palladion.watch.residents import Kept


class Shelved:
    """States by client, all durable as soon as they are put here, unless `writing` is left to be `written`."""

    def __init__(self, organisations: Mapping[str, str], saved: Mapping[str, bytes] | None = None) -> None:
        self.organisations = organisations
        self.saved = dict(saved or {})
        self.writing: dict[str, bytes] = {}
        self.reads: list[str] = []

    def put(self, states: Mapping[str, bytes]) -> None:
        """Begin writing."""
        self.writing |= states

    def written(self) -> None:
        """What was written is durable now."""
        self.saved |= self.writing
        self.writing = {}

    def get(self, client: str) -> Kept | None:
        data = self.writing.get(client, self.saved.get(client))
        if data is None:
            return None
        self.reads.append(client)
        return Kept(self.organisations[client], data)

    def of(self, organisation: str) -> list[tuple[str, bytes]]:
        found = {client: data for client, data in self.saved.items() if self.organisations[client] == organisation}
        self.reads += found
        return list(found.items())

    def pending(self) -> Collection[str]:
        return self.writing.keys()
