"""What another gate's clients change here: decided from two lists, before anything is written (docs/access.md).

Revoked stays revoked, a key never lives longer, no standing is raised: where the other gate says otherwise, that is
told.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, get_args

from palladion.clock import timestamp
from palladion.lifecycle.client_bundle import Bundle, ClientThere, IdentityThere, KeyThere
from palladion.registry import Client, ClientIdentity, ClientKey, Records
from palladion.registry.identities import LIVE_MAX
from palladion.registry.names import NOTE_CHARACTERS_MAX
from palladion.registry.rows import Standing

STANDINGS: tuple[Standing, ...] = get_args(Standing)  # from the best to the worst

Write = Callable[[Records, str], object]  # with the actor


@dataclass(frozen=True)
class Step:
    """One change: the kind of its record, the client's id, what the record states, and how it is written.

    `identity` is one whose keyed digest the record states.
    """

    kind: str
    client: str
    details: dict[str, Any]
    write: Write | None = None
    identity: tuple[str, str] | None = None


@dataclass(frozen=True)
class Here:
    """What a registry has of clients at one moment; `gate` is the id of its own gate root.

    `contracts` are the names, ORGANISATION/NAME, that the policy has a contract with.
    """

    gate: str
    clients: Mapping[str, Client]
    origins: Mapping[str, str]
    keys: Mapping[str, ClientKey]
    hashes: Mapping[str, bytes]
    identities: tuple[ClientIdentity, ...]
    contracts: frozenset[str] = frozenset()


@dataclass
class Merge:
    """What there is to do, in order; `kept` is what stays as it is here, `passed_over` what cannot be taken over."""

    steps: list[Step] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)

    def count(self, kind: str) -> int:
        """How many changes of a kind there are."""
        return sum(step.kind == kind for step in self.steps)


def read_here(records: Records, gate: str, bundle: Bundle, contracts: frozenset[str] = frozenset()) -> Here:
    """The clients of a transaction; of end users, who are never handed over, only those whose id `bundle` takes."""
    copies, taken = records.client_copies, records.clients.among(client.id for client in bundle.clients)
    return Here(
        gate,
        {client.id: client for client in (*records.clients.registered(), *taken)},
        copies.origins(),
        {key.prefix: key for key in copies.all_keys()},
        copies.hashes(),
        tuple(copies.identities()),
        contracts,
    )


def merge(bundle: Bundle, here: Here) -> Merge:
    """What to change so that the clients of `bundle` are let in here as they are there. Revocations come first."""
    merger = _Merger(bundle, here)
    mine = [client for client in bundle.clients if merger.may_change(client)]
    for client in mine:
        if client.id in here.clients:
            merger.revoke(client)
    for client in mine:
        merger.add(client)
    return merger.merge


class _Merger:
    def __init__(self, bundle: Bundle, here: Here) -> None:
        self.merge = Merge()
        self._gate = bundle.gate
        self._here = here
        self._names = {(client.organisation, client.name): client.id for client in here.clients.values()}
        self._taken = set(here.hashes.values())
        self._identities: dict[tuple[str, str, str], list[ClientIdentity]] = {}
        self._live: dict[tuple[str, str], str] = {}
        self._live_count: dict[str, int] = {}
        for row in here.identities:
            self._identities.setdefault((row.client, row.kind, row.value), []).append(row)
            if row.revoked_at is None:
                self._live[row.kind, row.value] = row.client
                self._live_count[row.client] = self._live_count.get(row.client, 0) + 1

    def may_change(self, client: ClientThere) -> bool:
        """Whether this gate is the one to say who the client is: each client has one such gate."""
        known, name = self._here.clients.get(client.id), f"{client.organisation}/{client.name}"
        if known is None:
            if name in self._here.contracts:
                # a name is all that a contract goes by, and the other gate chooses names
                self.merge.passed_over.append(f"{name}: the policy has a [[contract]] with that name here")
                return False
            if (client.organisation, client.name) not in self._names:
                return True
            self.merge.passed_over.append(f"{name}: another client is registered by that name here")
            return False
        if self._here.origins.get(client.id, self._here.gate) == self._gate:
            return True
        self.merge.passed_over.append(f"{name}: not that gate registered it, but this one or a third")
        return False

    def revoke(self, client: ClientThere) -> None:
        """Take over what ended there, and what was lowered."""
        known = self._here.clients[client.id]
        self._standing(client, known)
        for key in client.keys:
            row = self._here.keys.get(key.prefix)
            if row is not None and row.client == client.id and self._here.hashes[key.prefix].hex() == key.hash:
                self._end_key(client, key, row)
        for identity in client.identities:
            self._end_identity(client, identity)
        if client.revoked_at is not None and known.revoked_at is None:
            self._do("client.revoked", client.id, {}, _revoke(client.id, client.revoked_at))
        elif client.revoked_at is None and known.revoked_at is not None:
            self.merge.kept.append(f"{client.organisation}/{client.name} is revoked here, and not there")

    def add(self, client: ClientThere) -> None:
        """Take over a client, keys and identities that are new."""
        known = self._here.clients.get(client.id)
        if known is None:
            self._new(client)
        elif known.scopes != client.scopes:
            scopes = list(client.scopes)
            self._do("client.changed", client.id, {"scopes": scopes}, _rescope(client.id, scopes))
        if known is not None and known.revoked_at is not None:
            return  # whoever is let in no more needs no more keys
        for key in client.keys:
            self._add_key(client, key)
        for identity in client.identities:
            self._add_identity(client, identity)

    def _new(self, client: ClientThere) -> None:
        row = client.row()
        gate = None if self._gate == self._here.gate else self._gate
        reason = f"as at gate {self._gate}: {client.reason}"[:NOTE_CHARACTERS_MAX]
        details = {"scopes": list(client.scopes), "gate": self._gate}

        def write(records: Records, actor: str) -> None:
            records.client_copies.add(row, gate, reason=reason, actor=actor)

        self._do("client.added", client.id, details, write)
        if client.standing != "trusted":
            changed = {"from": "trusted", "to": client.standing, "reason": reason}
            self._do("standing.changed", client.id, changed, None)
        if client.revoked_at is not None:
            self._do("client.revoked", client.id, {}, None)

    def _standing(self, client: ClientThere, known: Client) -> None:
        there, here = (STANDINGS.index(standing) for standing in (client.standing, known.standing))
        name = f"{client.organisation}/{client.name}"
        if there < here:
            self.merge.kept.append(f"{name} is {client.standing} there, and stays {known.standing} here")
        elif there > here:
            reason = f"as at gate {self._gate}: {client.reason}"[:NOTE_CHARACTERS_MAX]

            def write(records: Records, actor: str) -> None:
                records.standings.change(client.id, client.standing, reason=reason, actor=actor)

            details = {"from": known.standing, "to": client.standing, "reason": reason}
            self._do("standing.changed", client.id, details, write)

    def _end_key(self, client: ClientThere, key: KeyThere, row: ClientKey) -> None:
        there = key.row(client.id)
        if row.revoked_at is not None:
            return
        if there.revoked_at is not None:
            prefix, moment = key.prefix, there.revoked_at
            self._do(
                "client.key-revoked",
                client.id,
                {"prefix": prefix},
                lambda records, _: records.client_copies.revoke_key(prefix, moment),
            )
        elif there.expires is not None and (row.expires is None or there.expires < row.expires):
            end = there.expires
            self._do(
                "client.key-ending",
                client.id,
                {"prefix": key.prefix, "expires": timestamp(end)},
                lambda records, _: records.clients.end_key(key.prefix, end),
            )

    def _end_identity(self, client: ClientThere, identity: IdentityThere) -> None:
        moment = identity.revoked_at
        if moment is None:
            return
        for row in self._rows(client, identity):
            if row.created == identity.created_at and row.revoked_at is None:
                self._do(
                    "client.identity-revoked",
                    client.id,
                    {},
                    _revoke_identity(row.id, moment),
                    identity=(identity.kind, identity.value),
                )
                del self._live[identity.kind, identity.value]
                self._live_count[client.id] -= 1
                self._replace(client, identity, row, moment)

    def _add_key(self, client: ClientThere, key: KeyThere) -> None:
        row, digest = self._here.keys.get(key.prefix), bytes.fromhex(key.hash)
        if row is not None and row.client == client.id and self._here.hashes[key.prefix] == digest:
            return
        if row is not None or digest in self._taken:
            name = f"{client.organisation}/{client.name}"
            self.merge.passed_over.append(f"{name}: there is another key {key.prefix}… here")
            return
        new = key.row(client.id)

        def write(records: Records, _: str) -> None:
            records.client_copies.add_key(new, digest)

        # one that is over is listed all the same: its prefix is not to be given again
        if new.revoked_at is not None:
            self.merge.steps.append(Step("", client.id, {}, write))
        else:
            self._do("client.key-added", client.id, {"prefix": key.prefix}, write)

    def _add_identity(self, client: ClientThere, identity: IdentityThere) -> None:
        rows, pair = self._rows(client, identity), (identity.kind, identity.value)
        if any(row.created == identity.created_at for row in rows):
            return
        name, end = f"{client.organisation}/{client.name}", identity.revoked_at

        def write(records: Records, _: str) -> None:
            copies = records.client_copies
            copies.add_identity(client.id, identity.kind, identity.value, created=identity.created_at, revoked_at=end)

        if end is not None:
            self.merge.steps.append(Step("", client.id, {}, write))
            return
        ends_there = {(there.created_at, there.revoked_at) for there in client.identities if _pair(there) == pair}
        if any(row.revoked_at is not None and (row.created, row.revoked_at) not in ends_there for row in rows):
            self.merge.kept.append(f"{name}: the {identity.kind} {identity.value} is revoked here, and not there")
        elif self._live.get(pair) == client.id:
            return  # added on both sides
        elif pair in self._live:
            self.merge.passed_over.append(f"{name}: the {identity.kind} {identity.value} is another client's here")
        elif self._live_count.get(client.id, 0) >= LIVE_MAX:
            self.merge.passed_over.append(f"{name}: it has {LIVE_MAX} identities here already")
        else:
            self._live[pair] = client.id
            self._live_count[client.id] = self._live_count.get(client.id, 0) + 1
            self._do("client.identity-added", client.id, {}, write, identity=pair)

    def _rows(self, client: ClientThere, identity: IdentityThere) -> list[ClientIdentity]:
        return self._identities.get((client.id, identity.kind, identity.value), [])

    def _replace(self, client: ClientThere, identity: IdentityThere, row: ClientIdentity, moment: datetime) -> None:
        rows = self._identities[client.id, identity.kind, identity.value]
        rows[rows.index(row)] = replace(row, revoked_at=moment)

    def _do(
        self,
        kind: str,
        client: str,
        details: dict[str, Any],
        write: Write | None,
        *,
        identity: tuple[str, str] | None = None,
    ) -> None:
        self.merge.steps.append(Step(kind, client, details, write, identity))


def _pair(identity: IdentityThere) -> tuple[str, str]:
    return identity.kind, identity.value


def _revoke(client: str, at: datetime) -> Write:
    return lambda records, _: records.client_copies.revoke(client, at)


def _revoke_identity(identity: int, at: datetime) -> Write:
    return lambda records, _: records.client_copies.revoke_identity(identity, at)


def _rescope(client: str, scopes: list[str]) -> Write:
    return lambda records, _: records.client_copies.rescope(client, scopes)
