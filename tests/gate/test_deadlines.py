"""Deadlines: what takes too long ends as by `asyncio.timeout`, a little later, and nothing else is touched."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from palladion.gate import deadlines as module
from palladion.gate.deadlines import Deadlines


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The timer looks in every turn of the loop, so that no test waits."""
    monkeypatch.setattr(module, "LATE_SECONDS", 0.0)


async def _for_ever() -> None:
    await asyncio.get_running_loop().create_future()


def _run(work: Callable[[Deadlines], Coroutine[Any, Any, Any]]) -> Any:
    return asyncio.run(work(Deadlines()))


def test_what_takes_too_long_ends_with_a_timeout() -> None:
    async def work(deadlines: Deadlines) -> None:
        with deadlines.within(0):
            await _for_ever()

    with pytest.raises(TimeoutError):
        _run(work)


def test_the_task_goes_on_after_its_deadline() -> None:
    async def work(deadlines: Deadlines) -> tuple[int, str]:
        with pytest.raises(TimeoutError), deadlines.within(0):
            await _for_ever()
        await asyncio.sleep(0)
        task = asyncio.current_task()
        assert task is not None
        return task.cancelling(), "here"

    assert _run(work) == (0, "here")


def test_what_is_done_in_time_is_left_alone() -> None:
    async def work(deadlines: Deadlines) -> str:
        with deadlines.within(math.inf):
            await asyncio.sleep(0)
        for _ in range(3):
            await asyncio.sleep(0)
        return "done"

    assert _run(work) == "done"


def test_only_those_are_ended_whose_time_is_over() -> None:
    async def one(deadlines: Deadlines, seconds: float, go_on: asyncio.Event) -> str:
        try:
            with deadlines.within(seconds):
                await go_on.wait()
        except TimeoutError:
            return "late"
        return "done"

    async def work(deadlines: Deadlines) -> list[str]:
        go_on = asyncio.Event()
        tasks = [asyncio.create_task(one(deadlines, seconds, go_on)) for seconds in (0, math.inf, 0)]
        await asyncio.wait([tasks[0], tasks[2]])
        go_on.set()
        return list(await asyncio.gather(*tasks))

    assert _run(work) == ["late", "done", "late"]


def test_a_task_that_somebody_else_cancels_is_cancelled() -> None:
    async def waiting(deadlines: Deadlines, seconds: float) -> None:
        with deadlines.within(seconds):
            await _for_ever()

    async def work(deadlines: Deadlines) -> bool:
        task = asyncio.create_task(waiting(deadlines, math.inf))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return task.cancelled()

    assert _run(work) is True


def test_an_error_of_its_own_stays_what_it_is() -> None:
    async def work(deadlines: Deadlines) -> None:
        with deadlines.within(0):
            raise KeyError("its own")

    with pytest.raises(KeyError):
        _run(work)


def test_of_two_deadlines_the_inner_one_is_told_apart() -> None:
    async def work(deadlines: Deadlines) -> str:
        with deadlines.within(math.inf):
            try:
                with deadlines.within(0):
                    await _for_ever()
            except TimeoutError:
                return "inner"
        return "outer"

    assert _run(work) == "inner"


def test_deadlines_hold_in_the_next_loop_as_well() -> None:
    deadlines = Deadlines()

    async def work() -> None:
        with deadlines.within(0):
            await _for_ever()

    for _ in range(2):
        with pytest.raises(TimeoutError):
            asyncio.run(work())
