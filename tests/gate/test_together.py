"""Observed together: what each request is told and does is as if it had come alone, and in its turn."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from palladion.clock import ManualClock
from palladion.gate.callers import Caller
from palladion.gate.problems import Problem
from palladion.gate.together import ROWS_AT_ONCE, Showing, Together
from palladion.policy import WatchPolicy
from palladion.registry import Client
from palladion.watch.watch import AnyAsked, Asked, Asker, Observation, Watch
from tests.lifecycle.installations import NOW

from .gates import MODEL, OTHER_MODEL, Bench, House, open_gate, tiny_calibration

WIDTH = 4
CALIBRATION = tiny_calibration(width=WIDTH)


class NotingWatch(Watch):
    """A real watch that notes what was observed at once; `broken` is a client whose queries cannot be measured."""

    def __init__(self) -> None:
        super().__init__(WatchPolicy())
        self.runs: list[list[str]] = []
        self.broken = ""
        for model in (MODEL, OTHER_MODEL):
            self.watch_model(model, CALIBRATION, {})

    def observe_all(self, model: str, asked: Sequence[AnyAsked], *, now: float) -> list[Observation]:
        self.runs.append([item.asker.client for item in asked])
        if self.broken in self.runs[-1]:
            raise ValueError("cannot be measured")
        return super().observe_all(model, asked, now=now)


def _caller(name: str) -> Caller:
    return Caller(Client(name, name, name, (), "trusted", NOW, None), "trusted", NOW, "watch")


class Line:
    """Requests that come in one turn of the loop, and in what order they were answered."""

    def __init__(self, watch: Watch) -> None:
        self.together = Together(lambda: watch, ManualClock(NOW))
        self.order: list[str] = []

    async def ask(
        self,
        client: str,
        *,
        rows: int = 1,
        seed: int = 0,
        model: str = MODEL,
        alone: bool = False,
        show: Callable[[], None] = lambda: None,
        answer: Callable[[], None] = lambda: None,
    ) -> Observation:
        def showing() -> Showing:
            show()
            inputs = np.random.default_rng(seed).standard_normal((rows, WIDTH))
            scores = np.full((rows, 3), 1 / 3)
            return Showing(_caller(client), model, Asked(Asker(client, client), inputs, scores), alone)

        def answered(caller: Caller, observation: Observation) -> Observation:
            self.order.append(caller.id)
            answer()
            return observation

        return await self.together.observe(model, showing, answered)


def _fail(error: Exception) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


def test_what_comes_in_one_turn_is_observed_together_and_answered_in_order() -> None:
    watch = NotingWatch()
    line = Line(watch)

    async def work() -> None:
        await asyncio.gather(*(line.ask(name) for name in "abc"))

    asyncio.run(work())
    assert watch.runs == [["a", "b", "c"]]
    assert line.order == ["a", "b", "c"]


def test_requests_of_other_models_are_taken_together_as_well() -> None:
    watch = NotingWatch()
    line = Line(watch)

    async def work() -> None:
        models = [MODEL, OTHER_MODEL] * 2
        await asyncio.gather(*(line.ask(name, model=model) for name, model in zip("abcd", models, strict=True)))

    asyncio.run(work())
    assert watch.runs == [["a", "c"], ["b", "d"]]


def test_who_may_begin_anew_is_observed_after_those_before_it_are_answered_and_before_the_next() -> None:
    watch = NotingWatch()
    line = Line(watch)
    answered: list[list[str]] = []

    async def work() -> None:
        await asyncio.gather(
            line.ask("a"),
            line.ask("b", alone=True, show=lambda: answered.append([*line.order])),
            line.ask("c", show=lambda: answered.append([*line.order])),
        )

    asyncio.run(work())
    assert watch.runs == [["a"], ["b"], ["c"]]
    assert answered[-1] == ["a", "b"]
    assert ["a"] in answered


def test_no_more_rows_are_observed_at_once_than_the_loop_can_wait_for() -> None:
    watch = NotingWatch()
    line = Line(watch)

    async def work() -> None:
        await asyncio.gather(*(line.ask(name, rows=ROWS_AT_ONCE // 2) for name in "abc"), line.ask("d", rows=1))

    asyncio.run(work())
    assert watch.runs == [["a", "b"], ["c", "d"]]


def test_a_request_that_cannot_be_measured_fails_alone() -> None:
    watch = NotingWatch()
    watch.broken = "b"
    line = Line(watch)

    async def work() -> list[Any]:
        return await asyncio.gather(*(line.ask(name) for name in "abc"), return_exceptions=True)

    results = asyncio.run(work())
    assert [type(result) for result in results] == [Observation, ValueError, Observation]
    assert line.order == ["a", "c"]


def test_who_is_refused_now_is_not_observed_and_stops_nobody() -> None:
    watch = NotingWatch()
    line = Line(watch)

    async def work() -> list[Any]:
        refused = line.ask("a", show=_fail(Problem("unauthenticated")))
        return list(await asyncio.gather(refused, line.ask("b"), return_exceptions=True))

    results = asyncio.run(work())
    assert isinstance(results[0], Problem)
    assert watch.runs == [["b"]]


def test_an_answer_that_fails_is_its_own_affair() -> None:
    line = Line(NotingWatch())

    async def work() -> list[Any]:
        failing = line.ask("a", answer=_fail(RuntimeError("a bug")))
        return list(await asyncio.gather(failing, line.ask("b"), return_exceptions=True))

    results = asyncio.run(work())
    assert isinstance(results[0], RuntimeError)
    assert isinstance(results[1], Observation)


def test_who_gave_up_before_its_turn_is_not_observed() -> None:
    watch = NotingWatch()
    line = Line(watch)

    async def work() -> None:
        given_up, stays = (asyncio.create_task(line.ask(name)) for name in "ab")
        await asyncio.sleep(0)  # lets both stand in line
        given_up.cancel()
        await asyncio.gather(given_up, stays, return_exceptions=True)

    asyncio.run(work())
    assert watch.runs == [["b"]]


class Disk:
    """What keeps the line: a ledger that is being written, as long as a test says so."""

    def __init__(self, line: Line) -> None:
        self.is_busy = True
        line.together.wait_for(self)

    def follow(self, follow: Callable[[], None]) -> None:
        self.go_on = follow


async def _turns(count: int = 8) -> None:
    """More turns of the loop than anything here takes."""
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_comes_while_the_ledger_is_written_waits_and_is_observed_together() -> None:
    watch = NotingWatch()
    line = Line(watch)
    disk = Disk(line)

    async def work() -> None:
        asking = []
        for name in "abc":  # each in a turn of its own
            asking.append(asyncio.create_task(line.ask(name)))
            await _turns()
        assert watch.runs == []
        disk.go_on()  # though it is busy again: no request waits for more than one write
        await asyncio.gather(*asking)

    asyncio.run(work())
    assert watch.runs == [["a", "b", "c"]]


def test_what_comes_before_the_records_of_those_before_it_are_handed_over_waits_for_them() -> None:
    watch = NotingWatch()
    line = Line(watch)
    disk = Disk(line)
    disk.is_busy = False

    asking: list[asyncio.Task[Any]] = []

    def come() -> None:
        asking.append(asyncio.create_task(line.ask("b")))

    async def first() -> None:
        await line.ask("a", answer=come)
        # where a recorder is asked, which hands over in the next turn of the loop
        asyncio.get_running_loop().call_soon(setattr, disk, "is_busy", True)

    async def work() -> None:
        await first()
        await _turns()
        assert watch.runs == [["a"]]
        disk.is_busy = False
        disk.go_on()
        await asyncio.gather(*asking)

    asyncio.run(work())
    assert watch.runs == [["a"], ["b"]]


def test_who_waited_for_a_write_does_not_wait_for_those_of_other_models() -> None:
    watch = NotingWatch()
    line = Line(watch)
    disk = Disk(line)
    disk.is_busy = False

    def answered() -> None:
        disk.is_busy = True

    async def work() -> None:
        await asyncio.gather(
            line.ask("a", answer=answered), line.ask("b", model=OTHER_MODEL), line.ask("c", rows=ROWS_AT_ONCE)
        )

    asyncio.run(asyncio.wait_for(work(), 10))
    assert watch.runs == [["a", "c"], ["b"]]


def test_nobody_waits_for_a_write_that_is_over() -> None:
    line = Line(NotingWatch())
    disk = Disk(line)

    async def work() -> None:
        disk.is_busy = False
        for name in "abc":
            await line.ask(name)
        disk.go_on()  # finds nobody
        await line.ask("d")

    asyncio.run(asyncio.wait_for(work(), 10))
    assert line.order == list("abcd")


def test_a_loop_that_ended_amid_it_keeps_nobody_of_the_next_one() -> None:
    watch = NotingWatch()
    line = Line(watch)

    async def left() -> asyncio.Task[Observation]:
        asked = asyncio.create_task(line.ask("a"))
        while not watch.runs:
            await asyncio.sleep(0)
        return asked

    loop = asyncio.new_event_loop()
    asked = loop.run_until_complete(left())
    loop.close()  # before anything that follows from the observation
    asked.get_coro().close()
    asyncio.run(asyncio.wait_for(line.ask("b"), 10))
    assert watch.runs == [["a"], ["b"]]


@pytest.mark.slow
@settings(max_examples=30, deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(1, 3), st.integers(0, 5), st.booleans()), min_size=1, max_size=12
    )
)
def test_observed_together_is_observed_alone(requests: list[tuple[str, int, int, bool]]) -> None:
    def results(*, at_once: bool) -> list[Any]:
        line = Line(NotingWatch())

        async def work() -> list[Observation]:
            asking = [
                line.ask(client, rows=rows, seed=seed, model=MODEL if first else OTHER_MODEL)
                for client, rows, seed, first in requests
            ]
            return list(await asyncio.gather(*asking)) if at_once else [await one for one in asking]

        return [(found.evidence, found.verdict, found.distinct, found.new_buckets) for found in asyncio.run(work())]

    assert results(at_once=True) == results(at_once=False)


# through the gate


def _together(bench: Bench, *clients: str) -> list[int]:
    return [response.status for response in bench.ask_all([bench.request(client=name) for name in clients])]


@pytest.fixture
def bench(house: House) -> Bench:
    return open_gate(house)


def test_requests_at_once_are_recorded_in_the_order_in_which_they_were_observed(bench: Bench) -> None:
    for client in ("acme", "globex"):
        assert _together(bench, client) == [200]  # their seeds are made by now, for which each waits on its own
    del bench.journal.records[:]
    assert _together(bench, "acme", "globex", "acme") == [200] * 3
    names = [bench.gate.stages.name(bench.house.ids[client]) for client in ("acme", "globex", "acme")]
    assert [record.actor for record in bench.journal.records] == names


def test_the_first_of_two_requests_at_once_that_lowers_a_client_counts_for_the_second(bench: Bench) -> None:
    bench.watch.verdict = replace(bench.watch.verdict, standing="suspended", cause="client")
    assert _together(bench, "acme", "acme") == [403, 403]
    assert bench.kinds == ["standing.changed"]


def test_a_client_that_is_raised_is_observed_on_its_own_and_begins_anew_once(bench: Bench) -> None:
    bench.put("watched", actor="watch")
    hours = bench.gate.stages.policy.watch.recover_hours
    bench.clock.advance(timedelta(hours=hours + 1))
    assert _together(bench, "acme", "acme") == [200, 200]
    assert bench.watch.forgiven == [bench.house.ids["acme"]]
    assert bench.standing() == "trusted"


def test_a_change_is_recorded_though_nobody_waits_any_more(bench: Bench) -> None:
    bench.watch.verdict = replace(bench.watch.verdict, standing="throttled", cause="client")

    async def work() -> None:
        before: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        bench.journal.before = lambda: before
        asking = asyncio.create_task(bench.gate.handle(bench.request()))
        while not bench.gate.stages.unrecorded:
            await asyncio.sleep(0)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        before.set_result(None)
        await bench.gate.stages.close()

    asyncio.run(work())
    assert bench.kinds == ["standing.changed", "answer.given"]
