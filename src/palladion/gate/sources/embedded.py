"""A model that runs in this process, in threads of its own, straight from the memory that it was opened into."""

import asyncio
from concurrent.futures import ThreadPoolExecutor

from palladion.errors import FormatError
from palladion.gate.contract import Outputs
from palladion.gate.decode import Feeds
from palladion.gate.problems import Problem
from palladion.model.run import Port, Session


class Embedded:
    """A session and its threads. Satisfies `source.Source`."""

    def __init__(self, session: Session, *, threads: int) -> None:
        self.session = session
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="model")

    @property
    def inputs(self) -> tuple[Port, ...]:
        """What it takes."""
        return self.session.inputs

    @property
    def outputs(self) -> tuple[Port, ...]:
        """What it gives."""
        return self.session.outputs

    async def infer(self, feeds: Feeds, rows: int) -> Outputs:
        """Its outputs. Raises Problem."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, self.session.run, feeds)
        except (FormatError, ValueError):
            # what the runtime says may tell of the model's inside
            raise Problem("model-failed") from None

    async def close(self) -> None:
        """Wait for what runs; what has not begun is dropped."""
        await asyncio.to_thread(self._threads.shutdown, wait=True, cancel_futures=True)
