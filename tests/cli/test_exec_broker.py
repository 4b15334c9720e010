"""`palladion exec --broker`: an engine runs as long as the broker lets it, and no longer."""

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from palladion.cli.main import main
from palladion.seal.sign import publisher_text
from tests.broker.parts import Setting
from tests.broker.serving import Parties, Served, built, serving

pytestmark = [pytest.mark.slow, pytest.mark.service]

# asks again at once instead of after half of the least lease, which is a minute
_DRIVER = """
import sys
import palladion.host.broker_lease as broker_lease
from palladion.cli.main import main
broker_lease.RENEWED_AT = 0.0005
sys.exit(main(sys.argv[1:]))
"""
# a clock that a file moves on by an hour, which is longer than a lease
_LATER_DRIVER = """
import os
import sys
import palladion.cli.broker_options as broker_options
from palladion.cli.main import main
awake_or_asleep = broker_options._seconds_awake_or_asleep
broker_options._seconds_awake_or_asleep = lambda: awake_or_asleep() + 3600 * os.path.exists(os.environ["LATER"])
sys.exit(main(sys.argv[1:]))
"""
WAIT_SECONDS_MAX = 60.0


@pytest.fixture
def memory() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        yield Path(folder)


@pytest.fixture
def parts(tmp_path: Path) -> tuple[Setting, Parties]:
    setting, parties = built(tmp_path)
    host = tmp_path / "host"
    host.mkdir(mode=0o700)
    (host / "publishers").write_text(publisher_text(setting.owner.signer("publisher").public_key))
    for name, path in (
        ("broker-ca.pem", parties.authority.path),
        ("broker.pem", parties.host.path),
        ("broker-key.pem", parties.host.key),
    ):
        (host / name).write_bytes(path.read_bytes())
    return setting, parties


def _environment(setting: Setting, memory: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PALLADION_HOST": str(setting.file.parent / "host"),
        "XDG_RUNTIME_DIR": str(memory),
        "LATER": str(_later(setting)),
    }


def _later(setting: Setting) -> Path:
    """The file that moves the clock of `_LATER_DRIVER` on."""
    return setting.file.with_name("later")


@contextmanager
def _running(served: Served, memory: Path, script: str, *, driver: str = _DRIVER) -> Iterator["subprocess.Popen[str]"]:
    """An engine of which the first line has come."""
    setting = served.setting
    command = [sys.executable, "-c", driver, "exec", str(setting.file), "--broker", served.url, "--paths", "links"]
    process = subprocess.Popen(
        [*command, "--", "sh", "-c", script, "sh", "{}"],
        env=_environment(setting, memory),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("has "), (line, process.communicate(timeout=WAIT_SECONDS_MAX))
        yield process
    finally:
        process.kill()
        process.wait()


def _revoke(setting: Setting) -> None:
    with setting.installation.open_registry() as registry, registry.write() as records:
        records.clients.revoke(setting.client.id)


def test_an_engine_loses_the_model_when_its_client_is_revoked(parts: tuple[Setting, Parties], memory: Path) -> None:
    with serving(*parts) as served, _running(served, memory, 'echo has $(cat "$1"); exec sleep 600') as process:
        before = list(memory.iterdir())
        _revoke(parts[0])
        _, said = process.communicate(timeout=WAIT_SECONDS_MAX)
    assert before
    assert "the key is taken back: the broker refuses (revoked)" in said
    assert process.returncode == 128 + 15
    assert list(memory.iterdir()) == []


def test_an_engine_that_ends_in_good_order_is_no_success_then(parts: tuple[Setting, Parties], memory: Path) -> None:
    script = 'trap "exit 0" TERM; echo has it; while :; do sleep 0.05; done'
    with serving(*parts) as served, _running(served, memory, script) as process:
        _revoke(parts[0])
        process.communicate(timeout=WAIT_SECONDS_MAX)
    assert process.returncode == 1


def test_an_engine_that_does_not_want_to_end_is_killed(parts: tuple[Setting, Parties], memory: Path) -> None:
    script = 'trap "" TERM; echo has $$; while :; do sleep 0.05; done'
    with serving(*parts) as served, _running(served, memory, script) as process:
        _revoke(parts[0])
        process.communicate(timeout=WAIT_SECONDS_MAX)
    assert process.returncode == -9
    until = time.monotonic() + WAIT_SECONDS_MAX
    while list(memory.iterdir()):  # the keeper clears up when it sees that we are gone
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_process_that_was_stopped_beyond_its_lease_ends_when_it_goes_on(
    parts: tuple[Setting, Parties], memory: Path
) -> None:
    """Ctrl-Z, a debugger, a machine that slept: the broker would say yes, and is not even asked."""
    with (
        serving(*parts) as served,
        _running(served, memory, "echo has it; exec sleep 600", driver=_LATER_DRIVER) as process,
    ):
        process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
        _later(parts[0]).touch()
        process.send_signal(signal.SIGCONT)
        _, said = process.communicate(timeout=WAIT_SECONDS_MAX)
    assert "the key is taken back: the broker has not answered in time" in said
    assert process.returncode == 128 + 15
    assert list(memory.iterdir()) == []
    assert parts[0].records("broker.renewed", "broker.refused") == []


def test_an_engine_does_not_outlive_the_process_that_holds_the_lease(
    parts: tuple[Setting, Parties], memory: Path
) -> None:
    number = parts[0].file.with_name("engine")
    script = f"echo $$ > {number}; echo has it; exec sleep 600"
    with serving(*parts) as served, _running(served, memory, script) as process:
        engine = int(number.read_text())
        process.kill()
        process.wait(WAIT_SECONDS_MAX)
        until = time.monotonic() + WAIT_SECONDS_MAX
        while list(memory.iterdir()) or Path(f"/proc/{engine}/fd/0").exists():
            assert time.monotonic() < until
            time.sleep(0.02)


def test_while_the_broker_agrees_the_engine_runs_and_its_exit_code_is_told(
    parts: tuple[Setting, Parties], memory: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in _environment(parts[0], memory).items():
        monkeypatch.setenv(name, value)
    with serving(*parts) as served:
        arguments = ["exec", str(parts[0].file), "--broker", served.url, "--paths", "links", "--"]
        assert main([*arguments, "sh", "-c", 'cat "$1"; exit 3', "sh", "{}"]) == 3
    assert capfd.readouterr().out == "weights"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--approval", "1"], "go with --broker"),
        (["--broker", "http://127.0.0.1:1"], "begins with https://"),
        (["--broker", "https://127.0.0.1:1"], "no whole answer"),
    ],
    ids=["no broker", "no TLS", "nobody there"],
)
def test_what_cannot_be_is_said(
    parts: tuple[Setting, Parties],
    memory: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    options: list[str],
    said: str,
) -> None:
    for name, value in _environment(parts[0], memory).items():
        monkeypatch.setenv(name, value)
    assert main(["exec", str(parts[0].file), *options, "--", "true", "{}"]) == 2
    assert said in capfd.readouterr().err
