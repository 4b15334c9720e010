"""Instruments for those who have few clients: features are fitted to some, and everything else to others.

Features know the range of every input, and the directions in which honest rows vary. Rows that these were fitted to
never leave the range; those of other clients do, and where few were fitted to, often. Fitted to the same rows, scores
and covariances would take for impossible what the next honest client does in every second query.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palladion.watch.coverage import Coverage
from palladion.watch.features import Features
from palladion.watch.instruments import REFERENCE_ROWS_MAX, Episode, Instruments, parts
from palladion.watch.memory import Memory, measure
from palladion.watch.rows import Rows
from palladion.watch.scores import NormalScores


def fit_apart(
    seen: Sequence[Episode], others: Sequence[Episode], generator: np.random.Generator, *, layers: Sequence[str] = ()
) -> Instruments:
    """Features fitted to honest clients, and the rest to how others look in these. As `Instruments.fit` otherwise."""
    inputs, answers = [client.inputs for client in seen], [client.scores for client in seen]
    rows, scores = _drawn(inputs, answers, generator=generator)
    features = Features.fit(rows, scores, layers)
    found = measure(features, [(Memory(), client.inputs, client.scores) for client in others])
    (rows,) = _drawn([found.features], generator=generator)
    coverage = Coverage.draw(features.directions.shape[1], generator)
    # nobody is left out: the few real ones among simulated ones may be far from these, and are what matters
    return Instruments.of_scores(features, NormalScores.fit(rows), coverage, parts(found.features, found.sizes))


def _drawn(*columns: Sequence[Rows], generator: np.random.Generator) -> list[NDArray[np.float64]]:
    """Columns of rows, of all clients, and of many rows only some."""
    whole = [np.concatenate(column) for column in columns]
    count = len(whole[0])
    if count <= REFERENCE_ROWS_MAX:
        return whole
    kept = np.sort(generator.choice(count, REFERENCE_ROWS_MAX, replace=False))
    return [rows[kept] for rows in whole]
