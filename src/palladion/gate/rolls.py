"""The roll of a gate with many clients: each is read from the registry when it asks, and the latest are kept in memory.

Whoever comes with a made-up key costs one look into an index, and leaves nothing behind. Who stands how is as of the
last reload, as with a roll that was read in one piece; who was revoked since is not let in.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from palladion.access.cedar import Cedar
from palladion.errors import PalladionError
from palladion.gate.callers import WATCH, Caller, LookedUpCallers
from palladion.gate.decoys import NO_DECOYS, DecoyReader, Decoys
from palladion.keys import Root
from palladion.lifecycle.client_copy import peppers
from palladion.registry import Client, ClientKey, Registry, StandingChange
from palladion.registry.lookup import Lookup, Marked
from palladion.registry.rows import Standing
from palladion.watch.response import rank

CALLERS_MAX = 8192  # some 12 MiB with their keys; reading one takes 40 µs
_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class Recent(Generic[_Key, _Value]):
    """The values that were used last, at most so many: in two generations, which costs less than an order of all."""

    def __init__(self, values_max: int) -> None:
        self._half = max(1, values_max // 2)
        self._young: dict[_Key, _Value] = {}
        self._old: dict[_Key, _Value] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def get(self, key: _Key) -> _Value | None:
        """The value, if it is one of those."""
        found = self._young.get(key)
        if found is None:
            found = self._old.pop(key, None)
            if found is not None:
                self.put(key, found)
        return found

    def put(self, key: _Key, value: _Value) -> None:
        """Keep a value, in place of one that was not used for long."""
        if len(self._young) >= self._half:
            self._young, self._old = {}, self._young
        self._young[key] = value

    def drop(self, key: _Key) -> None:
        """Keep a value no more."""
        self._young.pop(key, None)
        self._old.pop(key, None)


class Keys(Mapping[bytes, ClientKey]):
    """Live keys by their keyed hash."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._recent: Recent[bytes, ClientKey] = Recent(CALLERS_MAX)

    def get(self, digest: bytes, default: object = None) -> ClientKey | None:  # type: ignore[override]
        """The key, if there is one. What is none is not remembered: there is no end of those."""
        found = self._recent.get(digest)
        if found is None:
            found = self._lookup.key(digest)
            if found is not None:
                self._recent.put(digest, found)
        return found

    def __getitem__(self, digest: bytes) -> ClientKey:
        found = self.get(digest)
        if found is None:
            raise KeyError(digest)
        return found

    def __iter__(self) -> Iterator[bytes]:
        raise TypeError("keys are looked up one by one")

    def __len__(self) -> int:
        return len(self._recent)


class Identities(Mapping[tuple[str, str], str]):
    """Clients by the kind and text of an identity."""

    def __init__(self, lookup: Lookup) -> None:
        self._lookup = lookup
        self._recent: Recent[tuple[str, str], str] = Recent(CALLERS_MAX)

    def get(self, name: tuple[str, str], default: object = None) -> str | None:  # type: ignore[override]
        """The client's id, if there is one."""
        found = self._recent.get(name)
        if found is None:
            found = self._lookup.identity(*name)
            if found is not None:
                self._recent.put(name, found)
        return found

    def __getitem__(self, name: tuple[str, str]) -> str:
        found = self.get(name)
        if found is None:
            raise KeyError(name)
        return found

    def __iter__(self) -> Iterator[tuple[str, str]]:
        raise TypeError("identities are looked up one by one")

    def __len__(self) -> int:
        return len(self._recent)


class Callers(LookedUpCallers):
    """Clients that are not revoked, by id: as they stood at a mark, but for those that were `changed` since."""

    def __init__(self, lookup: Lookup, marked: Marked, access: Cedar | None) -> None:
        self.changed: dict[str, Caller] = {}
        self.counts: Counter[Standing] = Counter(marked.counts)
        self._lookup = lookup
        self.mark = marked.mark
        self._access = access
        self._recent: Recent[str, Caller] = Recent(CALLERS_MAX)
        self._waiting: Mapping[str, Client] = {}

    def get(self, client: str, default: object = None) -> Caller | None:  # type: ignore[override]
        """The caller, if it is let in."""
        found = self._recent.get(client)
        if found is None and (found := self.changed.get(client)) is None:
            row = self._lookup.caller(client, self.mark)
            if row is not None:
                found = self._made(*row)
            elif (waiting := self._waiting.get(client)) is not None:
                found = Caller(waiting, "trusted", waiting.created, WATCH, access=self._access)
            else:
                return None
            self._recent.put(client, found)
        return found

    def under(self, access: Cedar | None) -> "Callers":
        """The same callers under other access policies."""
        made = Callers(self._lookup, Marked(self.mark, self.counts, {}), access)
        made.changed = {client: replace(caller, access=access) for client, caller in self.changed.items()}
        made._waiting = self._waiting
        return made

    def named(self, organisation: str, name: str) -> Caller | None:
        """The caller of that name, if it is let in."""
        row = self._lookup.named(organisation, name, self.mark)
        return None if row is None else self.changed.get(row[0].id, self._made(*row))

    def has_organisation(self, organisation: str) -> bool:
        """Whether anybody who is let in belongs to an organisation."""
        return self._lookup.is_organisation(organisation)

    def every(self) -> Iterator[Caller]:
        """Every caller, none of which is kept in memory."""
        for client, change in self._lookup.callers(self.mark):
            yield self.changed.get(client.id) or self._made(client, change)

    def hold(self, waiting: Mapping[str, Client]) -> None:
        """Let in the end users whom the registry does not have yet, who are in `waiting` as long as it does not."""
        self._waiting = waiting
        self.counts["trusted"] += len(waiting)

    def enter(self, caller: Caller) -> None:
        """Count an end user who has just begun to wait."""
        self.counts[caller.standing] += 1
        self._recent.put(caller.id, caller)

    def drop(self, clients: Iterable[str]) -> None:
        """Forget end users, by id, whom the registry has no more: it had no history of them."""
        for client in clients:
            changed = self.changed.pop(client, None)
            self.counts["trusted" if changed is None else changed.standing] -= 1
            self._recent.drop(client)

    def __getitem__(self, client: str) -> Caller:
        found = self.get(client)
        if found is None:
            raise KeyError(client)
        return found

    def __setitem__(self, client: str, caller: Caller) -> None:
        before = self.get(client)
        if before is not None:
            self.counts[before.standing] -= 1
        self.counts[caller.standing] += 1
        self.changed[client] = caller
        self._recent.put(client, caller)

    def __delitem__(self, client: str) -> None:
        raise TypeError("who is let in is the registry's affair")

    def __contains__(self, client: object) -> bool:
        return isinstance(client, str) and self.get(client) is not None

    def __iter__(self) -> Iterator[str]:
        return (client.id for client, _ in self._lookup.callers(self.mark))

    def __len__(self) -> int:
        return self.counts.total()

    def _made(self, client: Client, change: StandingChange) -> Caller:
        return Caller(client, change.standing, change.at, change.actor, access=self._access)


@dataclass(frozen=True)
class LookedUp:
    """What the registry says of clients, looked up when it is wanted: a `callers.AnyRoll`."""

    keys: Keys
    identities: Identities
    marked: Marked
    lookup: Lookup
    peppers: tuple[bytes, ...] = field(default=(), repr=False)
    decoys: Decoys = NO_DECOYS

    def entered(self, access: Cedar | None) -> Callers:
        """The callers, who stand as at the mark."""
        return Callers(self.lookup, self.marked, access)

    def raised(self, before: Mapping[str, Caller], now: Mapping[str, Caller]) -> list[str]:
        """Those who stand better now than before; `before` are the callers of the mark before this one."""
        stood: dict[str, Standing] = dict(self.marked.restood)
        if isinstance(before, Callers):
            # nobody stands better than trusted, as nearly all end users do that have come since
            changed = before.changed.items()
            stood |= {client: caller.standing for client, caller in changed if caller.standing != "trusted"}
        found = ((client, standing, now.get(client)) for client, standing in stood.items())
        return [client for client, standing, caller in found if caller and rank(caller.standing) < rank(standing)]


def look_up(lookup: Lookup, marked: Marked, peppers: tuple[bytes, ...] = (), decoys: Decoys = NO_DECOYS) -> LookedUp:
    """The roll as of a mark."""
    return LookedUp(Keys(lookup), Identities(lookup), marked, lookup, peppers, decoys)


class RollReader:
    """`read_looked_up` for one gate, again and again, with its decoys."""

    def __init__(self, lookup: Lookup, gate: Root) -> None:
        self._lookup = lookup
        self._gate = gate
        self._decoys = DecoyReader(gate)

    @property
    def failures(self) -> list[PalladionError]:
        """Why decoys are not as the registry says, where they are not."""
        return [] if self._decoys.failure is None else [self._decoys.failure]

    def __call__(self, registry: Registry, before: int | None = None) -> LookedUp:
        """The roll as of now. Raises FormatError, TamperError at first, on a decoy that this gate did not keep."""
        return read_looked_up(registry, lookup=self._lookup, gate=self._gate, before=before, decoys=self._decoys)


def read_looked_up(
    registry: Registry,
    *,
    lookup: Lookup,
    gate: Root | None = None,
    before: int | None = None,
    decoys: DecoyReader | None = None,
) -> LookedUp:
    """The roll as of now, in the thread of the registry; `lookup` is what it is going to be looked up with, in another.

    `before` is the mark of the roll whose place it takes. Without the `gate` root, keys that another gate made are not
    accepted, and without who reads `decoys` there are none. Cost: every client, some 3 µs each, without keeping the
    event loop waiting.
    """
    counting = Lookup(registry.path)
    try:
        marked = counting.mark(before)
    finally:
        counting.close()
    with registry.read() as records:
        others = peppers(records, gate) if gate is not None else ()
        return look_up(lookup, marked, others, NO_DECOYS if decoys is None else decoys.read(records))
