"""The worker processes of one program, from the gate's side: given work, killed when late or broken, started anew.

The gate believes nothing that a worker says but bytes for the client, no more of them than an answer can have.
"""

import asyncio
import json
import logging
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from palladion.gate.encrypted import frames
from palladion.private.homomorphic.envelope import Form

# numpy would start as many threads as there are cores, in each worker
ENVIRONMENT = {"PATH": "/usr/bin:/bin", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
# Isolated, it looks nowhere but where Python itself is: not in PYTHONPATH, which images of containers use, nor in the
# user's packages. It is told where the gate found what it runs.
START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from palladion.gate.encrypted.worker import main; main(sys.argv[2:])"
)
START_SECONDS_MAX = 120.0  # importing NumPy and encoding a program of thousands of diagonals, on a busy machine
CPU_SECONDS_MAX = 3600  # of one worker; it is replaced after REPLACED_AFTER answers, long before
REPLACED_AFTER = 1000  # answers: whoever took one over has it for no longer
KEYS_IN_WORKER = 16  # sets of evaluation keys that a worker holds
KEYS_PART = 4  # of a worker's memory that they may take, beyond one set: they are sent, parsed and computed with

log = logging.getLogger("palladion.gate")


class WorkerError(Exception):
    """A worker has ended, or says what it must not."""


class RefusedError(Exception):
    """What a client sent cannot be computed on; the text is SEAL's or ours, and says nothing of the model."""


@dataclass(frozen=True, eq=False)
class Keys:
    """Evaluation keys of a client: their id, and their bytes."""

    id: str
    rotation: bytes
    squares: bytes


class Workers:
    """The workers of one program. For one event loop."""

    def __init__(self, program: bytes, *, count: int, memory_bytes: int, answer_bytes_max: int) -> None:
        """`program` is the file; `answer_bytes_max` is what an answer can have. None is started yet."""
        self._program = program
        self._memory_bytes, self._answer_bytes_max = memory_bytes, answer_bytes_max
        self._idle: asyncio.Queue[_Process | None] = asyncio.Queue()
        for _ in range(count):
            self._idle.put_nowait(None)
        self._running: set[_Process] = set()
        self._closed = False
        self.died = 0  # workers that ended by themselves, or were killed for being late
        self.filtered = True  # whether the newest one filters its system calls

    async def start(self) -> None:
        """Start one, to find out whether it can be. Raises WorkerError."""
        async with self._one():
            pass

    async def evaluate(
        self, keys: Keys | None, form: Form, parts: Sequence[bytes], *, begun: Callable[[], None] = lambda: None
    ) -> list[bytes]:
        """Compute the answer to ciphertexts. Whoever stops waiting has the worker killed.

        Calls `begun` once a worker has its turn with them, before a byte of theirs goes there. Raises WorkerError where
        it dies of that, RefusedError where they cannot be computed on.
        """
        async with self._one() as process:
            begun()
            kind = frames.COLUMNS if form == "columns" else frames.INTERLEAVED
            return await process.evaluate(keys, kind, parts, self._answer_bytes_max)

    async def close(self) -> None:
        """Kill all of them."""
        self._closed = True
        for process in list(self._running):
            await self._end(process)

    @asynccontextmanager
    async def _one(self) -> "AsyncIterator[_Process]":
        process = await self._idle.get()
        try:
            if process is None or not process.is_well:
                if process is not None:
                    await self._end(process)
                process = await self._started()
            yield process
        except RefusedError:
            # it said so itself, and goes on
            raise
        except BaseException:
            # late, dead, or in the middle of an answer that nobody takes
            self.died += 1
            if process is not None:
                gone, process = process, None
                await asyncio.shield(self._end(gone))
            raise
        finally:
            try:
                if process is not None and process.answered >= REPLACED_AFTER:
                    gone, process = process, None
                    await self._end(gone)
            finally:
                # whatever interrupts this: a place that is lost is lost for good
                self._idle.put_nowait(process)

    async def _started(self) -> "_Process":
        if self._closed:
            raise WorkerError("the gate is closing")
        child = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-c", START, json.dumps(_places())),
            *(str(self._memory_bytes), str(CPU_SECONDS_MAX)),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=ENVIRONMENT,
        )
        process = _Process(child, self._memory_bytes // KEYS_PART)
        self._running.add(process)
        try:
            async with asyncio.timeout(START_SECONDS_MAX):
                await process.send(frames.PROGRAM, [self._program])
                kind, parts = await process.receive(1)
        except BaseException as error:
            await asyncio.shield(self._end(process))
            if isinstance(error, TimeoutError):
                raise WorkerError("a worker did not start in time") from None
            raise
        if kind != frames.READY:
            raise WorkerError("a worker did not start")
        if parts == [b"\x00"] and self.filtered:
            log.warning("workers for encrypted queries run without a filter of system calls: not known on this machine")
        self.filtered = parts != [b"\x00"]
        return process

    async def _end(self, process: "_Process") -> None:
        self._running.discard(process)
        with suppress(ProcessLookupError):
            process.child.kill()
        await process.child.wait()


class _Process:
    """One worker."""

    def __init__(self, child: asyncio.subprocess.Process, keys_bytes_max: int) -> None:
        self.child = child
        self.answered = 0
        self._keys_bytes_max = keys_bytes_max
        self._keys: dict[str, int] = {}  # bytes of those that it holds, the ones used last at the end

    @property
    def is_well(self) -> bool:
        return self.child.returncode is None

    async def evaluate(self, keys: Keys | None, kind: int, parts: Sequence[bytes], bytes_max: int) -> list[bytes]:
        name = b""
        if keys is not None:
            name = keys.id.encode()
            size = self._keys.pop(keys.id, 0)
            if not size:
                size = len(keys.rotation) + len(keys.squares)
                await self._make_room(size)
                await self.send(frames.KEYS, [name, keys.rotation, keys.squares])
            self._keys[keys.id] = size
        await self.send(kind, [name, *parts])
        answer, found = await self.receive(bytes_max)
        self.answered += 1
        if answer == frames.REFUSED and len(found) == 1:
            if keys is not None:
                # it may have had no memory for them: sent again the next time
                self._keys.pop(keys.id, None)
            raise RefusedError(found[0].decode("utf-8", errors="replace"))
        if answer != frames.ANSWER:
            raise WorkerError("a worker answered what was not asked")
        return found

    async def _make_room(self, size: int) -> None:
        while self._keys and (
            len(self._keys) >= KEYS_IN_WORKER or sum(self._keys.values()) + size > self._keys_bytes_max
        ):
            oldest = next(iter(self._keys))
            del self._keys[oldest]
            await self.send(frames.DROP, [oldest.encode()])

    async def send(self, kind: int, parts: Sequence[bytes]) -> None:
        stream = self.child.stdin
        if stream is None:
            raise WorkerError("a worker has no input")
        try:
            stream.write(frames.head(kind, parts))
            for part in parts:
                stream.write(part)
                await stream.drain()
            await stream.drain()
        except (OSError, RuntimeError):
            raise WorkerError("a worker ended") from None

    async def receive(self, bytes_max: int) -> tuple[int, list[bytes]]:
        stream = self.child.stdout
        if stream is None:
            raise WorkerError("a worker has no output")
        try:
            kind, count = frames.parse_head(await stream.readexactly(frames.HEAD_BYTES))
            # a reason why not is short, and answers are no longer than they can be
            most = max(bytes_max, 4096)
            sizes = frames.parse_sizes(await stream.readexactly(count), bytes_max=most)
            return kind, [await stream.readexactly(size) for size in sizes]
        except (asyncio.IncompleteReadError, OSError, ValueError):
            raise WorkerError("a worker ended") from None


def _places() -> list[str]:
    """Where this process imports from; not the folder that it happens to run in."""
    here = Path.cwd()
    return [place for place in sys.path if Path(place).is_absolute() and Path(place) != here]
