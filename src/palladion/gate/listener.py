"""Where the API listens: the address that the policy allows, TLS, and uvicorn, told what we want of it.

What a connection may do is in `connections`; what a request means, in `app`.
"""

import asyncio
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from palladion.errors import PolicyError
from palladion.gate.app import App
from palladion.gate.connections import Connection, connections_max
from palladion.policy import GatePolicy

KEEP_ALIVE_SECONDS = 30  # clients that ask a few times a minute need no new connection
DRAIN_SECONDS = 20  # for requests that are being answered when the gate closes
BACKLOG = 2048  # connections that the kernel holds while we are busy


def listen_address(policy: GatePolicy) -> tuple[str, int]:
    """Host and port. Raises PolicyError for plain HTTP beyond the loopback that the policy does not ask for aloud."""
    name, _, port = policy.listen.rpartition(":")
    name = name.strip("[]")
    if int(port) > 65535:
        raise PolicyError(f"gate.listen: {policy.listen} has no port between 0 and 65535")
    try:
        loopback = ip_address(name).is_loopback
    except ValueError:
        loopback = name == "localhost"
    if bool(policy.tls_certificate) != bool(policy.tls_key):
        raise PolicyError("gate.tls_certificate and gate.tls_key go together, and one of them is empty")
    if not (loopback or policy.tls_certificate or policy.behind_proxy):
        raise PolicyError(
            f"gate.listen: {policy.listen} is not the loopback, and API keys would cross the network in plain text",
            "set gate.tls_certificate and gate.tls_key, or gate.behind_proxy if a proxy ends TLS",
        )
    return name, int(port)


class Api(uvicorn.Server):
    """Stops on the first SIGINT or SIGTERM, and leaves what has to be closed afterwards to its caller."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_started = started

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the first signal as the wish to stop."""
        # uvicorn's own raises the signal once more at the end, which would kill us before the ledger is closed
        loop = asyncio.get_running_loop()
        numbers = (signal.SIGINT, signal.SIGTERM)
        for number in numbers:
            loop.add_signal_handler(number, self.handle_exit, number, None)
        try:
            yield
        finally:
            for number in numbers:
                loop.remove_signal_handler(number)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open for requests, and say so."""
        await super().startup(sockets)
        self._when_started()


def api_config(app: App, policy: GatePolicy, home: Path) -> uvicorn.Config:
    """What uvicorn is told; `home` is what file names are relative to. Raises PolicyError where TLS cannot be had."""
    config = uvicorn.Config(
        app,
        loop="none",
        http=Connection,
        ws="none",
        lifespan="off",
        interface="asgi3",
        log_config=None,
        # what strangers send that is no HTTP is their affair, and must not fill a log
        log_level=logging.ERROR,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=connections_max() + 1,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=DRAIN_SECONDS,
        ssl_certfile=_tls_file(home, policy.tls_certificate, "gate.tls_certificate"),
        ssl_keyfile=_tls_file(home, policy.tls_key, "gate.tls_key"),
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise PolicyError(f"gate.tls_certificate and gate.tls_key cannot be used: {error.strerror or error}") from None
    return config


def listen(address: tuple[str, int]) -> socket.socket:
    """A listening socket at an address. Raises PolicyError if it cannot be had."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PolicyError(
            f"gate.listen: {address[0]}:{address[1]} cannot be opened: {reason}", "is another process on that port?"
        ) from None


def _tls_file(home: Path, name: str, setting: str) -> str | None:
    if not name:
        return None
    path = home / Path(name).expanduser()
    if not path.is_file():
        raise PolicyError(f"{setting}: {path} is no file")
    return str(path)
