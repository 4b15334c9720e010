"""A model that runs in this process, in threads of its own, straight from the memory that it was opened into.

What comes while all threads are busy waits in line, and is run together as soon as one is free, where the model's rows
stand alone (`batch`): so nobody waits for company, and the busier it is, the less each request costs.
"""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from palladion.errors import FormatError
from palladion.gate.contract import Outputs
from palladion.gate.decode import Feeds
from palladion.gate.problems import Problem
from palladion.gate.sources import batch
from palladion.gate.sources.layered import layers_of, run_shown
from palladion.model.run import Port, Session

ROWS_TOGETHER_MAX = 64  # beyond, a row costs hardly less, and all wait for the last
WAITING_ROWS_MAX = 65_536  # in line; a thread that is so far behind answers too late anyway
RETRY_SECONDS = 1


@dataclass(eq=False)
class _Waiting:
    """A request in line."""

    feeds: Feeds
    rows: int
    done: asyncio.Future[Outputs]


class Embedded:
    """A session and its threads. Satisfies `source.Source`."""

    def __init__(self, session: Session, *, threads: int, together: bool = False) -> None:
        """`together` runs rows of several requests at once: only for a model whose rows stand alone.

        Of a `layered.Layered` session, what its layers show comes with the outputs (`layered.taken`).
        """
        self.session = session
        self.layers = layers_of(session)
        self._together = together
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="model")
        self._free = threads
        self._line: deque[_Waiting] = deque()
        self._rows = 0  # in line
        self._expected = False  # that `_run` is called in this turn of the loop
        self._closed = False

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What it takes."""
        return self.session.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it gives."""
        return self.session.outputs

    @property
    def ready(self) -> bool:
        """It is in memory."""
        return True

    async def infer(self, feeds: Feeds, rows: int) -> Outputs:
        """Its outputs. Raises Problem."""
        if self._closed or self._rows + rows > WAITING_ROWS_MAX:
            raise Problem("busy", retry_after_seconds=RETRY_SECONDS)
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Outputs] = loop.create_future()
        self._line.append(_Waiting(feeds, rows, done))
        self._rows += rows
        self._expect(loop)
        try:
            return await done
        except (FormatError, ValueError):
            # what the runtime says may tell of the model's inside
            raise Problem("model-failed") from None

    async def close(self) -> None:
        """Wait for what runs; what has not begun is refused."""
        self._closed = True
        while self._line:
            waiting = self._line.popleft()
            if not waiting.done.done():
                waiting.done.set_exception(Problem("busy", retry_after_seconds=RETRY_SECONDS))
        self._rows = 0
        await asyncio.to_thread(self._threads.shutdown, wait=True)

    def _expect(self, loop: asyncio.AbstractEventLoop) -> None:
        # what else this turn of the loop brings comes along
        if self._free and not self._expected:
            self._expected = True
            loop.call_soon(self._run, loop)

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        self._expected = False
        while self._free and (some := self._take()):
            self._free -= 1
            asked = [(item.feeds, item.rows) for item in some]
            running = loop.run_in_executor(self._threads, _outcomes, self.session, asked)
            running.add_done_callback(partial(self._tell, loop, some))

    def _take(self) -> list[_Waiting]:
        """The next requests that run at once, in order."""
        some: list[_Waiting] = []
        rows = 0
        while self._line:
            item = self._line[0]
            if not item.done.done():  # somebody still waits for it
                fits = self._together and rows + item.rows <= ROWS_TOGETHER_MAX
                if some and not (fits and batch.alike(some[0].feeds, item.feeds)):
                    break
                some.append(item)
                rows += item.rows
            self._rows -= self._line.popleft().rows
        return some

    def _tell(
        self,
        loop: asyncio.AbstractEventLoop,
        some: Sequence[_Waiting],
        ran: asyncio.Future[list[Outputs | Exception]],
    ) -> None:
        self._free += 1
        for item, outcome in zip(some, ran.result(), strict=True):
            if item.done.done():
                continue  # gave up meanwhile
            if isinstance(outcome, Exception):
                item.done.set_exception(outcome)
            else:
                item.done.set_result(outcome)
        if self._line:
            self._expect(loop)


def _outcomes(session: Session, asked: Sequence[tuple[Feeds, int]]) -> list[Outputs | Exception]:
    """The outputs of each request, or why there are none; what fails one, fails no other."""
    try:
        if len(asked) == 1:
            return [run_shown(session, asked[0][0])]
        outputs = run_shown(session, batch.joined([feeds for feeds, _ in asked]))
        return [*batch.parted(outputs, [rows for _, rows in asked])]
    except Exception as error:  # noqa: BLE001 (whoever asked gets it)
        if len(asked) == 1:
            return [error]
        return [outcome for one in asked for outcome in _outcomes(session, [one])]
