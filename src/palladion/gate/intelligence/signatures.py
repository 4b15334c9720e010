"""What clients ask, as signatures that known harvests can be compared with: in memory, bounded, off the data path.

A request only hands over what it asked; soon after, many queries are taken in at once, which costs a fraction for
each. Nothing is saved: after a restart a signature begins anew, as a harvest that goes on is known by its second half.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palladion.intel.sketch import RunningSketch, Sketch
from palladion.intel.writing import row_elements
from palladion.watch.watch import AnyAsked, Asked, AskedTexts, Observation, Watch

SKETCHES_MAX = 16_384  # clients with one, those who asked last: some 25 MB
WAITING_BYTES_MAX = 16 * 1024 * 1024  # of queries that wait for being taken in; more are left out, and counted
TEXT_BYTES_MAX = 65_536  # of one text: a longer one is asked once, and is not known by its hash
ROWS_AT_ONCE = 256  # some 3 ms of rows of 64 numbers, in which nothing else happens
WORK_SECONDS = 0.25

Compare = Callable[[str, Sketch], None]


class Seeing:
    """What requests are observed by where a feed lists harvests: the watch, and then the signatures."""

    def __init__(self, watch: Callable[[], Watch], signatures: "Signatures") -> None:
        self._watch = watch
        self._signatures = signatures

    def observe_all(self, model: str, asked: Sequence[AnyAsked], *, now: float) -> list[Observation]:
        """As the watch does."""
        observed = self._watch().observe_all(model, asked, now=now)
        # afterwards: of what cannot be observed together, each is tried again
        self._signatures.saw(asked)
        return observed


class _Rows(NamedTuple):
    """Queries of one request: rows of numbers, or texts."""

    client: str
    queries: NDArray[np.float64] | Sequence[bytes]
    size: int


class Signatures:
    """The running signatures of clients. For one event loop."""

    def __init__(self, compare: Compare) -> None:
        """`compare` gets the client, and the signature of all that it asked, at powers of two of its queries."""
        self._compare = compare
        self._sketches: OrderedDict[str, RunningSketch] = OrderedDict()  # who asked longest ago comes first
        self._waiting: deque[_Rows] = deque()
        self._bytes = 0
        self.left_out = 0  # queries for which there was no room

    def __len__(self) -> int:
        return len(self._sketches)

    def saw(self, asked: Sequence[AnyAsked]) -> None:
        """Take note of requests that were observed."""
        for item in asked:
            if isinstance(item, Asked):
                rows = _Rows(item.asker.client, item.inputs, item.inputs.nbytes)
            elif isinstance(item, AskedTexts):
                texts = [query.text.encode(errors="surrogatepass")[:TEXT_BYTES_MAX] for query in item.queries]
                rows = _Rows(item.asker.client, texts, sum(map(len, texts)))
            else:
                continue
            if self._bytes + rows.size > WAITING_BYTES_MAX:
                self.left_out += len(rows.queries)
                continue
            self._waiting.append(rows)
            self._bytes += rows.size

    async def run(self) -> None:
        """Take in what waits, again and again, until it is cancelled."""
        while True:
            await asyncio.sleep(WORK_SECONDS)
            await self.work()

    async def work(self) -> None:
        """Take in all that waits; requests have their turns in between."""
        while self._waiting:
            self._take_in(self._taken())
            await asyncio.sleep(0)

    def clear(self) -> None:
        """Forget everything: nothing is to be compared any more."""
        self._sketches.clear()
        self._waiting.clear()
        self._bytes = 0

    def _taken(self) -> list[_Rows]:
        """The next queries, of one kind and width, in order; a large request is taken in parts."""
        taken: list[_Rows] = []
        others: list[_Rows] = []
        rows, width = 0, None
        while self._waiting and rows < ROWS_AT_ONCE:
            item = self._waiting.popleft()
            if taken and _width(item) != width:
                others.append(item)
                continue
            width = _width(item)
            room = ROWS_AT_ONCE - rows
            if len(item.queries) > room:
                size = item.size * room // len(item.queries)
                self._waiting.appendleft(_Rows(item.client, item.queries[room:], item.size - size))
                item = _Rows(item.client, item.queries[:room], size)
            rows += len(item.queries)
            self._bytes -= item.size
            taken.append(item)
        self._waiting.extendleft(reversed(others))
        return taken

    def _take_in(self, taken: Sequence[_Rows]) -> None:
        if taken and _width(taken[0]) is not None:
            self._add_rows(taken)
            return
        for item in taken:
            for text in item.queries:
                self._add(item.client, bytes(text))

    def _add_rows(self, taken: Sequence[_Rows]) -> None:
        clients = [item.client for item in taken for _ in range(len(item.queries))]
        rows = np.concatenate([np.asarray(item.queries) for item in taken])
        # a client can send what is no number, which is nobody's harvest
        finite = np.isfinite(rows).all(axis=1)
        if not rows.shape[1] or not finite.any():
            return
        elements = iter(row_elements(rows[finite]))
        for client, good in zip(clients, finite.tolist(), strict=True):
            if good:
                self._add(client, next(elements))

    def _add(self, client: str, element: bytes) -> None:
        sketch = self._sketches.get(client)
        if sketch is None:
            sketch = self._sketches[client] = RunningSketch()
            while len(self._sketches) > SKETCHES_MAX:
                self._sketches.popitem(last=False)
        else:
            self._sketches.move_to_end(client)
        if sketch.add(element):
            self._compare(client, sketch.sketch())


def _width(rows: _Rows) -> int | None:
    """The numbers of each query; None for texts."""
    return rows.queries.shape[1] if isinstance(rows.queries, np.ndarray) else None
