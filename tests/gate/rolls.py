"""A roll that is read in one piece: slow for a million clients, and all in view for a test."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from palladion.access.cedar import Cedar
from palladion.gate.callers import Caller
from palladion.gate.decoys import NO_DECOYS, Decoys
from palladion.keys import Root
from palladion.lifecycle.client_copy import peppers
from palladion.registry import ClientKey, Records
from palladion.watch.response import rank


@dataclass(frozen=True)
class Roll:
    """What the registry says of clients at one moment: live keys by their keyed hash, and callers by client id.

    `identities` are those that are not revoked, by kind and text, with the client's id. `peppers` are those of other
    gates whose clients were taken over: what the hashes of their keys are keyed with.
    """

    keys: Mapping[bytes, ClientKey]
    callers: Mapping[str, Caller]
    identities: Mapping[tuple[str, str], str] = field(default_factory=dict)
    peppers: tuple[bytes, ...] = field(default=(), repr=False)
    decoys: Decoys = NO_DECOYS

    def entered(self, access: Cedar | None) -> dict[str, Caller]:
        """The callers by id, who may be changed."""
        if access is None:
            return dict(self.callers)
        return {client: replace(caller, access=access) for client, caller in self.callers.items()}

    def raised(self, before: Mapping[str, Caller], now: Mapping[str, Caller]) -> list[str]:
        """Those who stand better now than before."""
        return [
            client
            for client, caller in now.items()
            if client in before and rank(caller.standing) < rank(before[client].standing)
        ]


def read_roll(records: Records, gate: Root | None = None) -> Roll:
    """Every client that is not revoked, and every key and identity of theirs that is not.

    Without the `gate` root, keys that another gate made are not accepted.
    """
    standings = records.standings.current()
    callers = {
        client.id: Caller(client, change.standing, change.at, change.actor)
        for client in records.clients.all()
        if client.revoked_at is None
        for change in [standings[client.id]]
    }
    keys = {key_hash: key for key_hash, key in records.clients.credentials() if key.client in callers}
    live = records.identities.live()
    identities: dict[tuple[str, str], str] = {
        (row.kind, row.value): row.client for row in live if row.client in callers
    }
    return Roll(keys, callers, identities, peppers(records, gate) if gate is not None else ())
