"""Who is linked with whom: accounts of one organisation, and organisations whose accounts show one token.

Tokens are a means of payment, and what few accounts share: a network address, a device, a TLS fingerprint seen in one
neighbourhood within one hour. Which organisation an account belongs to is the caller's knowledge; so a million accounts
that nothing else links take up no memory here.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from functools import lru_cache
from typing import NamedTuple

from palladion.access.networks import neighbourhood_of, network_of
from palladion.errors import PalladionError
from palladion.watch.parting import Search
from palladion.watch.scratch import Scratch

# An address that more accounts share is a proxy or a company's way out, and no link; a device that more share is a kind
# of device, and a TLS fingerprint that more share within its hour is that of a program which everybody there uses.
ACCOUNTS_PER_ADDRESS_MAX = 20
TLS_SECONDS = 3600  # a fingerprint is that of a program, which thousands use: only who comes at the same time is linked
TOKENS_PER_ACCOUNT_MAX = 64  # of a kind; then the oldest is forgotten: every query can have a new address
SEEN_MAX = 16_384  # what was shown lately, some 6 MiB: looking it up in the tables takes 20 µs
PARTING_STEPS = 128  # that a search for the parts of a group takes for each token shown: some 3 ms
ADDRESS, PAYMENT, DEVICE, TLS = "address:", "payment:", "device:", "tls:"  # kinds of tokens

_network_of = lru_cache(SEEN_MAX)(network_of)


class Shown(NamedTuple):
    """What an account shows of itself: one of the kinds above, and which one."""

    kind: str
    value: str


def tls_shown(fingerprint: str, address: str, at: float) -> Shown | None:
    """A TLS fingerprint with the neighbourhood and the hour (`at` in seconds since 1970) that it was seen in.

    None where the address is none, and so has no neighbourhood: a fingerprint alone links nobody.
    """
    place = neighbourhood_of(address)
    return Shown(TLS, f"{fingerprint} {place} {int(at // TLS_SECONDS)}") if place else None


class Change(NamedTuple):
    """What became of a group: `organisations` have left it, which was of the root `gone`.

    Where it became part of another group, the one in `roots` is that. Where it was parted, they are in the groups of
    all `roots` but the first, and who stayed together in that of the first, whose name can be the old one.
    """

    gone: str
    organisations: Collection[str]
    roots: Collection[str]


def follow(change: Change, regroups: Iterable[Callable[[Change], None]]) -> None:
    """Let everybody follow a change, which nobody is told of twice; then raise the first error, if there was one."""
    errors: list[PalladionError] = []
    for regroup in regroups:
        try:
            regroup(change)
        except PalladionError as error:
            errors.append(error)
    if errors:
        raise errors[0]


class Links:
    """Organisations that are linked; the order in which accounts show tokens makes no difference in the end.

    When a token links nobody any more, a group that it held together stays one until it was looked through for what
    else links, some of it with each token shown. Until then, while `parting`, nobody has left.
    """

    def __init__(self, scratch: Scratch | None = None) -> None:
        self._scratch = scratch or Scratch()
        self._root: dict[str, str] = {}  # of organisations that are linked with another root
        self._members: dict[str, set[str]] = {}  # organisations by root, where there are several
        self._seen: dict[tuple[str, str], None] = {}
        self._seen_before: dict[tuple[str, str], None] = {}
        self._shown = 0
        self._search: Search | None = None
        self._starts: dict[str, None] = {}  # where it began: organisations of one group
        # by root, who of a group had shown a token that links nobody any more, since the group was searched through
        self._unsearched: OrderedDict[str, dict[str, None]] = OrderedDict()
        self._tied: dict[str, str] = {}  # by organisation one that ties hold it together with, up to one for all

    @property
    def parting(self) -> bool:
        """Whether somebody may be in a group still that nothing holds together."""
        return self._search is not None or len(self._unsearched) > 0

    def root(self, organisation: str) -> str:
        """The name of the group that an organisation is in: that of one in it; its own as long as it is alone."""
        return self._root.get(organisation, organisation)

    def organisations(self, root: str) -> Collection[str]:
        """All organisations of a group."""
        return self._members.get(root, (root,))

    def show(self, client: str, organisation: str, shown: Shown) -> Change | None:
        """Link by what an account shows, unless too many accounts share it; what became of which group.

        When one account too many shows it, those that it had linked are parted, unless something else links them: now,
        or with one of the next tokens shown. A means of payment links however many share it.
        """
        change = self._show_once(client, organisation, shown.kind, _token(shown))
        # most shows say nothing new, and are done here
        return self._go_on_parting() if change is None and self.parting else change

    def is_news(self, client: str, shown: Shown) -> bool:
        """Whether a group may change when an account shows this; what it showed lately is no news."""
        return self.parting or self._is_news((client, _token(shown)))

    def tokens(self, client: str) -> list[str]:
        """The tokens, of those that an account has shown, that link."""
        return [token for (token,) in self._scratch.all("SELECT token FROM holder WHERE client = ?", (client,))]

    def _is_news(self, shown: tuple[str, str]) -> bool:
        return shown not in self._seen and shown not in self._seen_before

    def _show_once(self, client: str, organisation: str, kind: str, token: str) -> Change | None:
        shown = (client, token)
        if shown in self._seen:
            return None
        change = self._show(client, organisation, kind, token) if shown not in self._seen_before else None
        self._seen[shown] = None
        if len(self._seen) >= SEEN_MAX // 2:
            self._seen, self._seen_before = {}, self._seen
        return change

    def _show(self, client: str, organisation: str, kind: str, token: str) -> Change | None:
        ask = self._scratch.all
        if ask("SELECT 1 FROM crowd WHERE token = ?", (token,)):
            return None
        if ask("SELECT 1 FROM holder WHERE token = ? AND client = ?", (token, client)):
            return None
        self._make_room(client, kind, token)
        others = ask("SELECT organisation FROM holder WHERE token = ? LIMIT 1", (token,))
        self._shown += 1
        ask("INSERT INTO holder VALUES (?, ?, ?, ?)", (token, client, organisation, self._shown))
        if not others:
            return None
        if kind != PAYMENT and self._count(token) > ACCOUNTS_PER_ADDRESS_MAX:
            self._end(token)
            return None
        self._connect(organisation, others[0][0])
        return self._join(organisation, others[0][0])

    def _count(self, token: str) -> int:
        query = "SELECT count(*) FROM (SELECT 1 FROM holder WHERE token = ? LIMIT ?)"
        ((holders,),) = self._scratch.all(query, (token, ACCOUNTS_PER_ADDRESS_MAX + 1))
        return int(holders)

    def _join(self, first: str, second: str) -> Change | None:
        if self.root(first) == self.root(second):
            return None
        # the smaller becomes part of the larger, so that keeping book costs little however large they get
        gone, kept = sorted(
            (self.root(first), self.root(second)), key=lambda root: (len(self.organisations(root)), root)
        )
        joined = self._members.pop(gone, {gone})
        self._members.setdefault(kept, {kept}).update(joined)
        self._root.update(dict.fromkeys(joined, kept))
        self._search_from(kept, self._unsearched.pop(gone, ()))
        return Change(gone, joined, (kept,))

    # what an account has shown is bounded

    def _make_room(self, client: str, kind: str, token: str) -> None:
        """Forget the oldest tokens of a kind where a further one would be too many, and past hours that linked nobody.

        Of each kind by itself: addresses must not keep a payment from linking, nor hours a device.
        """
        where, values = "FROM holder WHERE client = ? AND token >= ? AND token < ?", (client, kind, kind + "\U0010ffff")
        if kind != TLS and self._scratch.all(f"SELECT count(*) {where}", values)[0][0] < TOKENS_PER_ACCOUNT_MAX:
            return
        held = [found for (found,) in self._scratch.all(f"SELECT token {where} ORDER BY shown", values)]
        if kind == TLS:
            past = [found for found in held if _hour(found) < _hour(token) and self._count(found) == 1]
            for found in past:  # nobody can come in that hour any more
                self._forget(client, found)
            held = [found for found in held if found not in past]
        for found in held[: max(0, len(held) + 1 - TOKENS_PER_ACCOUNT_MAX)]:
            self._forget(client, found)

    def _forget(self, client: str, token: str) -> None:
        """Forget that an account showed a token. Whom it linked stays linked, whatever becomes of the token."""
        ask = self._scratch.all
        ((organisation,),) = ask("SELECT organisation FROM holder WHERE token = ? AND client = ?", (token, client))
        ask("DELETE FROM holder WHERE token = ? AND client = ?", (token, client))
        self._seen.pop((client, token), None)
        self._seen_before.pop((client, token), None)
        for (other,) in ask("SELECT organisation FROM holder WHERE token = ? LIMIT 1", (token,)):
            self._tie(organisation, other)

    def _tie(self, first: str, second: str) -> None:
        roots = self._tie_of(first), self._tie_of(second)
        if roots[0] == roots[1]:
            return  # so there are fewer ties than organisations, whatever accounts show
        self._tied[roots[0]] = roots[1]
        self._scratch.all("INSERT INTO tie VALUES (?, ?), (?, ?)", (first, second, second, first))
        self._connect(first, second)

    def _tie_of(self, organisation: str) -> str:
        while (nearer := self._tied.get(organisation)) is not None:
            self._tied[organisation] = self._tied.get(nearer, nearer)  # so that ways stay short
            organisation = nearer
        return organisation

    # a token that too many show links nobody

    def _end(self, token: str) -> None:
        query = "SELECT DISTINCT organisation FROM holder WHERE token = ?"
        found = [organisation for (organisation,) in self._scratch.all(query, (token,))]
        for organisation in found:
            self._search_from(self.root(organisation), (organisation,))
        self._scratch.all("DELETE FROM holder WHERE token = ?", (token,))
        self._scratch.all("INSERT INTO crowd VALUES (?)", (token,))

    def _search_from(self, root: str, organisations: Iterable[str]) -> None:
        """Have a group searched from some of it, and from whoever it is to be searched from already."""
        more = dict.fromkeys(organisations)
        if more and root in self._members:
            self._unsearched.setdefault(root, {}).update(more)

    def _connect(self, first: str, second: str) -> None:
        if self._search is not None:
            self._search.connect(first, second)

    def _go_on_parting(self) -> Change | None:
        """Search on, and part the group when it is done. One search at a time."""
        for _ in range(PARTING_STEPS):
            if self._search is None:
                if not self._unsearched:
                    return None
                _, self._starts = self._unsearched.popitem(last=False)
                self._search = Search(self._scratch, self._starts)
            elif not self._search.done:
                self._search.step()
            elif (change := self._found(self._search.parts())) is not None:
                return change
        return None

    def _found(self, parts: list[list[str]]) -> Change | None:
        """Part the group that was searched.

        Nothing holds one part together with another. But where a token of the group ended meanwhile, a part may
        consist of several, of which some hold nobody that showed that token: each is searched anew from both.
        """
        self._search = None
        root = self.root(next(iter(self._starts)))
        if root in self._unsearched:
            self._search_from(root, self._starts)
        return self._part(root, parts) if parts else None

    def _part(self, root: str, parts: list[list[str]]) -> Change:
        rest = self._members.pop(root)
        gone = [organisation for part in parts for organisation in part]
        rest.difference_update(gone)
        roots = (self._group(rest, root), *(self._group(set(part)) for part in parts))
        for organisation in self._unsearched.pop(root, ()):
            self._search_from(self.root(organisation), (organisation,))
        return Change(root, gone, roots)

    def _group(self, members: set[str], name: str = "") -> str:
        """Make some organisations a group, by that name if one of them has it."""
        name = name if name in members else min(members)
        self._root.update(dict.fromkeys(members, name))
        del self._root[name]
        if len(members) > 1:
            self._members[name] = members
        return name


def _token(shown: Shown) -> str:
    kind, value = shown
    return kind + (_network_of(value) if kind == ADDRESS else value)


def _hour(token: str) -> float:
    """The hour that a token of TLS was shown in (`tls_shown`); no time at all where it names none."""
    hour = token.rpartition(" ")[2]
    return int(hour) if hour.isdecimal() else math.inf
