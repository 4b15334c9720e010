"""A group that was parted, while its parts are made from the states of their members, some of them at a time.

Until they are ready it is judged whole, so that nobody is judged less for having been parted; what its members ask
meanwhile is in the parts then, to the last bit. A state can lie on a disk, and a group can have thousands.
"""

from collections.abc import Callable, Collection
from itertools import islice
from typing import NamedTuple

from palladion.errors import PalladionError
from palladion.watch.campaigns import Group
from palladion.watch.client import ClientState
from palladion.watch.drift import is_counted


class Member(NamedTuple):
    """A member of a group that was parted: the root of its part, and what is known of it."""

    root: str
    state: ClientState
    in_memory: bool


class PartedGroups:
    """All groups of a model that were parted, and are judged whole; by the root of each part."""

    def __init__(self) -> None:
        self._by_root: dict[str, Parted] = {}

    def __contains__(self, root: str) -> bool:
        return root in self._by_root

    @property
    def first(self) -> "Parted | None":
        """One of them, if there is any: the same until it is ready, or `postpone`."""
        return next(iter(self._by_root.values()), None)

    @property
    def held(self) -> int:
        """The ids of members that are held a second time."""
        return sum(parted.held for parted in set(self._by_root.values()))

    def of(self, root: str) -> "Parted | None":
        """The group that was parted of which this is a part."""
        return self._by_root.get(root)

    def keep(self, parted: "Parted") -> None:
        """Have it by the roots that its parts have now."""
        self._by_root.update(dict.fromkeys(parted.roots, parted))

    def postpone(self, parted: "Parted") -> None:
        """Have all others come first."""
        self.drop(*parted.roots)
        self.keep(parted)

    def drop(self, *roots: str) -> None:
        """Have nothing by these roots."""
        for root in roots:
            self._by_root.pop(root, None)

    def put_back(self, client: str, root: str, state: ClientState) -> None:
        """`Parted.put_back`, if the group of that root was parted."""
        parted = self._by_root.get(root)
        if parted is not None:
            parted.put_back(client, root, state)

    def leave_memory(self, client: str, root: str) -> None:
        """`Parted.leave_memory`, if the group of that root was parted."""
        parted = self._by_root.get(root)
        if parted is not None:
            parted.leave_memory(client, root)

    def begin_anew(self, whole: Group) -> None:
        """`Parted.begin_anew`, if that group was parted."""
        for parted in set(self._by_root.values()):
            if parted.whole is whole:
                parted.begin_anew()


class Parted:
    """The `whole` group, the roots of its parts (`links`), and those members whose part is not in one of them yet.

    `counted` are the roots of parts of which somebody was counted in the drift test.
    """

    def __init__(self, whole: Group, nobody: Callable[[], Group]) -> None:
        """`nobody` makes a group without members."""
        self.whole = whole
        self.roots: set[str] = set()
        self.counted: set[str] = set()
        self._nobody = nobody
        self._parts: dict[str, Group] = {}
        self._ahead: dict[str, None] = {}
        self.begin_anew()

    @property
    def ready(self) -> bool:
        """Whether the parts are what they would be had they always been groups of their own."""
        return not self._ahead

    @property
    def held(self) -> int:
        """The ids of members that are held a second time."""
        return sum(part.size for part in self._parts.values()) + len(self._ahead)

    def begin_anew(self) -> None:
        """Make the parts from the beginning: an epoch of the whole began, and no earlier figure counts any more."""
        self._parts.clear()
        self.counted.clear()
        self._ahead = dict.fromkeys((*self.whole.states, *self.whole.absent))

    def part(self, gone: str, roots: Collection[str]) -> None:
        """Make a part, or the whole, into parts of these roots."""
        self.roots.discard(gone)
        self.roots.update(roots)
        self.counted.discard(gone)
        part = self._parts.pop(gone, None)
        if part is not None:
            self._ahead |= dict.fromkeys((*part.states, *part.absent))

    def join(self, gone: str, root: str) -> None:
        """Make one part a part of another, or give it another name."""
        self.roots.discard(gone)
        self.roots.add(root)
        if gone in self.counted:
            self.counted.remove(gone)
            self.counted.add(root)
        part = self._parts.pop(gone, None)
        if part is not None:
            self._part_of(root).absorb(part)

    def absorb(self, root: str, group: Group, *, counted: bool) -> None:
        """Take all members of a group into a part; and into the whole, with which they are judged from now on.

        `counted` says whether somebody of them was in the drift test.
        """
        self.counted |= {root} if counted else set()
        self._part_of(root).absorb(group)
        self.whole.absorb(group)

    def unite(self, other: "Parted") -> None:
        """Take in another group that was parted, parts and all."""
        self.whole.absorb(other.whole)
        self.roots |= other.roots
        self.counted |= other.counted
        self._parts |= other._parts
        self._ahead |= other._ahead

    def take_next(self, count: int, find: Callable[[str], Member | None]) -> bool:
        """Take so many members more into their parts; of whom `find` finds nothing has none.

        Whoever cannot be read now comes last: then this is False, and the rest has to wait for another call. Until then
        the group is judged whole. An error it is not: who happens to ask now may have nothing to do with that group.
        """
        for client in list(islice(self._ahead, count)):
            try:
                member = find(client)
            except PalladionError:
                del self._ahead[client]
                self._ahead[client] = None
                return False
            del self._ahead[client]
            if member is not None and member.root in self.roots:
                self._take(client, member)
        return True

    def put_back(self, client: str, root: str, state: ClientState) -> None:
        """Take out the part of a member, as `state` has it, because it is about to change; it comes in again later."""
        part = self._parts.get(root)
        if part is not None and client in part:
            part.leave(client, state)
        self._ahead[client] = None

    def leave_memory(self, client: str, root: str) -> None:
        """Keep a member of the part of a root by its id alone."""
        part = self._parts.get(root)
        if part is not None and client in part.states:
            part.leave_memory(client)

    def parts(self) -> dict[str, Group]:
        """The parts that have members, by root."""
        return {root: part for root, part in self._parts.items() if part.size}

    def _take(self, client: str, member: Member) -> None:
        part = self._part_of(member.root)
        part.join(client, member.state)
        if not member.in_memory:
            part.leave_memory(client)
        if is_counted(member.state):
            self.counted.add(member.root)

    def _part_of(self, root: str) -> Group:
        part = self._parts.get(root)
        if part is None:
            part = self._parts[root] = self._nobody()
        return part
