"""Identities of clients that others vouch for: tokens of an issuer, SPIFFE ids, certificates. Texts are compared whole.

What such a text has to look like is the caller's affair; here it is only kept short and printable.
"""

from collections.abc import Sequence
from typing import Any, get_args

from sqlalchemy import delete, insert, select, update

from palladion.errors import ConflictError, NotFoundError, PalladionError
from palladion.registry import names, tables
from palladion.registry.clients import Clients
from palladion.registry.rows import ClientIdentity, IdentityKind
from palladion.registry.transaction import Transaction

VALUE_CHARACTERS_MAX = 2500  # a SPIFFE id has at most 2048
LIVE_MAX = 64  # of one client: one for each machine it runs on, and the next ones beside them

_IDENTITY = tables.client_identity.c
_COLUMNS = (
    _IDENTITY.id,
    _IDENTITY.client,
    _IDENTITY.kind,
    _IDENTITY.value,
    _IDENTITY.created,
    _IDENTITY.revoked_at,
)


class Identities:
    """The identities of one transaction."""

    def __init__(self, transaction: Transaction, clients: Clients) -> None:
        self._transaction = transaction
        self._clients = clients

    def add(self, client: str, kind: IdentityKind, value: str) -> ClientIdentity:
        """Let whoever proves to be `value` in as this client.

        Raises NotFoundError, ConflictError if it names a client already, or this one is revoked or has too many.
        """
        names.one_of(kind, get_args(IdentityKind), what="the kind of an identity")
        if not value or len(value) > VALUE_CHARACTERS_MAX or not value.isprintable():
            raise PalladionError(f"an identity is a line of 1 to {VALUE_CHARACTERS_MAX} characters")
        if self._clients.get(client).revoked_at is not None:
            raise ConflictError(f"client {client} is revoked and gets no identity")
        taken = self._find(_IDENTITY.kind == kind, _IDENTITY.value == value, _IDENTITY.revoked_at.is_(None))
        if taken:
            raise ConflictError(f"the {kind} {value} is an identity of client {taken[0].client} already")
        live = self._find(_IDENTITY.client == client, _IDENTITY.revoked_at.is_(None))
        if len(live) >= LIVE_MAX:
            raise ConflictError(f"client {client} has {LIVE_MAX} identities already", "revoke one that is not used")
        self._transaction.change(
            insert(tables.client_identity).values(
                client=client, kind=kind, value=value, created=self._transaction.now()
            )
        )
        return self._find(_IDENTITY.kind == kind, _IDENTITY.value == value, _IDENTITY.revoked_at.is_(None))[0]

    def of(self, client: str) -> list[ClientIdentity]:
        """The identities of a client, oldest first, revoked ones included. Raises NotFoundError."""
        self._clients.get(client)
        return self._find(_IDENTITY.client == client)

    def revoke(self, kind: IdentityKind, value: str) -> ClientIdentity:
        """Let nobody in by it any more. Raises NotFoundError, ConflictError if it was revoked already."""
        known = self._find(_IDENTITY.kind == kind, _IDENTITY.value == value)
        if not known:
            raise NotFoundError(f"no client has the {kind} {value!r}")
        if known[-1].revoked_at is not None:
            raise ConflictError(f"the {kind} {value} was revoked on {known[-1].revoked_at:%Y-%m-%d}")
        self._transaction.change(
            update(tables.client_identity)
            .where(_IDENTITY.id == known[-1].id)
            .values(revoked_at=self._transaction.now())
        )
        return self._find(_IDENTITY.id == known[-1].id)[0]

    def forget(self, client: str) -> int:
        """Delete the texts of all identities of a client; returns how many there were. Raises NotFoundError."""
        found = len(self.of(client))
        self._transaction.change(delete(tables.client_identity).where(_IDENTITY.client == client))
        return found

    def live(self) -> list[ClientIdentity]:
        """Every identity that is not revoked, for a process that looks them up itself."""
        return self._find(_IDENTITY.revoked_at.is_(None))

    def _find(self, *conditions: Any) -> list[ClientIdentity]:
        query = select(*_COLUMNS).where(*conditions).order_by(_IDENTITY.id)
        rows: Sequence[Any] = self._transaction.all(query)
        return [ClientIdentity(*row) for row in rows]
