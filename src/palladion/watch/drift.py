"""Has traffic left the calibration? A test over whole clients that may be looked at after each of them.

Every client gives one value, when it has asked `DRIFT_QUERIES` distinct queries: its statistic there and its mean
scores. A *panel* says whether that lies beyond what a share u of calibration clients lies beyond; how often it may say
so is known (`_bound`), and whatever says so more often earns capital. Bets on a rate that is at most q multiply a
capital of one by a mean of at most one, so that it is ever 1 / delta or more with a probability of at most delta
(Ville): an e-process (Ramdas, Gruenwald, Vovk, Shafer, Statistical Science 38(4), 2023). Derivation: docs/watch.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from hashlib import sha256
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palladion.watch.client import ClientState, Stretch, Weighs
from palladion.watch.newcomers import Alarm, Newcomers, NewcomersReference
from palladion.watch.rows import Rows

DRIFT_QUERIES = 32  # of a client; with fewer, chance hides what kind of client it is, and with more, few get there
CLIENTS_MIN = 20  # of fewer, hardly anything is known of how often a panel may speak
RATE = 0.01  # of calibrations whose claim is ever withdrawn, although all but thieves are exchangeable
THIEF_SHARE = 0.05  # of clients that may be thieves: that is what the watch is for, and no reason to distrust it
THIEVES_BESIDE = 3  # further ones, whenever they like: whoever comes first must not withdraw the claim alone
# u of the statistic: few who stand far out (the promise itself is of the tail), many who stand out a little
ABOVE = (0.02, 0.1, 0.5)
BELOW = (0.2,)  # clients who are all alike are no calibration clients either
SCORE_BEYOND = (
    0.2  # u of each score, to both sides; of .05 to .3 the one that finds shifts of 1 to 2 deviations soonest
)
BETS = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 3 / 4)  # stakes: small ones for small drifts
START_EVERY = 32  # clients: from each start the bets begin anew, so that years of calm do not hide a season
RECENT = 64  # clients that `recent` is a mean of, more or less
SHOWN = 3
_HALF = RATE / 2  # of the error is of the capital, half of knowing the rates from finitely many clients
_BISECTIONS = 60
STATISTIC = "statistic"


class _Panel(NamedTuple):
    """Whether a value lies beyond a threshold that a share of honest clients lies beyond."""

    column: int  # 0 is the statistic, then scores
    above: bool
    share: float
    threshold: float
    rate: float  # of clients that may lie beyond it, thieves included
    weight: float  # of all capital


@dataclass(frozen=True, eq=False)
class Reference:
    """What calibration clients gave: `statistics` (clients,) ascending, `scores` (scores, clients), each ascending.

    And what many newcomers together are held against, where there are enough of them (`newcomers`).
    """

    statistics: Rows
    scores: Rows
    newcomers: NewcomersReference | None = None

    @classmethod
    def fit(cls, statistics: Rows, means: Rows) -> "Reference | None":
        """From the statistics (clients,) and mean scores (clients, scores); None with fewer than `CLIENTS_MIN`."""
        if len(statistics) < CLIENTS_MIN:
            return None
        return cls(np.sort(statistics), np.sort(means, axis=0).T.copy())

    @classmethod
    def of(cls, clients: Sequence[Rows], effects: Weighs) -> "Reference | None":
        """The same from the sums (scores,) that each client's first `DRIFT_QUERIES` distinct queries left."""
        if not clients:
            return None
        sums = np.stack(clients)
        return cls.fit(effects.statistic(sums, np.full(len(sums), DRIFT_QUERIES)), sums / DRIFT_QUERIES)

    @cached_property
    def digest(self) -> str:
        """What tells it from others."""
        return sha256(self.statistics.tobytes() + self.scores.tobytes()).hexdigest()

    @cached_property
    def panels(self) -> Sequence[_Panel]:
        """All panels that so many clients support."""
        whole = [(0, True, share) for share in ABOVE] + [(0, False, share) for share in BELOW]
        single = [(1 + score, above, SCORE_BEYOND) for score in range(len(self.scores)) for above in (True, False)]
        found = [self._panel(*what, among=len(kind)) for kind in (whole, single) for what in kind]
        return [panel for panel in found if panel is not None]

    @cached_property
    def weights(self) -> Rows:
        """What part of all capital each panel (panels,) begins with."""
        return np.array([panel.weight for panel in self.panels])

    @cached_property
    def odds(self) -> tuple[Rows, Rows]:
        """What a stake becomes where a panel speaks (panels, bets), and where it does not (bets,)."""
        stakes = np.array(BETS)
        rates = np.array([panel.rate for panel in self.panels])[:, None]
        return 1 - stakes + stakes / rates, 1 - stakes

    def speaking(self, statistic: float, means: Rows) -> NDArray[np.bool_]:
        """Which panels (panels,) speak of a client."""
        columns, above, thresholds = self._conditions
        distance = np.concatenate(([statistic], means))[columns] - thresholds
        # where values tie, none speaks: then each speaks of fewer than its share, and never of more
        return np.asarray(np.where(above, distance > 0, distance < 0))

    @cached_property
    def _conditions(self) -> tuple[NDArray[np.int64], NDArray[np.bool_], Rows]:
        columns, above, thresholds = zip(*(panel[:2] + panel[3:4] for panel in self.panels), strict=True)
        return np.array(columns), np.array(above), np.array(thresholds)

    def _panel(self, column: int, above: bool, share: float, *, among: int) -> _Panel | None:
        values = self.scores[column - 1] if column else self.statistics
        rank = int(share * (len(values) + 1))
        if rank < 1:
            return None
        threshold = float(values[-rank] if above else values[rank - 1])
        # half of the errors of each kind are for the statistic, half for all scores
        honest = _bound(rank, len(values), _HALF / 2 / among)
        return _Panel(column, above, share, threshold, THIEF_SHARE + (1 - THIEF_SHARE) * honest, 1 / 2 / among)


def beginning(stretches: Sequence[Stretch], epoch: int) -> Rows | None:
    """The sums (scores,) that a client's `DRIFT_QUERIES`-th distinct query left, if it is among those just taken in.

    `epoch` is that of the client now. Only its first one counts: whoever begins anew has been counted already.
    """
    if not stretches or stretches[0].begins or epoch > len(stretches) - 1:
        return None
    first = stretches[0]
    if not first.first <= DRIFT_QUERIES <= first.last:
        return None
    sums: Rows = first.sums.reshape(first.last - first.first + 1, -1)[DRIFT_QUERIES - first.first]
    return sums


def is_counted(state: ClientState) -> bool:
    """Whether a client has asked so much that it was counted, or was not because somebody linked with it was."""
    return state.epoch > 0 or state.count >= DRIFT_QUERIES


@dataclass(eq=False)
class Drift:
    """What is known of one calibration: the capital of each bet (panels, bets), and how often each panel spoke lately.

    `left_at` is when the claim was withdrawn, in seconds since 1970; 0 for never. `told` says that people know.
    `revision` counts changes.
    """

    reference: Reference
    clients: int = 0
    left_at: float = 0.0
    told: bool = False
    capital: Rows = field(default_factory=lambda: np.zeros((0, len(BETS))))
    recent: Rows = field(default_factory=lambda: np.zeros(0))
    revision: int = 0
    newcomers: Newcomers | None = None

    def __post_init__(self) -> None:
        if self.newcomers is None and self.reference.newcomers is not None:
            self.newcomers = Newcomers(self.reference.newcomers)
        if not len(self.recent):
            panels = len(self.reference.panels)
            self.capital, self.recent = np.zeros((panels, len(BETS))), np.zeros(panels)

    @property
    def left(self) -> bool:
        """Whether traffic has left the calibration: then nothing is promised any more."""
        return self.left_at > 0

    @property
    def e_value(self) -> float:
        """The capital of all bets; that it ever reaches 2 / `RATE` has a probability of at most `RATE` / 2."""
        return float((self.reference.weights @ self.capital).mean())

    def count(self, weighs: Weighs, sums: Rows, *, now: float, client: str = "") -> None:
        """Take in a client that is linked with none before, by the sums (scores,) of its first `DRIFT_QUERIES`.

        By its id it is named if it is among newcomers who are unlike honest ones.
        """
        if self.newcomers is not None:
            self.newcomers.take(client, sums / DRIFT_QUERIES, now=now)
        statistic = weighs.statistic(sums[None], np.array([DRIFT_QUERIES]))
        self.take(float(statistic[0]), sums / DRIFT_QUERIES, now=now)

    def take(self, statistic: float, means: Rows, *, now: float) -> None:
        """The same by its statistic and its mean scores (scores,) by then."""
        wins, losses = self.reference.odds
        speaks = self.reference.speaking(statistic, means)
        if not self.left:
            start, within = divmod(self.clients, START_EVERY)
            if not within:
                # shares of all starts add up to 1; whatever THIEVES_BESIDE could win is paid for at once
                self.capital += wins**-THIEVES_BESIDE / ((start + 1) * (start + 2))
            self.capital *= np.where(speaks[:, None], wins, losses)
        self.clients += 1
        self.recent += (speaks - self.recent) / min(self.clients, RECENT)
        if not self.left and self.e_value >= 1 / _HALF:
            self.left_at = now
        self.revision += 1

    def tell(self) -> None:
        """Take note that people were told."""
        self.told = True
        self.revision += 1

    def tell_newcomers(self, alarm: Alarm) -> None:
        """Take note that people were told of a block of newcomers."""
        if self.newcomers is not None:
            self.newcomers.tell(alarm)
            self.revision += 1

    def moved(self, words: Mapping[str, str]) -> list[str]:
        """What has moved most, for people; `words` are the scores in order by name, and what each means."""
        names = [(STATISTIC, "clients are unlike calibration ones in all scores together"), *words.items()]
        panels, earned = self.reference.panels, self.capital.sum(axis=1)
        order = sorted(range(len(panels)), key=lambda index: -panels[index].weight * earned[index])
        found: dict[int, str] = {}
        for index in order:
            panel, share = panels[index], float(self.recent[index])
            if share > panel.rate and panel.column not in found:
                name, meaning = names[panel.column]
                side = "above" if panel.above else "below"
                found[panel.column] = (
                    f"{name} {side} that of all but {panel.share:.0%} of calibration clients "
                    f"for {share:.0%} of recent ones: {meaning}"
                )
        return list(found.values())[:SHOWN]


@lru_cache(256)
def _bound(rank: int, clients: int, error: float) -> float:
    """How many of all honest clients lie beyond the `rank`-th of so many, but for an `error`.

    That share has the distribution Beta(rank, clients + 1 - rank) over calibrations, whatever the values are; where
    they tie, fewer do. Its upper quantile is that of Clopper and Pearson (Biometrika 26, 1934): where a binomial
    variable of `clients` trials is below `rank` with probability `error`.
    """
    below = np.arange(rank)
    ways = np.concatenate(([0.0], np.cumsum(np.log((clients - below[:-1]) / (below[:-1] + 1)))))
    low, high = rank / (clients + 1), 1.0
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        terms = ways + below * np.log(middle) + (clients - below) * np.log1p(-middle) if middle < 1 else ways - np.inf
        low, high = (low, middle) if np.exp(terms).sum() <= error else (middle, high)
    return high
