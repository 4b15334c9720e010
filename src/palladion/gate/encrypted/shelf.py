"""The evaluation keys that clients have sent, in memory: a few of each client, and no more bytes than are set aside.

Keys are no secrets, but large, so they are kept for as long as there is room: those used longest ago go first, and
whoever needs them again is told to send them again. No client has more than its share of that room, unless for the one
set that it needs.
"""

from collections import OrderedDict

from palladion.gate.encrypted.workers import Keys

SHARES = 4  # a client has so large a part of the room, over all programs


class Shelf:
    """Evaluation keys by client, program and id."""

    def __init__(self, *, bytes_max: int, per_client: int) -> None:
        """At most so many bytes of all clients, and so many sets of each client for each program."""
        self._bytes_max, self._per_client = bytes_max, per_client
        self._kept: OrderedDict[tuple[str, str, str], Keys] = OrderedDict()
        self.bytes = 0

    def renew(self, *, bytes_max: int, per_client: int) -> None:
        """Keep so much from now on."""
        self._bytes_max, self._per_client = bytes_max, per_client

    def put(self, client: str, program: str, keys: Keys) -> None:
        """Keep keys, in place of the client's oldest and of whatever was used longest ago."""
        name = (client, program, keys.id)
        self._drop(name)
        mine = [known for known in self._kept if known[:2] == name[:2]]
        for oldest in mine[: max(0, len(mine) - self._per_client + 1)]:
            self._drop(oldest)
        all_mine = [known for known in self._kept if known[0] == client]
        while all_mine and self._of(client) + _size(keys) > self._bytes_max // SHARES:
            self._drop(all_mine.pop(0))
        self._kept[name] = keys
        self.bytes += _size(keys)
        while self.bytes > self._bytes_max and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))

    def get(self, client: str, program: str, keys_id: str) -> Keys | None:
        """A client's keys, which then are the ones used last; those of another client are none."""
        name = (client, program, keys_id)
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)

    def keep(self, programs: set[str]) -> None:
        """Let go of what is for other programs than these."""
        for name in [name for name in self._kept if name[1] not in programs]:
            self._drop(name)

    def _of(self, client: str) -> int:
        return sum(_size(keys) for name, keys in self._kept.items() if name[0] == client)

    def _drop(self, name: tuple[str, str, str]) -> None:
        keys = self._kept.pop(name, None)
        if keys is not None:
            self.bytes -= _size(keys)


def _size(keys: Keys) -> int:
    return len(keys.rotation) + len(keys.squares)
