"""An admin server in a thread, over a real ledger: what the process that serves is to a command."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from palladion.errors import PalladionError
from palladion.gate.admin import AdminServer
from palladion.ledger.messages import PolicyReloaded
from palladion.ledger.record import Record
from palladion.ledger.writer import Ledger, Receipt

WAIT_SECONDS_MAX = 30.0  # for what happens in the other thread; a test that reaches it has failed


class Port:
    """A ledger as the gate offers it to commands; `frozen` and `held` show what became of a freeze."""

    def __init__(self, ledger: Ledger) -> None:
        self.ledger = ledger
        self.frozen = self.held = False
        self.on_freeze: Callable[[], None] = lambda: None
        self.on_thaw: Callable[[], None] = lambda: None

    @property
    def origin(self) -> str:
        return self.ledger.origin

    @property
    def size(self) -> int:
        return self.ledger.size

    async def append(self, records: Sequence[Record]) -> list[Receipt]:
        return self.ledger.append(records)

    async def checkpoint(self) -> bytes:
        self.held = False
        return self.ledger.checkpoint()

    async def freeze(self) -> None:
        self.frozen = self.held = True
        self.on_freeze()

    async def thaw(self) -> bool:
        self.on_thaw()
        self.frozen = False
        return self.held


class StillPolicy:
    """A policy as the gate tells of it; `refused` is why another one is not taken over."""

    def __init__(self) -> None:
        self.actors: list[str] = []
        self.refused: PalladionError | None = None

    def settings(self) -> dict[str, Any]:
        return {"gate": {"rows_max": 7}}

    async def take_over(self, actor: str) -> PolicyReloaded:
        self.actors.append(actor)
        if self.refused is not None:
            raise self.refused
        return PolicyReloaded("1f", [{"setting": "gate.rows_max"}])


class Serving:
    """A running server. `reloaded` is set after each reload, `failures` is what reached the loop's handler."""

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path = path
        self.port = Port(ledger)
        self.on_reload: Callable[[], None] = lambda: None
        self.status: dict[str, Any] = {"routes": 2}
        self.reloaded = threading.Event()
        self.failures: list[dict[str, Any]] = []
        self.loop = asyncio.new_event_loop()
        self.loop.set_exception_handler(lambda _loop, context: self.failures.append(context))
        self.policy = StillPolicy()
        self.server = AdminServer(path, self.port, reload=self._reload, status=self._status, policy=self.policy)
        self._thread = threading.Thread(target=self.loop.run_forever)

    def start(self) -> None:
        self._thread.start()
        self.run(self.server.start())

    def run(self, work: Awaitable[None]) -> None:
        """Wait for `work` in the server's loop."""

        async def awaited() -> None:
            await work

        asyncio.run_coroutine_threadsafe(awaited(), self.loop).result(WAIT_SECONDS_MAX)

    def stop(self) -> None:
        self.run(self.server.stop())

    def end(self) -> None:
        try:
            self.stop()
        finally:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(WAIT_SECONDS_MAX)
            self.loop.close()

    async def _status(self) -> dict[str, Any]:
        return self.status

    async def _reload(self) -> None:
        self.on_reload()
        self.reloaded.set()


@contextmanager
def serving(path: Path, ledger: Ledger) -> Iterator[Serving]:
    """A server at `path` for the length of the block; `ledger` stays open."""
    served = Serving(path, ledger)
    try:
        served.start()
        yield served
    finally:
        served.end()
