"""Clients that another gate registered: written here as they are there, with their ids, dates and hashes.

Which of what another gate says is to be taken over is the caller's decision; here a row is only checked to be one. What
is added is written by `flush`, all together: a gate with many clients must not keep others from the registry for long.
"""

from collections.abc import Sequence
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import insert, select, update

from palladion.errors import ConflictError
from palladion.registry import names, tables
from palladion.registry.clients import HASH_BYTES, PREFIX_CHARACTERS_MAX, Clients, check_scopes
from palladion.registry.identities import VALUE_CHARACTERS_MAX
from palladion.registry.rows import Client, ClientIdentity, ClientKey, ClientSource, IdentityKind
from palladion.registry.transaction import Transaction

SOURCES_MAX = 8  # a key that nobody has is hashed once for each: at 1 µs, before anybody is known
PEPPER_CHARACTERS_MAX = 8192  # a wrap of 32 bytes has 300; a post-quantum one 3,000

# in this order, because of who names whom
_ADDED = (tables.client, tables.standing_change, tables.client_copy, tables.client_key, tables.client_identity)
_CLIENT = tables.client.c
_KEY = tables.client_key.c
_IDENTITY = tables.client_identity.c
_SOURCE = tables.client_source.c
_COPY = tables.client_copy.c


class ClientCopies:
    """The copied clients of one transaction, and the gates that they are from."""

    def __init__(self, transaction: Transaction, clients: Clients) -> None:
        self._transaction = transaction
        self._clients = clients
        self._added: dict[str, list[dict[str, Any]]] = {table.name: [] for table in _ADDED}

    def sources(self) -> list[ClientSource]:
        """Every gate whose clients were taken over."""
        query = select(_SOURCE.gate, _SOURCE.publisher, _SOURCE.issued, _SOURCE.pepper, _SOURCE.at)
        return [ClientSource(*row) for row in self._transaction.all(query.order_by(_SOURCE.gate))]

    def origins(self) -> dict[str, str]:
        """The gate of every copied client, by the client's id."""
        return {row.client: row.gate for row in self._transaction.all(select(_COPY.client, _COPY.gate))}

    def hashes(self) -> dict[str, bytes]:
        """The keyed hash of every key, revoked ones included, by its prefix."""
        return {row.prefix: bytes(row.hash) for row in self._transaction.all(select(_KEY.prefix, _KEY.hash))}

    def identities(self) -> list[ClientIdentity]:
        """Every identity, revoked ones included, oldest first."""
        columns = (_IDENTITY.id, _IDENTITY.client, _IDENTITY.kind, _IDENTITY.value)
        query = select(*columns, _IDENTITY.created, _IDENTITY.revoked_at).order_by(_IDENTITY.id)
        return [ClientIdentity(*row) for row in self._transaction.all(query)]

    def all_keys(self) -> list[ClientKey]:
        """Every key, revoked ones included, oldest first."""
        query = select(_KEY.prefix, _KEY.client, _KEY.created, _KEY.expires, _KEY.revoked_at)
        return [ClientKey(*row) for row in self._transaction.all(query.order_by(_KEY.created, _KEY.prefix))]

    def put_source(self, gate: str, *, publisher: str, issued: datetime, pepper: str) -> ClientSource:
        """List another gate, or what is newest of it. Raises ConflictError if there are too many."""
        names.token(gate, what="the id of a gate", characters_max=16)
        names.digest(publisher, what="the key of a publisher")
        if len(pepper) > PEPPER_CHARACTERS_MAX:
            raise ValueError(f"a wrapped pepper has {len(pepper)} characters, at most {PEPPER_CHARACTERS_MAX} fit")
        known = [source.gate for source in self.sources()]
        if gate not in known and len(known) >= SOURCES_MAX:
            raise ConflictError(f"clients of {SOURCES_MAX} other gates are here already, the most that is allowed")
        row = {"publisher": publisher, "issued": issued, "pepper": pepper, "at": self._transaction.now()}
        if gate in known:
            self._transaction.change(update(tables.client_source).where(_SOURCE.gate == gate).values(**row))
        else:
            self._transaction.change(insert(tables.client_source).values(gate=gate, **row))
        return next(source for source in self.sources() if source.gate == gate)

    def add(self, client: Client, gate: str | None, *, reason: str, actor: str) -> None:
        """Register a client as it is elsewhere, with the next `flush`; `gate` says where, None for one of our own."""
        names.token(client.id, what="the id of a client", characters_max=16)
        names.slug(client.name, what="the name of a client")
        names.slug(client.organisation, what="the organisation of a client")
        names.label(actor, what="the actor")
        names.note(reason, what="the reason of a standing")
        check_scopes(client.scopes)
        self._added["client"].append(
            {
                "id": client.id,
                "organisation": client.organisation,
                "name": client.name,
                "scopes": list(client.scopes),
                "created": client.created,
                "revoked_at": client.revoked_at,
            }
        )
        now = self._transaction.now()
        self._added["standing_change"].append(
            {"client": client.id, "standing": client.standing, "reason": reason, "actor": actor, "at": now}
        )
        if gate is not None:
            self._added["client_copy"].append({"client": client.id, "gate": gate})

    def rescope(self, client: str, scopes: Sequence[str]) -> Client:
        """Let a client ask what `scopes` say, and nothing else. Raises NotFoundError."""
        check_scopes(scopes)
        self._transaction.change(update(tables.client).where(_CLIENT.id == client).values(scopes=list(scopes)))
        return self._clients.get(client)

    def revoke(self, client: str, at: datetime) -> None:
        """Let a client in no more, as of when that was decided elsewhere."""
        self._transaction.change(update(tables.client).where(_CLIENT.id == client).values(revoked_at=at))

    def add_key(self, key: ClientKey, key_hash: bytes) -> None:
        """List a key as it is elsewhere."""
        if len(key_hash) != HASH_BYTES:
            raise ValueError(f"a key's hash has {HASH_BYTES} bytes, got {len(key_hash)}")
        names.token(key.prefix, what="the prefix of a key", characters_max=PREFIX_CHARACTERS_MAX)
        self._added["client_key"].append(
            {
                "prefix": key.prefix,
                "client": key.client,
                "hash": key_hash,
                "created": key.created,
                "expires": key.expires,
                "revoked_at": key.revoked_at,
            }
        )

    def revoke_key(self, prefix: str, at: datetime) -> None:
        """Accept a key no more, as of when that was decided elsewhere."""
        self._transaction.change(update(tables.client_key).where(_KEY.prefix == prefix).values(revoked_at=at))

    def add_identity(
        self, client: str, kind: IdentityKind, value: str, *, created: datetime, revoked_at: datetime | None
    ) -> None:
        """List an identity as it is elsewhere."""
        names.one_of(kind, get_args(IdentityKind), what="the kind of an identity")
        if not value or len(value) > VALUE_CHARACTERS_MAX or not value.isprintable():
            raise ValueError(f"an identity is a line of 1 to {VALUE_CHARACTERS_MAX} characters")
        self._added["client_identity"].append(
            {"client": client, "kind": kind, "value": value, "created": created, "revoked_at": revoked_at}
        )

    def revoke_identity(self, identity: int, at: datetime) -> None:
        """Let nobody in by an identity any more, as of when that was decided elsewhere."""
        self._transaction.change(update(tables.client_identity).where(_IDENTITY.id == identity).values(revoked_at=at))

    def flush(self) -> None:
        """Write what was added. Raises as the database does where a row is taken."""
        for table in _ADDED:
            rows, self._added[table.name] = self._added[table.name], []
            self._transaction.change(insert(table), rows)
