"""A calibration for requests to a language model: that of `watch.calibration`, with instruments for texts.

The promise and its condition are the same (docs/watch.md): whole honest clients, each of whom counts once. There are
two statistics (`panels`), and honest clients' largest values of each; of two p-values the smaller one counts, doubled.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from palladion.watch.calibration import QUERIES_OF_CLIENT_MIN, About, against, in_turns
from palladion.watch.client import QUERIES_MIN
from palladion.watch.conformal import Conformal
from palladion.watch.drift import DRIFT_QUERIES, Reference
from palladion.watch.rows import Rows
from palladion.watch.text.encoder import Encoder
from palladion.watch.text.instruments import TextInstruments
from palladion.watch.text.ngrams import AT_ONCE
from palladion.watch.text.panels import STATISTICS, Panels
from palladion.watch.text.query import Conversation


@dataclass(frozen=True, eq=False)
class TextThresholds:
    """The largest values of honest clients, or of honest organisations of one size, for each statistic."""

    each: tuple[Conformal, ...]

    @classmethod
    def fit(cls, suprema: Rows) -> "TextThresholds":
        """From the largest statistics (clients, STATISTICS). Raises ValueError without clients, or for a NaN."""
        return cls(tuple(Conformal.fit(found) for found in np.reshape(suprema, (-1, STATISTICS)).T))

    @property
    def count(self) -> int:
        """How many clients, or organisations, they are from."""
        return len(self.each[0].suprema)

    @property
    def rate_min(self) -> float:
        """The smallest false-alarm rate that so many support."""
        return min(1.0, len(self.each) * self.each[0].rate_min)

    def p_value(self, suprema: Sequence[float]) -> float:
        """The p-value of one whose statistics (STATISTICS,) have been at most `suprema` so far."""
        smaller = min(known.p_value(value) for known, value in zip(self.each, suprema, strict=True))
        return min(1.0, len(self.each) * smaller)

    def p_values(self, statistics: Rows) -> Rows:
        """The p-value of each of several (n, STATISTICS)."""
        smaller = np.min([known.p_values(found) for known, found in zip(self.each, statistics.T, strict=True)], axis=0)
        return np.asarray(np.minimum(len(self.each) * smaller, 1.0))


@dataclass(frozen=True, eq=False)
class TextCalibration:
    """Instruments, and the thresholds from honest clients and from honest organisations by size."""

    about: About
    instruments: TextInstruments
    clients: TextThresholds
    groups: Mapping[int, TextThresholds]
    drift: Reference | None = None

    @property
    def encoder(self) -> Encoder | None:
        """What makes vectors of texts beside their n-grams, or the name of what does."""
        return self.instruments.features.encoder

    def opened(self, encoder: Encoder) -> "TextCalibration":
        """The same with the encoder that it names. Raises ValueError for another one."""
        if self.encoder is None or (self.encoder.digests, self.encoder.width) != (encoder.digests, encoder.width):
            raise ValueError("a calibration is opened with the encoder that it was made with, and with no other")
        features = replace(self.instruments.features, encoder=encoder)
        return replace(self, instruments=replace(self.instruments, features=features))

    def statistics(self, sums: Rows, counts: NDArray[np.int64], concentration: Rows | None = None) -> Rows:
        """The statistics (n, STATISTICS) of summed scores (n, scores), as `Panels.statistics`."""
        return self.instruments.effects.statistics(sums, counts, concentration)

    def p_value(self, suprema: Sequence[float]) -> float:
        """The p-value of a client by the largest value (STATISTICS,) that each of its statistics has taken."""
        return self.clients.p_value(suprema)

    def p_values(self, statistics: Rows) -> Rows:
        """The p-value of a client after each of several queries, by that query's statistics (n, STATISTICS)."""
        return self.clients.p_values(statistics)

    def group_p_values(self, sums: Rows, counts: NDArray[np.int64], squares: NDArray[np.int64]) -> Rows:
        """The p-value (n,) of a group after each of several queries, as `watch.calibration.group_p_values`.

        Given are the pooled sums of scores (n, scores), how many queries they are of, and the sum of squares of how
        many each member has asked.
        """
        concentration = squares / np.square(counts)
        sizes = np.rint(1 / concentration).astype(np.int64)
        weighed = (sizes >= 2) & (counts >= QUERIES_MIN)
        if self.groups:
            # the statistic grows with the number of queries: honest groups of forty would stand out among those of ten
            weighed &= sizes <= max(self.groups)
        if not self.groups or not weighed.any():
            return np.ones(len(counts))
        return against(self.groups, self.statistics(sums, counts, concentration), np.where(weighed, sizes, 1))


def calibrate_texts(
    about: About,
    fitting: Sequence[Conversation],
    clients: Iterable[Conversation],
    organisations: Iterable[Sequence[Conversation]],
    generator: np.random.Generator,
    *,
    encoder: Encoder | None = None,
    instruments: TextInstruments | None = None,
) -> TextCalibration:
    """Fit to the clients in `fitting` and take thresholds from whole `clients` and `organisations`, all disjoint.

    As `watch.calibration.calibrate`. Texts are looked at by their n-grams, and by an `encoder` where there is one. With
    `instruments`, these were fitted to `fitting` already.
    Raises ValueError where too few clients remain, FormatError where the encoder fails.
    """
    instruments = instruments or TextInstruments.fit(fitting, generator, encoder)
    left, suprema, beginnings = iter(clients), list[Rows](), list[Rows]()
    while some := list(islice(left, AT_ONCE)):
        for scores in instruments.score(some):
            if len(scores) >= QUERIES_OF_CLIENT_MIN:
                suprema.append(client_suprema(instruments.effects, scores, about.horizon))
            if min(len(scores), about.horizon) >= DRIFT_QUERIES:
                beginnings.append(scores[:DRIFT_QUERIES].sum(axis=0))
    by_size: defaultdict[int, list[Rows]] = defaultdict(list)
    asked = 0
    for members in organisations:
        asked += 1
        for size, found in group_suprema(instruments.effects, instruments.score(members)).items():
            by_size[size].append(found)
    groups = {size: TextThresholds.fit(np.array(found)) for size, found in by_size.items()}
    counted = replace(about, fitted=len(fitting), clients=len(suprema), organisations=asked)
    drift = Reference.of(beginnings, instruments.effects)
    return TextCalibration(counted, instruments, TextThresholds.fit(np.array(suprema)), groups, drift)


def client_suprema(effects: Panels, scores: Rows, horizon: int) -> Rows:
    """The largest statistics (STATISTICS,) of a client in its first epoch.

    `scores` (distinct, scores) are those of its distinct requests, `QUERIES_MIN` or more.
    """
    return np.asarray(client_statistics(effects, scores[:horizon])[QUERIES_MIN - 1 :].max(axis=0))


def client_statistics(effects: Panels, scores: Rows) -> Rows:
    """The statistics (distinct, STATISTICS) that each request of a client leaves."""
    return effects.statistics(np.cumsum(scores, axis=0), np.arange(1, len(scores) + 1))


def group_suprema(effects: Panels, members: Sequence[Rows]) -> dict[int, Rows]:
    """The largest pooled statistics of an organisation whose members ask in turns, for each size that it can form."""
    return {size: _group_suprema(effects, scores, who, size) for size, scores, who in in_turns(members)}


def _group_suprema(effects: Panels, scores: Rows, who: NDArray[np.int64], size: int) -> Rows:
    counts = np.arange(1, len(scores) + 1)
    asked = np.cumsum(who[:, None] == np.arange(size), axis=0)  # (queries, members)
    concentration = np.square(asked).sum(axis=1) / np.square(counts)
    found = effects.statistics(np.cumsum(scores, axis=0), counts, concentration)
    return np.asarray(found[max(QUERIES_MIN, size) - 1 :].max(axis=0))
