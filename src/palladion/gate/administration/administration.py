"""What operators reach of a running gate, put together: keys of their provider, sessions, desk, pages and socket.

Loaded only where the policy says how operators sign in.
"""

# ruff: noqa: TID253 (as its pages)

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.routing import Route

from palladion.gate.administration.desk import Desk, KeeperPort, LedgerPort, Reloaded
from palladion.gate.administration.endpoints import Office
from palladion.gate.administration.local import LocalConnection, open_socket
from palladion.gate.administration.pages import Pages
from palladion.gate.administration.people import People
from palladion.gate.issuers import OPERATORS, Issuers
from palladion.gate.operations.port import Port, port_config
from palladion.keys import Root
from palladion.lifecycle.installation import Installation


class Administration:
    """Looks after operators' requests. Made, used and closed in one event loop."""

    def __init__(
        self,
        installation: Installation,
        root: Root,
        keeper: KeeperPort,
        ledger: LedgerPort,
        *,
        reload: Callable[[], Awaitable[object]],
        take_over: Callable[[str], Awaitable[Reloaded]],
        status: Callable[[], Awaitable[dict[str, Any]]],
    ) -> None:
        """See `Desk`; `status` is what the gate says of itself. Raises PolicyError."""
        policy, home = installation.policy.operators, installation.paths.home
        self._socket = home / Path(policy.socket).expanduser()
        self._issuers = Issuers([policy.as_issuer] if policy.issuer else [], home, section=OPERATORS)
        self._desk = Desk(
            installation,
            keeper=keeper,
            ledger=ledger,
            pseudonyms=root.derive("pseudonyms"),
            reload=reload,
            take_over=take_over,
        )
        self._pages = Pages(
            policy,
            People(policy, self._issuers.tokens),
            Office(installation, self._desk, status),
            any_host=bool(installation.policy.operations.tls_certificate),
        )
        self._local: Port | None = None
        self._listening = False
        if policy.socket:
            config = port_config(Starlette(routes=self._pages.routes), connection=LocalConnection)
            self._local = Port(config, partial(open_socket, policy, home))
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def routes(self) -> list[Route]:
        """What the second port answers besides its own pages."""
        return self._pages.routes

    @property
    def faults(self) -> list[str]:
        """What operators changed and is not in effect."""
        return self._desk.effect.faults

    async def start(self) -> None:
        """Fetch keys, and open the socket. Raises PolicyError where that cannot be had."""
        if self._local is not None:
            await self._local.start()
            self._listening = True
        await self._issuers.refresh()
        self._tasks.append(asyncio.create_task(self._issuers.run()))

    async def close(self) -> None:
        """Stop, after what has begun is done. Safe to call twice."""
        if self._local is not None:
            await self._local.close()
            if self._listening:
                # ours, and not that of another process for which this one was refused
                self._socket.unlink(missing_ok=True)
                self._listening = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._tasks.clear()
        await self._desk.close()
