"""What a replay of traffic comes to: who would have stood how, when and why, and what would have been withheld.

Values, and how two of them are compared; no gate, no model, no files. Who replays is in `palladion.redteam.replay`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from palladion.registry.rows import Standing
from palladion.watch.campaign_list import Campaign
from palladion.watch.response import rank

DISTURBING = rank("throttled")  # a watched client is answered as before


@dataclass(frozen=True)
class Turn:
    """A change of standing: to what, when (seconds since 1970), after how many of the client's queries, and why.

    `proposed` where the route only observes, so that nothing followed. `features` are those most unlike honest ones.
    """

    standing: Standing
    at: float
    queries: int
    reason: str
    proposed: bool = False
    features: tuple[str, ...] = ()


@dataclass(eq=False)
class Course:
    """One client over the whole traffic. `reduced` counts answers that disclosed less for its standing alone.

    `unlike` counts requests with rows too unlike honest ones (`abstain`), which were refused or would have been.
    """

    client: str
    organisation: str
    requests: int = 0
    queries: int = 0
    reduced: int = 0
    unlike: int = 0
    withheld: Counter[str] = field(default_factory=Counter)  # requests, by the kind of the problem
    turns: list[Turn] = field(default_factory=list)

    @property
    def worst(self) -> Standing:
        """The worst standing that it had, or that was proposed."""
        return max((turn.standing for turn in self.turns), key=rank, default="trusted")

    @property
    def worst_turn(self) -> Turn | None:
        """When it first got there."""
        return next((turn for turn in self.turns if turn.standing == self.worst), None)

    @property
    def disturbed(self) -> bool:
        """Whether it would have noticed its standing."""
        return any(rank(turn.standing) >= DISTURBING and not turn.proposed for turn in self.turns)

    @property
    def disturbed_answers(self) -> int:
        """Answers that it got reduced, or not at all, for its standing."""
        return self.reduced + self.withheld["suspended"]

    @property
    def refused(self) -> int:
        """Answers withheld by limits and budgets."""
        return sum(self.withheld[kind] for kind in ("rate-limited", "budget-spent"))


@dataclass(frozen=True, eq=False)
class Outcome:
    """One replay under one policy, whose digest it names. `limits` counts refused requests by limit."""

    policy: str
    requests: int
    queries: int
    began: float | None
    ended: float | None
    courses: Sequence[Course]
    limits: Mapping[str, int]
    campaigns: Sequence[Campaign]

    @property
    def withheld(self) -> Counter[str]:
        """Requests that were not answered, by the kind of the problem."""
        return sum((course.withheld for course in self.courses), Counter())

    @property
    def disturbed_clients(self) -> int:
        """How many would have noticed their standing."""
        return sum(course.disturbed for course in self.courses)

    @property
    def disturbed_answers(self) -> int:
        """Answers reduced or withheld for somebody's standing."""
        return sum(course.disturbed_answers for course in self.courses)

    @property
    def unlike(self) -> int:
        """Requests refused as too unlike honest ones, or that would have been; nobody stands worse for it."""
        return sum(course.unlike for course in self.courses)

    def by_standing(self) -> Counter[Standing]:
        """Clients by the worst standing that each had, but for those that stayed trusted."""
        return Counter(course.worst for course in self.courses if course.worst != "trusted")

    def concerned(self) -> list[Course]:
        """The clients that did not stay trusted, the worst first, then those that were refused most."""
        found = [course for course in self.courses if course.turns or course.refused]
        return sorted(found, key=lambda item: (-rank(item.worst), -item.refused, item.client))


@dataclass(frozen=True)
class Difference:
    """A client that two policies would have treated differently."""

    client: str
    before: Course
    after: Course

    @property
    def newly_disturbed(self) -> bool:
        """Whether it would notice its standing under the second policy, and not under the first."""
        return self.after.disturbed and not self.before.disturbed

    @property
    def newly_refused(self) -> bool:
        """Whether limits and budgets would refuse it more than before."""
        return self.after.refused > self.before.refused


def differences(before: Outcome, after: Outcome) -> list[Difference]:
    """The clients that two replays of the same traffic tell apart; those that are worse off first."""
    was = {course.client: course for course in before.courses}
    found = [Difference(course.client, was[course.client], course) for course in after.courses]
    changed = [item for item in found if _told(item.before) != _told(item.after)]
    return sorted(changed, key=lambda item: (rank(item.before.worst) - rank(item.after.worst), item.client))


def _told(course: Course) -> tuple[object, ...]:
    turns = [(turn.standing, turn.at, turn.proposed) for turn in course.turns]
    return turns, course.reduced, course.unlike, {kind: count for kind, count in course.withheld.items() if count}
