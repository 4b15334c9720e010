"""Which organisations of a group still hang together when one of its tokens links nobody any more, found step by step.

Searches spread from all who had shown the token, one organisation each in turn, over everything that still links. Two
that meet are one; one that has nowhere left to go has found a part of its own. The search ends when a single one can
still go on: it is the rest, however large. So this costs what the smaller parts have, and not what the group has.
"""

from collections import OrderedDict, deque
from collections.abc import Iterable
from typing import Literal, NamedTuple

from palladion.watch.scratch import Scratch

PAGE = 64  # rows that one step reads


class _Place(NamedTuple):
    """Where a search goes on: what is left of an organisation's tokens or ties, or of a token's holders."""

    kind: Literal["tokens", "ties", "holders"]
    name: str
    after: str = ""


_NEXT = {
    "tokens": "SELECT DISTINCT token FROM holder WHERE organisation = ? AND token > ? ORDER BY token LIMIT ?",
    "ties": "SELECT other FROM tie WHERE organisation = ? AND other > ? ORDER BY other LIMIT ?",
    "holders": "SELECT client, organisation FROM holder WHERE token = ? AND client > ? ORDER BY client LIMIT ?",
}


class Search:
    """Searches from organisations of one group, while others go on showing tokens."""

    def __init__(self, scratch: Scratch, starts: Iterable[str]) -> None:
        self._scratch = scratch
        self._found: dict[str, int] = {}  # which search found an organisation
        self._joined: list[int] = []  # a search that met another is a part of that one
        self._ahead: list[deque[_Place]] = []
        self._parts: list[list[str]] = []
        self._tokens: dict[str, int] = {}  # which search looked at a token first
        self._order: OrderedDict[int, None] = OrderedDict()  # who can still go on; whose turn it is comes first
        for number, organisation in enumerate(starts):
            self._joined.append(number)
            self._ahead.append(deque())
            self._parts.append([])
            self._reach(number, organisation)

    @property
    def done(self) -> bool:
        """Whether at most one of them can still go on."""
        return len(self._order) <= 1

    def parts(self) -> list[list[str]]:
        """The organisations of each part that was found, but for the rest."""
        going = set(self._order)
        return [found for number, found in enumerate(self._parts) if self._of(number) == number and number not in going]

    def step(self) -> None:
        """Let the next search take one step: at most `PAGE` rows."""
        number, _ = self._order.popitem(last=False)
        ahead = self._ahead[number]
        if not ahead:
            return  # it has found its part
        self._order[number] = None
        place = ahead.popleft()
        rows = self._scratch.all(_NEXT[place.kind], (place.name, place.after, PAGE))
        if len(rows) == PAGE:
            ahead.append(place._replace(after=rows[-1][0]))
        for row in rows:
            if place.kind == "tokens":
                self._look_at(number, row[0])
            else:
                self._reach(number, row[-1])

    def connect(self, first: str, second: str) -> None:
        """Take note of a link between two organisations that was made meanwhile."""
        found = self._found.get(first), self._found.get(second)
        if found[0] is not None:
            self._reach(found[0], second)
        elif found[1] is not None:
            self._reach(found[1], first)

    def _look_at(self, number: int, token: str) -> None:
        number = self._of(number)
        if token in self._tokens:
            # at once, and not when the other comes to this organisation: until then it may seem to be a part of its own
            self._meet(number, self._of(self._tokens[token]))
        else:
            self._tokens[token] = number
            self._ahead[number].append(_Place("holders", token))

    def _reach(self, number: int, organisation: str) -> None:
        number, found = self._of(number), self._found.get(organisation)
        if found is not None:
            self._meet(number, self._of(found))
            return
        self._found[organisation] = number
        self._parts[number].append(organisation)
        self._ahead[number] += (_Place("tokens", organisation), _Place("ties", organisation))
        self._go_on(number)

    def _meet(self, first: int, second: int) -> None:
        if first == second:
            return
        kept, gone = sorted((first, second), key=lambda number: -len(self._parts[number]))
        self._joined[gone] = kept
        self._parts[kept] += self._parts[gone]
        self._ahead[kept] += self._ahead[gone]
        self._parts[gone], self._ahead[gone] = [], deque()
        if gone in self._order:
            del self._order[gone]
            self._go_on(kept)

    def _go_on(self, number: int) -> None:
        self._order.setdefault(number)  # there may be more, though it seemed to be done

    def _of(self, number: int) -> int:
        while self._joined[number] != number:
            number = self._joined[number]
        return number
