"""How a client's own queries speak against it: beside honest clients, and where these are few, beside its own past.

One for each watched model. Keeps nothing of clients: their states are given.
"""

from collections.abc import Sequence
from typing import NamedTuple

from palladion.watch.calibration import Calibration
from palladion.watch.client import ClientState, Stretch
from palladion.watch.explanation import NOTEWORTHY
from palladion.watch.kinds import AnyCalibration
from palladion.watch.own_past import changes, rate_together, together
from palladion.watch.rows import Rows


class Weighed(NamedTuple):
    """What some queries came to: their p-value, and whether they are `OwnEvidence.is_beyond` by themselves."""

    p_value: float
    beyond: bool


class OwnEvidence:
    """The tests of a client on its own, and what both together come to.

    A client without a past is weighed by one test and has that one's p-value. From its second epoch on it is weighed by
    both, and its p-value is the smaller one doubled: so the rate holds for each epoch, with a past or without. Where
    real clients are few, who is beyond all of them by either test is told apart from who has a p-value as small: the
    two tests can support rates of their own, and doubling the larger one would reach into the middle of the other.
    """

    def __init__(self, calibration: AnyCalibration, alpha: float) -> None:
        """`alpha` is the p-value from which queries count as suspicious (`renew`)."""
        self._calibration = calibration
        self._horizon = calibration.about.horizon
        self._past = calibration.past if isinstance(calibration, Calibration) else None
        self._rate_min = 0.0  # of its own test, where real clients are few
        if isinstance(calibration, Calibration) and calibration.about.kind == "few real":
            self._rate_min = calibration.clients.rate_min
        self.renew(alpha)

    def renew(self, alpha: float) -> None:
        """Count queries that leave a p-value of at most `alpha` as suspicious from now on."""
        self._alpha = alpha
        self._threshold = self._calibration.threshold(alpha)
        self._threshold_of_two = self._calibration.threshold(alpha / 2)
        self._threshold_of_past = float("inf") if self._past is None else self._past.threshold(alpha / 2)

    def advance(self, state: ClientState, scores: Rows, queries: int) -> list[Stretch]:
        """Add the scores (distinct, scores) of so many queries to a state; what they leave has to be weighed yet."""
        return state.advance(scores, queries, horizon=self._horizon, remember=self._past is not None)

    def begins(self, state: ClientState, distinct: int) -> bool:
        """Whether so many distinct queries more begin an epoch: all before has to be weighed until then."""
        return state.count + distinct > self._horizon and distinct > 0

    def weigh(self, state: ClientState, stretches: Sequence[Stretch], weighed: Sequence[float]) -> Weighed:
        """Let a client's state take in its queries and their statistics, `weighed`; what these alone come to."""
        if self._past is None or all(stretch.past is None for stretch in stretches):
            own = self._calibration.p_value(state.weigh(stretches, weighed, threshold=self._threshold))
            return Weighed(own, self._are_beyond(own, None))
        largest = state.weigh(stretches, weighed, threshold=self._threshold_of_two)
        beside = self._past.statistics(stretches)
        largest_beside = state.weigh_past(stretches, beside)
        state.suspected += sum(
            new > self._threshold_of_past and value <= self._threshold_of_two
            for new, value in zip(beside, weighed, strict=True)
        )
        own, past = self._calibration.p_value(largest), self._past.p_value(largest_beside)
        return Weighed(together(own, past), self._are_beyond(own, past))

    def p_value(self, state: ClientState) -> float:
        """The p-value of a client in its epoch."""
        own, past = self._p_values(state)
        return own if past is None else together(own, past)

    def is_beyond(self, state: ClientState) -> bool:
        """Whether one of its tests finds a client more unusual than all of the few real ones; False if not few."""
        return self._rate_min > 0 and self._are_beyond(*self._p_values(state))

    def rate_min(self, state: ClientState) -> float:
        """How many honest clients `is_beyond` holds of, at most, where few real clients are known; else 0."""
        if not self._rate_min or self._past is None or state.past is None:
            return self._rate_min
        return rate_together(self._rate_min, self._past.rate_min)

    def reasons(self, state: ClientState) -> tuple[str, ...]:
        """What is to be said to a person beside the scores: of the past, and of who is beyond all few real clients."""
        found: list[str] = []
        p_value = self.p_value(state)
        if self._past is not None and state.past is not None and state.count:
            moved = changes(state.past, state.sums, state.count)
            place = int(abs(moved).argmax())
            if abs(moved[place]) >= NOTEWORTHY and p_value == min(1.0, 2 * self._past.p_value(state.past_supremum)) < 1:
                name, words = list(self._calibration.words.items())[place]
                found.append(f"own earlier queries, {name} {moved[place]:+.1f}: {words}")
        if p_value > self._alpha and self.is_beyond(state):
            share = f"as at most {self.rate_min(state):.2g} of honest ones are"
            found.append(f"beyond all of the few calibration clients, {share}: a person should look")
        return tuple(found)

    def _p_values(self, state: ClientState) -> tuple[float, float | None]:
        """By its own test, and beside its past, if it has one."""
        own = self._calibration.p_value(state.supremum)
        if self._past is None or state.past is None:
            return own, None
        return own, self._past.p_value(state.past_supremum)

    def _are_beyond(self, own: float, past: float | None) -> bool:
        if not self._rate_min:
            return False
        beside = past is not None and self._past is not None and past <= self._past.rate_min
        return beside or own <= self._rate_min
