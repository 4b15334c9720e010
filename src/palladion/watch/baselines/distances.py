"""Squared distances of rows, all pairs at once."""

import numpy as np

from palladion.watch.rows import Rows


def squared_distances(rows: Rows, others: Rows) -> Rows:
    """Squared distances (rows, others), by a matrix product; never below 0."""
    lengths = np.square(rows).sum(axis=1)[:, None] + np.square(others).sum(axis=1)
    return np.asarray(np.maximum(lengths - 2 * (rows @ others.T), 0))
