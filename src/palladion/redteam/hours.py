"""When queries are asked: seconds since a Monday 00:00 for people, batches, services and thieves (docs/traffic.md).

Every function takes the number of queries and the client's pace, a standard normal number of which larger is slower
(nightly: larger batches), and returns ascending times (queries,).
"""

import math

import numpy as np
from numpy.typing import NDArray

HOUR_S = 3600
DAY_S = 24 * HOUR_S
WORKDAYS = 5
WEEK_DAYS = 7
OFFICE_OPENS_S = 8 * HOUR_S
OFFICE_CLOSES_S = 18 * HOUR_S
NIGHT_FROM_S = 1 * HOUR_S
NIGHT_STARTS_UNTIL_S = 4 * HOUR_S
NIGHT_UNTIL_S = 6 * HOUR_S

PACE_MAX = 3.0  # as styles.LATENT_MAX: no client is a thousand times slower than another

OFFICE_GAP_S = 60.0  # median between two queries of a person at work
OFFICE_PACE_LOG = 0.8
OFFICE_BURST_LOG = 1.5  # gaps of people are log-normal and long-tailed: three in a minute, then a meeting
BATCH_QUERIES = 200
BATCH_PACE_LOG = 1.0
BATCH_GAP_S = 1.0
BATCH_LASTS_S = 1 * HOUR_S  # a batch runs at the speed that this takes, however large
BATCH_JITTER_S = 600.0  # schedulers start jobs within ten minutes
STEADY_GAP_S = 60.0
STEADY_PACE_LOG = 1.0
THIEF_GAP_S = 2.0  # 670 answers, the mean of the accounts of February 2026, in 22 minutes
THIEF_PACE_LOG = 0.5
THIEF_JITTER = 0.2


def office(queries: int, pace: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """A person: Monday to Friday, office hours, bursts and pauses."""
    open_s = OFFICE_CLOSES_S - OFFICE_OPENS_S
    median = OFFICE_GAP_S * math.exp(OFFICE_PACE_LOG * _bounded(pace))
    gaps = median * generator.lognormal(0, OFFICE_BURST_LOG, queries)
    # time passes only while the office is open; then laid out over the calendar
    worked = generator.uniform(0, open_s) + np.cumsum(gaps)
    workday = worked // open_s
    day = workday // WORKDAYS * WEEK_DAYS + workday % WORKDAYS
    at: NDArray[np.float64] = day * DAY_S + OFFICE_OPENS_S + worked % open_s
    return at


def nightly(queries: int, pace: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """A batch job: the same number of queries every night, in one run."""
    batch = max(1, round(BATCH_QUERIES * math.exp(BATCH_PACE_LOG * _bounded(pace))))
    night = np.arange(queries) // batch
    scheduled = generator.uniform(NIGHT_FROM_S, NIGHT_STARTS_UNTIL_S)
    starts = scheduled + generator.uniform(0, BATCH_JITTER_S, night[-1] + 1)
    passed = np.cumsum(generator.exponential(min(BATCH_GAP_S, BATCH_LASTS_S / batch), queries))
    since_start = passed - passed[night * batch]
    at: NDArray[np.float64] = night * DAY_S + np.minimum(starts[night] + since_start, NIGHT_UNTIL_S)
    return at


def steady(queries: int, pace: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """A service: a Poisson stream, day and night."""
    mean = STEADY_GAP_S * math.exp(STEADY_PACE_LOG * _bounded(pace))
    return generator.uniform(0, DAY_S) + np.cumsum(generator.exponential(mean, queries))


def relentless(queries: int, pace: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """A thief's program: one query after the other at nearly the same distance, from some moment of the first day."""
    gap = THIEF_GAP_S * math.exp(THIEF_PACE_LOG * _bounded(pace))
    gaps = gap * generator.uniform(1 - THIEF_JITTER, 1 + THIEF_JITTER, queries)
    return generator.uniform(0, DAY_S) + np.cumsum(gaps)


def patient(queries: int, pace: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """A thief's program among services: no faster than these, day and night, at nearly the same distance."""
    gap = STEADY_GAP_S * math.exp(STEADY_PACE_LOG * _bounded(pace))
    gaps = gap * generator.uniform(1 - THIEF_JITTER, 1 + THIEF_JITTER, queries)
    return generator.uniform(0, DAY_S) + np.cumsum(gaps)


def bursts(queries: int, pace: float, generator: np.random.Generator) -> NDArray[np.float64]:
    """A thief's program that asks as much as a service, day and night: all of half an hour at once, then a pause."""
    mean = STEADY_GAP_S * math.exp(STEADY_PACE_LOG * _bounded(pace))
    size = round(STEADY_GAP_S / THIEF_GAP_S)
    gap = mean * THIEF_GAP_S / STEADY_GAP_S
    gaps = gap * generator.exponential(1, queries)
    begins = np.arange(queries) % size == 0
    gaps[begins] += size * (mean - gap) * generator.uniform(1 - THIEF_JITTER, 1 + THIEF_JITTER, begins.sum())
    return generator.uniform(0, DAY_S) + np.cumsum(gaps)


def _bounded(pace: float) -> float:
    return min(max(pace, -PACE_MAX), PACE_MAX)
