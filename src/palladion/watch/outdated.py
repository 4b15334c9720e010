"""Clients that are not in memory, and whose saved part in their group counts no more: an epoch began without them."""

from collections.abc import Collection, Iterable
from itertools import islice

from palladion.watch.client import ClientState


class Outdated:
    """Such clients of one model, each until a state that says so is durable."""

    def __init__(self) -> None:
        self._stale: dict[str, bool] = {}  # with whether they were forgiven
        self._told: dict[str, bool] = {}  # the same of those whose new state is being saved

    def add(self, clients: Iterable[str], *, forgiven: bool) -> None:
        """Let no earlier part of theirs count; with `forgiven`, no suspicion either."""
        for client in clients:
            # what it was told before may not be durable yet
            self._stale[client] = forgiven or self._stale.get(client, False) or self._told.get(client, False)

    def correct(self, client: str, state: ClientState) -> None:
        """Make of what was read of a client what it has to be."""
        forgiven = self._stale.get(client, self._told.get(client))
        if forgiven is not None:
            state.begin_part(forgiven=forgiven)

    def drop(self, client: str) -> bool:
        """Know a client no more, which is in memory from now on; whether its state has to be saved."""
        self._told.pop(client, None)
        return self._stale.pop(client, None) is not None

    def first(self, count: int | None) -> list[str]:
        """So many of those whose state has to be saved, or all."""
        return list(islice(self._stale, count))

    def settle(self, client: str, *, saved: bool) -> None:
        """Have the state of one of `first` saved, or nothing to save of it."""
        forgiven = self._stale.pop(client)
        if saved:
            self._told[client] = forgiven

    def keep_told(self, pending: Collection[str]) -> None:
        """Know only those no more whose new state is durable: it is not `pending`."""
        if self._told:
            self._told = {client: forgiven for client, forgiven in self._told.items() if client in pending}
