"""Whether the model servers behind a gate answer around it: asked as somebody who has no credential would ask.

Nothing is sent but GET for fixed paths, without a body, a key or a certificate of ours; of answers the head is read,
by a deadline. It is asked from this machine: what a firewall keeps from others is not seen, so an open server is named
with who can reach its address, as far as this machine knows.
"""

import errno
import http.client
import ipaddress
import os
import socket
import ssl
import stat
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal
from urllib.parse import quote, urlsplit

from palladion.gate.upstream.address import Address, parse_address
from palladion.ledger.record import Record
from palladion.lifecycle.doctor import Check
from palladion.policy import Policy, RoutePolicy

SECONDS_MAX = 3.0  # to connect, and again for the head of each answer: a server that runs models answers these at once
SECONDS_ALL_MAX = 20.0  # for one server
UPSTREAMS_MAX = 64  # each costs up to SECONDS_ALL_MAX

# Paths of the common servers, and what somebody gets there who may use them. `{model}` is the name at the upstream.
PATHS: tuple[tuple[str, str], ...] = (
    ("/v2/models/{model}", "models"),  # Open Inference Protocol: KServe, Triton, MLServer
    ("/v1/models/{model}", "models"),  # TensorFlow Serving, KServe v1
    ("/v1/models", "models"),  # OpenAI, vLLM, llama.cpp
    ("/api/tags", "models"),  # Ollama
    ("/v2/models/{model}/infer", "answers"),
    ("/v1/chat/completions", "answers"),
    ("/v1/completions", "answers"),
    ("/invocations", "answers"),  # SageMaker's, which vLLM and MLflow have too
    ("/score", "answers"),
    ("/api/generate", "answers"),
    ("/v2/repository/index", "control"),  # Triton: models loaded and unloaded
    ("/v1/load_lora_adapter", "control"),
    ("/metrics", "figures"),
    ("/openapi.json", "its description"),
)
_REFUSED = frozenset({401, 403, 407})
_NOT_THERE = frozenset({404, 408, 410, 421, 429})
_MOVED = frozenset({301, 302, 307, 308})

DOORS_TOLD_MAX = 3  # in one sentence
NAME = "side doors"
HINT = "shut it in: palladion deploy upstreams, and a key of its own (docs/egress.md)"
TLS = "TLS: "
# TLS 1.3 refuses after the handshake, before an answer; reasons of OpenSSL for it, for TLS 1.2, and for an empty list
_ENDED = "ended after the handshake"
_WANTS_CERTIFICATE = (_ENDED, "CERTIFICATE_REQUIRED", "ALERT_HANDSHAKE_FAILURE", "ALERT_BAD_CERTIFICATE")
_NO_CERTIFICATE = b"SSL certificate"  # nginx and its kin shake hands, and say it in a page with status 400
_PAGE_BYTES_MAX = 4096
_SLOW = "it is too slow"
_NOWHERE = "/palladion-is-there-nothing"  # a server that has something here has something everywhere

Reach = Literal["this machine", "other machines", "not known"]


_REACHED: dict[Reach, str] = {
    "this machine": "whatever runs on this machine can ask it around the gate",
    "other machines": "other machines reach it, unless a firewall stands before it",
    "not known": "who reaches it is not known here",
}


@dataclass(frozen=True)
class Door:
    """A path that answered somebody without a credential: the status, and what is to be had there."""

    path: str
    status: int
    gives: str


@dataclass(frozen=True)
class Probed:
    """One upstream: the routes that ask it, what answered there, and who can reach its address.

    `refused` is how many paths asked for a credential, `unheard` how many ended without an answer. `silent` says why
    nothing could be asked, else it is empty.
    """

    address: Address
    routes: tuple[str, ...]
    doors: tuple[Door, ...]
    refused: int
    reach: Reach
    silent: str = ""
    unheard: int = 0


def probe(policy: Policy, *, listening: Path = Path("/proc/net")) -> list[Probed]:
    """Every upstream of a policy, asked once each. `listening` is where Linux says what listens on this machine.

    Asks at most `UPSTREAMS_MAX` servers. Raises nothing for what a server does.
    """
    found: dict[tuple[str, int, bool, str], list[RoutePolicy]] = {}
    for route in policy.route:
        if route.upstream:
            address = parse_address(route.upstream, insecure_http=True)
            found.setdefault((address.host, address.port, address.secure, address.unix_path), []).append(route)
    return [_probe(Address(*where), routes, listening) for where, routes in list(found.items())[:UPSTREAMS_MAX]]


def _probe(address: Address, routes: list[RoutePolicy], listening: Path) -> Probed:
    names = tuple(dict.fromkeys(route.route for route in routes))
    reach = _reach(address, listening)
    doors: list[Door] = []
    refused = heard = unheard = 0
    silent = ""
    end = time.monotonic() + SECONDS_ALL_MAX
    for path, gives in [(_NOWHERE, ""), *_paths(routes)]:
        try:
            status = _status(address, path, end)
        except ssl.SSLError as error:
            # a server that wants a certificate of whoever asks ends the handshake, or the first request
            why = getattr(error, "reason", None) or error.strerror or "no reason given"
            silent = f"{TLS}{why}" if any(word in why for word in _WANTS_CERTIFICATE) else f"TLS fails: {why}"
            unheard += 1
            if not heard:
                break
            continue
        except (OSError, http.client.HTTPException) as error:
            # one path that hangs hides no other
            silent, unheard = _why(error), unheard + 1
            if isinstance(error, ConnectionRefusedError | FileNotFoundError | socket.gaierror):
                break
            continue
        heard += 1
        if path == _NOWHERE and _opens(status):
            return Probed(address, names, (Door("any path", status, "something"),), 0, reach)
        refused += path != _NOWHERE and status in _REFUSED
        if _opens(status):
            doors.append(Door(path, status, gives))
    return Probed(address, names, tuple(doors), refused, reach, "" if heard else silent, unheard)


def _why(error: Exception) -> str:
    if isinstance(error, http.client.BadStatusLine) and not isinstance(error, http.client.RemoteDisconnected):
        return "it answers, and not in HTTP/1.1"  # HTTP/2 alone, as servers of gRPC do
    return str(getattr(error, "strerror", None) or type(error).__name__).lower()


def _opens(status: int) -> bool:
    """Whether there is something, and nobody asked who wants it: 400, 405 and 422 are said to who is let in."""
    return (200 <= status < 300 or 400 <= status < 500) and status not in _REFUSED | _NOT_THERE


def _paths(routes: Iterable[RoutePolicy]) -> Iterator[tuple[str, str]]:
    """What is asked of one upstream, each path once: those of the common servers, and those that the routes use."""
    told: set[str] = set()
    for route in routes:
        own = [(route.upstream_path, "answers")] if route.upstream_path else []
        for template, gives in [*own, *PATHS]:
            path = template.replace("{model}", quote(route.upstream_model or route.model))
            if path not in told:
                told.add(path)
                yield path, gives


def _status(address: Address, path: str, end: float) -> int:
    """The status of a GET; of one that is sent to the same path with a slash, or without it, that of the other."""
    status, location = _get(address, path, end)
    if status in _MOVED and location is not None:
        there = urlsplit(location)
        other = path.removesuffix("/") if path.endswith("/") else f"{path}/"
        # where else it points is another server's affair, or a page to log in at
        if there.path == other and there.netloc in {"", address.authority}:
            return _get(address, other, end)[0]
    return status


def _get(address: Address, path: str, end: float) -> tuple[int, str | None]:
    """The status and the location of a GET, by `end`. A new connection for each path: a server may close after one.

    No body is read but that of a 400 over TLS.
    """
    seconds = min(SECONDS_MAX, end - time.monotonic())
    if seconds <= 0:
        raise TimeoutError(errno.ETIMEDOUT, _SLOW)
    with closing(_connect(address, seconds)) as connection, _ended_after(connection.sock, seconds):
        try:
            connection.request("GET", path, headers={"host": address.authority, "accept": "*/*", "connection": "close"})
        except (ssl.SSLEOFError, BrokenPipeError, ConnectionResetError) as error:
            # the alert that says why is lost where the server was faster than the request
            if not address.secure:
                raise
            raise ssl.SSLError(ssl.SSL_ERROR_EOF, _ENDED) from error
        with closing(connection.getresponse()) as response:
            status = response.status
            if status == 400 and address.secure and _NO_CERTIFICATE in response.read(_PAGE_BYTES_MAX):
                status = 401
            return status, response.getheader("location")


@contextmanager
def _ended_after(connected: socket.socket, seconds: float) -> Iterator[None]:
    """Shut a connection after so long: a limit for each read ends no answer that comes byte by byte, or never stops."""
    # of the socket below TLS: an SSLSocket is not for two threads
    with closing(socket.socket(fileno=os.dup(connected.fileno()))) as other:
        over = threading.Event()
        timer = threading.Timer(seconds, _shut, [other, over])
        timer.start()
        try:
            yield
        except (OSError, http.client.HTTPException):
            if over.is_set():
                raise TimeoutError(errno.ETIMEDOUT, _SLOW) from None
            raise
        finally:
            timer.cancel()
            timer.join()


def _shut(connected: socket.socket, over: threading.Event) -> None:
    over.set()
    with suppress(OSError):
        connected.shutdown(socket.SHUT_RDWR)


def _connect(address: Address, seconds: float) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(address.host, address.port or 80, timeout=seconds)
    if address.unix_path:
        plain = socket.socket(socket.AF_UNIX)
        plain.settimeout(seconds)
        plain.connect(address.unix_path)
    else:
        plain = socket.create_connection((address.host, address.port), seconds)
    if address.secure:
        # a stranger believes any certificate
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        with _ended_after(plain, seconds):
            connection.sock = context.wrap_socket(plain, server_hostname=address.host)
    else:
        connection.sock = plain
    return connection


def _reach(address: Address, listening: Path) -> Reach:
    """Who can connect, as far as this machine knows: a firewall on the way is not looked at."""
    if address.unix_path:
        return "this machine"
    try:
        host = ipaddress.ip_address("127.0.0.1" if address.host == "localhost" else address.host)
    except ValueError:
        return "not known"
    if not host.is_loopback:
        return "other machines"
    bound = [place for place, port in _listening(listening) if port == address.port]
    if any(not place.is_loopback for place in bound):
        return "other machines"
    return "this machine" if bound else "not known"


def _listening(folder: Path) -> Iterator[tuple[ipaddress.IPv4Address | ipaddress.IPv6Address, int]]:
    """Addresses and ports on which something listens (proc(5), /proc/net/tcp: words of 32 bits in native order)."""
    step = -1 if sys.byteorder == "little" else 1
    for name in ("tcp", "tcp6"):
        try:
            lines = (folder / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if len(fields) < 4 or fields[3] != "0A":  # TCP_LISTEN
                continue
            host, _, port = fields[1].partition(":")
            words = bytes.fromhex(host)
            packed = b"".join(words[at : at + 4][::step] for at in range(0, len(words), 4))
            yield ipaddress.ip_address(packed), int(port, 16)


def look(probed: Iterable[Probed]) -> Iterator[Check]:
    """What was found, as the doctor says it."""
    for item in probed:
        named = f"{item.address} ({', '.join(item.routes)})"
        if not item.doors:
            yield _closed(item, named)
            continue
        told = ", ".join(f"{door.gives} at {door.path} ({door.status})" for door in item.doors[:DOORS_TOLD_MAX])
        if len(item.doors) > DOORS_TOLD_MAX:
            told += f" and {len(item.doors) - DOORS_TOLD_MAX} more"
        message = f"{named} answers whoever has no credential: {told}; {_REACHED[item.reach]}"
        yield Check(NAME, "warning" if item.reach == "this machine" else "problem", message, HINT)


def _closed(item: Probed, named: str) -> Check:
    if item.silent.startswith(TLS):
        return Check(NAME, "ok", f"{named} talks to nobody without a certificate ({item.silent})")
    if item.silent:
        hint = "run this again while the model server runs, on the machine of the gate"
        return Check(NAME, "warning", f"{named} could not be asked: {item.silent}", hint)
    if item.address.unix_path and _is_open(item.address.unix_path):
        return Check(NAME, "warning", f"every user of this machine may connect to {item.address}", HINT)
    if not item.refused:
        more = f", {item.unheard} ended without an answer" if item.unheard else ""
        message = f"{named} asks nobody for a credential: nothing was found at the paths of common servers{more}"
        return Check(NAME, "warning", message, "if it answers at another path, that is open: give it a key of its own")
    more = f", {item.unheard} did not answer" if item.unheard else ""
    return Check(NAME, "ok", f"{named} gives nothing to who has no credential ({item.refused} paths ask for one{more})")


def probed_record(probed: Sequence[Probed], *, at: datetime, actor: str) -> Record:
    """That it was looked, and what was open, for the ledger."""
    details = {
        "upstreams": len(probed),
        "open": [str(item.address) for item in probed if item.doors],
        "unasked": [str(item.address) for item in probed if item.silent and not item.silent.startswith(TLS)],
    }
    return Record("upstreams.probed", at, actor, "gate", details)


def _is_open(path: str) -> bool:
    """Whether anybody on this machine may connect to a Unix socket."""
    try:
        return bool(Path(path).stat().st_mode & stat.S_IWOTH)
    except OSError:
        return False
