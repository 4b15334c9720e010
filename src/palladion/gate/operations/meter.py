"""Counts requests and times what they pass through, for under two microseconds a request. In memory.

Whoever reads the figures (`collector`, `telemetry`) does the work. Nothing here knows clients, bodies or headers.
"""

import time
from bisect import bisect_left
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

# Seconds. A quarter of a millisecond is what a request costs here; a language model takes a minute.
BOUNDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)
TIMED_EVERY = 8  # stages are timed of one request in so many: their spread is the same, and the cost an eighth
SAMPLES_MAX = 1000  # that wait to be written or sent; where nobody takes them, the oldest go
STAGES = ("receive", "decode", "infer", "judge", "record")
STANDING, CANARY = "standing", "canary"  # which of two versions a request was answered by
OTHER = "other"  # the route of every path that is not served: strangers must not choose labels

_clock = time.perf_counter


class Histogram:
    """How many durations fell between which of `BOUNDS`, and their sum. For one thread that writes."""

    __slots__ = ("counts", "seconds")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def observe(self, seconds: float) -> None:
        """Count one duration."""
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.seconds += seconds

    @property
    def count(self) -> int:
        """How many there were."""
        return sum(self.counts)


class Usage:
    """What a request to a language model cost, in tokens: of an answer that is streamed, known at its end."""

    __slots__ = ("input_tokens", "known", "model", "output_tokens")

    def __init__(self, model: str) -> None:
        self.model = model
        self.input_tokens = self.output_tokens = 0
        self.known = False

    def tell(self, input_tokens: int, output_tokens: int) -> None:
        """It is known now."""
        self.input_tokens, self.output_tokens, self.known = input_tokens, output_tokens, True


class Sample(NamedTuple):
    """One request, as logs and spans tell of it: when it ended (seconds since 1970), and how long it took.

    `usage` is there of requests to language models that were let in; what it says may become known later.
    """

    route: str
    status: int
    problem: str
    seconds: float
    ended: float
    request: str
    usage: Usage | None = None


class Sampler:
    """Keeps one request of `every`, until somebody takes them."""

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"one of {every} requests cannot be kept")
        self._every = every
        self._left = 1  # the first is one, so that whoever turns it on sees something
        self._kept: deque[Sample] = deque(maxlen=SAMPLES_MAX)

    def due(self) -> bool:
        """Whether the request that is asked for is one to keep."""
        self._left -= 1
        if self._left:
            return False
        self._left = self._every
        return True

    def keep(self, sample: Sample) -> None:
        """Keep it."""
        self._kept.append(sample)

    def take(self) -> list[Sample]:
        """What was kept since this was last asked."""
        taken = list(self._kept)
        self._kept.clear()
        return taken


class Meter:
    """The figures of the data path. For one event loop."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int, str]] = Counter()  # by route, status, and kind of the problem if any
        self.verdicts: Counter[tuple[str, str]] = Counter()  # what the watch asked for, by route and standing
        self.trials: Counter[tuple[str, str, bool]] = Counter()  # by route, STANDING or CANARY, and whether it failed
        self.rolled_back: Counter[str] = Counter()  # versions on trial that failed, by model
        self.latency = defaultdict[str, Histogram](Histogram)  # by route: from a head to the answer, or to its head
        self.stages = {name: Histogram() for name in STAGES}
        self.samplers: Sequence[Sampler] = ()
        self._left = 1
        self._used: tuple[str, Usage] | None = None

    def used(self, request: str, model: str) -> Usage:
        """Where to tell what a request, by id, cost. To be called last before it is answered, without an await."""
        usage = Usage(model)
        self._used = request, usage
        return usage

    def answered(self, route: str, status: int, problem: str, seconds: float, request: Callable[[], str]) -> None:
        """Count a request. `request` finds its id, where somebody wants to know."""
        self.requests[route, status, problem] += 1
        self.latency[route].observe(seconds)
        for sampler in self.samplers:
            if sampler.due():
                name, used = request(), self._used
                usage = used[1] if used is not None and used[0] == name else None
                sampler.keep(Sample(route, status, problem, seconds, time.time(), name, usage))

    def laps(self) -> Callable[[str], None]:
        """What is to be told the name of each stage when it ends; one request in `TIMED_EVERY` is timed."""
        self._left -= 1
        if self._left:
            return _untimed
        self._left = TIMED_EVERY
        return _Laps(self.stages).end


class _Laps:
    """Times the stages of one request, one after the other."""

    __slots__ = ("_last", "_stages")

    def __init__(self, stages: dict[str, Histogram]) -> None:
        self._stages = stages
        self._last = _clock()

    def end(self, stage: str) -> None:
        now = _clock()
        self._stages[stage].observe(now - self._last)
        self._last = now


def _untimed(_stage: str) -> None:
    pass
