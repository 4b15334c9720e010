"""The seeds of clients' salts in the data path: there, and on the disk, before anything of a client is recorded.

What a seed is, and where it lies, is in `palladion.ledger.salts`. One is made for each client that was let in, never
for a stranger, nor for a user that a client names: whoever invents these makes no file.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from palladion.errors import PalladionError
from palladion.gate.problems import Problem
from palladion.ledger.salts import FOLDER, Salt, Seed, make_seed, read_seed
from palladion.lifecycle.installation import Installation

SEEDS_MAX = 65_536  # in memory, some 25 MiB; reading one anew takes less than 100 µs
RETRY_SECONDS = 5  # as for all that cannot be recorded

log = logging.getLogger("palladion.gate")


class Seeds:
    """Of one gate, used from one event loop."""

    def __init__(
        self, folder: Path, key: bytes, name: Callable[[str], str], *, is_let_in: Callable[[str], bool]
    ) -> None:
        """`key` is the gate root's "ledger-salts"; `name` gives the pseudonym of a client by its id."""
        self._folder, self._key, self._name, self._is_let_in = folder, key, name, is_let_in
        self._seeds: OrderedDict[str, Seed] = OrderedDict()
        self._opening: dict[str, asyncio.Task[Seed]] = {}
        self._sound = True

    def holds(self, client: str) -> bool:
        """Whether `salt` needs no file."""
        return client in self._seeds

    async def open(self, client: str) -> None:
        """Have the seed of a client that was let in, by id; on the disk when this returns. Raises Problem."""
        if client in self._seeds:
            return
        if not self._is_let_in(client):
            # since its request began: it may be forgotten already, and nothing of it must be made anew
            raise Problem("unauthenticated", "the client was revoked")
        task = self._opening.get(client)
        if task is None:
            task = self._opening[client] = asyncio.create_task(self._open(client))
            task.add_done_callback(lambda _: self._opening.pop(client, None))
        try:
            # whoever gives up waiting stops nobody else
            await asyncio.shield(task)
        except PalladionError as error:
            raise self._unrecorded(error) from None
        self._sound = True

    def salt(self, client: str, request_id: str) -> Salt:
        """The salt of one request of a client whose seed was opened. Raises Problem: it makes none."""
        seed = self._seeds.get(client)
        if seed is None:
            # so many others came meanwhile, or the client was revoked, and its seed may be erased at any moment
            if not self._is_let_in(client):
                raise Problem("unauthenticated", "the client was revoked")
            try:
                seed = read_seed(self._folder, self._key, self._name(client))
            except PalladionError as error:
                raise self._unrecorded(error) from None
            if seed is None:
                raise Problem("unrecorded", retry_after_seconds=RETRY_SECONDS)
            self._put(client, seed)
        else:
            self._seeds.move_to_end(client)
        return seed.salt(request_id)

    async def settle(self) -> None:
        """Let go of all seeds: a command may be about to erase that of a client who is let in no more."""
        if self._opening:
            await asyncio.wait(list(self._opening.values()))
        self._seeds.clear()

    async def _open(self, client: str) -> Seed:
        seed = await asyncio.to_thread(make_seed, self._folder, self._key, self._name(client))
        self._put(client, seed)
        return seed

    def _unrecorded(self, error: PalladionError) -> Problem:
        """What the client is told; the reason is for the operator, once."""
        if self._sound:
            self._sound = False
            log.error("the seed of a client's salts cannot be had, so it is answered nothing: %s", error)
        return Problem("unrecorded", retry_after_seconds=RETRY_SECONDS)

    def _put(self, client: str, seed: Seed) -> None:
        self._seeds[client] = seed
        self._seeds.move_to_end(client)
        if len(self._seeds) > SEEDS_MAX:
            self._seeds.popitem(last=False)


def open_seeds(
    installation: Installation, key: bytes, name: Callable[[str], str], *, is_let_in: Callable[[str], bool]
) -> Seeds:
    """The seeds of an installation's clients."""
    return Seeds(installation.paths.directory / FOLDER, key, name, is_let_in=is_let_in)
