"""When people, batches, services and thieves ask."""

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from palladion.redteam import hours

KINDS = (hours.office, hours.nightly, hours.steady, hours.relentless, hours.patient, hours.bursts)
Kind = Callable[[int, float, np.random.Generator], NDArray[np.float64]]


@settings(max_examples=40)
@given(
    kind=st.sampled_from(KINDS),
    queries=st.integers(1, 2000),
    pace=st.floats(-10, 10),
    seed=st.integers(0, 2**32 - 1),
)
def test_times_ascend_from_the_start_on(kind: Kind, queries: int, pace: float, seed: int) -> None:
    at = kind(queries, pace, np.random.default_rng(seed))

    assert at.shape == (queries,)
    assert at[0] >= 0
    assert (np.diff(at) >= 0).all()


@settings(max_examples=40)
@given(pace=st.floats(-3, 3), seed=st.integers(0, 2**32 - 1))
def test_people_ask_during_office_hours_of_working_days(pace: float, seed: int) -> None:
    at = hours.office(800, pace, np.random.default_rng(seed))

    of_day = at % hours.DAY_S
    assert (of_day >= hours.OFFICE_OPENS_S).all()
    assert (of_day <= hours.OFFICE_CLOSES_S).all()
    assert set((at // hours.DAY_S % 7).tolist()) <= {0, 1, 2, 3, 4}


def test_people_who_go_on_for_weeks_rest_on_every_weekend() -> None:
    at = hours.office(5000, 1.0, np.random.default_rng(0))

    assert at[-1] > 3 * 7 * hours.DAY_S
    assert set((at // hours.DAY_S % 7).tolist()) == {0, 1, 2, 3, 4}


@pytest.mark.slow
@settings(max_examples=40)
@given(pace=st.floats(-3, 3), seed=st.integers(0, 2**32 - 1))
def test_batches_run_at_night_in_equal_numbers(pace: float, seed: int) -> None:
    at = hours.nightly(3000, pace, np.random.default_rng(seed))

    of_day = at % hours.DAY_S
    assert (of_day >= hours.NIGHT_FROM_S).all()
    assert (of_day <= hours.NIGHT_UNTIL_S).all()
    _, starts, sizes = np.unique(at // hours.DAY_S, return_index=True, return_counts=True)
    assert (of_day[starts] <= hours.NIGHT_STARTS_UNTIL_S + hours.BATCH_JITTER_S).all()
    assert len(set(sizes[:-1].tolist())) <= 1


@pytest.mark.parametrize(("pace", "lasts_s"), [(0.0, 200), (3.0, 3600)])
def test_a_batch_runs_at_a_query_a_second_or_for_an_hour(pace: float, lasts_s: float) -> None:
    at = hours.nightly(20_000, pace, np.random.default_rng(0))

    _, starts = np.unique(at // hours.DAY_S, return_index=True)
    assert np.mean(at[starts[1:] - 1] - at[starts[:-1]]) == pytest.approx(lasts_s, rel=0.05)


def test_services_ask_at_every_hour_and_at_their_mean_rate() -> None:
    at = hours.steady(20_000, 0.0, np.random.default_rng(0))

    # 20,000 exponential gaps: the mean's own deviation is 0.7 %
    assert np.diff(at).mean() == pytest.approx(hours.STEADY_GAP_S, rel=0.03)
    assert set((at // hours.HOUR_S % 24).tolist()) == set(range(24))


def test_thieves_ask_fast_and_evenly() -> None:
    gaps = np.diff(hours.relentless(1000, 0.0, np.random.default_rng(0)))

    assert gaps.min() >= hours.THIEF_GAP_S * (1 - hours.THIEF_JITTER) - 1e-6
    assert gaps.max() <= hours.THIEF_GAP_S * (1 + hours.THIEF_JITTER) + 1e-6


@pytest.mark.parametrize("kind", [hours.office, hours.steady, hours.relentless])
def test_a_slower_pace_takes_longer(kind: Kind) -> None:
    slow, fast = (np.median(np.diff(kind(2000, pace, np.random.default_rng(0)))) for pace in (1.0, -1.0))

    assert slow > 2 * fast


@settings(max_examples=20)
@given(pace=st.floats(-3, 3), seed=st.integers(0, 2**32 - 1))
def test_a_patient_thief_is_as_slow_as_a_service_and_hardly_varies(pace: float, seed: int) -> None:
    gaps = np.diff(hours.patient(400, pace, np.random.default_rng(seed)))
    mean = hours.STEADY_GAP_S * np.exp(hours.STEADY_PACE_LOG * pace)

    np.testing.assert_allclose(gaps.mean(), mean, rtol=0.05)
    assert (np.abs(gaps / mean - 1) <= hours.THIEF_JITTER + 1e-6).all()


@settings(max_examples=20)
@given(pace=st.floats(-3, 3), seed=st.integers(0, 2**32 - 1))
def test_a_thief_in_bursts_asks_as_much_as_a_service_and_mostly_waits(pace: float, seed: int) -> None:
    at = hours.bursts(900, pace, np.random.default_rng(seed))
    mean = hours.STEADY_GAP_S * np.exp(hours.STEADY_PACE_LOG * pace)
    gaps = np.diff(at)

    assert at[-1] - at[0] == pytest.approx(899 * mean, rel=0.15)
    assert (gaps > 10 * mean).sum() == 29
    assert np.median(gaps) < mean / 10
