"""A calibration for texts as the watch uses it: satisfies `watch.kinds.AnyCalibration`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from types import MappingProxyType
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from palladion.watch.calibration import About
from palladion.watch.client import ClientState, Scored
from palladion.watch.drift import Reference
from palladion.watch.features import ATYPICAL, SCORES
from palladion.watch.instruments import parts
from palladion.watch.rows import Rows
from palladion.watch.text.calibration import TextCalibration
from palladion.watch.text.features import TEXT_FEATURES
from palladion.watch.text.memory import TextMemory, measure
from palladion.watch.text.panels import Panels
from palladion.watch.text.query import Query

WORDS: Mapping[str, str] = MappingProxyType({**TEXT_FEATURES, ATYPICAL: SCORES[ATYPICAL]})


class Texts(Protocol):
    """What is asked in one request."""

    @property
    def queries(self) -> Sequence[Query]:
        """The texts, in order."""
        ...


class _NoShares:
    """A group of texts is weighed by what its members asked together, and not member by member."""

    def parts(self, sums: Rows, counts: NDArray[np.int64]) -> NDArray[np.int64]:
        return np.zeros((*np.shape(counts), 3), np.int64)

    def part(self, total: float, count: int) -> tuple[int, int, int]:
        return 0, 0, 0


_NO_SHARES = _NoShares()


@dataclass(frozen=True, eq=False)
class WatchedTexts:
    """The calibration, and what is made of it. The statistic is minus the p-value, so that one number is enough."""

    calibration: TextCalibration

    @property
    def about(self) -> About:
        """What it is of and from."""
        return self.calibration.about

    @property
    def words(self) -> Mapping[str, str]:
        """The scores in order by name, and what an unusual one means."""
        return WORDS

    @property
    def shares(self) -> _NoShares:
        """No test looks at each member."""
        return _NO_SHARES

    @property
    def drift(self) -> Reference | None:
        """What the drift test holds clients against."""
        return self.calibration.drift

    @property
    def beginnings(self) -> Panels:
        """What weighs a client's first queries, for the drift test."""
        return self.calibration.instruments.effects

    def new_state(self) -> ClientState:
        """The state of a client that never asked."""
        size = len(WORDS)
        return ClientState(np.zeros(size), pooled_sums=np.zeros(size), memory=TextMemory(self._kept))

    def fits(self, state: ClientState) -> bool:
        """Whether a saved state is one of this calibration, as far as its sizes tell."""
        return state.memory.mark == TextMemory.mark and cast("TextMemory", state.memory).kept == self._kept

    def measure(self, requests: Sequence[tuple[ClientState, Texts]]) -> list[Scored]:
        """Measure requests, in order, each with the state of who asked."""
        instruments = self.calibration.instruments
        # whatever a text says, it can be looked at: nothing fails halfway
        measured = measure(
            instruments.features, [(cast("TextMemory", state.memory), texts.queries) for state, texts in requests]
        )
        buckets = iter(instruments.coverage.buckets(measured.coordinates))
        scores = parts(instruments.score_features(measured.features), measured.sizes)
        return [Scored(own, list(islice(buckets, len(own)))) for own in scores]

    def statistic(self, sums: Rows, counts: NDArray[np.int64]) -> Rows:
        """Minus the p-value (n,) of a client after each of several queries."""
        return -self.calibration.p_values(self.calibration.statistics(sums, counts))

    def p_value(self, statistic: float) -> float:
        """The p-value of a client whose statistic has been at most that."""
        return min(1.0, -statistic)

    @property
    def rate_min(self) -> float:
        """The smallest p-value that a client can have."""
        return self.calibration.clients.rate_min

    def threshold(self, alpha: float) -> float:
        """What the statistic of so small a share of honest clients is ever larger than."""
        return float(np.nextafter(-alpha, -np.inf))

    def group_p_values(
        self, sums: Rows, counts: NDArray[np.int64], squares: NDArray[np.int64], shares: NDArray[np.int64]
    ) -> Rows:
        """The p-value (n,) of a group after each of several queries; `shares` say nothing."""
        return self.calibration.group_p_values(sums, counts, squares)

    def deviations(self, sums: Rows, count: int) -> Rows:
        """How many standard deviations of an honest client each mean score (scores,) is off."""
        return self.calibration.instruments.effects.deviations(sums, count)

    @cached_property
    def _kept(self) -> int:
        return self.calibration.instruments.features.kept
