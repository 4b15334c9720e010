"""What links the accounts of a case: kinds, counts, and keyed values, for its records; and the same in words.

The watch knows networks, names of means of payment and devices in clear, and forgets them. A record never has them so:
equal pseudonyms say that accounts shared something, and nobody without the key can tell what.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from palladion.access.pseudonyms import link_pseudonym, network_pseudonym

LINKED_MAX = 200  # accounts of a case whose links are looked up: some 10 ms
KEYED_MAX = 8  # values of one kind in a record, those that most accounts share
KINDS: Mapping[str, str] = MappingProxyType(
    {
        "organisation": "organisation",
        "network": "network",
        "tls": "TLS fingerprint in one neighbourhood and hour",
        "payment": "means of payment",
        "device": "device",
    }
)


@dataclass(frozen=True)
class Link:
    """One kind of link: how many `values` of it accounts share, the `accounts` that share the commonest, and names.

    `keyed` are pseudonyms of the commonest values, of which a network's is the one in records of answers.
    """

    kind: str
    values: int
    accounts: int
    keyed: tuple[str, ...]


def links_of(shared: Mapping[str, int], key: bytes) -> list[Link]:
    """The links by kind, of what the watch says is shared (`Watch.links_between`); `key` is the root's "pseudonyms"."""
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for token, accounts in shared.items():
        kind, name = _keyed(token, key)
        if name:
            counts[kind][name] = max(accounts, counts[kind].get(name, 0))
    found = []
    for kind in KINDS:
        if of_kind := counts.get(kind):
            commonest = sorted(of_kind, key=lambda name: (-of_kind[name], name))
            found.append(Link(kind, len(of_kind), max(of_kind.values()), tuple(commonest[:KEYED_MAX])))
    return found


def links_details(links: Sequence[Link]) -> dict[str, Any]:
    """The member of a record's details that has them; none where nothing links."""
    listed = [
        {"kind": link.kind, "values": link.values, "accounts": link.accounts, "keyed": list(link.keyed)}
        for link in links
    ]
    return {"links": listed} if listed else {}


def links_said(details: Mapping[str, Any]) -> str:
    """What the links in a record's details are, in words; empty where it has none. It may be of another release."""
    listed = details.get("links")
    told = [item for item in listed if isinstance(item, dict)] if isinstance(listed, list) else []
    words = []
    for item in told[: len(KINDS)]:
        kind, values, accounts = KINDS.get(str(item.get("kind"))), item.get("values"), item.get("accounts")
        if kind is None or not isinstance(values, int) or not isinstance(accounts, int):
            continue
        several = f"{values} times a {kind}, one of them by {accounts}"
        words.append(f"{accounts} share a {kind}" if values == 1 else several)
    return f"accounts linked: {'; '.join(words)}" if words else ""


def _keyed(token: str, key: bytes) -> tuple[str, str]:
    """Kind and pseudonym of what the watch calls `kind:value`."""
    kind, _, value = token.partition(":")
    if kind == "address":
        # an IPv6 one is a /64
        return "network", network_pseudonym(key, value.partition("/")[0])
    if kind == "tls":
        # with the neighbourhood and the hour behind it: of the program, one link
        value = value.partition(" ")[0]
    return kind, link_pseudonym(key, kind, value)
