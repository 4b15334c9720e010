"""Squared distances by a matrix product are those of the definition."""

import numpy as np

from palladion.watch.baselines.distances import squared_distances


def test_distances_are_those_of_the_definition_and_never_below_nothing() -> None:
    generator = np.random.default_rng(1)
    rows, others = generator.standard_normal((5, 3)), generator.standard_normal((4, 3))

    found = squared_distances(rows, others)

    np.testing.assert_allclose(found, np.square(rows[:, None] - others).sum(axis=2), rtol=1e-12)
    assert (squared_distances(1e6 * rows, 1e6 * rows) >= 0).all()
