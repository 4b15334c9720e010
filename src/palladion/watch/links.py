"""Who is linked with whom: accounts of one organisation, and organisations whose accounts show one token.

Tokens are a means of payment, and what few accounts share: a network address, a device, a TLS fingerprint seen in one
neighbourhood within one hour. Which organisation an account belongs to is the caller's knowledge; so a million accounts
that nothing else links take up no memory here.
"""

from collections.abc import Collection
from typing import NamedTuple

from palladion.access.networks import neighbourhood_of, network_of
from palladion.watch.scratch import Scratch

# An address that more accounts share is a proxy or a company's way out, and no link; a device that more share is a kind
# of device, and a TLS fingerprint that more share within its hour is that of a program which everybody there uses.
ACCOUNTS_PER_ADDRESS_MAX = 20
TLS_SECONDS = 3600  # a fingerprint is that of a program, which thousands use: only who comes at the same time is linked
TOKENS_PER_ACCOUNT_MAX = 64  # of a kind; further ones link nobody: an account can have a new address for every query
SEEN_MAX = 16_384  # what was shown lately, some 6 MiB: looking it up in the tables takes 20 µs
ADDRESS, PAYMENT, DEVICE, TLS = "address:", "payment:", "device:", "tls:"  # kinds of tokens


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
    """A group that is no more, by its root: its `organisations` are in the groups of these `roots` now.

    One root, where it became part of another group; several, where it was parted.
    """

    gone: str
    organisations: Collection[str]
    roots: Collection[str]


class Links:
    """Organisations that are linked; the order in which accounts show tokens makes no difference."""

    def __init__(self, scratch: Scratch | None = None) -> None:
        self._scratch = scratch or Scratch()
        self._root: dict[str, str] = {}  # of organisations that are linked with another root
        self._members: dict[str, set[str]] = {}  # organisations by root, where there are several
        self._seen: dict[tuple[str, str, str], None] = {}
        self._seen_before: dict[tuple[str, str, str], None] = {}

    def root(self, organisation: str) -> str:
        """The name of the group that an organisation is in: that of one in it; its own as long as it is alone."""
        return self._root.get(organisation, organisation)

    def organisations(self, root: str) -> Collection[str]:
        """All organisations of a group."""
        return self._members.get(root, (root,))

    def show(self, client: str, organisation: str, shown: Shown) -> Change | None:
        """Link by what an account shows, unless too many accounts share it; what became of which group.

        When one account too many shows it, those that it had linked are parted, unless something else links them. A
        means of payment links however many share it.
        """
        return self._show_once(client, organisation, shown.kind, shown.value)

    def is_news(self, client: str, shown: Shown) -> bool:
        """Whether an account may not have shown this yet; what it showed lately is no news."""
        return self._is_news((client, shown.kind, shown.value))

    def tokens(self, client: str) -> list[str]:
        """The tokens, of those that an account has shown, that link."""
        shown = [token for (token,) in self._scratch.all("SELECT token FROM holder WHERE client = ?", (client,))]
        return [token for token in shown if not self._crowded(token)]

    def _is_news(self, shown: tuple[str, str, str]) -> bool:
        return shown not in self._seen and shown not in self._seen_before

    def _show_once(self, client: str, organisation: str, kind: str, value: str) -> Change | None:
        shown = (client, kind, value)
        if shown in self._seen:
            return None
        change = None
        if shown not in self._seen_before:
            change = self._show(client, organisation, kind, network_of(value) if kind == ADDRESS else value)
        self._seen[shown] = None
        if len(self._seen) >= SEEN_MAX // 2:
            self._seen, self._seen_before = {}, self._seen
        return change

    def _show(self, client: str, organisation: str, kind: str, value: str) -> Change | None:
        token, ask = kind + value, self._scratch.all
        if ask("SELECT 1 FROM holder WHERE token = ? AND client = ?", (token, client)) or self._crowded(token):
            return None
        # addresses must not keep a payment from linking, nor hours a device
        query = "SELECT count(*) FROM holder WHERE client = ? AND token >= ? AND token < ?"
        ((shown,),) = ask(query, (client, kind, kind + "\U0010ffff"))
        if shown >= TOKENS_PER_ACCOUNT_MAX:
            return None
        others = ask("SELECT organisation FROM holder WHERE token = ? LIMIT 1", (token,))
        ask("INSERT INTO holder VALUES (?, ?, ?)", (token, client, organisation))
        if not others:
            return None
        return self._part(others[0][0]) if self._crowded(token) else self._join(organisation, others[0][0])

    def _crowded(self, token: str) -> bool:
        if token.startswith(PAYMENT):
            return False
        query = "SELECT count(*) FROM (SELECT 1 FROM holder WHERE token = ? LIMIT ?)"
        ((holders,),) = self._scratch.all(query, (token, ACCOUNTS_PER_ADDRESS_MAX + 1))
        return bool(holders > ACCOUNTS_PER_ADDRESS_MAX)

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
        return Change(gone, joined, (kept,))

    def _part(self, organisation: str) -> Change | None:
        """Group the organisations of a group anew, by the tokens that still link."""
        root = self.root(organisation)
        members = self._members.pop(root, None)
        if members is None:
            return None  # one organisation stays together
        for member in members:
            self._root.pop(member, None)
        for member in members:
            for (token,) in self._scratch.all("SELECT DISTINCT token FROM holder WHERE organisation = ?", (member,)):
                if not self._crowded(token):
                    query = "SELECT organisation FROM holder WHERE token = ? LIMIT 1"
                    self._join(member, self._scratch.all(query, (token,))[0][0])
        return Change(root, members, sorted({self.root(member) for member in members}))
