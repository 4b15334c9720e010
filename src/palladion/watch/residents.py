"""One model's clients: the states of those who asked lately are in memory, those of all others where they are saved.

Whatever is in memory and where, evidence is the same to the last bit: a group keeps the figures of its absent members,
and their states come back when they ask. A state leaves memory only when what it was saved as is there to be read.
"""

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from palladion.errors import FormatError
from palladion.watch.campaigns import Group
from palladion.watch.client import ClientState, Stretch
from palladion.watch.drift import Drift, beginning, is_counted
from palladion.watch.kinds import AnyCalibration
from palladion.watch.learning_curve import LearningCurve
from palladion.watch.links import Change, Links
from palladion.watch.outdated import Outdated
from palladion.watch.parted import Member, Parted, PartedGroups
from palladion.watch.scratch import Scratch
from palladion.watch.shelf import Kept, Shelf, Unshelved

__all__ = ["Kept", "Residents", "Shelf", "Unshelved"]

# Of a client alone in its group, beside what its state holds: objects, arrays and their places in dictionaries.
ENTRY_BYTES = 4700
ABSENT_BYTES = 140  # of a member that is known by its id alone
PARTED_AT_ONCE = 64  # members of a group that was parted whose states are looked at for each request: some 3 ms
PASSED_MAX = 16  # states that have to stay, before looking for one that may leave is given up for now


@dataclass(eq=False, slots=True)
class Resident:
    """A client whose state is in memory. Its organisation is not `known` as long as it did not ask."""

    state: ClientState
    organisation: str
    known: bool
    size: int = 0


class Residents:
    """The clients of one model, and their groups."""

    def __init__(
        self,
        model: str,
        calibration: AnyCalibration,
        shelf: Shelf,
        links: Links,
        scratch: Scratch,
        *,
        drift: Drift | None = None,
    ) -> None:
        self.model, self.calibration, self.drift = model, calibration, drift
        self.curve: LearningCurve | None = None
        self.budget = 0  # the most buckets that a client and its group may cover; 0 for no limit
        self.changed: set[str] = set()  # of those in memory
        self.misses = 0  # states that had to be read
        self._shelf, self._links, self._scratch = shelf, links, scratch
        self._test = calibration.shares
        self._entries: OrderedDict[str, Resident] = OrderedDict()  # who asked longest ago comes first
        self._groups: dict[str, Group] = {}  # of which somebody is in memory, by root
        self._parted = PartedGroups()  # whose whole is the group of each of their roots
        self._counted: set[str] = set()  # roots of those of whom somebody was counted in the drift test
        self._outdated = Outdated()
        self._stays = isinstance(shelf, Unshelved)
        self._sizes = 0
        self._absent = 0  # members that are known by their ids, in all groups in memory
        scratch.forget_groups(model)
        for client in shelf.all() if isinstance(shelf, Unshelved) else tuple(shelf.pending()):
            self.find(client)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, client: str) -> bool:
        return client in self._entries

    @property
    def size(self) -> int:
        """The bytes that clients and groups take up in memory, some 10 % too many rather than too few."""
        return self._sizes + ENTRY_BYTES * len(self._entries) + ABSENT_BYTES * (self._absent + self._parted.held)

    def enter(self, client: str, organisation: str) -> ClientState:
        """The state of a client of an organisation, who may be asking for the first time.

        Nothing that was added up may be waiting to be weighed: groups that were parted are looked through meanwhile.
        """
        if (parted := self._parted.first) is not None:
            self._go_on_parting(parted)
        entry = self._entries.get(client)
        if entry is not None:
            self._entries.move_to_end(client)
        else:
            entry = self._load(client)
            if entry is None:
                # whatever could go wrong with reading does so now, and not when somebody's evidence has changed
                self._group_of(self._links.root(organisation))
                entry = self._entries[client] = Resident(self.calibration.new_state(), organisation, known=True)
        if not entry.known:
            # it was in a group of its own until now
            self._groups.pop(entry.organisation, None)
            self._counted.discard(entry.organisation)
            entry.organisation, entry.known = organisation, True
        return entry.state

    def find(self, client: str) -> ClientState | None:
        """The state of a client, if it ever asked."""
        entry = self._entries.get(client) or self._load(client)
        return None if entry is None else entry.state

    def group(self, client: str) -> Group:
        """The group of a client in memory, which joins it if it is not a member yet."""
        entry = self._entries[client]
        root = self._links.root(entry.organisation)
        group = self._group_of(root)
        if client not in group.states:
            group.join(client, entry.state)
            self._count(root, entry.state)
        self._parted.put_back(client, root, entry.state)  # whoever asks for a group may be about to add to it
        return group

    def is_joining(self, client: str) -> bool:
        """Whether a client in memory is about to join a group that others are in already."""
        group = self._groups.get(self._links.root(self._entries[client].organisation))
        return group is not None and client not in group.states

    def organisation(self, client: str) -> str | None:
        """The organisation of a client, if it ever asked and it is known."""
        entry = self._entries.get(client)
        if entry is not None:
            return entry.organisation if entry.known else None
        kept = self._shelf.get(client)
        return None if kept is None else kept.organisation

    def asked(self, client: str, *, everybody: bool) -> None:
        """Take note that a client's state changed; with `everybody`, a new epoch of its group has begun as well."""
        self.changed.add(client)
        entry = self._entries[client]
        size = entry.state.held_bytes
        self._sizes += size - entry.size
        entry.size = size
        if everybody:
            self._outdate(self.group(client), forgiven=False)

    def heed(self, client: str, stretches: Sequence[Stretch], now: float) -> None:
        """Count a client in memory in the drift test, if it has just asked enough and nobody linked with it was."""
        entry = self._entries[client]
        sums = beginning(stretches, entry.state.epoch)
        root = self._links.root(entry.organisation)
        if self.drift is not None and sums is not None and root not in self._counted:
            # one organisation has as much to say as any other, however many accounts it makes
            self._counted.add(root)
            self.drift.count(self.calibration.beginnings, sums, now=now, client=client)

    def forgive(self, client: str) -> None:
        """Begin anew with a client, if it ever asked, and with its group."""
        state = self.find(client)
        if state is not None:
            state.forgive()
            group = self.group(client)
            group.forgive()
            self._outdate(group, forgiven=True)

    def regroup(self, change: Change) -> None:
        """Follow links that changed, before they change again. Nothing may be waiting to be weighed, as in `enter`."""
        root, *others = change.roots
        if others:
            self._part(change)
        elif (parted := self._parted.of(root) or self._parted.of(change.gone)) is not None:
            self._merge_parted(change, root, parted)
        else:
            self._merge(change, root)

    def changes(self, stale_max: int | None = None) -> dict[str, bytes]:
        """The states that changed since this was last asked, by client: to be saved, and on the shelf from now on.

        Of members that are not in memory, at most `stale_max`; the rest comes with the next ones.
        """
        saved = {client: self._entries[client].state.to_bytes() for client in self.changed}
        self.changed.clear()
        self._outdated.keep_told(self._shelf.pending())
        for client in self._outdated.first(stale_max):
            kept = self._shelf.get(client)
            if kept is not None:
                saved[client] = self._decoded(client, kept.data).to_bytes()
            self._outdated.settle(client, saved=kept is not None)
        return saved

    def shrink(self, size: int) -> None:
        """Let those who asked longest ago leave memory until the rest takes up at most `size` bytes, if they may."""
        if self._stays or self.size <= size:
            return
        passed: list[str] = []
        pending = self._shelf.pending()
        while self.size > size and len(passed) < PASSED_MAX and self._entries:
            client = next(iter(self._entries))
            if client in self.changed or client in pending:
                self._entries.move_to_end(client)
                passed.append(client)
            else:
                self._let_go(client)
        for client in reversed(passed):
            self._entries.move_to_end(client, last=False)

    def _load(self, client: str) -> Resident | None:
        kept = self._shelf.get(client)
        if kept is None:
            return None
        self.misses += 1
        state = self._decoded(client, kept.data)
        known = kept.organisation is not None
        # no organisation has such a name
        entry = Resident(state, kept.organisation or f"?{client}", known, state.held_bytes)
        root = self._links.root(entry.organisation)
        group = self._group_of(root)
        if self._outdated.drop(client):
            self.changed.add(client)
        if client in group.absent:
            self._absent -= 1
            if group.size == 1:
                self._groups[root] = group = self._nobody()  # which shares the bitmap
                group.join(client, state)
            group.come_back(client, state)
        else:
            group.join(client, state)
        self._parted.put_back(client, root, state)
        self._count(root, state)
        self._entries[client] = entry
        self._sizes += entry.size
        return entry

    def _let_go(self, client: str) -> None:
        entry = self._entries.pop(client)
        self._sizes -= entry.size
        root = self._links.root(entry.organisation)
        group = self._groups.get(root)
        if group is not None:
            if client in group.states:
                group.leave_memory(client)
                self._absent += 1
            self._parted.leave_memory(client, root)
            self._settle(root, group)

    def _group_of(self, root: str) -> Group:
        group = self._groups.get(root)
        if group is None:
            group = self._taken(root) or self._gathered(root, self._links.organisations(root))
            self._adopt(root, group)
        return group

    def _taken(self, root: str) -> Group | None:
        """A group, which is not kept any more."""
        group = self._groups.pop(root, None)
        if group is not None:
            self._absent -= len(group.absent)
            return group
        data = self._scratch.take_group(self.model, root)
        if data is None:
            return None
        if data[0]:
            self._counted.add(root)
        return Group.from_bytes(data[1:], self._test)

    def _adopt(self, root: str, group: Group) -> None:
        self._groups[root] = group
        self._absent += len(group.absent)

    def _settle(self, root: str, group: Group) -> None:
        """Put a group away of which nobody is in memory; a client alone is all that its group is."""
        if not group.states and root not in self._parted:
            del self._groups[root]
            self._absent -= len(group.absent)
            if group.size > 1:
                self._scratch.put_group(self.model, root, bytes([root in self._counted]) + group.to_bytes())
            self._counted.discard(root)

    def _count(self, root: str, state: ClientState) -> None:
        """Take note of a member that was counted in the drift test."""
        if is_counted(state):
            self._counted.add(root)

    def _gathered(self, root: str, organisations: Iterable[str]) -> Group:
        """The group of all clients of some organisations that are saved, from their own states."""
        group = self._nobody()
        for organisation in organisations:
            for client, data in self._shelf.of(organisation):
                entry = self._entries.get(client)
                state = self._decoded(client, data) if entry is None else entry.state
                group.join(client, state)
                self._count(root, state)
                if entry is None:
                    group.leave_memory(client)
        return group

    def _nobody(self) -> Group:
        return Group(self._test, sums=np.zeros(len(self.calibration.words)))

    def _merge(self, change: Change, root: str) -> None:
        group, kept = self._taken(change.gone), self._taken(root)
        if kept is None and group is None:
            return  # nobody of either is in memory: it is made from all of them when one of them asks
        if kept is None:
            kept = self._gathered(root, set(self._links.organisations(root)) - set(change.organisations))
        if group is None:
            group = self._gathered(root, change.organisations)
        self._move_counted(change.gone, root)
        kept.absorb(group)
        self._adopt(root, kept)
        self._settle(root, kept)

    def _merge_parted(self, change: Change, root: str, parted: Parted) -> None:
        """The same where one of the two, or each, is a part of a group that goes on being judged whole."""
        gone = self._parted.of(change.gone)
        try:
            if gone is None or root not in self._parted:
                alone = change.gone if gone is None else root
                others = set(self._links.organisations(root)) - set(change.organisations)
                group = self._taken(alone) or self._gathered(alone, change.organisations if gone is None else others)
                self._absent += len(group.absent)
                parted.absorb(alone, group, counted=alone in self._counted)
            elif gone is not parted:
                parted.unite(gone)
        finally:  # where the other cannot be read, its members come in when they ask
            parted.join(change.gone, root)
            self._move_counted(change.gone, root)
            self._judge_whole(parted, change.gone)

    def _part(self, change: Change) -> None:
        parted = self._parted.of(change.gone)
        if parted is None:
            whole = self._taken(change.gone)
            if whole is None:
                return  # likewise
            self._absent += len(whole.absent)
            parted = Parted(whole, self._nobody)
        if change.gone in self._counted:
            self._counted.update(change.roots)  # until it is known of which part somebody was
        parted.part(change.gone, change.roots)
        self._judge_whole(parted, change.gone)

    def _judge_whole(self, parted: Parted, gone: str) -> None:
        self._groups.pop(gone, None)
        self._parted.drop(gone)
        self._parted.keep(parted)
        self._groups.update(dict.fromkeys(parted.roots, parted.whole))
        self._go_on_parting(parted)

    def _go_on_parting(self, parted: Parted) -> None:
        """Look at some more members of a group that was parted, and judge by the parts when they are ready."""
        if not parted.take_next(PARTED_AT_ONCE, self._member):
            self._parted.postpone(parted)
        elif parted.ready:
            self._judge_parts(parted)

    def _member(self, client: str) -> Member | None:
        entry = self._entries.get(client)
        if entry is not None:
            return Member(self._links.root(entry.organisation), entry.state, in_memory=True)
        kept = self._shelf.get(client)
        if kept is None or kept.organisation is None:
            return None
        try:
            return Member(self._links.root(kept.organisation), self._decoded(client, kept.data), in_memory=False)
        except FormatError:
            return None  # it has no part that anybody could read, and is told so when it asks

    def _judge_parts(self, parted: Parted) -> None:
        self._absent -= len(parted.whole.absent)
        self._parted.drop(*parted.roots)
        for root in parted.roots:
            del self._groups[root]
            self._counted.discard(root)
        self._counted |= parted.counted
        for root, part in parted.parts().items():
            self._adopt(root, part)
            if part.end_epoch(self.calibration):
                self._outdate(part, forgiven=False)
            self._settle(root, part)

    def _move_counted(self, gone: str, root: str) -> None:
        if gone in self._counted:
            self._counted.remove(gone)
            self._counted.add(root)

    def _outdate(self, group: Group, *, forgiven: bool) -> None:
        """Let nobody's earlier part in a group count: that of absent members is put right when they are saved next."""
        self._parted.begin_anew(group)
        self.changed.update(group.states)
        self._outdated.add(group.absent, forgiven=forgiven)

    def _decoded(self, client: str, data: bytes) -> ClientState:
        state = ClientState.from_bytes(data)
        if not self.calibration.fits(state):
            raise FormatError(f"the saved state of client {client} belongs to another calibration of {self.model}")
        self._outdated.correct(client, state)
        return state
