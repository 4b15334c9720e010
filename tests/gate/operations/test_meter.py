"""What is counted of requests, and what that costs."""

import time

import pytest

from palladion.gate.operations.meter import BOUNDS, SAMPLES_MAX, TIMED_EVERY, Histogram, Meter, Sampler


def test_a_duration_is_counted_at_the_first_bound_that_it_does_not_pass() -> None:
    histogram = Histogram()
    for seconds in (0.0, BOUNDS[0], BOUNDS[0] * 1.01, BOUNDS[-1] + 1):
        histogram.observe(seconds)
    assert histogram.counts[:2] == [2, 1]
    assert histogram.counts[-1] == 1
    assert histogram.count == 4
    assert histogram.seconds == pytest.approx(BOUNDS[0] * 2.01 + BOUNDS[-1] + 1)


def test_requests_are_counted_by_route_status_and_problem() -> None:
    meter = Meter()
    for status, problem in ((200, ""), (200, ""), (429, "rate-limited")):
        meter.answered("/a", status, problem, 0.001, str)
    assert meter.requests == {("/a", 200, ""): 2, ("/a", 429, "rate-limited"): 1}
    assert meter.latency["/a"].count == 3


def test_stages_are_timed_of_the_first_request_and_of_every_eighth_after() -> None:
    meter = Meter()
    for _ in range(2 * TIMED_EVERY + 1):
        ended = meter.laps()
        for stage in meter.stages:
            ended(stage)
    assert {histogram.count for histogram in meter.stages.values()} == {3}


def test_one_of_so_many_requests_is_kept_and_given_once() -> None:
    meter, sampler = Meter(), Sampler(3)
    meter.samplers = [sampler]
    for number in range(7):
        meter.answered("/a", 200, "", 0.5, lambda number=number: str(number))  # type: ignore[misc]
    assert [sample.request for sample in sampler.take()] == ["0", "3", "6"]
    assert sampler.take() == []


def test_samples_that_nobody_takes_do_not_pile_up() -> None:
    meter, sampler = Meter(), Sampler(1)
    meter.samplers = [sampler]
    for number in range(SAMPLES_MAX + 5):
        meter.answered("/a", 200, "", 0.5, lambda number=number: str(number))  # type: ignore[misc]
    taken = sampler.take()
    assert (len(taken), taken[0].request) == (SAMPLES_MAX, "5")


def test_a_sample_knows_what_its_own_request_cost_also_where_that_is_known_later() -> None:
    meter, sampler = Meter(), Sampler(1)
    meter.samplers = [sampler]
    meter.used("a", "llama").tell(7, 5)
    meter.answered("/chat", 200, "", 0.5, lambda: "a")
    streamed = meter.used("b", "mistral")
    meter.answered("/chat", 200, "", 0.5, lambda: "b")
    meter.answered("/predict", 200, "", 0.5, lambda: "c")
    streamed.tell(3, 90)
    usages = [sample.usage for sample in sampler.take()]
    assert [usage and (usage.model, usage.input_tokens, usage.output_tokens) for usage in usages] == [
        ("llama", 7, 5), ("mistral", 3, 90), None,
    ]  # fmt: skip


def test_none_of_no_requests_can_be_kept() -> None:
    with pytest.raises(ValueError, match="one of 0 requests"):
        Sampler(0)


def test_counting_costs_little_beside_what_a_request_does() -> None:
    meter = Meter()
    count = 20_000
    begun = time.thread_time()
    for _ in range(count):
        ended = meter.laps()
        for stage in ("receive", "decode", "infer", "judge", "record"):
            ended(stage)
        meter.answered("/a", 200, "", 0.001, str)
    each = (time.thread_time() - begun) / count
    # a claim of the order only, since machines differ: the reference is a dictionary's increment in the same run
    table, begun = {"a": 0}, time.thread_time()
    for _ in range(count):
        table["a"] += 1
    assert each < 200 * (time.thread_time() - begun) / count
