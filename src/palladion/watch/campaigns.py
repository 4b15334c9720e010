"""Campaigns: accounts that are linked count as one, because twenty of them can each stay below every threshold.

Links are an organisation, or a network address that few accounts share; nothing that the statistic looks at. A group
is tested by the same statistic, with the spread of a group's mean instead of a client's, against honest organisations.
"""

from collections import defaultdict
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Network, ip_address

import numpy as np
from numpy.typing import NDArray

from palladion.watch import coverage
from palladion.watch.calibration import Calibration, group_p_values
from palladion.watch.client import ClientState, Reading, nothing
from palladion.watch.rows import Rows

ACCOUNTS_PER_ADDRESS_MAX = 20  # an address that more accounts share is a proxy or a company's way out, and no link
TOKENS_PER_ACCOUNT_MAX = 64  # further addresses link nobody: an account can come from another one with every query
SUBSCRIBER_BITS = 64  # of an IPv6 address; the other half is the subscriber's to choose
_ADDRESS = "address:"


@dataclass(eq=False)
class Group:
    """Linked clients on one model: the sums of their `pooled` figures and the union of their bitmaps.

    A group's epoch is full when its members have asked `group_horizon` queries each on average. `p_value` is the
    smallest of this epoch and of these members, `latest` the smallest of the last batch.
    """

    states: dict[str, ClientState] = field(default_factory=dict)
    sums: Rows = field(default_factory=nothing)
    count: int = 0
    squares: int = 0  # of the members' counts
    suspected: int = 0
    p_value: float = 1.0
    latest: float = 1.0
    bitmap: NDArray[np.uint8] = field(default_factory=coverage.empty_bitmap)

    def join(self, client: str, state: ClientState) -> None:
        """Take a client in, with the part it has had in its group so far."""
        self.states[client] = state
        self.sums = self.sums + state.pooled_sums
        self.count += state.pooled_count
        self.squares += state.pooled_count**2
        self.suspected += state.pooled_suspected
        self.bitmap |= state.bitmap
        self.p_value = self.latest = 1.0

    def read(self, client: str, reading: Reading, calibration: Calibration, *, rate: float) -> None:
        """Take in what a member's batch brought, and count the queries that leave the p-value at `rate` or below."""
        coverage.mark(self.bitmap, reading.new_buckets)
        horizon = calibration.about.group_horizon * len(self.states)
        latest = 1.0 if len(reading.scores) else self.latest
        start = 0
        while start < len(reading.scores):
            if self.count >= horizon:
                self._next_epoch()
            part = reading.scores[start : start + horizon - self.count]
            latest = min(latest, self._advance(self.states[client], part, calibration, rate))
            start += len(part)
        self.latest = latest

    def forgive(self) -> None:
        """Start a new epoch now; used when a member's standing is raised again."""
        self._next_epoch()
        self.suspected = 0
        for state in self.states.values():
            state.pooled_suspected = 0

    def _advance(self, state: ClientState, scores: Rows, calibration: Calibration, rate: float) -> float:
        asked = np.arange(1, len(scores) + 1)
        counts = self.count + asked
        squares = self.squares + np.square(state.pooled_count + asked) - state.pooled_count**2
        sums = np.cumsum(scores, axis=0)
        p_values = np.ones(1)  # one client is no group
        if len(self.states) > 1:
            p_values = group_p_values(calibration, self.sums + sums, counts, squares)
        suspected = int((p_values <= rate).sum())
        self.sums, self.count, self.squares = self.sums + sums[-1], int(counts[-1]), int(squares[-1])
        self.suspected += suspected
        smallest = float(p_values.min())
        self.p_value = min(self.p_value, smallest)
        state.pooled_sums = state.pooled_sums + sums[-1]
        state.pooled_count += len(scores)
        state.pooled_suspected += suspected
        return smallest

    def _next_epoch(self) -> None:
        for state in self.states.values():
            state.pooled_sums, state.pooled_count = nothing(), 0
        self.sums, self.count, self.squares = nothing(), 0, 0
        self.p_value = self.latest = 1.0


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
        if len(self._tokens[client]) >= TOKENS_PER_ACCOUNT_MAX:
            return []
        return self._show(client, _ADDRESS + _subscriber(address))

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


@lru_cache(maxsize=65536)
def _subscriber(address: str) -> str:
    """What of an address tells one subscriber from another; texts that are no addresses stay as they are."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return str(parsed)
    return str(parsed.ipv4_mapped or IPv6Network((int(parsed), SUBSCRIBER_BITS), strict=False))
