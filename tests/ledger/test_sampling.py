"""Which cells are kept: few enough, evenly drawn, thinned in steps that are fixed beforehand, and never taken back."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.ledger.sampling import (
    LEVEL_MAX,
    LEVEL_STEPS,
    PRIORITY_BITS,
    Sample,
    level_log10_price,
    priority_of,
    threshold,
)

PRIORITIES = st.integers(0, 2**PRIORITY_BITS - 1)


def test_thresholds_fall_from_all_to_none_and_halve_every_eight_levels() -> None:
    bounds = [threshold(level) for level in range(LEVEL_MAX + 1)]
    assert (bounds[0], bounds[-1]) == (2**PRIORITY_BITS, 0)
    assert bounds == sorted(bounds, reverse=True)
    for level in range(PRIORITY_BITS // 2 * LEVEL_STEPS):
        assert bounds[level + LEVEL_STEPS] == bounds[level] // 2
        assert 8 / 9 <= bounds[level + 1] / bounds[level] <= 15 / 16


def test_the_price_of_all_levels_together_is_one_sample() -> None:
    # 1 - 1 / (LEVEL_MAX + 2) of it, and the rest for levels that no file has
    assert sum(10 ** -level_log10_price(level) for level in range(LEVEL_MAX + 1)) == pytest.approx(
        1 - 1 / (LEVEL_MAX + 2)
    )
    assert level_log10_price(0) == pytest.approx(math.log10(2))


@given(st.integers(1, 8), st.lists(PRIORITIES, max_size=60))
def test_one_after_the_other_or_all_at_once_are_alike(capacity: int, priorities: list[int]) -> None:
    grown = Sample(capacity, 0)
    for priority in priorities:
        if grown.wants(priority):
            grown.add(priority)
    read = Sample(capacity, 0, priorities)
    lowest = next(
        level for level in range(LEVEL_MAX + 1) if len({p for p in priorities if p < threshold(level)}) <= capacity
    )
    assert grown.level == read.level == lowest
    assert len(grown) == len(read) == len({p for p in priorities if p < threshold(lowest)})


@given(st.lists(PRIORITIES, min_size=1, max_size=40), st.integers(1, 8), st.integers(0, 30))
def test_a_cell_is_wanted_once_and_never_after_it_was_refused(priorities: list[int], capacity: int, level: int) -> None:
    sample = Sample(capacity, level)
    for index, priority in enumerate(priorities):
        if sample.wants(priority):
            sample.add(priority)
        assert not any(sample.wants(earlier) for earlier in priorities[: index + 1])
        assert len(sample) <= capacity


def test_the_number_of_a_cell_is_known_to_none_without_the_key() -> None:
    assert priority_of(bytes(32), b"cell") == priority_of(bytes(32), b"cell")
    assert priority_of(bytes(32), b"cell") != priority_of(b"\1" * 32, b"cell")
    assert 0 <= priority_of(bytes(32), b"cell") < 2**PRIORITY_BITS


def test_most_of_the_capacity_is_used() -> None:
    sample = Sample(1000, 0)
    for number in range(20_000):
        priority = priority_of(bytes(32), number.to_bytes(4, "little"))
        if sample.wants(priority):
            sample.add(priority)
    assert 850 < len(sample) <= 1000
    # about log2(20) halvings
    assert 32 <= sample.level <= 37
