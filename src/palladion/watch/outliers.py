"""Whom nothing is fitted to: clients so far from all others that they would decide what counts as usual.

One thief among a hundred honest clients makes the direction in which it steals one in which clients differ, and the
next thief of its kind is hardly seen. Nothing is promised of the clients that are fitted to, so that leaving some of
them out changes no rate: thresholds are of others, of whom nobody is left out.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from palladion.watch.rows import Rows
from palladion.watch.suspicion import BETWEEN_SHARE, RandomEffects

# Distances beyond so many times the median one. Of 350 honest clients the largest were 24, 12 and 9 times as far; four
# thieves among them 42 to 51 (foreign rows), 16 to 19 (augmentation), 12 to 22 (strokes). With 8, a threshold from
# 1,050 clean ones saw 47 instead of 87 of 100 who mix photographs, and with 15 still 78 (development seed 5).
FENCE = 15.0
_PULLED = 0.02  # of clients, who are drawn in as far as the next one: twice the thieves that are reckoned with
_ROUNDS = 3


def usual(clients: Sequence[Rows]) -> NDArray[np.bool_]:
    """Which clients (clients,) of these scores (queries, scores) are to be fitted to; `CLIENTS_MIN` are needed.

    Distances are those of their means to where others' lie. These are taken from all clients with the farthest drawn in
    (winsorised), or thieves would hide each other. Raises ValueError as `RandomEffects.fit`.
    """
    asked = [scores for scores in clients if len(scores) >= 2]
    sums, counts = np.array([scores.sum(axis=0) for scores in asked]), np.array([len(scores) for scores in asked])
    drawn, distances = asked, np.zeros(len(asked))
    for _ in range(_ROUNDS):
        effects = RandomEffects.fit(drawn, between_share=BETWEEN_SHARE)
        distances = effects.distance(sums, counts)
        limit = np.quantile(distances, 1 - _PULLED)
        away = sums / counts[:, None] - effects.mean
        back = (1 - np.sqrt(np.minimum(1, limit / np.maximum(distances, limit))))[:, None] * away
        drawn = [scores - own for scores, own in zip(asked, back, strict=True)]
    found = np.ones(len(clients), np.bool_)
    found[[len(scores) >= 2 for scores in clients]] = distances <= FENCE * np.median(distances)
    return found
