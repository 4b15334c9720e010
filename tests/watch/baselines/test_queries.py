"""Queries that the baselines look at: one input, coordinate row and class each."""

import numpy as np
import pytest

from palladion.watch.baselines.queries import Queries


def test_parts_of_different_lengths_are_no_queries() -> None:
    with pytest.raises(ValueError, match="2 inputs, 3 coordinates, 2 classes"):
        Queries(np.zeros((2, 4)), np.zeros((3, 2)), np.zeros(2, np.int64))


def test_there_are_as_many_queries_as_inputs() -> None:
    assert len(Queries(np.zeros((3, 4)), np.zeros((3, 2)), np.zeros(3, np.int64))) == 3
