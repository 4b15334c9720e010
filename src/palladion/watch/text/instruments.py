"""What is fitted on honest talk to measure requests with: the chain of `watch.instruments`, for language models."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from palladion.watch.atypical import Atypical
from palladion.watch.coverage import Coverage
from palladion.watch.features import VALUE_MAX
from palladion.watch.instruments import REFERENCE_ROWS_MAX, parts
from palladion.watch.rows import Rows
from palladion.watch.scores import KNOTS, NormalScores
from palladion.watch.text.encoder import Encoder
from palladion.watch.text.features import COHESION, TEXT_FEATURES, TextFeatures
from palladion.watch.text.memory import TextMemory
from palladion.watch.text.memory import measure as measure_requests
from palladion.watch.text.ngrams import AT_ONCE
from palladion.watch.text.panels import Panels
from palladion.watch.text.query import Conversation

SCORES = len(TEXT_FEATURES) + 1  # those of the features, and last whether a request is atypical


@dataclass(frozen=True, eq=False)
class TextInstruments:
    """The fitted measuring chain of one model version."""

    features: TextFeatures
    scores: NormalScores
    atypical: Atypical
    effects: Panels
    coverage: Coverage

    @classmethod
    def fit(
        cls,
        clients: Sequence[Conversation],
        generator: np.random.Generator,
        encoder: Encoder | None = None,
        *,
        others: Sequence[Conversation] = (),
    ) -> "TextInstruments":
        """Fit to whole honest clients, beside n-grams by an `encoder`. Raises ValueError where they are too few.

        With `others` all but what texts are measured in is fitted to these, for those who have few clients: texts that
        directions were fitted to lie along them, and those of other clients do not (`watch.apart`).
        """
        queries = [query for client in clients for query in client.queries]
        if len(queries) > REFERENCE_ROWS_MAX:
            chosen = generator.choice(len(queries), REFERENCE_ROWS_MAX, replace=False)
            queries = [queries[place] for place in np.sort(chosen).tolist()]
        features = TextFeatures.fit(queries, generator, encoder)
        coverage = Coverage.draw(features.kept, generator)
        return cls.of_measured(features, coverage, measure(features, others or clients))

    @classmethod
    def of_measured(cls, features: TextFeatures, coverage: Coverage, clients: Sequence[Rows]) -> "TextInstruments":
        """Fit the rest to the features (distinct, features) of the requests of honest clients."""
        every = np.concatenate(clients)
        scores = _quantiles(every[:: max(1, len(every) // REFERENCE_ROWS_MAX)])
        plain = np.concatenate([scores.score(found) for found in clients])
        atypical = Atypical.fit(np.delete(plain[:: max(1, len(every) // REFERENCE_ROWS_MAX)], COHESION, axis=1))
        effects = Panels.fit([_scored(scores, atypical, found) for found in clients])
        return cls(features, scores, atypical, effects, coverage)

    def score_features(self, features: Rows) -> Rows:
        """The scores (rows, scores) of features (rows, features)."""
        return _scored(self.scores, self.atypical, features)

    def score(self, clients: Sequence[Conversation]) -> list[Rows]:
        """For each of some clients the scores (distinct, scores) of its distinct requests, as the watch sees them."""
        measured = measure(self.features, clients)
        if not measured:
            return []
        return parts(self.score_features(np.concatenate(measured)), [len(found) for found in measured])


def measure(features: TextFeatures, clients: Sequence[Conversation]) -> list[Rows]:
    """Features (distinct, features) of the distinct requests of whole clients, from nothing."""
    found: list[Rows] = []
    for start in range(0, len(clients), AT_ONCE):
        some = clients[start : start + AT_ONCE]
        measured = measure_requests(features, [(TextMemory(features.kept), client.queries) for client in some])
        found += parts(measured.features, measured.sizes)
    return found


def _scored(scores: NormalScores, atypical: Atypical, features: Rows) -> Rows:
    found = scores.score(features)
    return np.column_stack((found, atypical.score(np.delete(found, COHESION, axis=1))))


def _quantiles(features: Rows) -> NormalScores:
    """Those of honest requests. What none of them said, times for one, counts for nothing, whoever says it later.

    Cohesion is not ranked: a harvest has less of it than any honest client, and how much less is what tells it from
    the broadest of them. Its table is that of a normal distribution, so that its score is a straight line.
    """
    silent = np.asarray(np.isnan(features).all(axis=0))
    fitted = NormalScores.fit(np.where(silent, 0.0, features))
    fitted.quantiles[silent] = np.linspace(-VALUE_MAX, VALUE_MAX, KNOTS)
    common = features[:, COHESION]
    if not np.isnan(common).all():
        deviation = max(float(np.nanstd(common)), _DEVIATION_MIN)
        fitted.quantiles[COHESION] = np.nanmean(common) + _WIDE * deviation * _NORMAL
    return fitted


_WIDE = 2.0  # a score ends at three deviations: these are twice as wide as those of honest requests
_DEVIATION_MIN = 1e-3  # of clients who happen to be all alike
_NORMAL = np.array([NormalDist().inv_cdf(share) for share in np.linspace(0, 1, KNOTS).clip(1e-4, 1 - 1e-4).tolist()])
