"""A model that runs here: what waits is run together, and nobody is harmed by whom it was run with."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.gate.problems import Problem
from palladion.gate.sources import embedded as module
from palladion.gate.sources.embedded import ROWS_TOGETHER_MAX, Embedded
from palladion.model.run import Port, Session

_Result = TypeVar("_Result")
Arrays = Mapping[str, NDArray[Any]]

WAIT_SECONDS_MAX = 30.0  # for another thread; a test that reaches it has failed


class Doubling(Session):
    """A model that doubles its rows, notes how many it gets at once, waits for the test, and fails on negative ones."""

    def __init__(self) -> None:
        port = Port("x", "float32", ("rows", None))
        super().__init__(None, (port,), (Port("y", "float32", ("rows", None)),))
        self.rows: list[int] = []
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()

    def run(self, feeds: Arrays) -> dict[str, NDArray[Any]]:
        self.begun.set()
        assert self.go_on.wait(WAIT_SECONDS_MAX)
        self.rows.append(len(feeds["x"]))
        if (feeds["x"] < 0).any():
            raise FormatError("what a model says of its inside")
        return {"y": feeds["x"] * 2}

    async def has_begun(self) -> None:
        assert await asyncio.to_thread(self.begun.wait, WAIT_SECONDS_MAX)


@pytest.fixture
def session() -> Doubling:
    return Doubling()


def _use(source: Embedded, work: Callable[[], Awaitable[_Result]]) -> _Result:
    async def run() -> _Result:
        try:
            return await asyncio.wait_for(work(), WAIT_SECONDS_MAX)
        finally:
            await source.close()

    return asyncio.run(run())


async def _ask(source: Embedded, *values: float, width: int = 1) -> list[float]:
    rows = np.array(values, np.float32)[:, None].repeat(width, axis=1)
    outputs = await source.infer({"x": rows}, len(values))
    assert outputs["y"].shape == rows.shape
    return [float(value) for value in outputs["y"][:, 0]]


def _while_busy(
    source: Embedded, session: Doubling, *asked: tuple[float, ...], then: Callable[[list[Any]], None] = lambda _: None
) -> list[Any]:
    """What becomes of requests that come while the first one runs."""
    session.go_on.clear()

    async def work() -> list[Any]:
        first = asyncio.create_task(_ask(source, 0.5))
        await session.has_begun()
        others = [asyncio.create_task(_ask(source, *values)) for values in asked]
        await asyncio.sleep(0)  # lets each stand in line
        then(others)
        session.go_on.set()
        return list(await asyncio.gather(first, *others, return_exceptions=True))[1:]

    return _use(source, work)


def test_what_comes_while_the_model_runs_is_run_together(session: Doubling) -> None:
    source = Embedded(session, threads=1, together=True)
    assert _while_busy(source, session, (1,), (2, 3), (4,)) == [[2], [4, 6], [8]]
    assert session.rows == [1, 4]


def test_what_comes_in_one_moment_is_run_together(session: Doubling) -> None:
    source = Embedded(session, threads=2, together=True)

    async def work() -> list[Any]:
        return await asyncio.gather(*(_ask(source, value) for value in (1, 2, 3)))

    assert _use(source, work) == [[2], [4], [6]]
    assert session.rows == [3]


def test_a_model_whose_rows_do_not_stand_alone_runs_each_request_alone(session: Doubling) -> None:
    source = Embedded(session, threads=1)
    assert _while_busy(source, session, (1,), (2, 3)) == [[2], [4, 6]]
    assert session.rows == [1, 1, 2]


def test_a_row_that_fails_does_not_fail_others(session: Doubling) -> None:
    source = Embedded(session, threads=1, together=True)
    results = _while_busy(source, session, (1,), (-2,), (3,))
    assert [results[0], results[2]] == [[2], [6]]
    assert isinstance(results[1], Problem)
    assert "inside" not in str(results[1])
    assert session.rows == [1, 3, 1, 1, 1]


def test_rows_of_other_shapes_are_run_in_their_turn(session: Doubling) -> None:
    source = Embedded(session, threads=1, together=True)

    async def work() -> list[Any]:
        asked = [(1.0, 1), (2.0, 1), (3.0, 2), (4.0, 1)]
        return await asyncio.gather(*(_ask(source, value, width=width) for value, width in asked))

    assert _use(source, work) == [[2], [4], [6], [8]]
    assert session.rows == [2, 1, 1]


def test_a_run_has_no_more_rows_than_all_can_wait_for(session: Doubling) -> None:
    source = Embedded(session, threads=1, together=True)
    many = tuple(float(value) for value in range(ROWS_TOGETHER_MAX))
    results = _while_busy(source, session, many[:-1], (1,), (2,), (*many, 1.0), (3,))
    assert [len(result) for result in results] == [len(many) - 1, 1, 1, len(many) + 1, 1]
    assert session.rows == [1, ROWS_TOGETHER_MAX, 1, ROWS_TOGETHER_MAX + 1, 1]


def test_who_gives_up_in_line_is_not_run(session: Doubling) -> None:
    source = Embedded(session, threads=1, together=True)
    results = _while_busy(source, session, (1,), (2,), then=lambda tasks: tasks[0].cancel() and None)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1] == [4]
    assert session.rows == [1, 1]


def test_the_line_is_bounded_and_moves_on(session: Doubling, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "WAITING_ROWS_MAX", 3)
    source = Embedded(session, threads=1, together=True)
    results = _while_busy(source, session, (1, 2), (3, 4), (5,))
    # the third fits again
    assert results[0] == [2, 4]
    assert isinstance(results[1], Problem)
    assert results[1].kind == "busy"
    assert results[2] == [10]


def test_closing_waits_for_what_runs_and_refuses_what_waits(session: Doubling) -> None:
    source = Embedded(session, threads=1, together=True)
    session.go_on.clear()

    async def work() -> list[Any]:
        first = asyncio.create_task(_ask(source, 1))
        await session.has_begun()
        second = asyncio.create_task(_ask(source, 2))
        await asyncio.sleep(0)
        closing = asyncio.create_task(source.close())
        await asyncio.sleep(0)
        third = asyncio.create_task(_ask(source, 3))
        await asyncio.sleep(0)
        session.go_on.set()
        await closing
        return list(await asyncio.gather(first, second, third, return_exceptions=True))

    results = asyncio.run(work())
    assert results[0] == [2]
    assert [result.kind for result in results[1:]] == ["busy", "busy"]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.lists(st.integers(-1, 20), min_size=1, max_size=5), min_size=1, max_size=12),
    st.integers(1, 3),
)
def test_run_together_is_run_alone(requests: list[list[int]], threads: int) -> None:
    def results(*, together: bool) -> list[Any]:
        source = Embedded(Doubling(), threads=threads, together=together)

        async def work() -> list[Any]:
            asking = (_ask(source, *map(float, values)) for values in requests)
            return list(await asyncio.gather(*asking, return_exceptions=True))

        return [found.kind if isinstance(found, Problem) else found for found in _use(source, work)]

    assert results(together=True) == results(together=False)
