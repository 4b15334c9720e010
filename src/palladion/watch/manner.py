"""In which manner a client asks for arrays: when, and which answers follow each other; nothing of what it asks.

One more test of a client (`own_tests`), by random effects as the first. It is there where the clients that were fitted
to have moments: recorded ones, or simulated ones that keep hours. Bounded whatever comes, clocks that are set included.
"""

import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from types import MappingProxyType
from typing import NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError
from palladion.watch.rows import Rows
from palladion.watch.scores import NormalScores
from palladion.watch.suspicion import RandomEffects
from palladion.watch.text.features import HOURS, hour_of_week

# Names in the order of the columns, and what an unusual value means to a person who asks why.
MANNERS: Mapping[str, str] = MappingProxyType(
    {
        "pace": "queries follow each other faster or slower than those of honest clients",
        "regularity": "queries follow each other at more, or less, equal times than those of honest clients",
        "hour": "queries come at hours at which honest clients rarely ask",
        "run": "the same class is named twice in a row more, or less, often than to honest clients",
        "balance": "the classes named are spread more, or less, evenly than those of honest clients",
    }
)
LAST = 32  # answers whose classes are remembered: with 32, ten classes in turn are told from ten drawn at random
BALANCE_MIN = 8  # of fewer answers nobody can say how they are spread
GAP_S_MIN, GAP_S_MAX = 1e-3, 30 * 86_400.0  # between two queries; beyond, they have nothing to do with each other
# Of the mean variance between clients, as `suspicion.BETWEEN_SHARE`, but less: honest clients differ in their hours and
# classes, and hardly in how regularly they ask. With 0.2, of thieves who ask honest rows evenly none is seen at 1 %,
# with 0.02 all, and with 0.01 no more (bench/manner.py, development seed 5).
BETWEEN_SHARE_MIN = 0.02
_CLASS_MAX = 0xFFFF  # classes beyond are one
_NONE = (math.nan, math.nan, math.nan)
_HEAD = struct.Struct("<2dH")
_CLASS_BYTES, _NUMBER_BYTES = 2, 8
HABITS_BYTES = _HEAD.size + len(MANNERS) * _NUMBER_BYTES + LAST * _CLASS_BYTES


class Habits:
    """What is remembered of a client's manner: its last moment, the gap before it, the classes last named to it.

    And `sums` (manners,) of its scores over the epoch.
    """

    __slots__ = ("_classes", "_gap", "_last", "sums")

    def __init__(self) -> None:
        """Of who never asked."""
        self._last = self._gap = math.nan
        self._classes: list[int] = []
        self.sums: Rows = np.zeros(len(MANNERS))

    def look(self, rarity: Sequence[float], named: Sequence[int], at: float) -> list[list[float]]:
        """The manners (distinct, manners) of a request's distinct queries, to which these classes were `named`.

        NaN where nothing can be said. All came `at` one moment, in seconds since 1970, and the first of them alone
        says something of times: how distinct queries are cut into requests that come at once makes no difference. A
        request without any is one of the client's moments, too.
        """
        times = self._times(rarity, at)
        found = []
        for label in named:
            found.append([*times, *self._answered(min(label, _CLASS_MAX))])
            times = _NONE
        return found

    def add(self, scores: Rows) -> Rows:
        """Add the scores (n, manners) of queries to the sums; the sums (n * manners,) after each."""
        if len(scores) == 1:
            self.sums = self.sums + scores[0]
            return self.sums
        found: Rows = self.sums + np.add.accumulate(scores, axis=0)
        self.sums = found[-1].copy()
        return found.ravel()

    def begin(self) -> None:
        """Begin an epoch: what was is remembered, and counts no more."""
        self.sums = np.zeros(len(MANNERS))

    def merge(self, other: "Habits") -> "Habits":
        """The habits of a client whose queries were dealt to two places; either comes first.

        What was asked at the other place lay between, so the last gap is not known, and which classes were named last
        is known of the later place alone.
        """
        later = max(
            self,
            other,
            key=lambda habits: (-math.inf if math.isnan(habits._last) else habits._last, habits._classes),
        )
        found = Habits()
        found._last, found._classes, found.sums = later._last, list(later._classes), self.sums + other.sums
        return found

    def to_bytes(self) -> bytes:
        """For the registry: everything above, always as many bytes."""
        classes = np.array(self._classes, "<u2").tobytes().ljust(LAST * _CLASS_BYTES, b"\0")
        return _HEAD.pack(self._last, self._gap, len(self._classes)) + self.sums.tobytes() + classes

    @classmethod
    def of_bytes(cls, data: bytes) -> Self:
        """What `to_bytes` gave. Raises FormatError on figures that nobody can have."""
        found = cls()
        found._last, found._gap, count = _HEAD.unpack_from(data)
        found.sums = np.frombuffer(data, np.float64, len(MANNERS), _HEAD.size).copy()
        classes = np.frombuffer(data, "<u2", LAST, HABITS_BYTES - LAST * _CLASS_BYTES).tolist()
        times = math.isinf(found._last) or not (math.isnan(found._gap) or GAP_S_MIN <= found._gap <= GAP_S_MAX)
        if times or count > LAST or any(classes[count:]) or not np.isfinite(found.sums).all():
            raise FormatError("the saved state of a client holds habits that nobody has")
        found._classes = classes[:count]
        return found

    def _times(self, rarity: Sequence[float], at: float) -> tuple[float, float, float]:
        """Logarithm of the gap before a moment, how unlike the one before it was, and how rare its hour is."""
        if not math.isfinite(at):
            return _NONE
        last, before = self._last, self._gap
        if at == last:
            return _NONE
        self._last, self._gap = at, math.nan
        hour = rarity[hour_of_week(at)]
        gap = at - last
        if not 0 < gap <= GAP_S_MAX:  # the first one, a clock that was set back, or one whose owner was away
            return math.nan, math.nan, hour
        self._gap = gap = max(gap, GAP_S_MIN)
        return math.log(gap), abs(math.log(gap / before)) if before > 0 else math.nan, hour

    def _answered(self, label: int) -> tuple[float, float]:
        """Whether the class is that of the query before, and which share of the last ones it was named to."""
        if label < 0:
            return math.nan, math.nan
        last = self._classes
        run = float(last[-1] == label) if last else math.nan
        balance = last.count(label) / len(last) if len(last) >= BALANCE_MIN else math.nan
        last.append(label)
        if len(last) > LAST:
            del last[0]
        return run, balance


class Manners(NamedTuple):
    """Of honest clients: the share of queries in each hour (HOURS,), and each one's manners (distinct, manners)."""

    hours: Rows
    clients: Sequence[Rows]


@dataclass(frozen=True, eq=False)
class MannerTest:
    """How honest clients ask: the share of their queries in each hour (HOURS,), scores of manners, and their spread."""

    hours: Rows
    scores: NormalScores
    effects: RandomEffects

    @classmethod
    def fit(cls, honest: Manners) -> "MannerTest":
        """Fit to honest clients. Raises ValueError on too few (`RandomEffects.fit`)."""
        every = np.concatenate(honest.clients)
        # what nobody shows, as classes of a model that names none: all share one value then, and it says nothing
        every[:, np.isnan(every).all(axis=0)] = 0.0
        scores = NormalScores.fit(every)
        clients = [scores.score(found) for found in honest.clients]
        return cls(honest.hours, scores, RandomEffects.fit(clients, between_share=BETWEEN_SHARE_MIN))

    @cached_property
    def rarity(self) -> list[float]:
        """How rare each hour is (HOURS,)."""
        return rarity_of(self.hours)

    def look(self, habits: Habits, named: Sequence[int], at: float) -> Rows:
        """The scores (distinct, manners) of one request (`Habits.look`)."""
        found = habits.look(self.rarity, named, at)
        if len(found) == 1:
            return np.array((self.scores.score_one(found[0]),))
        return self.scores.score(np.array(found)) if found else np.empty((0, len(MANNERS)))

    def deviations(self, sums: Rows, count: int) -> dict[str, float]:
        """How many deviations of an honest client each mean of summed scores (manners,) is off; the oddest first."""
        shown = dict(zip(MANNERS, self.effects.deviations(sums, count).tolist(), strict=True))
        return dict(sorted(shown.items(), key=lambda item: -abs(item[1])))


def look_back(rarity: Sequence[float], at: NDArray[np.float64], named: Sequence[int], fresh: NDArray[np.bool_]) -> Rows:
    """The manners (distinct, manners) of one client's whole traffic, as `Habits.look` of each request gives them.

    Of each query the moment `at` (queries,), the class `named` to it, and whether it is `fresh`, no exact repeat.
    """
    habits, found = Habits(), list[list[float]]()
    for moment, some in groupby(zip(at.tolist(), named, fresh.tolist(), strict=True), key=lambda query: query[0]):
        found += habits.look(rarity, [label for _, label, new in some if new], moment)
    return np.array(found).reshape(-1, len(MANNERS))


def hours_of(clients: Sequence[NDArray[np.float64]]) -> Rows:
    """The share of queries in each hour (HOURS,), of the moments of honest clients, each of whom counts as much."""
    found = np.ones(HOURS) / HOURS  # one client more, who asks whenever it likes: no hour is impossible
    for moments in clients:
        hours = [hour_of_week(at) for at in moments[np.isfinite(moments)].tolist()]
        found += np.bincount(hours, minlength=HOURS) / max(len(hours), 1)
    return np.asarray(found / found.sum())


def no_hours() -> Rows:
    """The shares (HOURS,) where nothing is known of hours: each is as usual as any other."""
    return np.full(HOURS, 1 / HOURS)


def rarity_of(hours: Rows) -> list[float]:
    """How rare hours (HOURS,) are in which so large shares of queries come."""
    return [-math.log(share) for share in hours.tolist()]
