"""The second port of a gate, for those who look after it: where it listens, who may ask, and its server.

Its server runs in the loop of the API, so that a page shows what requests wait for. Nothing of it is loaded, and
nothing listens, unless the policy names an address.
"""

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

import uvicorn

from palladion import files
from palladion.errors import PolicyError
from palladion.gate.handshakes import Server
from palladion.gate.operations.figures import Figures
from palladion.gate.operations.health import Health
from palladion.gate.operations.peers import OF_ONE_MAX, PeerConnection, peer_of
from palladion.policy import OperationsPolicy

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.routing import Route

CONNECTIONS_MAX = 128  # a collector or two, probes, and a person; each peer has at most `OF_ONE_MAX`
KEEP_ALIVE_SECONDS = 65  # beyond a minute, which is how often figures are collected
STOP_SECONDS = 2
TOKEN_BYTES_MIN, TOKEN_BYTES_MAX = 32, 4096  # whoever can guess it reads how much every route is asked


def port_address(policy: OperationsPolicy) -> tuple[str, int]:
    """Host and port. Raises PolicyError unless they are the loopback's, or TLS and a token protect them."""
    name, _, port = policy.listen.rpartition(":")
    name = name.strip("[]")
    if int(port) > 65535:
        raise PolicyError(f"operations.listen: {policy.listen} has no port between 0 and 65535")
    if bool(policy.tls_certificate) != bool(policy.tls_key):
        raise PolicyError("operations.tls_certificate and operations.tls_key go together, and one of them is empty")
    try:
        loopback = ip_address(name).is_loopback
    except ValueError:
        loopback = name == "localhost"
    if not loopback and not (policy.tls_certificate and policy.token):
        raise PolicyError(
            f"operations.listen: {policy.listen} is not the loopback, and everybody there could read figures",
            "set operations.tls_certificate, operations.tls_key and operations.token",
        )
    return name, int(port)


def read_token(home: Path, policy: OperationsPolicy) -> bytes | None:
    """The token that who asks has to show, if there is one. Raises PolicyError on one that could be guessed."""
    if not policy.token:
        return None
    path = home / Path(policy.token).expanduser()
    if not path.is_file():
        raise PolicyError(f"operations.token: {path} is no file")
    token = files.read_limited(path, size_max=TOKEN_BYTES_MAX, what="the token").strip()
    if len(token) < TOKEN_BYTES_MIN:
        raise PolicyError(
            f"operations.token: {path} holds {len(token)} bytes, at least {TOKEN_BYTES_MIN} are needed",
            f"for example: openssl rand -hex 32 > {policy.token}",
        )
    return token


def port_config(
    app: "Starlette",
    *,
    connection: type[PeerConnection] = PeerConnection,
    tls_certificate: str | None = None,
    tls_key: str | None = None,
) -> uvicorn.Config:
    """How uvicorn serves an application beside the API: in its loop, without logs and signals of its own."""
    return uvicorn.Config(
        app,
        loop="none",
        http=connection,
        ws="none",
        lifespan="off",
        log_config=None,
        log_level=logging.ERROR,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
        ssl_certfile=tls_certificate,
        ssl_keyfile=tls_key,
        ssl_version=ssl.PROTOCOL_TLS_SERVER,
    )


class Port(Server):
    """Serves pages beside the API, until it is closed."""

    def __init__(self, config: uvicorn.Config, listen: Callable[[], socket.socket]) -> None:
        """`listen` makes the listening socket. Raises OSError where the certificate cannot be read."""
        config.load()
        super().__init__(config)
        self._listen_at = listen
        self._task: asyncio.Task[None] | None = None
        self._listener: socket.socket | None = None
        self._handshakes: dict[asyncio.Task[None], str] = {}  # whose, oldest first

    @classmethod
    def open(
        cls, policy: OperationsPolicy, home: Path, figures: Figures, health: Health, others: "Sequence[Route]" = ()
    ) -> "Port":
        """A port that does not listen yet; `home` is what file names are relative to. Raises PolicyError.

        It answers `others` besides its pages.
        """
        from palladion.gate.operations.pages import make_pages

        address = port_address(policy)
        config = port_config(
            make_pages(figures, health, token=read_token(home, policy), others=others),
            tls_certificate=_file(home, policy.tls_certificate, "operations.tls_certificate"),
            tls_key=_file(home, policy.tls_key, "operations.tls_key"),
        )
        try:
            return cls(config, partial(_listen, *address))
        except OSError as error:
            reason = error.strerror or error
            raise PolicyError(f"operations.tls_certificate and operations.tls_key cannot be used: {reason}") from None

    @property
    def url(self) -> str:
        """Where it listens; only once it is started."""
        if self._listener is None:
            raise ValueError("the port is not started")
        name, port = self._listener.getsockname()[:2]
        return f"{'https' if self.config.is_ssl else 'http'}://{f'[{name}]' if ':' in name else name}:{port}"

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the API's server."""
        yield

    async def start(self) -> None:
        """Listen. Raises PolicyError where the address cannot be had."""
        self._listener = self._listen_at()
        self._task = asyncio.create_task(self.serve(sockets=[self._listener]))

    async def close(self) -> None:
        """Stop. Safe to call twice, and before it was started."""
        self.should_exit = True
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        if self._listener is not None:
            self._listener.close()
            self._listener = None

    async def _admit(self, opened: socket.socket) -> None:
        # a handshake is no connection yet: the oldest one of the same peer makes room, as idle connections do
        peer, task = peer_of(opened), asyncio.current_task()
        own = [other for other, name in self._handshakes.items() if name == peer]
        for other in own[: max(0, len(own) + 1 - OF_ONE_MAX)]:
            del self._handshakes[other]
            other.cancel()
        if task is not None:
            self._handshakes[task] = peer
            task.add_done_callback(lambda done: self._handshakes.pop(done, None))
        await super()._admit(opened)


def _listen(name: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in name else socket.AF_INET
    try:
        return socket.create_server((name, port), family=family, backlog=CONNECTIONS_MAX)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PolicyError(
            f"operations.listen: {name}:{port} cannot be opened: {reason}", "is another process on that port?"
        ) from None


def _file(home: Path, name: str, setting: str) -> str | None:
    if not name:
        return None
    path = home / Path(name).expanduser()
    if not path.is_file():
        raise PolicyError(f"{setting}: {path} is no file")
    return str(path)
