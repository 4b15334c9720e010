"""Connections to the ports for those who look after a gate: nobody takes all of them, whoever he is.

A newcomer is let in, and the one of the same peer that has been idle for longest has to go for it. So health probes get
in where somebody beside them, behind the same address, holds connections open. Without TLS a peer is an address, or the
user at the other end of a socket; how many handshakes there are is counted in `port`.
"""

import asyncio
import socket
from collections.abc import MutableMapping
from typing import Any

from palladion.access.networks import network_of
from palladion.gate.app import Scope
from palladion.gate.connections import Connection
from palladion.gate.exchange import Exchange

OF_ONE_MAX = 8  # connections of one peer: a collector, two probes, and a few commands
STRANGER_SECONDS = 5.0  # that a connection may be idle, or take for a head, before somebody on it proved who he is
_SCOPE = "palladion.peer"


def prove(scope: MutableMapping[str, Any]) -> None:
    """Say of a request's connection that who is at its other end has proved to be somebody whom we know."""
    connection = scope.get(_SCOPE)
    if isinstance(connection, PeerConnection):
        connection.prove()


def peer_of(opened: socket.socket) -> str:
    """Who is at the other end, as far as he is counted: all addresses of one subscriber are one."""
    try:
        name = opened.getpeername()
    except OSError:
        return ""  # gone already
    return network_of(str(name[0])) if isinstance(name, tuple) else ""


class PeerConnection(Connection):
    """One connection of a peer, of whose connections there are at most `OF_ONE_MAX`."""

    peer = ""
    proved = False
    _began = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's own
        """Let a peer in, in place of an idle one of its own, or of all where there is no room."""
        self.peer = self.name_peer(transport)
        self._began = self.loop.time()
        self.patience = self.timeout_keep_alive
        self.timeout_keep_alive = min(self.timeout_keep_alive, STRANGER_SECONDS)  # type: ignore[assignment]
        others = [item for item in self.connections if isinstance(item, PeerConnection)]
        own = [item for item in others if item.peer == self.peer]
        if len(own) >= OF_ONE_MAX and not _make_room(own):
            transport.abort()
            return
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency - 1:
            _make_room(others)
        super().connection_made(transport)

    def name_peer(self, transport: asyncio.BaseTransport) -> str:
        """By what the connections of a peer are counted."""
        found: socket.socket | None = transport.get_extra_info("socket")
        return "" if found is None else peer_of(found)

    def prove(self) -> None:
        """Be as patient as with everybody whom we know."""
        self.proved = True
        self.timeout_keep_alive = self.patience

    @property
    def idle(self) -> bool:
        """Whether nobody waits for an answer here."""
        cycle: Exchange | None = self.cycle
        return cycle is None or (cycle.response_complete and not self.pipeline)

    @property
    def idle_since(self) -> float:
        """In seconds of the loop's clock; of one that asked nothing, since it came."""
        return max(self._began, self._idle_since)

    def give_way(self) -> None:
        """Make room for somebody else."""
        self.connections.discard(self)
        self.transport.abort()

    def _describe(self, version: str, method: str, path: str, query: bytes) -> Scope:
        scope = super()._describe(version, method, path, query)
        scope[_SCOPE] = self
        return scope

    def _expect_head(self) -> None:
        super()._expect_head()
        if not self.proved and self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = self.loop.call_later(STRANGER_SECONDS, self.transport.abort)


def _make_room(connections: list[PeerConnection]) -> bool:
    """End the one that has been idle for longest, of strangers before others; whether there is one."""
    idle = [item for item in connections if item.idle]
    if not idle:
        return False
    min(idle, key=lambda item: (item.proved, item.idle_since)).give_way()
    return True
