"""Flat rows become the inputs of a service as its owner saved them."""

import numpy as np

from palladion.redteam.audit.layout import Layout

LAYOUT = Layout((("amount", (1,), np.dtype(np.float32)), ("shape", (2, 2), np.dtype(np.int64))))


def test_each_input_has_its_columns_its_shape_and_its_type() -> None:
    feeds = LAYOUT.feeds(np.array([[0.5, 1, 2, 3, 3.6], [1.5, 5, 6, 7, 8]]))
    assert feeds["amount"].tolist() == [[0.5], [1.5]]
    assert feeds["shape"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [7, 8]]]
    assert feeds["shape"].dtype == np.int64


def test_rows_that_are_sent_alike_are_one() -> None:
    first, second, third = LAYOUT.digests(np.array([[0.5, 1, 2, 3, 4], [0.5, 1.2, 2, 3, 4], [0.6, 1, 2, 3, 4]]))
    assert first == second
    assert first != third
