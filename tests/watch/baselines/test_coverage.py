"""Coverage as a detector: each bucket counts once."""

import numpy as np

from palladion.watch.baselines.coverage import Covering
from palladion.watch.baselines.queries import Queries
from palladion.watch.coverage import BITMAP_BYTES, BITS, BUCKETS, Coverage


def _queries(*signs: tuple[int, ...]) -> Queries:
    rows = np.full((len(signs), BITS), -1.0)
    for row, positive in zip(rows, signs, strict=True):
        row[list(positive)] = 1.0
    return Queries(np.zeros((len(signs), 1)), rows, np.zeros(len(signs), np.int64))


def test_the_share_of_touched_buckets_grows_with_new_ones_alone() -> None:
    session = Covering(Coverage(np.eye(BITS))).begin()

    first = session.take(_queries((), (1,), (), (1,), (1, 2)))
    later = session.take(_queries((2,), (1,)))

    np.testing.assert_array_equal(BUCKETS * first, [1, 2, 2, 2, 3])
    np.testing.assert_array_equal(BUCKETS * later, [4, 4])
    assert session.held_bytes == BITMAP_BYTES


def test_no_queries_give_no_statistic() -> None:
    assert Covering(Coverage(np.eye(BITS))).begin().take(_queries()).shape == (0,)
