"""The engine and its supervisor: signals, exit codes, and that neither outlives the other, whoever is killed."""

import fcntl
import os
import pty
import resource
import select
import signal
import socket
import subprocess
import sys
import termios
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from palladion.errors import PalladionError
from palladion.host import linux
from palladion.host.supervise import Keeper, hardened

pytestmark = pytest.mark.slow  # starts and kills processes by the dozen

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_SECONDS = 20.0


def _run(*command: str) -> int:
    with Keeper.started(print) as keeper:
        return keeper.run(command)


def _shell(script: str) -> int:
    return _run("/bin/sh", "-c", script)


def _until(true: Callable[[], bool]) -> None:
    """Wait for another process; no test depends on how long."""
    end = time.monotonic() + PATIENCE_SECONDS
    while not true():
        assert time.monotonic() < end, "it never came true"
        select.select([], [], [], 0.01)


def _inheritable(descriptor: int) -> bool:
    try:
        return os.get_inheritable(descriptor)
    except OSError:
        return False  # the one that listed them


def _runs(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in ("Z", "X")
    return False


SUPERVISOR = """
    import os, sys, tempfile
    from pathlib import Path
    from palladion.host.supervise import Keeper, hardened

    def say(sentence):
        print(sentence, flush=True)

    with hardened(), Keeper.started(say, grace_seconds=5) as keeper:
        folder = Path(sys.argv[1])
        folder.mkdir()
        (folder / "model").symlink_to("/proc/1/fd/9")
        keeper.watch(folder)
        if sys.argv[2] == "mount":
            keeper.mount(folder, 1 << 20)
        code = keeper.run(sys.argv[3:])
    sys.exit(code)
"""


@contextmanager
def _supervised(folder: Path, *command: str, mount: bool = False, **options: object) -> Iterator[subprocess.Popen[str]]:
    """A supervisor in a process of its own."""
    script = [sys.executable, "-c", textwrap.dedent(SUPERVISOR), str(folder), "mount" if mount else "", *command]
    process = subprocess.Popen(script, text=True, stdout=subprocess.PIPE, cwd=ROOT, **options)  # type: ignore[call-overload]
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def _numbers(path: Path, count: int) -> list[int]:
    """The process numbers that `count` processes have written to `path`."""
    _until(lambda: path.exists() and path.read_text().count("\n") == count)
    return [int(line) for line in path.read_text().splitlines()]


def _waits_for(path: Path) -> str:
    """What a shell does until somebody makes `path`."""
    return f"while [ ! -e {path} ]; do sleep 0.01; done"


# An engine, a worker of its, and one that has left its session and group, as daemons do.
FAMILY = """
    echo $$ >> {0}
    sh -c 'echo $$ >> {0}; sleep 600; true' &
    setsid sh -c 'echo $$ >> {0}; trap "" TERM HUP INT; sleep 600; true' &
    wait
"""


@pytest.mark.parametrize("code", [0, 1, 3, 127, 255])
def test_the_exit_code_is_the_engines(code: int) -> None:
    assert _shell(f"exit {code}") == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV])
def test_a_signal_that_ends_the_engine_is_told_as_a_shell_does(number: int) -> None:
    assert _shell(f"kill -{int(number)} $$") == 128 + number


def test_a_program_that_cannot_be_run_is_a_sentence(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x00\x01 no program")
    broken.chmod(0o700)
    with pytest.raises(PalladionError, match="broken cannot be run: exec format error"):
        _run(str(broken))
    with pytest.raises(PalladionError, match="cannot be run: no such file or directory"):
        _run("no-such-program")
    broken.chmod(0o600)
    with pytest.raises(PalladionError, match="cannot be run: permission denied"):
        _run(str(broken))


def test_the_engine_starts_as_if_nobody_were_above_it(tmp_path: Path) -> None:
    script = "cat /proc/self/status /proc/self/coredump_filter; ulimit -Sc; ulimit -Hc; env | grep -c PALLADION"
    with hardened(), Keeper.started(print) as keeper:
        keeper.run(["/bin/sh", "-c", f'exec > {tmp_path}/out; {script}; echo "$@"', "sh", "a b", "ü", ""])
    lines = (tmp_path / "out").read_text().splitlines()
    status = dict(line.split(":", 1) for line in lines if ":" in line)
    assert int(status["SigBlk"], 16) == 0
    # Python ignores broken pipes, which ends no program that inherits it
    assert not int(status["SigIgn"], 16) & 1 << signal.SIGPIPE - 1
    # 512-byte blocks: a limit of one byte is none
    assert lines[-5:] == ["00000000", "0", "0", "0", "a b ü "]


def test_no_descriptor_of_ours_reaches_the_engine(tmp_path: Path) -> None:
    out = tmp_path / "out"
    links = [path for path in Path("/proc/self/fd").iterdir() if _inheritable(int(path.name))]
    known = {str(path.readlink()) for path in links} | {str(out)}
    with (tmp_path / "secret").open("wb"), hardened():
        assert _shell(f"for link in /proc/$$/fd/*; do readlink $link; done > {out}; exit 0") == 0
    found = set(out.read_text().splitlines())
    assert found
    assert found <= known


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGQUIT])
def test_a_signal_to_the_supervisor_reaches_the_engine(tmp_path: Path, number: signal.Signals) -> None:
    name = number.name.removeprefix("SIG")
    script = f"trap 'echo got; exit 9' {name}; echo $$ >> {tmp_path}/pid; while :; do sleep 0.01; done"
    with _supervised(tmp_path / "folder", "sh", "-c", script) as supervisor:
        _numbers(tmp_path / "pid", 1)
        supervisor.send_signal(number)
        output, _ = supervisor.communicate(timeout=PATIENCE_SECONDS)
    assert (supervisor.returncode, output) == (9, "got\n")


def test_a_signal_to_the_keeper_alone_is_not_passed_on(tmp_path: Path) -> None:
    script = f"trap 'exit 9' TERM; echo $$ >> {tmp_path}/pid; {_waits_for(tmp_path / 'end')}"
    with _supervised(tmp_path / "folder", "sh", "-c", script) as supervisor:
        _numbers(tmp_path / "pid", 1)
        # systemd signals every process of a unit: the engine gets that one by itself
        [keeper] = linux.children(supervisor.pid)
        os.kill(keeper, signal.SIGTERM)
        (tmp_path / "end").touch()
        assert supervisor.wait(PATIENCE_SECONDS) == 0


COUNTS = """
    import signal, sys
    signals = {signal.SIGINT, signal.SIGUSR1}
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    print("up", flush=True)
    while signal.sigwait(signals) == signal.SIGINT:
        print("got", flush=True)
"""


def test_what_a_terminal_sends_reaches_the_engine_once(tmp_path: Path) -> None:
    ours, its = pty.openpty()
    engine = [sys.executable, "-c", textwrap.dedent(COUNTS)]
    with _supervised(
        tmp_path / "folder", *engine, stdin=its, start_new_session=True, preexec_fn=_take_terminal
    ) as supervisor:
        assert supervisor.stdout is not None
        assert supervisor.stdout.readline() == "up\n"
        supervisor.send_signal(signal.SIGSTOP)  # so that it finds its own later than the others theirs
        os.write(ours, b"\x03")
        assert supervisor.stdout.readline() == "got\n"
        supervisor.send_signal(signal.SIGCONT)
        # a second SIGINT, passed on by the supervisor, would come before this
        supervisor.send_signal(signal.SIGUSR1)
        assert supervisor.stdout.read() == ""
        assert supervisor.wait(PATIENCE_SECONDS) == 0
    os.close(ours)
    os.close(its)


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def test_a_daemon_that_the_engine_leaves_behind_is_waited_for(tmp_path: Path) -> None:
    daemon = f"sleep 0.05; {_waits_for(tmp_path / 'end')}; echo done > {tmp_path}/done"
    assert _shell(f"setsid sh -c '{daemon}' & touch {tmp_path}/end") == 0
    assert (tmp_path / "done").read_text() == "done\n"


def test_a_daemon_is_told_of_and_gets_the_signals(tmp_path: Path) -> None:
    daemon = tmp_path / "daemon"
    daemon.write_text(f"trap 'echo got; exit 0' TERM; echo $$ >> {tmp_path}/pid; while :; do sleep 0.01; done")
    with _supervised(tmp_path / "folder", "sh", "-c", f"setsid sh {daemon} & exit 0") as supervisor:
        _numbers(tmp_path / "pid", 1)
        assert supervisor.stdout is not None
        told = supervisor.stdout.readline()
        supervisor.terminate()
        output, _ = supervisor.communicate(timeout=PATIENCE_SECONDS)
    # by then it may not have become the shell yet
    assert told.replace(": setsid", ": sh") == "the engine has ended, and 1 of its processes still use the model: sh\n"
    assert (supervisor.returncode, output) == (0, "got\n")


def test_what_a_failed_engine_leaves_behind_is_ended(tmp_path: Path) -> None:
    worker = tmp_path / "worker"
    worker.write_text(
        f"trap 'echo term > {tmp_path}/term; exit' TERM; touch {tmp_path}/up; while :; do sleep 0.01; done"
    )
    said = tmp_path / "said"
    with Keeper.started(lambda sentence: _write(said, sentence)) as keeper:
        assert keeper.run(["sh", "-c", f"sh {worker} & {_waits_for(tmp_path / 'up')}; exit 4"]) == 4
    assert (tmp_path / "term").read_text() == "term\n"
    assert said.read_text() == "the engine has failed; ending 1 of its processes: sh"


def _write(path: Path, text: str) -> None:
    path.write_text(text)


def test_what_does_not_want_to_end_is_killed_after_a_grace(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    family = FAMILY.format(pids).replace("wait", f"while [ $(wc -l < {pids}) -lt 3 ]; do sleep 0.01; done; exit 5")
    with Keeper.started(lambda _: None, grace_seconds=0.2) as keeper:
        assert keeper.run(["sh", "-c", family]) == 5
    assert not any(_runs(pid) for pid in _numbers(pids, 3))


@pytest.mark.parametrize("mount", [False, True])
def test_a_killed_supervisor_leaves_nothing_behind(tmp_path: Path, mount: bool) -> None:
    folder = tmp_path / "folder"
    with _supervised(folder, "sh", "-c", FAMILY.format(tmp_path / "pids"), mount=mount) as supervisor:
        family = _numbers(tmp_path / "pids", 3)
        [keeper] = linux.children(supervisor.pid)
        assert all(map(_runs, [keeper, *family]))
        supervisor.kill()
        supervisor.wait()
        _until(lambda: not any(map(_runs, [keeper, *family])))
    _until(lambda: not folder.exists())


def test_a_killed_keeper_takes_the_engine_with_it(tmp_path: Path) -> None:
    with _supervised(tmp_path / "folder", "sh", "-c", FAMILY.format(tmp_path / "pids")) as supervisor:
        family = _numbers(tmp_path / "pids", 3)
        [keeper] = linux.children(supervisor.pid)
        os.kill(keeper, signal.SIGKILL)
        assert supervisor.wait(PATIENCE_SECONDS) == 128 + signal.SIGKILL
        assert not any(map(_runs, family))


def test_a_killed_keeper_takes_the_engine_with_it_even_if_nobody_else_can(tmp_path: Path) -> None:
    with _supervised(tmp_path / "folder", "sh", "-c", f"echo $$ >> {tmp_path}/pid; sleep 600; true") as supervisor:
        [engine] = _numbers(tmp_path / "pid", 1)
        [keeper] = linux.children(supervisor.pid)
        supervisor.send_signal(signal.SIGSTOP)
        os.kill(keeper, signal.SIGKILL)
        _until(lambda: not _runs(engine))


def test_a_signal_that_comes_too_late_does_not_keep_the_rest_from_being_wiped() -> None:
    wiped = False
    with Keeper.started(print) as keeper:
        try:
            assert keeper.run(["sh", "-c", "exit 3"]) == 3
            # to this thread: the process that runs the tests may have others, which hold nothing back
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
        finally:
            wiped = True
    assert wiped
    assert not signal.pthread_sigmask(signal.SIG_BLOCK, ()) & {signal.SIGINT, signal.SIGTERM}
    assert not signal.sigpending() & {signal.SIGINT, signal.SIGTERM}


def test_a_supervisor_that_fails_before_the_engine_runs_ends_its_keeper(tmp_path: Path) -> None:
    with suppress(ZeroDivisionError), Keeper.started(print) as keeper:
        [pid] = set(linux.children(os.getpid())) - keeper._others
        keeper.watch(tmp_path / "folder")
        raise ZeroDivisionError
    assert not _runs(pid)


def test_a_keeper_that_is_gone_is_a_sentence(tmp_path: Path) -> None:
    with Keeper.started(print) as keeper:
        [pid] = set(linux.children(os.getpid())) - keeper._others
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(PalladionError, match="has ended"):
            keeper.watch(tmp_path)


def test_children_that_are_not_the_engines_are_left_alone() -> None:
    other = subprocess.Popen(["sleep", "600"])
    try:
        assert _shell("exit 0") == 0
        assert _runs(other.pid)
    finally:
        other.kill()
        other.wait()


def test_what_was_changed_for_the_process_is_put_back() -> None:
    def state() -> tuple[object, ...]:
        filter_text = Path("/proc/self/coredump_filter").read_text()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, ())
        return resource.getrlimit(resource.RLIMIT_CORE), filter_text, linux.is_dumpable(), linux.is_subreaper(), mask

    before = state()
    with hardened(), Keeper.started(print) as keeper:
        assert not linux.is_dumpable()
        assert resource.getrlimit(resource.RLIMIT_CORE)[0] == 1
        keeper.run(["true"])
    assert state() == before


# What a crash of an engine with the model in its own memory leaves, by how the system takes cores.
CRASH = """
    import os
    copy = bytearray(b"MARK" * 100_000 + b"ER")
    copy[1::2] = copy[1::2]
    os.abort()
"""
PATTERN = Path("/proc/sys/kernel/core_pattern")


@contextmanager
def _core_pattern(pattern: str) -> Iterator[None]:
    before = PATTERN.read_text()
    try:
        PATTERN.write_text(pattern)
    except OSError:
        pytest.skip("only root may say where cores go, and not in every container")
    try:
        yield
    finally:
        PATTERN.write_text(before)


def _crash(*, protected: bool) -> int:
    command = [sys.executable, "-S", "-c", textwrap.dedent(CRASH)]
    if not protected:
        return subprocess.run(command, check=False).returncode
    with hardened():
        return _run(*command)


def test_a_crash_leaves_no_core_where_cores_are_piped_to_a_program(tmp_path: Path) -> None:
    catcher, core = tmp_path / "catcher", tmp_path / "core"
    catcher.write_text(f"#!/bin/sh\ncat > {core}.new\nmv {core}.new {core}\n")
    catcher.chmod(0o700)
    with _core_pattern(f"|{catcher}"):
        assert _crash(protected=False) == -signal.SIGABRT
        _until(core.exists)  # with a core limit of 0, here and in most shells
        assert b"MARKMARKMARK" in core.read_bytes()
        core.unlink()
        assert _crash(protected=True) == 128 + signal.SIGABRT
        assert _crash(protected=False) == -signal.SIGABRT
        _until(core.exists)  # a second dump, so one of the protected crash would have come before it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["catcher", "core"]


def test_a_crash_leaves_no_core_in_a_file(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    with _core_pattern(f"{tmp_path}/core.%p"):
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        try:
            assert _crash(protected=True) == 128 + signal.SIGABRT
            assert list(tmp_path.iterdir()) == []
            if hard == resource.RLIM_INFINITY:
                assert _crash(protected=False) == -signal.SIGABRT
                [core] = tmp_path.iterdir()
                assert b"MARKMARKMARK" in core.read_bytes()
        finally:
            resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_a_core_that_is_sent_to_a_socket_has_no_memory_in_it(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        listener.settimeout(PATIENCE_SECONDS)
        try:
            with _core_pattern(f"@{tmp_path}/s"):
                child = os.fork()
                if child == 0:
                    _crash(protected=True)
                    os._exit(0)
                connection, _ = listener.accept()
        except OSError:
            pytest.skip("this kernel sends no cores to sockets (Linux 6.16)")
        with connection, connection.makefile("rb") as stream:
            core = stream.read()
        os.waitpid(child, 0)
    assert core.startswith(b"\x7fELF")
    # the registers are there, and one of the widest holds 64 bytes
    assert b"MARK" * 50 not in core
    assert len(core) < 1 << 20
