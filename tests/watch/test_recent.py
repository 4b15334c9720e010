"""What was done lately is the same however it was asked, and the sums of the queries that it names."""

import struct

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.watch.features import REPEATS
from palladion.watch.recent import EVERY, NEAR_SCORE, Lately, Recent, lately, run_of
from palladion.watch.rows import Rows
from palladion.watch.scores import STEPS

from .factories import pieces

SIZE = 18


def scores_of(seed: int, queries: int) -> Rows:
    """Scores in steps, of which every fifth or so is near."""
    scores = np.rint(np.random.default_rng(seed).standard_normal((queries, SIZE)) * STEPS) / STEPS
    scores[np.random.default_rng(seed + 1).random(queries) < 0.2, REPEATS] = -3
    return scores


def window(count: int) -> slice:
    """The queries that are the last ones after `count`, by the definition."""
    whole = (count - 1) // EVERY  # finished stretches of `EVERY` before the one that this query is in
    return slice(EVERY * max(whole - 1, 0), count)


@pytest.mark.slow
@example(cuts=list(range(1, 100)), seed=5)
@settings(max_examples=60, deadline=None)
@given(cuts=st.lists(st.integers(1, 99), max_size=30), seed=st.integers(0, 999))
def test_what_was_done_lately_is_the_sum_of_the_last_queries_however_they_were_cut(cuts: list[int], seed: int) -> None:
    scores = scores_of(seed, 100)
    sums, near = np.cumsum(scores, axis=0), scores[:, REPEATS] <= NEAR_SCORE
    recent, found = Recent(SIZE), list[Lately]()
    for part in pieces(100, cuts):
        if part.stop - part.start == 1:
            found.append(recent.add(scores[part.start], sums[part.start], part.stop))
        else:
            found.append(recent.follow(scores[part], sums[part], part.start + 1))

    every = Lately(
        np.concatenate([item.sums for item in found]),
        [value for item in found for value in item.near],
        [value for item in found for value in item.near_lately],
    )
    for count in range(1, 101):
        last = window(count)
        assert lately(count) == last.stop - last.start <= 2 * EVERY
        assert every.near[count - 1] == near[:count].sum()
        assert every.near_lately[count - 1] == near[last].sum()
        np.testing.assert_array_equal(every.sums.reshape(-1, SIZE)[count - 1], scores[last].sum(axis=0))
    whole = Recent(SIZE)
    whole.follow(scores, sums, 1)
    assert whole.to_bytes(100) == recent.to_bytes(100)


@pytest.mark.parametrize("count", [0, 1, EVERY - 1, EVERY, 2 * EVERY - 1, 2 * EVERY, 5 * EVERY + 3])
def test_what_is_saved_comes_back_and_goes_on(count: int) -> None:
    scores = scores_of(7, count + 40)
    sums, recent = np.cumsum(scores, axis=0), Recent(SIZE)
    if count:
        recent.follow(scores[:count], sums[:count], 1)

    data = recent.to_bytes(count)
    again = Recent.of_bytes(data, count, SIZE)

    assert len(data) == Recent.saved_bytes(count, SIZE) <= 24 + 16 * SIZE
    assert again.to_bytes(count) == data
    for ours, theirs in zip(
        recent.follow(scores[count:], sums[count:], count + 1),
        again.follow(scores[count:], sums[count:], count + 1),
        strict=True,
    ):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    "counts", [(41, 0, 0), (3, 4, 0), (3, 2, 3)], ids=["more than asked", "more before than now", "older above newer"]
)
def test_near_queries_that_nobody_can_have_asked_are_refused(counts: tuple[int, int, int]) -> None:
    with pytest.raises(FormatError, match="near queries that it did not ask"):
        Recent.of_bytes(struct.pack("<3Q", *counts) + bytes(16 * SIZE), 40, SIZE)


def test_near_queries_at_a_mark_that_was_not_passed_are_refused() -> None:
    with pytest.raises(FormatError, match="near queries that it did not ask"):
        Recent.of_bytes(struct.pack("<3Q", 3, 1, 0), EVERY - 1, SIZE)


def test_marks_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(FormatError, match="a figure that is not a number"):
        Recent.of_bytes(struct.pack("<3Q", 0, 0, 0) + struct.pack("<d", np.nan) * SIZE, EVERY, SIZE)


def test_a_run_begins_with_the_first_query() -> None:
    run = run_of(scores_of(3, 40))

    assert run.sums.shape == (80, SIZE)
    np.testing.assert_array_equal(run.sums[40:72], run.sums[:32])
    np.testing.assert_array_equal(run.near[40:72], run.near[:32])
    assert run.counts.tolist() == [*range(1, 41), *range(1, 33), *range(17, 25)]


@pytest.mark.parametrize("count", [0, 5, 16, 31, 32, 33, 100])
def test_of_queries_whose_order_is_unknown_the_last_ones_are_like_all(count: int) -> None:
    sums = np.rint(np.random.default_rng(7).standard_normal(4) * 2**20) / 2**20 * count
    found = Recent.evenly(sums, count // 3, count)

    window = sums - found.older
    asked = count - EVERY * max(count // EVERY - 1, 0)
    np.testing.assert_allclose(window * max(count, 1), sums * asked, atol=1e-3)
    assert np.array_equal(found.older * 2**20, np.rint(found.older * 2**20))
    assert 0 <= found.older_near <= found.newer_near <= found.near == count // 3
    back = Recent.of_bytes(found.to_bytes(count), count, 4)
    np.testing.assert_array_equal(back.older, found.older)
    np.testing.assert_array_equal(back.newer, found.newer)
