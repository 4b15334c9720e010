"""Campaigns: accounts that are linked count as one, because twenty of them can each stay below every threshold.

Links are an organisation, a means of payment, or a network address that few accounts share; nothing that the statistic
looks at. A group is tested by the same statistic, with the spread of a group's mean instead of a client's, against
honest organisations.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from palladion.access.networks import network_of
from palladion.watch import coverage
from palladion.watch.calibration import Calibration, group_p_values
from palladion.watch.client import ClientState, Reading, nothing
from palladion.watch.rows import Rows

ACCOUNTS_PER_ADDRESS_MAX = 20  # an address that more accounts share is a proxy or a company's way out, and no link
TOKENS_PER_ACCOUNT_MAX = 64  # of a kind; further ones link nobody: an account can have a new address for every query
_ADDRESS = "address:"
_PAYMENT = "payment:"
_NOWHERE = coverage.empty_bitmap()  # of a group without members; never written to
_NOWHERE.setflags(write=False)


class Turn(NamedTuple):
    """Distinct queries of one member that follow each other in one epoch of its group.

    After each: the group's sums (n, features), counts and squares. `begins` says that the epoch begins with them,
    `alone` that the group had no other member: then the figures are not looked at.
    """

    sums: Rows
    counts: Sequence[int]
    squares: Sequence[int]
    begins: bool
    alone: bool


_ONE_ALONE = (Turn(nothing(), (1,), (1,), begins=False, alone=True),)


@dataclass(eq=False, slots=True)
class Group:
    """Linked clients on one model: the sums of their `pooled` figures and the union of their bitmaps.

    A group's epoch is full when its members have asked `group_horizon` queries each on average. `p_value` is the
    smallest of this epoch and of these members, `latest` the smallest of the last batch. `covered` counts the bitmap.
    """

    states: dict[str, ClientState] = field(default_factory=dict)
    sums: Rows = field(default_factory=nothing)
    count: int = 0
    squares: int = 0  # of the members' counts
    suspected: int = 0
    p_value: float = 1.0
    latest: float = 1.0
    bitmap: NDArray[np.uint8] = field(default_factory=lambda: _NOWHERE)
    covered: int = 0

    def join(self, client: str, state: ClientState) -> None:
        """Take a client in, with the part it has had in its group so far."""
        # most groups have one member, whose bitmap is theirs: two kilobytes each would count
        self.bitmap = self.bitmap | state.bitmap if self.states else state.bitmap
        self.covered = coverage.count(self.bitmap)
        self.states[client] = state
        self.sums = self.sums + state.pooled_sums
        self.count += state.pooled_count
        self.squares += state.pooled_count**2
        self.suspected += state.pooled_suspected
        self.p_value = self.latest = 1.0

    def read(self, client: str, reading: Reading, calibration: Calibration, *, rate: float) -> None:
        """Take in what a member's batch brought, and count the queries that leave the p-value at `rate` or below."""
        turns = self.advance(client, reading.scores, reading.new_buckets, calibration)
        self.weigh(client, turns, p_values(calibration, turns), rate=rate)

    def advance(
        self, client: str, scores: Rows, new_buckets: Sequence[int], calibration: Calibration
    ) -> Sequence[Turn]:
        """Add what a member's batch brought to the sums and the bitmap; what it leaves has to be weighed yet."""
        if new_buckets:
            new_buckets = new_buckets if self._alone else coverage.mark(self.bitmap, new_buckets)
            self.covered += len(new_buckets)
        state, horizon = self.states[client], calibration.about.group_horizon * len(self.states)
        if self._alone and len(scores) == 1 and self.count < horizon:
            self.squares += 2 * state.pooled_count + 1
            state.pooled_count += 1
            self.count += 1
            self.sums = state.pooled_sums = self.sums + scores[0]
            return _ONE_ALONE
        turns: list[Turn] = []
        start = 0
        while start < len(scores):
            begins = self.count >= horizon
            if begins:
                self._next_epoch()
            part = scores[start : start + horizon - self.count]
            turns.append(self._turn(state, part, begins=begins))
            start += len(part)
        return turns

    def weigh(self, client: str, turns: Sequence[Turn], weighed: Sequence[float], *, rate: float) -> None:
        """Take in the `p_values` of what `advance` returned."""
        if not turns:
            return
        if turns is _ONE_ALONE and rate < 1:
            self.latest = 1.0
            return
        start = 0
        for turn in turns:
            part = weighed[start : start + len(turn.counts)]
            self.p_value = min(part) if turn.begins else min(self.p_value, *part)
            start += len(part)
        self.latest = min(weighed)
        suspected = sum(value <= rate for value in weighed)
        self.suspected += suspected
        self.states[client].pooled_suspected += suspected

    def forgive(self) -> None:
        """Start a new epoch now; used when a member's standing is raised again."""
        self._next_epoch()
        self.p_value = self.latest = 1.0
        self.suspected = 0
        for state in self.states.values():
            state.pooled_suspected = 0

    @property
    def _alone(self) -> bool:
        return len(self.states) == 1

    def _turn(self, state: ClientState, scores: Rows, *, begins: bool) -> Turn:
        asked, own = len(scores), state.pooled_count
        sums = self.sums + np.add.accumulate(scores, axis=0)
        counts = range(self.count + 1, self.count + asked + 1)
        squares = [self.squares + count**2 - own**2 for count in range(own + 1, own + asked + 1)]
        alone = self._alone
        self.sums, self.count, self.squares = sums[-1].copy(), counts[-1], squares[-1]
        state.pooled_sums = self.sums if alone else state.pooled_sums + np.add.reduce(scores, axis=0)
        state.pooled_count += asked
        return Turn(sums, counts, squares, begins, alone)

    def _next_epoch(self) -> None:
        for state in self.states.values():
            state.pooled_sums, state.pooled_count = nothing(), 0
        self.sums, self.count, self.squares = nothing(), 0, 0


def p_values(calibration: Calibration, turns: Sequence[Turn]) -> list[float]:
    """The p-value that each query of some turns left, in whichever groups; 1 where one client is no group."""
    together = [turn for turn in turns if not turn.alone]
    if not together:
        return [1.0] * sum(len(turn.counts) for turn in turns)
    counts = np.array([count for turn in together for count in turn.counts])
    squares = np.array([square for turn in together for square in turn.squares])
    weighed = group_p_values(calibration, np.concatenate([turn.sums for turn in together]), counts, squares).tolist()
    found, start = [], 0
    for turn in turns:
        if turn.alone:
            found += [1.0] * len(turn.counts)
        else:
            found += weighed[start : start + len(turn.counts)]
            start += len(turn.counts)
    return found


class Links:
    """Who is linked with whom, by the tokens that they show; the order in which they show them makes no difference."""

    def __init__(self) -> None:
        self._tokens: defaultdict[str, set[str]] = defaultdict(set)  # by client
        self._holders: defaultdict[str, set[str]] = defaultdict(set)  # by token
        self._root: dict[str, str] = {}  # of clients that are linked with another root
        self._members: dict[str, set[str]] = {}  # by root, where there are several

    def root(self, client: str) -> str:
        """The name of the group that `client` is in: that of a member; its own as long as it is alone."""
        return self._root.get(client, client)

    def organisation(self, client: str, organisation: str) -> list[str]:
        """Link by organisation; returns the names of groups that stand for other members now, or for none.

        Where two groups become one, that is the smaller; so keeping book of groups costs little however large they get.
        """
        return self._show(client, f"organisation:{organisation}")

    def address(self, client: str, address: str) -> list[str]:
        """Link by network address, unless too many accounts share it; returns what `organisation` does.

        When one account too many shows it, those that it had linked are parted, unless something else links them.
        """
        return [] if self._full(client, _ADDRESS) else self._show(client, _ADDRESS + network_of(address))

    def payment(self, client: str, payment: str) -> list[str]:
        """Link by means of payment, however many share it; returns what `organisation` does."""
        return [] if self._full(client, _PAYMENT) else self._show(client, _PAYMENT + payment)

    def _full(self, client: str, kind: str) -> bool:
        """Whether an account has shown enough of a kind: addresses must not keep a payment from linking."""
        tokens = self._tokens[client]
        if len(tokens) < TOKENS_PER_ACCOUNT_MAX:
            return False
        return sum(token.startswith(kind) for token in tokens) >= TOKENS_PER_ACCOUNT_MAX

    def _show(self, client: str, token: str) -> list[str]:
        holders = self._holders[token]
        if client in holders or self._crowded(token):
            return []
        other = next(iter(holders), client)
        holders.add(client)
        self._tokens[client].add(token)
        return self._part(other) if self._crowded(token) else self._join(client, other)

    def _crowded(self, token: str) -> bool:
        return token.startswith(_ADDRESS) and len(self._holders[token]) > ACCOUNTS_PER_ADDRESS_MAX

    def _join(self, first: str, second: str) -> list[str]:
        if self.root(first) == self.root(second):
            return []
        roots = self.root(first), self.root(second)
        gone, kept = sorted(roots, key=lambda root: len(self._members.get(root, (root,))))
        joined = self._members.pop(gone, {gone})
        self._members.setdefault(kept, {kept}).update(joined)
        self._root.update(dict.fromkeys(joined, kept))
        return [gone]

    def _part(self, client: str) -> list[str]:
        """Group the members of a group anew, by the tokens that still link."""
        root = self.root(client)
        members = self._members.pop(root, {root})
        for member in members:
            self._root.pop(member, None)
        for member in members:
            for token in self._tokens[member]:
                if not self._crowded(token):
                    self._join(member, next(iter(self._holders[token])))
        return [root]
