"""The witness over real HTTP, in a process of its own: what it answers, what it does not wait for, how it ends."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from palladion.ledger.cosignature import cosignatures, parse_witness_key
from palladion.ledger.reader import LedgerReader
from palladion.ledger.witness import REQUEST_BYTES_MAX, Witness, add_log, encode_request
from palladion.ledger.witness_server import REQUEST_SECONDS_MAX

from .ledgers import KEY, make

pytestmark = [pytest.mark.service, pytest.mark.slow]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, str, subprocess.Popen[str]]]:
    folder = tmp_path_factory.mktemp("w") / "witness"
    Witness.create(folder, "witness.example/w1", bytes(range(32)))
    add_log(folder, KEY)
    command = [sys.executable, "-m", "palladion", "witness", "run", str(folder), "--listen", "127.0.0.1:0", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        text = ""
        while not text.endswith("}\n"):
            text += process.stdout.readline()
        said = json.loads(text)
        yield int(said["url"].rpartition(":")[2]), said["key"], process
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in {0, -signal.SIGTERM}


def _post(port: int, body: bytes, *, path: str = "/add-checkpoint", method: str = "POST") -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def test_a_log_is_cosigned(running: tuple[int, str, object], tmp_path: Path) -> None:
    port, key, _ = running
    make(tmp_path / "log", 300)
    reader = LedgerReader(tmp_path / "log", KEY)
    status, line = _post(port, encode_request(0, [], reader.note))
    assert status == 200
    assert parse_witness_key(key) in cosignatures(reader.note + line, [parse_witness_key(key)])
    assert _post(port, encode_request(7, [], reader.note)) == (409, b"300\n")


def test_anything_else_is_refused(running: tuple[int, str, object]) -> None:
    port = running[0]
    assert _post(port, b"", path="/")[0] == 404
    assert _post(port, b"", method="GET")[0] == 405
    assert _post(port, b"x" * (REQUEST_BYTES_MAX + 1))[0] == 413
    assert _post(port, b"hello")[0] == 400


@pytest.mark.parametrize("sent", [b"", b"POST /add-checkpoint HTTP/1.1\r\nHost: w\r\nContent-Length: 9\r\n\r\nold"])
def test_nobody_is_waited_for_long(running: tuple[int, str, object], sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", running[0]), timeout=REQUEST_SECONDS_MAX + 10) as slow:
        begun = time.monotonic()
        slow.sendall(sent)
        while slow.recv(4096):
            pass
        assert time.monotonic() - begun < REQUEST_SECONDS_MAX + 5
