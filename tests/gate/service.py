"""A real gate in a process of its own, asked over real HTTP from several addresses of the loopback."""

import http.client
import queue
import re
import signal
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from palladion.policy import RoutePolicy

from .gates import PATH, ROW, House

POLL_SECONDS = 0.02  # of what another process leaves behind; lines of its output are waited for without
WAIT_SECONDS_MAX = 60.0  # for the other process, on a busy machine; a test that reaches it has failed


@dataclass(frozen=True)
class Answered:
    """What came back over HTTP."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> dict[str, Any]:
        found: dict[str, Any] = msgspec.json.decode(self.body)
        return found

    @property
    def problem(self) -> str:
        return str(self.document["type"]).removeprefix("urn:palladion:problem:")


class Service:
    """`palladion serve` in its own process."""

    def __init__(self, house: House, *, descriptors: int | None = None) -> None:
        """Start, and wait for the line that says where. The process may open no more than so many `descriptors`."""
        self.house = house
        command = [sys.executable, "-m", "palladion", "--home", str(house.installation.paths.home), "serve"]
        if descriptors is not None:
            command = ["sh", "-c", f'ulimit -n {descriptors}; exec "$@"', "sh", *command]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said: list[str] = []
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._complaints: list[str] = []
        self._readers = [
            threading.Thread(target=self._read_lines, daemon=True),
            threading.Thread(target=self._read_complaints, daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        try:
            url = urlsplit(self.wait_for("serving on ").removeprefix("serving on "))
        except BaseException:
            self.kill()
            raise
        assert url.hostname is not None
        assert url.port is not None
        self.host, self.port = url.hostname, url.port

    def wait_for(self, text: str) -> str:
        """The next line with `text` that the process says."""
        while True:
            line = self._lines.get(timeout=WAIT_SECONDS_MAX)
            assert line is not None, f"it ended without saying {text!r}: {self.complaints}"
            self.said.append(line)
            if text in line:
                return line

    @property
    def complaints(self) -> str:
        """What it wrote to standard error so far; all of it when it has ended."""
        if self.process.poll() is not None:
            self._readers[1].join(WAIT_SECONDS_MAX)
        return "".join(self._complaints)

    def connect(self, address: str = "127.0.0.1", context: ssl.SSLContext | None = None) -> http.client.HTTPConnection:
        """A connection from one of the loopback's addresses."""
        source = (address, 0)
        if context is not None:
            return http.client.HTTPSConnection(
                self.host, self.port, timeout=WAIT_SECONDS_MAX, source_address=source, context=context
            )
        return http.client.HTTPConnection(self.host, self.port, timeout=WAIT_SECONDS_MAX, source_address=source)

    def ask(
        self, rows: object = (ROW,), *, client: str = "acme", key: str | None = None, path: str = PATH, **changes: Any
    ) -> Answered:
        """The answer to one request on a connection of its own."""
        connection = self.connect(**changes)
        try:
            return ask(connection, key or self.house.keys[client], rows, path=path)
        finally:
            connection.close()

    def get(self, path: str, headers: Mapping[str, str] | None = None) -> Answered:
        """The answer to a GET."""
        connection = self.connect()
        try:
            connection.request("GET", path, headers=dict(headers or {}))
            return _read(connection)
        finally:
            connection.close()

    def terminate(self) -> int:
        """SIGTERM; the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(WAIT_SECONDS_MAX)

    def kill(self) -> None:
        """SIGKILL, as a crash would."""
        self.process.kill()
        self.process.wait(WAIT_SECONDS_MAX)

    def _read_lines(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))
        self._lines.put(None)

    def _read_complaints(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._complaints.append(line)
            if line.startswith("{"):
                # where logs are JSON, what it says is one of them
                self._lines.put(str(msgspec.json.decode(line)["message"]))


@contextmanager
def serving(house: House, *, descriptors: int | None = None) -> Iterator[Service]:
    """A service for the length of the block."""
    service = Service(house, descriptors=descriptors)
    try:
        yield service
    finally:
        if service.process.poll() is None:
            service.kill()
        assert service.process.stdout is not None
        assert service.process.stderr is not None
        for reader in service._readers:
            reader.join(WAIT_SECONDS_MAX)
        service.process.stdout.close()
        service.process.stderr.close()


def ask(connection: http.client.HTTPConnection, key: str, rows: object = (ROW,), *, path: str = PATH) -> Answered:
    """The answer to one request on a connection that may have carried others."""
    headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
    connection.request("POST", path, body=msgspec.json.encode({"inputs": rows}), headers=headers)
    return _read(connection)


def configure(house: House, *routes: RoutePolicy, **sections: Mapping[str, Any]) -> None:
    """Write routes and settings into a house's policy file; the gate listens on a port that is free."""
    path = house.installation.paths.policy
    text = path.read_text()
    for section, values in {"gate": {"listen": "127.0.0.1:0"}, **sections}.items():
        for key, value in {**({"listen": "127.0.0.1:0"} if section == "gate" else {}), **values}.items():
            # only the line of that section: `mode` and others may stand in several
            before, header, after = text.partition(f"[{section}]\n")
            assert header, section
            line = re.compile(rf"^(# )?{key} = .*$", re.MULTILINE)
            assert line.search(after), key
            text = before + header + line.sub(f"{key} = {msgspec.json.encode(value).decode()}", after, count=1)
    default = msgspec.to_builtins(RoutePolicy(model=""))
    for route in routes:
        text += "\n[[route]]\n"
        text += "".join(
            f"{name} = {_toml(value)}\n" for name, value in msgspec.to_builtins(route).items() if value != default[name]
        )
    path.write_text(text)


def _toml(value: Any) -> str:
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{key} = {_toml(item)}' for key, item in value.items())} }}"
    return msgspec.json.encode(value).decode()


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait for what another process does; fails when it takes too long."""
    end = time.monotonic() + WAIT_SECONDS_MAX
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(POLL_SECONDS)


def _read(connection: http.client.HTTPConnection) -> Answered:
    response = connection.getresponse()
    headers = {name.lower(): value for name, value in response.getheaders()}
    return Answered(response.status, headers, response.read())
