"""How a client's own queries speak against it: beside honest clients, and where these are few, beside its own past.

One for each watched model. Keeps nothing of clients: their states are given.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

from palladion.watch.calibration import Calibration
from palladion.watch.client import ClientState, Stretch
from palladion.watch.explanation import NOTEWORTHY, oddest, unlike
from palladion.watch.instruments import Instruments
from palladion.watch.kinds import AnyCalibration
from palladion.watch.manner import MANNERS
from palladion.watch.own_past import changes, rate_together, together
from palladion.watch.own_tests import MANNER, WHOLE, WORDS
from palladion.watch.recent import Lately, run_of_parts
from palladion.watch.rows import Rows
from palladion.watch.spending import spent_weight
from palladion.watch.suspicion import QUERIES_MIN
from palladion.watch.why import BY_PLACE, Test, Unlike

RARE = 0.05  # of honest clients: where more are as unusual, it explains nothing which test says so


class Weighed(NamedTuple):
    """What some queries came to: their p-value, and whether they are `OwnEvidence.is_beyond` by themselves."""

    p_value: float
    beyond: bool


class _Limits(NamedTuple):
    """What a statistic is larger than where a query counts as suspicious: of one test, of two, and beside the past."""

    alone: float
    of_two: float
    past: float


class OwnEvidence:
    """The tests of a client on its own, and what both together come to.

    A client without a past is weighed by one test and has that one's p-value. From its second epoch on it is weighed by
    both, and its p-value is the smaller one doubled: so the rate holds for each epoch, with a past or without. Where
    real clients are few, who is beyond all of them by either test is told apart from who has a p-value as small: the
    two tests can support rates of their own, and doubling the larger one would reach into the middle of the other.

    Where a rate is for all epochs of a client together, its p-values are those of `spending`: they count the more, the
    more epochs it has begun. Who is beyond all calibration clients is told apart then as well, from the epoch on in
    which these support what is spent no more.
    """

    def __init__(self, calibration: AnyCalibration, alpha: float, *, lifetime: bool = False) -> None:
        """`alpha` is the p-value from which queries count as suspicious, in `lifetime` or in each epoch (`renew`)."""
        self._calibration = calibration
        self._horizon = calibration.about.horizon
        self._past = calibration.past if isinstance(calibration, Calibration) else None
        self._instruments: Instruments | None = None  # of a client that is weighed by several tests
        if isinstance(calibration, Calibration) and calibration.instruments.own is not None:
            self._instruments = calibration.instruments
        self._manner = None if self._instruments is None else self._instruments.manner
        self._rare = calibration.threshold(RARE)
        self._rate_min = 0.0  # of its own test, where real clients are few
        if calibration.about.kind == "few real":
            self._rate_min = calibration.rate_min
        self.renew(alpha, lifetime=lifetime)

    def renew(self, alpha: float, *, lifetime: bool = False) -> None:
        """Count queries that leave a p-value of at most `alpha` as suspicious from now on.

        With `lifetime`, it is spent over all epochs of a client, those it has begun already among them.
        """
        self._alpha, self._lifetime = alpha, lifetime
        self._limits = self._limits_at(alpha)

    def advance(
        self, state: ClientState, scores: Rows, queries: int, named: Sequence[int] = (), at: float = math.nan
    ) -> list[Stretch]:
        """Add the scores (distinct, scores) of so many queries to a state; what they leave has to be weighed yet.

        The classes `named` to them (distinct,) and when they were asked, all `at` once, are its manner.
        """
        manners = None
        if state.habits is not None and self._manner is not None:
            manners = self._manner.look(state.habits, named, at) if len(named) == len(scores) else None
        remember = self._past is not None
        return state.advance(scores, queries, horizon=self._horizon, remember=remember, manners=manners)

    def begins(self, state: ClientState, distinct: int) -> bool:
        """Whether so many distinct queries more begin an epoch: all before has to be weighed until then."""
        return state.count + distinct > self._horizon and distinct > 0

    def weigh(self, state: ClientState, stretches: Sequence[Stretch], weighed: Sequence[float]) -> Weighed:
        """Let a client's state take in its queries and their statistics, `weighed`; what these alone come to."""
        before, weight = state.supremum, self._weight(state)
        limits = self._limits_at(self._alpha / weight) if self._lifetime else self._limits
        if self._past is None or all(stretch.past is None for stretch in stretches):
            own = self._calibration.p_value(state.weigh(stretches, weighed, threshold=limits.alone))
            self._note(state, stretches, weighed, before)
            return Weighed(min(1.0, own * weight), self._are_beyond(own, None, weight))
        largest = state.weigh(stretches, weighed, threshold=limits.of_two)
        self._note(state, stretches, weighed, before)
        beside = self._past.statistics(stretches)
        largest_beside = state.weigh_past(stretches, beside)
        state.suspected += sum(
            new > limits.past and value <= limits.of_two for new, value in zip(beside, weighed, strict=True)
        )
        own, past = self._calibration.p_value(largest), self._past.p_value(largest_beside)
        return Weighed(min(1.0, together(own, past) * weight), self._are_beyond(own, past, weight))

    def p_value(self, state: ClientState) -> float:
        """The p-value of a client in its epoch, as it counts."""
        return min(1.0, self._unspent(state) * self._weight(state))

    def is_beyond(self, state: ClientState) -> bool:
        """Whether one of its tests finds a client more unusual than all calibration clients, and these are too few.

        Too few real ones, or too few for what is spent in its epoch; False if neither.
        """
        return (self._rate_min > 0 or self._lifetime) and self._are_beyond(*self._p_values(state), self._weight(state))

    def rate_min(self, state: ClientState) -> float:
        """How many honest clients `is_beyond` holds of, at most, where few real clients are known; else 0."""
        if not self._rate_min or self._past is None or state.past is None:
            return self._rate_min
        return rate_together(self._rate_min, self._past.rate_min)

    def reasons(self, state: ClientState) -> tuple[str, ...]:
        """What is to be said to a person beside the scores: of the past, and of who is beyond all few real clients."""
        found: list[str] = []
        p_value, unspent = self.p_value(state), self._unspent(state)
        if WORDS[state.spoke]:
            found.append(WORDS[state.spoke])
        if state.spoke == MANNER:
            found += [f"{name} {value:+.1f}: {MANNERS[name]}" for name, value in self._odd_manners(state)]
        if self._past is not None and state.past is not None and state.count:
            moved = changes(state.past, state.sums, state.count)
            place = int(abs(moved).argmax())
            if abs(moved[place]) >= NOTEWORTHY and unspent == min(1.0, 2 * self._past.p_value(state.past_supremum)) < 1:
                name, words = list(self._calibration.words.items())[place]
                found.append(f"own earlier queries, {name} {moved[place]:+.1f}: {words}")
        if p_value > self._alpha and self.is_beyond(state):
            # by its own test alone where real clients are not few: then it has no past
            rate = self.rate_min(state) or self._calibration.rate_min
            whom = "all of the few calibration clients" if self._rate_min else "all calibration clients"
            found.append(f"beyond {whom}, as at most {rate:.2g} of honest ones are: a person should look")
        if self._lifetime and state.epoch and unspent <= RARE:
            times = f"{self._weight(state):.3g} times as much, since rates are for all epochs together"
            found.append(f"in its epoch {state.epoch + 1} a p-value of {unspent:.2g} counts {times}")
        return tuple(found)

    def _note(self, state: ClientState, stretches: Sequence[Stretch], weighed: Sequence[float], before: float) -> None:
        """Take note of the test that gave the supremum, if that is another than the one `before` these queries.

        Only where it is rare: that takes as long as weighing, and says nothing of anybody else.
        """
        if self._instruments is None or not stretches:
            return
        latest = stretches[-1]  # all but the first begin an epoch
        part = weighed[len(weighed) - (latest.last - latest.first + 1) :]
        if state.supremum <= self._rare:
            state.spoke = WHOLE
        elif latest.begins or state.supremum > before:
            state.spoke = self._spoke(latest, part.index(max(part)))

    def _spoke(self, stretch: Stretch, place: int) -> int:
        """The test by which a query of a stretch is the most unusual."""
        instruments = self._instruments
        if instruments is None or instruments.own is None or stretch.lately is None:
            return WHOLE
        if stretch.first + place < QUERIES_MIN:
            return WHOLE
        size = len(stretch.sums) // (stretch.last - stretch.first + 1)
        at, one = slice(place * size, (place + 1) * size), slice(place, place + 1)
        last = Lately(stretch.lately.sums[at], stretch.lately.near[one], stretch.lately.near_lately[one])
        manners = []
        if stretch.manners is not None:
            manners = [stretch.manners.reshape(-1, len(MANNERS))[place]]
        run = run_of_parts([stretch.sums[at]], [last], [stretch.first + place], manners)
        return int(instruments.own.each(instruments.effects, run)[0].argmax())

    def unlike(self, state: ClientState) -> Unlike:
        """What of a client's queries is most unlike honest ones, or its own earlier ones, where that test speaks."""
        test = self._test(state)
        if test == "manner":
            return Unlike(test, "numbers", tuple(self._odd_manners(state)))
        if test != "past" or state.past is None or not state.count:
            return unlike(self._calibration, state.sums, state.count, test)
        return Unlike(test, "numbers", oddest(self._calibration, changes(state.past, state.sums, state.count)))

    def _odd_manners(self, state: ClientState) -> list[tuple[str, float]]:
        """The manners that are noteworthy, and by how much, the oddest first."""
        if self._manner is None or state.habits is None or not state.count:
            return []
        shown = self._manner.deviations(state.habits.sums, state.count)
        return [(name, value) for name, value in shown.items() if abs(value) >= NOTEWORTHY]

    def _test(self, state: ClientState) -> Test:
        """Which of the tests a client's p-value is of."""
        own, past = self._p_values(state)
        if self._rate_min and own * self._weight(state) > self._alpha and self.is_beyond(state):
            return "few"
        if past is not None and past < own:
            return "past"
        return BY_PLACE[state.spoke]

    def _p_values(self, state: ClientState) -> tuple[float, float | None]:
        """By its own test, and beside its past, if it has one."""
        own = self._calibration.p_value(state.supremum)
        if self._past is None or state.past is None:
            return own, None
        return own, self._past.p_value(state.past_supremum)

    def _unspent(self, state: ClientState) -> float:
        """The p-value of a client in its epoch, as if there were no other epoch."""
        own, past = self._p_values(state)
        return own if past is None else together(own, past)

    def _weight(self, state: ClientState) -> float:
        return spent_weight(state.epoch) if self._lifetime else 1.0

    def _limits_at(self, alpha: float) -> _Limits:
        past = float("inf") if self._past is None else self._past.threshold(alpha / 2)
        return _Limits(self._calibration.threshold(alpha), self._calibration.threshold(alpha / 2), past)

    def _are_beyond(self, own: float, past: float | None, weight: float) -> bool:
        if not self._rate_min:
            rate = self._calibration.rate_min
            return self._lifetime and own <= rate and rate * weight > self._alpha
        beside = past is not None and self._past is not None and past <= self._past.rate_min
        return beside or own <= self._rate_min
