"""One model's clients: the states of those who asked lately are in memory, those of all others where they are saved.

Whatever is in memory and where, evidence is the same to the last bit: a group keeps the figures of its absent members,
and their states come back when they ask. A state leaves memory only when what it was saved as is there to be read.
"""

from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple, Protocol

import numpy as np

from palladion.errors import FormatError
from palladion.watch.campaigns import Group
from palladion.watch.client import ClientState
from palladion.watch.kinds import AnyCalibration
from palladion.watch.learning_curve import LearningCurve
from palladion.watch.links import Change, Links
from palladion.watch.scratch import Scratch

# Of a client alone in its group, beside what its state holds: objects, arrays and their places in dictionaries.
ENTRY_BYTES = 4000
ABSENT_BYTES = 140  # of a member that is known by its id alone
PASSED_MAX = 16  # states that have to stay, before looking for one that may leave is given up for now


class Kept(NamedTuple):
    """A saved state, and the organisation of its client; None where that is not known."""

    organisation: str | None
    data: bytes


class Shelf(Protocol):
    """Where the states of a model's clients are saved. Raises PalladionError where it cannot be read."""

    def get(self, client: str) -> Kept | None:
        """What was saved last of a client."""
        ...

    def of(self, organisation: str) -> Iterable[tuple[str, bytes]]:
        """What is saved of the clients of an organisation, by client."""
        ...

    def pending(self) -> Collection[str]:
        """The clients whose newest state is on its way, so that `of` does not know it yet: it has to stay in memory."""
        ...


class Unshelved:
    """States that were read from somewhere, and whose successors are saved elsewhere: all stay in memory."""

    def __init__(self, saved: Mapping[str, bytes]) -> None:
        self._saved = saved

    def get(self, client: str) -> Kept | None:
        """The state, of an organisation that is not known."""
        data = self._saved.get(client)
        return None if data is None else Kept(None, data)

    def of(self, organisation: str) -> Iterable[tuple[str, bytes]]:
        """Nothing."""
        return ()

    def pending(self) -> Collection[str]:
        """Everybody."""
        return _Everybody()

    def all(self) -> Iterable[str]:
        """The clients, by id."""
        return self._saved


class _Everybody(Collection[str]):
    def __contains__(self, client: object) -> bool:
        return True

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@dataclass(eq=False, slots=True)
class Resident:
    """A client whose state is in memory. Its organisation is not `known` as long as it did not ask."""

    state: ClientState
    organisation: str
    known: bool
    size: int = 0


class Residents:
    """The clients of one model, and their groups."""

    def __init__(self, model: str, calibration: AnyCalibration, shelf: Shelf, links: Links, scratch: Scratch) -> None:
        self.model = model
        self.calibration = calibration
        self.curve: LearningCurve | None = None
        self.budget = 0  # the most buckets that a client and its group may cover; 0 for no limit
        self.changed: set[str] = set()  # of those in memory
        self.misses = 0  # states that had to be read
        self._shelf, self._links, self._scratch = shelf, links, scratch
        self._test = calibration.shares
        self._entries: OrderedDict[str, Resident] = OrderedDict()  # who asked longest ago comes first
        self._groups: dict[str, Group] = {}  # of which somebody is in memory, by root
        self._stale: dict[str, bool] = {}  # whose saved part in its group does not count any more: see `_outdate`
        self._told: dict[str, bool] = {}  # the same of those whose new state is being saved
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
        return self._sizes + ENTRY_BYTES * len(self._entries) + ABSENT_BYTES * self._absent

    def enter(self, client: str, organisation: str) -> ClientState:
        """The state of a client of an organisation, who may be asking for the first time."""
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
            entry.organisation, entry.known = organisation, True
        return entry.state

    def find(self, client: str) -> ClientState | None:
        """The state of a client, if it ever asked."""
        entry = self._entries.get(client) or self._load(client)
        return None if entry is None else entry.state

    def group(self, client: str) -> Group:
        """The group of a client in memory, which joins it if it is not a member yet."""
        entry = self._entries[client]
        group = self._group_of(self._links.root(entry.organisation))
        if client not in group.states:
            group.join(client, entry.state)
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

    def forgive(self, client: str) -> None:
        """Begin anew with a client, if it ever asked, and with its group."""
        state = self.find(client)
        if state is not None:
            state.forgive()
            group = self.group(client)
            group.forgive()
            self._outdate(group, forgiven=True)

    def regroup(self, change: Change) -> None:
        """Follow links that changed, before they change again."""
        group = self._taken(change.gone)
        if len(change.roots) > 1:
            self._part(change, group)
        else:
            self._merge(change, group)

    def changes(self, stale_max: int | None = None) -> dict[str, bytes]:
        """The states that changed since this was last asked, by client: to be saved, and on the shelf from now on.

        Of members that are not in memory, at most `stale_max`; the rest comes with the next ones.
        """
        saved = {client: self._entries[client].state.to_bytes() for client in self.changed}
        self.changed.clear()
        if self._told:
            pending = self._shelf.pending()
            self._told = {client: forgiven for client, forgiven in self._told.items() if client in pending}
        for client in list(islice(self._stale, stale_max)):
            kept = self._shelf.get(client)
            if kept is not None:
                saved[client] = self._decoded(client, kept.data).to_bytes()
                self._told[client] = self._stale[client]
            del self._stale[client]
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
        if self._stale.pop(client, None) is not None:
            self.changed.add(client)
        self._told.pop(client, None)
        if client in group.absent:
            self._absent -= 1
            if group.size == 1:
                self._groups[root] = group = self._nobody()  # which shares the bitmap
                group.join(client, state)
            group.come_back(client, state)
        else:
            group.join(client, state)
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
            self._settle(root, group)

    def _group_of(self, root: str) -> Group:
        group = self._groups.get(root)
        if group is None:
            group = self._taken(root) or self._gathered(self._links.organisations(root))
            self._adopt(root, group)
        return group

    def _taken(self, root: str) -> Group | None:
        """A group, which is not kept any more."""
        group = self._groups.pop(root, None)
        if group is not None:
            self._absent -= len(group.absent)
            return group
        data = self._scratch.take_group(self.model, root)
        return None if data is None else Group.from_bytes(data, self._test)

    def _adopt(self, root: str, group: Group) -> None:
        self._groups[root] = group
        self._absent += len(group.absent)

    def _settle(self, root: str, group: Group) -> None:
        """Put a group away of which nobody is in memory; a client alone is all that its group is."""
        if not group.states:
            del self._groups[root]
            self._absent -= len(group.absent)
            if group.size > 1:
                self._scratch.put_group(self.model, root, group.to_bytes())

    def _gathered(self, organisations: Iterable[str]) -> Group:
        """The group of all clients of some organisations that are saved, from their own states."""
        group = self._nobody()
        for organisation in organisations:
            for client, data in self._shelf.of(organisation):
                entry = self._entries.get(client)
                group.join(client, self._decoded(client, data) if entry is None else entry.state)
                if entry is None:
                    group.leave_memory(client)
        return group

    def _nobody(self) -> Group:
        """A group without members."""
        return Group(self._test, sums=np.zeros(len(self.calibration.words)))

    def _merge(self, change: Change, group: Group | None) -> None:
        (root,) = change.roots
        kept = self._taken(root)
        if kept is None and group is None:
            return  # nobody of either is in memory: it is made from all of them when one of them asks
        if kept is None:
            kept = self._gathered(set(self._links.organisations(root)) - set(change.organisations))
        if group is None:
            group = self._gathered(change.organisations)
        kept.absorb(group)
        self._adopt(root, kept)
        self._settle(root, kept)

    def _part(self, change: Change, group: Group | None) -> None:
        if group is None:
            return  # likewise
        for root in change.roots:
            organisations = self._links.organisations(root)
            parted = self._gathered(organisations)
            for client, state in group.states.items():
                if client not in parted and self._entries[client].organisation in organisations:
                    parted.join(client, state)  # not saved yet
            self._adopt(root, parted)
            self._settle(root, parted)

    def _outdate(self, group: Group, *, forgiven: bool) -> None:
        """Let nobody's earlier part in a group count: that of absent members is put right when they are saved next."""
        self.changed.update(group.states)
        for client in group.absent:
            # what it was told before may not be on the shelf yet
            self._stale[client] = forgiven or self._stale.get(client, False) or self._told.get(client, False)

    def _decoded(self, client: str, data: bytes) -> ClientState:
        state = ClientState.from_bytes(data)
        if not self.calibration.fits(state):
            raise FormatError(f"the saved state of client {client} belongs to another calibration of {self.model}")
        forgiven = self._stale.get(client, self._told.get(client))
        if forgiven is not None:
            state.begin_part(forgiven=forgiven)
        return state
