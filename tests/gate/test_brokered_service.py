"""`palladion serve --broker`: a model is served as long as the broker lets it, and leaves the memory then."""

import http.client
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from palladion.clock import ManualClock
from palladion.lifecycle.installation import gate_identity
from palladion.policy import RoutePolicy
from palladion.seal.rewrap import rewrap_file
from tests.broker.parts import LAB, Setting, furnish
from tests.broker.serving import Parties, Served, serving
from tests.lifecycle.installations import NOW, OWNER

from .gates import MODEL, PATH, ROW, House
from .service import Answered, ask, configure

pytestmark = [pytest.mark.slow, pytest.mark.service]

WAIT_SECONDS_MAX = 60.0
CEDAR = """
permit (principal == Client::"acme/web", action == Action::"release", resource in Model::"fraud")
when { context.purpose == "serve" };
"""
_DRIVER = """
import sys
import palladion.host.broker_lease as broker_lease
from palladion.cli.main import main
broker_lease.RENEWED_AT = 0.0005
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def parts(house: House, tmp_path: Path) -> tuple[House, Setting, Parties]:
    """A house whose first version is sealed to the broker alone, which has an installation of its own."""
    for name in ("gate", "broker"):
        (tmp_path / name).mkdir()
    mine, brokers = house.copy(tmp_path / "gate"), house.copy(tmp_path / "broker").installation
    configure(mine, RoutePolicy(model=MODEL))
    own = gate_identity(mine.root)
    path = mine.installation.paths.served(MODEL, 1)
    rewrap_file(path, [own], mine.installation.publishers(), add=[LAB.recipient], keep=lambda _: False)
    parties = Parties(tmp_path)
    setting = parties.settings(furnish(brokers, brokers.open_owner_root([OWNER]), ManualClock(NOW)))
    (brokers.paths.home / "broker.cedar").write_text(CEDAR)
    host = tmp_path / "host"
    host.mkdir(mode=0o700)
    for name, source in (
        ("broker-ca.pem", parties.authority.path),
        ("broker.pem", parties.host.path),
        ("broker-key.pem", parties.host.key),
    ):
        (host / name).write_bytes(source.read_bytes())
    return mine, setting, parties


class _Gate:
    """A gate that has its keys from a broker."""

    def __init__(self, served: Served, house: House) -> None:
        home = house.installation.paths.home
        self._house = house
        self.process = subprocess.Popen(
            [sys.executable, "-c", _DRIVER, "--home", str(home), "serve", "--broker", served.url],
            env={**os.environ, "PALLADION_HOST": str(home.parents[1] / "host")},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        line = self.wait_for("serving on ")
        self._address = urlsplit(line.removeprefix("serving on ")).netloc if line else ""

    def wait_for(self, text: str) -> str:
        """The next line with `text`, "" if it ended before."""
        while line := self._lines.get(timeout=WAIT_SECONDS_MAX):
            if text in line:
                return line.rstrip("\n")
        return ""

    def ask(self) -> Answered:
        connection = http.client.HTTPConnection(self._address, timeout=WAIT_SECONDS_MAX)
        try:
            return ask(connection, self._house.keys["acme"], (ROW,), path=PATH)
        finally:
            connection.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")


@contextmanager
def _gate(served: Served, house: House) -> Iterator[_Gate]:
    gate = _Gate(served, house)
    try:
        yield gate
    finally:
        gate.process.terminate()
        gate.process.wait(WAIT_SECONDS_MAX)


def _revoke(setting: Setting) -> None:
    with setting.installation.open_registry() as registry, registry.write() as records:
        records.clients.revoke(setting.client.id)


def test_a_model_is_served_until_the_broker_takes_the_key_back(parts: tuple[House, Setting, Parties]) -> None:
    house, setting, parties = parts
    with serving(setting, parties) as served, _gate(served, house) as gate:
        assert gate.ask().status == 200
        _revoke(setting)
        until = time.monotonic() + WAIT_SECONDS_MAX
        while (answered := gate.ask()).status == 200:
            assert time.monotonic() < until
        assert (answered.status, answered.problem) == (503, "not-ready")
        gate.process.terminate()
        _, said = gate.process.communicate(timeout=WAIT_SECONDS_MAX)
    assert "the key of fraud@1 is taken back: the broker refuses (revoked)" in said
    assert setting.reasons() == ["revoked"]


def test_a_gate_does_not_start_without_the_broker_s_consent(parts: tuple[House, Setting, Parties]) -> None:
    house, setting, parties = parts
    _revoke(setting)
    with serving(setting, parties) as served, _gate(served, house) as gate:
        assert gate.process.wait(WAIT_SECONDS_MAX) == 2
        assert gate.process.stderr is not None
        assert "the broker refuses (revoked)" in gate.process.stderr.read()
