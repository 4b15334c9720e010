"""Campaigns: accounts that are linked count as one, because twenty of them can each stay below every threshold.

Links are an organisation, a means of payment, or a network address that few accounts share; nothing that the statistic
looks at. A group is tested by the same statistic, with the spread of a group's mean instead of a client's, against
honest organisations.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Self

import msgspec
import numpy as np
from numpy.typing import NDArray

from palladion.watch import coverage
from palladion.watch.client import ClientState, Reading, nothing
from palladion.watch.kinds import AnyCalibration, MemberTest
from palladion.watch.rows import Rows

_HEAD = struct.Struct("<3Q3d3qH")
_NUMBER_BYTES = 8
_NOBODY = np.zeros(3, np.int64)
_NOWHERE = coverage.empty_bitmap()  # of a group without members; never written to
_NOWHERE.setflags(write=False)


class Turn(NamedTuple):
    """Distinct queries of one member that follow each other in one epoch of its group.

    After each: the group's sums (n, scores), counts, squares and sums of shares (n, 3). `begins` says that the epoch
    begins with them, `alone` that the group had no other member: then the figures are not looked at.
    """

    sums: Rows
    counts: Sequence[int]
    squares: Sequence[int]
    shares: NDArray[np.int64]
    begins: bool
    alone: bool


_ONE_ALONE = (Turn(nothing(), (1,), (1,), _NOBODY, begins=False, alone=True),)


@dataclass(eq=False, slots=True)
class Group:
    """Linked clients on one model: the sums of their `pooled` figures and the union of their bitmaps.

    A group's epoch is full when its members have asked `group_horizon` queries each on average. `p_value` is the
    smallest of this epoch and of these members, `latest` the smallest of the last batch. `covered` counts the bitmap.
    `carried` is what an epoch that ended as the members were parted came to (`end_epoch`): it counts in this one.

    `states` are those of members that are in memory, `absent` the ids of the others: their part is in the figures.
    `shares` (3,) is what members add to the test of atypical shares; of one alone it is not kept.
    """

    test: MemberTest
    states: dict[str, ClientState] = field(default_factory=dict)
    absent: set[str] = field(default_factory=set)
    sums: Rows = field(default_factory=nothing)
    count: int = 0
    squares: int = 0  # of the members' counts
    shares: NDArray[np.int64] = field(default_factory=lambda: _NOBODY)
    suspected: int = 0
    p_value: float = 1.0
    latest: float = 1.0
    carried: float = 1.0
    bitmap: NDArray[np.uint8] = field(default_factory=lambda: _NOWHERE)
    covered: int = 0
    _members: frozenset[str] = frozenset()
    _names: tuple[str, ...] = ()

    @property
    def members(self) -> frozenset[str]:
        """The ids of all members; the same object until somebody joins, because thousands of requests can ask."""
        # whoever is in stays in: parted groups are made anew
        if len(self._members) != self.size:
            self._members = frozenset(self.states.keys() | self.absent)
        return self._members

    @property
    def names(self) -> tuple[str, ...]:
        """The same in order, and the same object likewise: each member's explanation has it."""
        if len(self._names) != self.size:
            self._names = tuple(sorted(self.states.keys() | self.absent))
        return self._names

    @property
    def size(self) -> int:
        """How many members there are."""
        return len(self.states) + len(self.absent)

    def __contains__(self, client: str) -> bool:
        return client in self.states or client in self.absent

    def join(self, client: str, state: ClientState) -> None:
        """Take a client in, with the part it has had in its group so far."""
        # most groups have one member, whose bitmap is theirs: two kilobytes each would count
        self.bitmap = self.bitmap | state.bitmap if self.size else state.bitmap
        self.covered = coverage.count(self.bitmap)
        self.shares = self._all_shares() + self._share(state.pooled_sums, state.pooled_count)
        self.states[client] = state
        self.sums = self.sums + state.pooled_sums
        self.count += state.pooled_count
        self.squares += state.pooled_count**2
        self.suspected += state.pooled_suspected
        self.p_value, self.latest = self.carried, 1.0

    def absorb(self, other: "Group") -> None:
        """Take in all members of another group: what `join` of each of them would leave."""
        if not other.size:
            return
        self.bitmap = self.bitmap | other.bitmap if self.size else other.bitmap
        self.covered = coverage.count(self.bitmap)
        self.shares = self._all_shares() + other._all_shares()
        self.states |= other.states
        self.absent |= other.absent
        self.sums = self.sums + other.sums
        self.count += other.count
        self.squares += other.squares
        self.suspected += other.suspected
        self.carried = min(self.carried, other.carried)
        self.p_value, self.latest = self.carried, 1.0

    def leave(self, client: str, state: ClientState) -> None:
        """Take out a member, with its part as `state` has it. Its buckets stay: it comes back with more."""
        self.shares = self._all_shares() - self._share(state.pooled_sums, state.pooled_count)
        self.absent.discard(client)
        self.states.pop(client, None)
        self.sums = self.sums - state.pooled_sums
        self.count -= state.pooled_count
        self.squares -= state.pooled_count**2
        self.suspected -= state.pooled_suspected

    def leave_memory(self, client: str) -> None:
        """Keep a member by its id alone; its part stays."""
        del self.states[client]
        self.absent.add(client)

    def come_back(self, client: str, state: ClientState) -> None:
        """Have the state of an absent member in memory again."""
        self.absent.discard(client)
        self.states[client] = state

    def to_bytes(self) -> bytes:
        """All figures and the ids of all members, of whom none is in memory then."""
        figures = (self.count, self.squares, self.suspected, self.p_value, self.latest, self.carried)
        head = _HEAD.pack(*figures, *self.shares, len(self.sums))
        return b"".join((head, self.sums.tobytes(), self.bitmap.tobytes(), msgspec.msgpack.encode(list(self.members))))

    @classmethod
    def from_bytes(cls, data: bytes, test: MemberTest) -> Self:
        """The group of `to_bytes`, with all its members absent."""
        count, squares, suspected, p_value, latest, carried, *shares, scores = _HEAD.unpack_from(data)
        start, end = _HEAD.size, _HEAD.size + _NUMBER_BYTES * scores
        sums = np.frombuffer(data[start:end], np.float64).copy()
        bitmap = np.frombuffer(data[end : end + coverage.BITMAP_BYTES], np.uint8).copy()
        absent = set(msgspec.msgpack.decode(data[end + coverage.BITMAP_BYTES :], type=list[str]))
        found = np.array(shares, np.int64)
        figures = (sums, count, squares, found, suspected, p_value, latest, carried)
        return cls(test, {}, absent, *figures, bitmap, coverage.count(bitmap))

    def read(self, client: str, reading: Reading, calibration: AnyCalibration, *, rate: float) -> None:
        """Take in what a member's batch brought, and count the queries that leave the p-value at `rate` or below."""
        turns = self.advance(client, reading.scores, reading.new_buckets, calibration)
        self.weigh(client, turns, p_values(calibration, turns), rate=rate)

    def advance(
        self, client: str, scores: Rows, new_buckets: Sequence[int], calibration: AnyCalibration
    ) -> Sequence[Turn]:
        """Add what a member's batch brought to the sums and the bitmap; what it leaves has to be weighed yet."""
        if new_buckets:
            new_buckets = new_buckets if self._alone else coverage.mark(self.bitmap, new_buckets)
            self.covered += len(new_buckets)
        state, horizon = self.states[client], calibration.about.group_horizon * self.size
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

    def end_epoch(self, calibration: AnyCalibration) -> bool:
        """Begin the next epoch now if this one is full and nobody has weighed it, as of a part of a group; whether so.

        What the members have asked is more than a group of theirs is ever weighed by: the same means count, as of
        `group_horizon` queries each. That p-value holds for the epoch that begins, whoever joins. Absent members: see
        `_next_epoch`.
        """
        horizon = calibration.about.group_horizon * self.size
        if self._alone or self.count < horizon:
            return False
        share = horizon / self.count
        squares = max(1, round(self.squares * share**2))
        full = Turn((self.sums * share)[None], (horizon,), (squares,), self.shares[None], begins=False, alone=False)
        (value,) = p_values(calibration, [full])
        self._next_epoch()
        self.p_value = self.latest = self.carried = value
        return True

    def forgive(self) -> None:
        """Start a new epoch now; used when a member's standing is raised again. Absent members: see `_next_epoch`."""
        self._next_epoch()
        self.p_value = self.latest = 1.0
        self.suspected = 0
        for state in self.states.values():
            state.pooled_suspected = 0

    @property
    def _alone(self) -> bool:
        return self.size == 1

    def _turn(self, state: ClientState, scores: Rows, *, begins: bool) -> Turn:
        asked, own = len(scores), state.pooled_count
        # of one query, as most requests hold, nothing has to be accumulated
        sums = self.sums + (scores if asked == 1 else np.add.accumulate(scores, axis=0))
        counts = range(self.count + 1, self.count + asked + 1)
        squares = [self.squares + count**2 - own**2 for count in range(own + 1, own + asked + 1)]
        alone, shares = self._alone, _NOBODY
        if not alone:
            theirs = self.shares - self._share(state.pooled_sums, own)
            if asked == 1:
                shares = (theirs + self._share(state.pooled_sums + scores[0], own + 1))[None]
            else:
                atypical = state.pooled_sums[-1] + np.add.accumulate(scores[:, -1])
                shares = theirs + self.test.parts(atypical, np.arange(own + 1, own + asked + 1))
            self.shares = shares[-1]
        self.sums, self.count, self.squares = sums[-1].copy(), counts[-1], squares[-1]
        state.pooled_sums = (
            self.sums if alone else state.pooled_sums + (scores[0] if asked == 1 else np.add.reduce(scores, axis=0))
        )
        state.pooled_count += asked
        return Turn(sums, counts, squares, shares, begins, alone)

    def _all_shares(self) -> NDArray[np.int64]:
        """`shares`, also of one alone: its sums are the group's."""
        return self._share(self.sums, self.count) if self._alone else self.shares

    def _share(self, sums: Rows, count: int) -> NDArray[np.int64]:
        """What a member adds to `shares` whose scores sum up to `sums` (scores,) over `count` queries."""
        return np.array(self.test.part(float(sums[-1]), count))

    def _next_epoch(self) -> None:
        # what absent members have saved of their parts counts no more either: whoever keeps the group sees to that
        for state in self.states.values():
            state.pooled_sums, state.pooled_count = np.zeros_like(self.sums), 0
        self.sums, self.count, self.squares, self.shares = np.zeros_like(self.sums), 0, 0, _NOBODY
        self.carried = 1.0


def p_values(calibration: AnyCalibration, turns: Sequence[Turn]) -> list[float]:
    """The p-value that each query of some turns left, in whichever groups; 1 where one client is no group."""
    together = [turn for turn in turns if not turn.alone]
    if not together:
        return [1.0] * sum(len(turn.counts) for turn in turns)
    counts = np.array([count for turn in together for count in turn.counts])
    squares = np.array([square for turn in together for square in turn.squares])
    sums, shares = (
        np.concatenate(figures) for figures in zip(*((turn.sums, turn.shares) for turn in together), strict=True)
    )
    weighed = calibration.group_p_values(sums, counts, squares, shares).tolist()
    found, start = [], 0
    for turn in turns:
        if turn.alone:
            found += [1.0] * len(turn.counts)
        else:
            found += weighed[start : start + len(turn.counts)]
            start += len(turn.counts)
    return found
