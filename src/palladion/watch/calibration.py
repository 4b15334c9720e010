"""A calibration: what honest traffic on one model version looks like, and how unusual honest clients ever get.

Made from whole honest clients, recorded or simulated; states how many there were and which false-alarm rate so many
support. How it is written to a file is in `calibration_file`.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

from palladion.watch.client import QUERIES_MIN
from palladion.watch.conformal import Conformal
from palladion.watch.instruments import Episode, Instruments
from palladion.watch.rows import Rows

REAL_CLIENTS_MIN = 999  # fewer real clients support no rate of 0.1 %
HORIZON_MAX = 100_000  # queries of one epoch; longer ones need calibration clients who asked as many
MEMBER_SIZES = (2, 3, 5, 10)  # sizes of the honest organisations that thresholds of groups are calibrated on
QUERIES_OF_CLIENT_MIN = 8  # a calibration client who asked less says nothing of how far an honest one can drift


@dataclass(frozen=True)
class About:
    """What a calibration is of and from. `content` is the digest of the model version; counts are of honest clients.

    `fitted` clients were fitted to, the disjoint `clients` and `organisations` gave the thresholds; `simulated` unless
    at least `REAL_CLIENTS_MIN` of them were real. `horizon` is the length of a client's epoch in distinct queries,
    `group_horizon` that of a group for each member.
    """

    model: str
    version: int
    content: str
    simulated: bool
    horizon: int
    group_horizon: int
    seed: int
    created: datetime
    fitted: int = 0
    clients: int = 0
    organisations: int = 0


@dataclass(frozen=True, eq=False)
class Calibration:
    """Instruments, and the largest statistics of honest clients and of honest organisations by size."""

    about: About
    instruments: Instruments
    clients: Conformal
    groups: Mapping[int, Conformal]


def calibrate(
    about: About,
    fitting: Sequence[Episode],
    clients: Iterable[Episode],
    organisations: Iterable[Sequence[Episode]],
    generator: np.random.Generator,
) -> Calibration:
    """Fit to the clients in `fitting` and take thresholds from whole `clients` and `organisations`, all disjoint.

    Clients with fewer than `QUERIES_OF_CLIENT_MIN` distinct queries are left out. Raises ValueError where too few
    remain. The counts of `about` are set here. Only `fitting` is held at once.
    """
    instruments = Instruments.fit(fitting, generator)
    suprema = [
        client_supremum(instruments, scores, about.horizon)
        for scores in (instruments.score([client])[0] for client in clients)
        if len(scores) >= QUERIES_OF_CLIENT_MIN
    ]
    by_size: defaultdict[int, list[float]] = defaultdict(list)
    asked = 0
    for members in organisations:
        asked += 1
        for size, supremum in group_suprema(instruments, instruments.score(members)).items():
            by_size[size].append(supremum)
    groups = {size: Conformal.fit(np.array(found)) for size, found in by_size.items()}
    counted = replace(about, fitted=len(fitting), clients=len(suprema), organisations=asked)
    return Calibration(counted, instruments, Conformal.fit(np.array(suprema)), groups)


def client_supremum(instruments: Instruments, scores: Rows, horizon: int) -> float:
    """The largest statistic of a client in its first epoch; `scores` (distinct, features) of its distinct queries."""
    scores = scores[:horizon]
    counts = np.arange(1, len(scores) + 1)
    return float(instruments.effects.statistic(np.cumsum(scores, axis=0), counts)[QUERIES_MIN - 1 :].max())


def group_suprema(instruments: Instruments, members: Sequence[Rows]) -> dict[int, float]:
    """The largest pooled statistic of an organisation whose members ask in turns, for each size that it can form.

    Its members are given by the scores (distinct, features) of their distinct queries.
    """
    scores = np.concatenate(members)
    turns = np.concatenate([np.arange(len(found)) for found in members])
    who = np.repeat(np.arange(len(members)), [len(found) for found in members])
    order = np.lexsort((who, turns))
    scores, who = scores[order], who[order]
    return {
        size: _group_supremum(instruments, scores[who < size], who[who < size], size)
        for size in MEMBER_SIZES
        if size <= len(members) and (who < size).sum() >= max(QUERIES_MIN, size)
    }


def group_p_values(calibration: Calibration, sums: Rows, counts: NDArray[np.int64], squares: NDArray[np.int64]) -> Rows:
    """The p-value of a group after each of several queries (n,).

    Given are the pooled sums of scores (n, features), how many queries they are of, and the sum of squares of how many
    each member has asked. The size of a group is how many members ask by weight: one with a single query among hundreds
    hardly counts. The p-value is the larger of those against honest organisations just below and just above that size;
    beyond the largest calibrated size, that one counts. It is 1 for groups of one, before enough was asked, and where
    no organisations were calibrated.
    """
    p_values = np.ones(len(counts))
    concentration = squares / np.square(counts)
    sizes = np.rint(1 / concentration).astype(np.int64)
    weighed = (sizes >= 2) & (counts >= QUERIES_MIN)
    if not calibration.groups or not weighed.any():
        return p_values
    statistics = calibration.instruments.effects.statistic(sums, counts, concentration)
    for size in set(sizes[weighed].tolist()):
        below = max((known for known in calibration.groups if known <= size), default=min(calibration.groups))
        above = min((known for known in calibration.groups if known >= size), default=max(calibration.groups))
        these = weighed & (sizes == size)
        p_values[these] = np.maximum(
            calibration.groups[below].p_values(statistics[these]), calibration.groups[above].p_values(statistics[these])
        )
    return p_values


def _group_supremum(instruments: Instruments, scores: Rows, who: NDArray[np.int64], size: int) -> float:
    counts = np.arange(1, len(scores) + 1)
    asked = np.cumsum(who[:, None] == np.arange(size), axis=0)  # (queries, members)
    concentration = np.square(asked).sum(axis=1) / np.square(counts)
    statistics = instruments.effects.statistic(np.cumsum(scores, axis=0), counts, concentration)
    return float(statistics[max(QUERIES_MIN, size) - 1 :].max())
