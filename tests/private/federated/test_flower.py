"""Flower as the road: ten sites in its simulation, and three that are processes of their own."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from palladion.errors import MissingExtraError
from palladion.private.federated import Site, flower
from tools import peers

from .house import fixed, name_of, signer_of, terms_of, update_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SECONDS_MAX = 60
PROCESSES_S_MAX = 240  # 14 processes start one after the other for each question: 30 s where two cores are free


def test_without_flower_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "flwr.app", None)
    for needs in (lambda: flower.asker(object()), lambda: flower.client_app(fixed)):  # type: ignore[arg-type]
        with pytest.raises(MissingExtraError) as caught:
            needs()
        assert caught.value.hints == ("pip install 'palladion[fl]'",)


@dataclass
class _Grid:
    """A grid of nodes, of which the silent ones never answer; a reply is its question."""

    silent: set[int]
    sent: dict[str, Any] = field(default_factory=dict)

    def push_messages(self, messages: list[Any]) -> list[str]:
        self.sent = {f"message {message.dst_node_id}": message for message in messages}
        return list(self.sent)

    def pull_messages(self, waiting: set[str]) -> list[Any]:
        return [
            SimpleNamespace(
                metadata=SimpleNamespace(src_node_id=self.sent[name].dst_node_id, reply_to_message_id=name),
                has_error=lambda: False,
                content=self.sent[name].content,
            )
            for name in sorted(waiting)
            if self.sent[name].dst_node_id not in self.silent
        ]


@pytest.fixture
def apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for Flower's messages, which the peer environment alone has, and for time."""
    app: Any = ModuleType("flwr.app")
    app.ConfigRecord = app.RecordDict = dict
    app.Message = SimpleNamespace
    app.MessageType = SimpleNamespace(TRAIN="train")
    clients: Any = ModuleType("flwr.clientapp")
    clients.ClientApp = lambda: SimpleNamespace(train=lambda: lambda answer: setattr(clients, "answer", answer))
    monkeypatch.setitem(sys.modules, "flwr", ModuleType("flwr"))
    monkeypatch.setitem(sys.modules, "flwr.app", app)
    monkeypatch.setitem(sys.modules, "flwr.clientapp", clients)
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", lambda seconds: now.append(now.pop() + seconds))


@pytest.mark.usefixtures("apart")
@pytest.mark.parametrize(
    ("options", "waited"),
    [
        ({}, 600.0),
        ({"timeout_s": 5.0}, 5.0),
        ({"enough": 2, "late_s": 3.0}, 3.0),
        ({"enough": 3, "late_s": 3.0}, 600.0),
    ],
)
def test_who_does_not_answer_is_waited_for_as_long_as_agreed(options: dict[str, Any], waited: float) -> None:
    answered = flower.asker(_Grid({2}), **options)({"0": b"a", "1": b"b", "2": b"c"})
    assert answered == {"0": b"a", "1": b"b"}
    assert time.monotonic() == pytest.approx(waited, abs=0.3)


@pytest.mark.usefixtures("apart")
def test_a_site_without_a_journal_answers_nothing_over_flower() -> None:
    terms = terms_of()
    flower.client_app(lambda _context: Site(terms, name_of(0), signer_of(0), fixed(update_of(0))))
    with pytest.raises(ValueError, match="needs a journal"):
        sys.modules["flwr.clientapp"].answer(None, SimpleNamespace(state={}))


def _programs() -> Path:
    programs = peers.programs("flower")
    if programs is None:
        pytest.skip("this needs Flower in an environment of its own: python -m tools.peers flower")
    return programs


def _environment(programs: Path, folder: Path) -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "LANG", "TMPDIR") if name in os.environ}
    return {
        **kept,
        "PATH": f"{programs}:/usr/bin:/bin",
        "PYTHONPATH": f"{ROOT / 'src'}:{ROOT}",
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
        "OMP_NUM_THREADS": "1",
        "FOUND": str(folder / "found.json"),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.1",
    }


def _simulated(folder: Path, rounds: int, crashing: int) -> dict[str, Any]:
    programs = _programs()
    command = [str(programs / "python"), str(HERE / "simulation.py"), str(rounds), str(crashing)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=SECONDS_MAX, env=_environment(programs, folder)
    )
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.service
@pytest.mark.slow
def test_in_a_simulation_who_crashes_and_who_learns_nan_are_not_in_the_sum(tmp_path: Path) -> None:
    found = _simulated(tmp_path, 2, 1)
    rest = [number for number in range(10) if number not in {0, 9}]
    for survivors, dropped in found["rounds"]:
        assert survivors == [name_of(number) for number in rest]
        assert dropped == {name_of(0): "did not answer", name_of(9): "an update holds NaN or infinity"}
    mean = sum(update_of(number) for number in rest) / len(rest)
    assert np.allclose(found["model"], 2 * mean, atol=20 * terms_of().quantum)


@pytest.mark.service
@pytest.mark.slow
def test_in_a_simulation_too_few_sites_are_an_error_and_not_a_finished_run(tmp_path: Path) -> None:
    found = _simulated(tmp_path, 1, 4)
    assert found == {"rounds": [], "error": "round 1 has 6 results, 7 were agreed to", "raised": True}


APP = """[project]
name = "sites"
version = "1.0.0"
license = "Apache-2.0"
dependencies = []
[tool.flwr.app]
publisher = "palladion"
[tool.flwr.app.components]
serverapp = "sites:server"
clientapp = "sites:client"
[tool.flwr.app.config]
"""
# Flower reads this, before it runs it, for assignments to these names
SITES = """from tests.private.federated import processes

client = processes.client
server = processes.server
"""
CONFIG = """[superlink]
default = "here"
[superlink.here]
address = "127.0.0.1:{port}"
insecure = true
"""


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


@contextmanager
def _started(command: list[str], log: Path, environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, with all that it starts: none outlives the block."""
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out, env=environment, start_new_session=True) as process,
    ):
        try:
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _until_said(log: Path, text: str, times: int, until: float) -> None:
    while log.read_text().count(text) < times:
        if time.monotonic() > until:
            pytest.fail(f"{log.name} did not say {text!r} in time:\n{log.read_text()[-2000:]}")
        time.sleep(0.1)


@pytest.mark.service
@pytest.mark.slow
def test_over_processes_a_site_that_is_killed_in_mid_round_is_not_in_the_sum(tmp_path: Path) -> None:
    programs = _programs()
    environment = _environment(programs, tmp_path)
    link_port, *node_ports = _free_ports(4)
    (tmp_path / "config.toml").write_text(CONFIG.format(port=link_port))
    app = tmp_path / "app"
    app.mkdir()
    (app / "pyproject.toml").write_text(APP)
    (app / "sites.py").write_text(SITES)
    until = time.monotonic() + PROCESSES_S_MAX
    link = [str(programs / "flower-superlink"), "--insecure", "--disable-runtime-dependency-installation"]
    node = [str(programs / "flower-supernode"), "--insecure", "--superlink", f"127.0.0.1:{link_port}"]
    with ExitStack() as stack:
        here = ["--host", "127.0.0.1", "--port"]
        log = tmp_path / "link.log"
        stack.enter_context(_started([*link, *here, str(link_port)], log, environment))
        _until_said(log, "Uvicorn running", 1, until)
        nodes = [
            stack.enter_context(
                _started(
                    [*node, *here, str(port), "--node-config", f"partition-id={number}"],
                    tmp_path / f"node-{number}.log",
                    environment,
                )
            )
            for number, port in enumerate(node_ports)
        ]
        _until_said(log, "Activated node", 3, until)
        run = [str(programs / "flwr"), "run", str(app), "here", "--stream"]
        left = max(1.0, until - time.monotonic())
        said = subprocess.run(run, capture_output=True, text=True, check=False, env=environment, timeout=left)
        assert (tmp_path / "found.json").exists(), (said.stdout + said.stderr)[-3000:]
        assert nodes[2].wait(timeout=5) == -signal.SIGKILL
        assert [one.poll() for one in nodes[:2]] == [None, None]
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["survivors"] == [name_of(0), name_of(1)]
    assert found["dropped"] == {name_of(2): "did not answer"}
    assert found["asked"] == [3, 3, 3, 2, 2]
    terms = terms_of(3, threshold=2)
    assert np.allclose(found["model"], (update_of(0) + update_of(1)) / 2, atol=4 * terms.quantum)
    # a round that was begun is spent, of the site that was killed too
    assert [(tmp_path / f"journal-{number}").read_text() for number in range(3)] == ["1\n"] * 3
