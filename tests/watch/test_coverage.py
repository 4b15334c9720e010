"""Coverage bitmaps: every bucket once, however it was reached; merging is a union."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from palladion.watch import coverage
from palladion.watch.coverage import BITMAP_BYTES, BUCKETS, Coverage, count, empty_bitmap, mark

SEED = 3
BUCKET_LISTS = st.lists(st.integers(0, BUCKETS - 1), max_size=40)


@given(first=BUCKET_LISTS, second=BUCKET_LISTS)
def test_marking_tells_what_nobody_had_touched_each_once(first: list[int], second: list[int]) -> None:
    bitmap = empty_bitmap()

    assert mark(bitmap, first) == list(dict.fromkeys(first))
    assert mark(bitmap, second) == [bucket for bucket in dict.fromkeys(second) if bucket not in first]
    assert count(bitmap) == len({*first, *second})


@given(first=BUCKET_LISTS, second=BUCKET_LISTS)
def test_bitmaps_of_two_clients_merge_to_that_of_both(first: list[int], second: list[int]) -> None:
    one, other, both = empty_bitmap(), empty_bitmap(), empty_bitmap()
    mark(one, first)
    mark(other, second)
    mark(both, first + second)

    np.testing.assert_array_equal(one | other, both)


def test_a_full_bitmap_holds_every_bucket_in_two_kilobytes() -> None:
    bitmap = empty_bitmap()
    mark(bitmap, range(BUCKETS))

    assert count(bitmap) == BUCKETS
    assert bitmap.nbytes == BITMAP_BYTES == 2048


def test_buckets_are_the_sides_of_the_planes() -> None:
    cover = Coverage(np.eye(coverage.BITS))
    coordinates = np.where([[bit in {0, 3} for bit in range(coverage.BITS)]], 1.0, -1.0)

    assert cover.buckets(coordinates) == [0b1001]
    assert cover.buckets(-np.abs(coordinates)) == [0]
    assert cover.buckets(np.abs(coordinates)) == [BUCKETS - 1]


def test_near_queries_share_a_bucket_and_distinct_ones_fill_many() -> None:
    generator = np.random.default_rng(SEED)
    cover = Coverage.draw(12, generator)
    rows = generator.standard_normal((300, 12))

    assert cover.buckets(rows[:1] + 1e-9) == cover.buckets(rows[:1])
    assert len(set(cover.buckets(rows))) > 250, f"seed {SEED}"


def test_the_generator_decides_the_planes() -> None:
    one, same, other = (Coverage.draw(5, np.random.default_rng(seed)).planes for seed in (1, 1, 2))

    np.testing.assert_array_equal(one, same)
    assert (one != other).all()
