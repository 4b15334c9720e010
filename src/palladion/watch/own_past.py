"""A client beside its own past: whether its new queries have another mean than its finished epochs had.

Few calibration clients say little of where honest clients' means lie, but a client that was seen before says itself
where its own lies. What it did is shrunk towards honest clients as a whole, the less the more it asked (James and Stein
1961; Robinson 1991 on BLUP), and a new epoch is held against that. Derivation and promise: docs/watch.md.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from palladion.watch.client import PAST_EPOCHS, QUERIES_MIN, Past, Stretch
from palladion.watch.conformal import Conformal
from palladion.watch.features import FEATURES, REPEATS
from palladion.watch.rows import Rows, product
from palladion.watch.suspicion import RIDGE, RandomEffects

EPOCHS_MAX = PAST_EPOCHS + 1  # of a calibration client: the past of the last one is as long as it ever gets
# `repeats` changes of itself as the memory fills, and how much the share of atypical queries varies by chance depends
# on how large it is. Without both, taking over by in-distribution rows was seen in 76 % instead of 46 % (38 clients of
# MNIST, development seed 7).
KEPT = [place for place in range(len(FEATURES)) if place != REPEATS]
# With fewer, more than one honest client in ten would be shown to a person in every epoch, and the other test would be
# twice as coarse for it.
CLIENTS_MIN = 19


@dataclass(frozen=True, eq=False)
class OwnPast:
    """The test. `effects` are of the scores `KEPT`, and their `centre` and `width` those of this statistic.

    `clients` holds the largest statistic of each calibration client, over all of its epochs that have a past.
    """

    effects: RandomEffects
    clients: Conformal

    @classmethod
    def fit(cls, fitting: Sequence[Rows], clients: Iterable[Rows], horizon: int) -> "OwnPast | None":
        """Fit to the scores (distinct, scores) of honest clients, and take thresholds from whole others.

        Of the others, those who finished two epochs of `horizon` distinct queries count; None where these are fewer
        than `CLIENTS_MIN`, or where hardly anybody in `fitting` asked enough to be cut in two.
        """
        effects = _scaled(RandomEffects.fit([scores[:, KEPT] for scores in fitting]), fitting)
        if effects is None:
            return None
        test = cls(effects, Conformal(np.zeros(0)))
        suprema = [test.supremum(scores, horizon) for scores in clients if len(scores) >= 2 * horizon]
        return cls(effects, Conformal.fit(np.array(suprema))) if len(suprema) >= CLIENTS_MIN else None

    @property
    def rate_min(self) -> float:
        """The smallest false-alarm rate that so many clients support."""
        return self.clients.rate_min

    def p_value(self, supremum: float) -> float:
        """The p-value of a client whose statistic has been at most that in this epoch."""
        return self.clients.p_value(supremum)

    def threshold(self, rate: float) -> float:
        """What the statistic of so small a share of honest clients is ever larger than."""
        return self.clients.threshold(rate)

    def supremum(self, scores: Rows, horizon: int) -> float:
        """The largest statistic in any epoch but the first; `scores` (distinct, scores) of two epochs or more."""
        past: Past | None = None
        largest = -np.inf
        for start, end in pairwise(range(0, min(len(scores), EPOCHS_MAX * horizon) + 1, horizon)):
            sums = np.cumsum(scores[start:end], axis=0)
            if past is not None:
                found = self.statistic(past, sums, np.arange(1, horizon + 1))[min(QUERIES_MIN, horizon) - 1 :]
                largest = max(largest, float(found.max()))
            past = Past.after(past, sums[-1], horizon, horizon=horizon)
        return largest

    def statistic(self, past: Past, sums: Rows, counts: NDArray[np.int64]) -> Rows:
        """The standardised statistic (n,) of summed scores (n, scores) over `counts` (n,) queries, 1 or more each."""
        at = np.minimum(counts, len(self.effects.centre)) - 1
        raw = _raw(self.effects, past, sums, counts)
        return np.asarray((raw - self.effects.centre[at]) / self.effects.width[at])

    def statistics(self, stretches: Sequence[Stretch]) -> list[float]:
        """The statistic that each query of some stretches left; -inf without a past, and before `QUERIES_MIN`."""
        found: list[float] = []
        for stretch in stretches:
            counts = np.arange(stretch.first, stretch.last + 1)
            if stretch.past is None:
                found += [-np.inf] * len(counts)
                continue
            values = self.statistic(stretch.past, stretch.sums.reshape(len(counts), -1), counts)
            found += np.where(counts >= QUERIES_MIN, values, -np.inf).tolist()
        return found


def together(p_value: float, past_p_value: float) -> float:
    """The p-value of two tests, of a client with a past: the smaller one doubled, at most 1 (Bonferroni).

    The tests share their queries, so nothing better holds for whatever honest clients do.
    """
    return min(1.0, 2 * min(p_value, past_p_value))


def rate_together(rate: float, past_rate: float) -> float:
    """How many honest clients, at most, are beyond what either test supports; each test its own smallest rate."""
    return min(1.0, rate + past_rate)


def changes(past: Past, sums: Rows, count: int) -> Rows:
    """How far the mean of each score (scores,) moved, in deviations of what chance would; 0 for one not `KEPT`."""
    moved: Rows = (sums / count - past.sums / past.count) / np.sqrt(1 / count + 1 / past.count)
    kept: Rows = np.zeros(len(moved))
    kept[KEPT] = moved[KEPT]
    return kept


def _scaled(effects: RandomEffects, clients: Sequence[Rows]) -> RandomEffects | None:
    """Effects with mean and deviation (queries,) of the raw statistic of clients' second half beside the first."""
    cut = [(scores[: len(scores) // 2], scores[len(scores) // 2 :]) for scores in clients]
    cut = [(first, second) for first, second in cut if len(first) >= QUERIES_MIN]
    if len(cut) < 2:
        return None
    length = int(np.median([len(second) for _, second in cut]))
    raw = np.full((len(cut), length), np.nan)
    for row, (first, second) in zip(raw, cut, strict=True):
        sums = np.cumsum(second[:length], axis=0)
        row[: len(sums)] = _raw(effects, Past(first.sum(axis=0), len(first)), sums, np.arange(1, len(sums) + 1))
    width = np.sqrt(np.maximum(np.nanvar(raw, axis=0), RIDGE))
    return replace(effects, centre=np.nanmean(raw, axis=0), width=width)


def _raw(effects: RandomEffects, past: Past, sums: Rows, counts: NDArray[np.int64]) -> Rows:
    each = counts[:, None].astype(np.float64)
    before = product((past.sums[KEPT] / past.count - effects.mean)[None], effects.basis)[0]
    new = product(np.take(sums, KEPT, axis=1) / each - effects.mean, effects.basis)
    # of λ and 1/t as in `suspicion`: the true mean given the past, and how far it can lie from that
    expected = before * (effects.between / (effects.between + 1 / past.count))
    unknown = effects.between / (1 + effects.between * past.count)
    return np.asarray(np.add.reduce(np.square(new - expected) / (unknown + 1 / each), axis=1))
