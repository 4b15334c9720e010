"""Runs an engine and ends with it: signals there, exit code back, and nothing of it left when its supervisor dies.

Two processes: the supervisor, which holds the model, and a keeper, forked before any key is read, which starts the
engine and adopts what the engine leaves behind. If one of them is killed, the other ends the engine's processes.
"""

import os
import resource
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NoReturn

import msgspec

from palladion.errors import PalladionError
from palladion.host import linux
from palladion.host.expose import PrivateMount

GRACE_SECONDS = 10.0  # what a failed engine left behind may take to end by itself: as long as `docker stop` waits
NOT_STARTED = 127  # as in a shell
# A core of one byte: no file is as small, and where cores are piped to a program, which ignores every other limit, the
# kernel takes this one for a dump of the dumper and writes nothing (core(5); fs/coredump.c).
NO_CORE_BYTES = 1

_FORWARDED = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
_HELD = frozenset({*_FORWARDED, signal.SIGCHLD})
_PARENT_DIED = signal.SIGRTMIN
_BUG = 70  # as the command line has it

Say = Callable[[str], None]


@contextmanager
def hardened() -> Iterator[None]:
    """For the block, nothing dumps this process, or a child, with what is in memory, and no other process looks in."""
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    was_dumpable = linux.is_dumpable()
    _limit_cores(hard=limits[1])
    dumped = linux.set_dumped(0)  # children inherit it, through exec too: what is dumped all the same has no memory
    linux.set_dumpable(False)
    try:
        yield
    finally:
        linux.set_dumpable(was_dumpable)  # first: until then the filter is root's to change
        linux.set_dumped(dumped)
        resource.setrlimit(resource.RLIMIT_CORE, limits)


class Keeper:
    """The supervisor's side of the keeper: what it is to look after, and the engine that it runs."""

    def __init__(self, channel: "_Channel", pid: int, others: Iterable[int]) -> None:
        self._channel = channel
        self._pid: int | None = pid
        self._others = frozenset(others)
        self._mounts: list[PrivateMount] = []
        self._holds_signals = False

    @classmethod
    @contextmanager
    def started(cls, say: Say, *, grace_seconds: float = GRACE_SECONDS) -> Iterator["Keeper"]:
        """A keeper for the block; `say` tells the user a sentence. To be started by the main thread, before any key.

        Once the engine has run, signals are held back until the block ends: what is wiped in it is wiped to its end.
        """
        was_subreaper = linux.is_subreaper()
        linux.set_subreaper(True)  # if the keeper is killed, its children are ours to end
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        others = linux.children(os.getpid())
        ours, its = socket.socketpair()
        parent = os.getpid()
        mask = signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
        pid = os.fork()
        if pid == 0:
            ours.close()
            _keep(_Channel(its), parent, mask, say, grace_seconds)
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        its.close()
        keeper = cls(_Channel(ours), pid, others)
        try:
            yield keeper
        finally:
            ours.close()
            keeper.end()
            linux.set_subreaper(was_subreaper)
            while keeper._holds_signals and signal.sigtimedwait(_HELD, 0):
                pass  # they were the engine's
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    def watch(self, folder: Path) -> None:
        """Have `folder` removed if this process dies."""
        self._ask(b"watch", os.fsencode(folder))

    def mount(self, folder: Path, size: int) -> PrivateMount | str:
        """A tmpfs of `size` bytes over `folder`, for the engine alone; or why the system lets us have none."""
        answer, descriptor = self._ask(b"mount", os.fsencode(folder), str(size).encode())
        if descriptor is None:
            return answer[0].decode()
        self._mounts.append(PrivateMount(descriptor, swappable=answer[0] == b"swappable"))
        return self._mounts[-1]

    def run(self, command: Sequence[str]) -> int:
        """Run the engine until it and all that it started have ended; its exit code, 128 + n if signal n ended it.

        Signals sent to this process go to the engine; those from the terminal it gets by itself. Raises PalladionError
        if it cannot be started.
        """
        signal.pthread_sigmask(signal.SIG_BLOCK, _HELD)
        self._holds_signals = True
        answer, _ = self._ask(b"run", *map(os.fsencode, command))
        if answer != [b"started"]:
            raise PalladionError(f"{command[0]} cannot be run: {answer[0].decode()}")
        return self._attend()

    def end(self) -> None:
        """End the keeper, and the engine if it still runs."""
        while self._mounts:
            os.close(self._mounts.pop().descriptor)
        if self._pid is not None:
            with suppress(ProcessLookupError):
                os.kill(self._pid, _PARENT_DIED)
            os.waitpid(self._pid, 0)
            self._pid = None
            _end_children(except_for=self._others)

    def _ask(self, *request: bytes) -> tuple[list[bytes], int | None]:
        try:
            self._channel.send(*request)
            return self._channel.receive()
        except (EOFError, OSError):
            raise PalladionError("the process that was to run the engine has ended") from None

    def _attend(self) -> int:
        while self._pid is not None:
            info = signal.sigwaitinfo(_HELD)
            if info.si_signo != signal.SIGCHLD:
                # what a terminal sends (the code says so), it sends to the engine too
                if info.si_code <= 0:
                    os.kill(self._pid, info.si_signo)
                continue
            ended, status = os.waitpid(self._pid, os.WNOHANG)
            if ended:
                self._pid = None
        _end_children(except_for=self._others)  # there are some only if the keeper was killed
        return _exit_code(status)


class _Channel:
    """Requests and answers of a few byte strings each, and at most one descriptor, between the two processes."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end

    def send(self, *parts: bytes, descriptor: int | None = None) -> None:
        data = msgspec.msgpack.encode(parts)
        socket.send_fds(self._socket, [len(data).to_bytes(4, "little")], [] if descriptor is None else [descriptor])
        self._socket.sendall(data)

    def receive(self) -> tuple[list[bytes], int | None]:
        head, descriptors, _, _ = socket.recv_fds(self._socket, 4, 1)
        data = self._exactly(4 - len(head), head)
        parts = msgspec.msgpack.decode(self._exactly(int.from_bytes(data, "little")), type=list[bytes])
        return parts, descriptors[0] if descriptors else None

    def _exactly(self, count: int, data: bytes = b"") -> bytes:
        end = len(data) + count
        while len(data) < end:
            piece = self._socket.recv(end - len(data))
            if not piece:
                raise EOFError
            data += piece
        return data


def _keep(channel: _Channel, parent: int, mask: set[int], say: Say, grace_seconds: float) -> NoReturn:
    """The keeper: answers its supervisor until that ends or has it run the engine. Never returns."""
    code, folder = _BUG, None
    try:
        signal.pthread_sigmask(signal.SIG_BLOCK, {_PARENT_DIED})
        linux.set_subreaper(True)
        linux.set_dumpable(True)  # it holds no secret, and what is below /proc/self would be root's otherwise
        _die_with(parent)
        while True:
            request, *arguments = channel.receive()[0]
            if request == b"run":
                engine = _Engine(parent, mask, say, grace_seconds)
                code = engine.run(arguments, channel)
                break
            if request == b"watch":
                folder = Path(os.fsdecode(arguments[0]))
                channel.send(b"")
            else:
                _mount(Path(os.fsdecode(arguments[0])), int(arguments[1]), channel)
                _die_with(parent)  # entering a user namespace forgets it
    except (EOFError, ConnectionError):
        code = 0
    except Exception as error:  # noqa: BLE001 (the last resort of a process of its own)
        say(f"this is a bug: {type(error).__name__}: {error}")
    finally:
        if os.getppid() != parent and folder is not None:
            linux.unmount_memory(folder)
            shutil.rmtree(folder, ignore_errors=True)
        os._exit(code)


def _mount(folder: Path, size: int, channel: _Channel) -> None:
    """Mount what was asked for, in mounts of the keeper's own, or say why not."""
    trial = os.fork()
    if trial == 0:
        # in a process of its own: what fails half-way would leave the keeper in a namespace that is of no use
        number = 0
        try:
            linux.enter_private_mounts()
            linux.mount_memory(folder, size)
        except OSError as error:
            number = error.errno or _BUG
        finally:
            os._exit(number)
    number = os.waitstatus_to_exitcode(os.waitpid(trial, 0)[1])
    if number:
        channel.send(os.strerror(number).lower().encode())
        return
    linux.enter_private_mounts()
    descriptor, swappable = linux.mount_memory(folder, size)
    channel.send(b"swappable" if swappable else b"", descriptor=descriptor)
    os.close(descriptor)


class _Engine:
    """The engine's processes: the one that was started, and those whose parent the keeper has become."""

    def __init__(self, parent: int, mask: set[int], say: Say, grace_seconds: float) -> None:
        self._parent = parent
        self._mask = mask
        self._say = say
        self._grace_seconds = grace_seconds
        self._main: int | None = None
        self._code = 0
        self._deadline: float | None = None

    def run(self, command: Sequence[bytes], channel: _Channel) -> int:
        """Start it, tell the supervisor, and attend to it until all its processes have ended."""
        failure = self._start(command)
        channel.send(failure or b"started")
        if failure:
            return NOT_STARTED
        while self._is_left():
            info = self._next_signal()
            if info is None or info.si_signo == _PARENT_DIED or os.getppid() != self._parent:
                _end_children()
                break
            if info.si_signo != signal.SIGCHLD:
                self._forward(info)
        return self._code

    def _start(self, command: Sequence[bytes]) -> bytes:
        """Empty, or why it could not be started."""
        failure, failed = os.pipe()
        keeper = os.getpid()
        pid = os.fork()
        if pid == 0:
            _become(command, keeper, self._mask, failed)
        os.close(failed)
        with os.fdopen(failure, "rb") as stream:
            reason = stream.read()
        if reason:
            os.waitpid(pid, 0)
        self._main = pid
        return reason

    def _is_left(self) -> bool:
        """Take note of what has ended; whether anything still runs."""
        with suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    if self._main is None and self._deadline is None:
                        self._deadline = self._after_main()
                    return True
                if pid == self._main:
                    self._main, self._code = None, _exit_code(status)
        return False

    def _after_main(self) -> float:
        """The engine has ended and left others behind; when they are to be gone."""
        left = linux.children(os.getpid())
        names = ", ".join(sorted({linux.command_name(pid) for pid in left}))
        if self._code == 0:
            # a daemon, probably
            self._say(f"the engine has ended, and {len(left)} of its processes still use the model: {names}")
            return float("inf")
        self._say(f"the engine has failed; ending {len(left)} of its processes: {names}")
        _signal_all(left, signal.SIGTERM)
        return time.monotonic() + self._grace_seconds

    def _next_signal(self) -> signal.struct_siginfo | None:
        signals = _HELD | {_PARENT_DIED}
        if self._deadline is None or self._deadline == float("inf"):
            return signal.sigwaitinfo(signals)
        return signal.sigtimedwait(signals, max(self._deadline - time.monotonic(), 0))

    def _forward(self, info: signal.struct_siginfo) -> None:
        # from the supervisor alone: systemd, for one, signals each of us by itself
        passed_on = info.si_code <= 0 and info.si_pid == self._parent
        if self._main is not None:
            if passed_on:
                _signal_all([self._main], info.si_signo)
        elif passed_on or info.si_code > 0:
            # a daemon is no longer of the terminal's group
            _signal_all(linux.children(os.getpid()), info.si_signo)


def _become(command: Sequence[bytes], keeper: int, mask: set[int], failed: int) -> NoReturn:
    """Turn this new process into the engine, or write to `failed` why not. Never returns."""
    try:
        linux.set_parent_death_signal(signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(NOT_STARTED)
        _limit_cores(hard=NO_CORE_BYTES)
        for number in (signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)  # Python ignores them, and the engine would go on doing so
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        os.execvp(command[0], list(command))  # noqa: S606 (what the user asked for)
    except OSError as error:
        os.write(failed, os.strerror(error.errno or 0).lower().encode())
    finally:
        os._exit(NOT_STARTED)


def _die_with(parent: int) -> None:
    linux.set_parent_death_signal(_PARENT_DIED)
    if os.getppid() != parent:
        raise EOFError


def _limit_cores(*, hard: int) -> None:
    # a hard limit of 0 cannot be raised to 1 by everybody; the filter has to do then
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (NO_CORE_BYTES, hard))


def _end_children(*, except_for: Iterable[int] = ()) -> None:
    """Kill all children, and those that become ours thereby, until there are none."""
    while left := set(linux.children(os.getpid())).difference(except_for):
        _signal_all(left, signal.SIGKILL)
        for pid in left:
            os.waitpid(pid, 0)


def _signal_all(pids: Iterable[int], number: int) -> None:
    for pid in pids:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, number)


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code
