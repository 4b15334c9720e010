"""Where the API listens: the address that the policy allows, TLS, and uvicorn, told what we want of it.

What a connection may do is in `connections`; what a request means, in `app`.
"""

import asyncio
import logging
import os
import shutil
import signal
import socket
import ssl
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from pathlib import Path

import uvicorn

from palladion import files
from palladion.errors import PolicyError
from palladion.gate.app import App
from palladion.gate.connections import Connection, connections_max
from palladion.gate.handshakes import Server
from palladion.policy import GatePolicy, ProxyPolicy

KEEP_ALIVE_SECONDS = 30  # clients that ask a few times a minute need no new connection
DRAIN_SECONDS = 20  # for requests that are being answered when the gate closes
UNIX = "unix:"
SOCKET_GROUP_MODE = 0o660
BACKLOG = 2048  # connections that the kernel holds while we are busy

Address = tuple[str, int] | Path


def listen_address(policy: GatePolicy, home: Path = Path(), proxy: ProxyPolicy | None = None) -> Address:
    """Host and port, or the path of a Unix socket; `home` is what that is relative to.

    Raises PolicyError for plain HTTP beyond the loopback that the policy does not ask for aloud, and for settings of
    certificates and of a proxy that could never take effect: whoever wrote them believes to be protected.
    """
    _check_proxy(policy, proxy)
    if policy.listen.startswith(UNIX):
        if policy.tls_certificate or policy.tls_key:
            raise PolicyError(
                "gate.listen names a Unix socket, which nobody listens in on, and gate.tls_certificate is set",
                "leave gate.tls_certificate and gate.tls_key empty: the proxy ends TLS",
            )
        if policy.client_ca or policy.client_certificate != "optional":
            raise PolicyError(
                "gate.listen names a Unix socket, over which nobody shows a certificate, and gate.client_ca or "
                "gate.client_certificate is set",
                "leave both out, and let the proxy ask clients for certificates (proxy.certificate_header)",
            )
        return home / Path(policy.listen.removeprefix(UNIX)).expanduser()
    name, _, port = policy.listen.rpartition(":")
    name = name.strip("[]")
    if int(port) > 65535:
        raise PolicyError(f"gate.listen: {policy.listen} has no port between 0 and 65535")
    try:
        loopback = ip_address(name).is_loopback
    except ValueError:
        loopback = name == "localhost"
    if policy.client_ca and not policy.tls_certificate:
        raise PolicyError(
            "gate.client_ca is set and gate.tls_certificate is not: without TLS nobody shows a certificate",
            "set gate.tls_certificate and gate.tls_key",
        )
    if policy.client_certificate == "required" and not policy.client_ca:
        raise PolicyError(
            'gate.client_certificate is "required" and gate.client_ca is not set: nobody would be asked for one',
            "set gate.client_ca",
        )
    if bool(policy.tls_certificate) != bool(policy.tls_key):
        raise PolicyError("gate.tls_certificate and gate.tls_key go together, and one of them is empty")
    if not (loopback or policy.tls_certificate or policy.behind_proxy):
        raise PolicyError(
            f"gate.listen: {policy.listen} is not the loopback, and API keys would cross the network in plain text",
            "set gate.tls_certificate and gate.tls_key, or gate.behind_proxy if a proxy ends TLS",
        )
    return name, int(port)


class Api(Server):
    """Stops on the first SIGINT or SIGTERM, and leaves what has to be closed afterwards to its caller."""

    def __init__(self, config: uvicorn.Config, started: Callable[[], None]) -> None:
        super().__init__(config)
        self._when_started = started
        self._leaving: asyncio.TimerHandle | None = None
        # SIGTERM asks how many seconds of requests there are still to be; SIGHUP brings something about
        self.leave: Callable[[], float] = lambda: 0.0
        self.hang_up: Callable[[], Coroutine[None, None, None]] | None = None
        self.beside: Callable[[], Coroutine[None, None, None]] = _nothing  # closes what else listens, at the same time
        self._hanging_up: set[asyncio.Task[None]] = set()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Take the first signal as the wish to stop."""
        # uvicorn's own raises the signal once more at the end, which would kill us before the ledger is closed
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGINT, self.handle_exit, signal.SIGINT, None)
        loop.add_signal_handler(signal.SIGTERM, self._terminate)
        loop.add_signal_handler(signal.SIGHUP, self._start_hang_up)
        try:
            yield
        finally:
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                loop.remove_signal_handler(number)
            if self._leaving is not None:
                self._leaving.cancel()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Open for requests, and say so."""
        await super().startup(sockets)
        self._when_started()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Let open connections end, here and on every listener beside."""
        await asyncio.gather(super().shutdown(sockets), self.beside())

    def _terminate(self) -> None:
        """Stop when balancers have noticed; at once when asked a second time."""
        seconds = self.leave()
        if seconds and self._leaving is None:
            loop = asyncio.get_running_loop()
            self._leaving = loop.call_later(seconds, self.handle_exit, signal.SIGTERM, None)
        else:
            self.handle_exit(signal.SIGTERM, None)

    def _start_hang_up(self) -> None:
        if self.hang_up is not None:
            task = asyncio.get_running_loop().create_task(self.hang_up())
            self._hanging_up.add(task)
            task.add_done_callback(self._hanging_up.discard)


async def _nothing() -> None:
    """Nothing else listens."""


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
        ssl_ca_certs=_tls_file(home, policy.client_ca, "gate.client_ca"),
        ssl_cert_reqs=_certificates(policy),
    )
    _check_authority(config.ssl_ca_certs)
    try:
        config.load()
    except OSError as error:  # ssl.SSLError is one
        raise PolicyError(f"gate.tls_certificate and gate.tls_key cannot be used: {error.strerror or error}") from None
    return config


def listen(address: Address, group: str = "") -> socket.socket:
    """A listening socket at an address; `group` too may connect to a Unix socket. Raises PolicyError."""
    if isinstance(address, Path):
        return _listen_locally(address, group)
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    try:
        return socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise PolicyError(
            f"gate.listen: {address[0]}:{address[1]} cannot be opened: {reason}", "is another process on that port?"
        ) from None


@contextmanager
def listening(address: Address, group: str = "") -> Iterator[socket.socket]:
    """A listening socket for the length of the block; a Unix socket is gone afterwards."""
    with listen(address, group) as listener:
        try:
            yield listener
        finally:
            if isinstance(address, Path):
                address.unlink(missing_ok=True)


def url_of(listener: socket.socket, *, secure: bool) -> str:
    """Where a listening socket is reached, as people write it."""
    if listener.family == socket.AF_UNIX:
        return f"{UNIX}{listener.getsockname()}"
    name, port = listener.getsockname()[:2]
    return f"{'https' if secure else 'http'}://{f'[{name}]' if ':' in name else name}:{port}"


def _listen_locally(path: Path, group: str) -> socket.socket:
    """Whoever can open the socket is believed like a proxy, so nobody else may, not for a moment."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        if path.is_socket():
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                if probe.connect_ex(str(path)) == 0:
                    raise PolicyError(f"gate.listen: another process answers at {path}", "stop it first")
            path.unlink()  # a crash left it
        # before bind: Linux takes the mode over
        os.fchmod(listener.fileno(), files.PRIVATE_FILE)
        listener.bind(str(path))
        if group:
            shutil.chown(path, group=group)
            path.chmod(SOCKET_GROUP_MODE)
        listener.listen(BACKLOG)
    except (OSError, LookupError) as error:
        listener.close()
        reason = str(getattr(error, "strerror", None) or error).lower()
        raise PolicyError(f"gate.listen: {UNIX}{path} cannot be opened: {reason}") from None
    except BaseException:
        listener.close()
        raise
    return listener


def _check_proxy(gate: GatePolicy, proxy: ProxyPolicy | None) -> None:
    if proxy is None or proxy == ProxyPolicy() or gate.listen.startswith(UNIX):
        return
    missing = "proxy.identities" if not proxy.identities else "gate.client_ca" if not gate.client_ca else None
    if missing is not None:
        raise PolicyError(
            f"[proxy] says what a proxy is believed, and {missing} is not set: no proxy can prove itself, so none is "
            "believed anything",
            "set gate.client_ca and proxy.identities, or let the proxy come through a Unix socket (gate.listen)",
        )


def _certificates(policy: GatePolicy) -> ssl.VerifyMode:
    if not policy.client_ca:
        return ssl.CERT_NONE
    return ssl.CERT_REQUIRED if policy.client_certificate == "required" else ssl.CERT_OPTIONAL


def _check_authority(path: "str | os.PathLike[str] | None") -> None:
    """A file that cannot be read would be told as the gate's own otherwise, and one without authorities not at all."""
    if path is None:
        return
    try:
        authorities = ssl.create_default_context(cafile=path).get_ca_certs()
    except OSError:
        authorities = []
    if not authorities:
        raise PolicyError(f"gate.client_ca: {path} has no certificate of an authority in PEM")


def _tls_file(home: Path, name: str, setting: str) -> str | None:
    if not name:
        return None
    path = home / Path(name).expanduser()
    if not path.is_file():
        raise PolicyError(f"{setting}: {path} is no file")
    return str(path)
