"""Clients of the API and their keys. A key comes as keyed hash and showable prefix; the key itself never gets here."""

import secrets
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, get_args

from sqlalchemy import ColumnElement, delete, func, insert, literal, select, update

from palladion.errors import ConflictError, KeysError, NotFoundError, PalladionError
from palladion.registry import names, tables
from palladion.registry.end_user_tables import end_user, reseller, reseller_secret
from palladion.registry.rows import END_USER, Client, ClientKey, Standing
from palladion.registry.transaction import Transaction

ID_BYTES = 8  # random: with a million clients, two share an id with probability 3e-8, and the database refuses that
HASH_BYTES = 32
PREFIX_CHARACTERS_MAX = 64
SCOPES_MAX = 64  # a scope names a model or a route; whoever needs more may ask for all models
SCOPE_CHARACTERS_MAX = 256  # a path has at most 200
AT_ONCE = 1000  # in one statement: SQLite takes 32,766 variables
ERASED = "erased"  # the organisation of clients whose name was erased
_SUSPEND = "palladion client standing puts it into another standing"

_CLIENT = tables.client.c
_KEY = tables.client_key.c
_STANDING = tables.standing_change.c
_KEY_COLUMNS = (_KEY.prefix, _KEY.client, _KEY.created, _KEY.expires, _KEY.revoked_at)


class Clients:
    """The clients of one transaction."""

    def __init__(self, transaction: Transaction) -> None:
        self._transaction = transaction

    def add(
        self,
        name: str,
        *,
        organisation: str,
        actor: str,
        scopes: Sequence[str] = (),
        standing: Standing = "trusted",
    ) -> Client:
        """Register a client without a key yet. Raises ConflictError if the organisation has one of that name."""
        names.slug(name, what="the name of a client")
        names.slug(organisation, what="the organisation of a client")
        names.label(actor, what="the actor")
        names.one_of(standing, get_args(Standing), what="the standing of a client")
        check_scopes(scopes)
        if self.find(organisation, name) is not None:
            raise ConflictError(f"there is a client {organisation}/{name} already", "take another name")
        client, now = secrets.token_hex(ID_BYTES), self._transaction.now()
        self._transaction.change(
            insert(tables.client).values(
                id=client, organisation=organisation, name=name, scopes=list(scopes), created=now
            )
        )
        self._transaction.change(
            insert(tables.standing_change).values(
                client=client, standing=standing, reason="registered", actor=actor, at=now
            )
        )
        return self.get(client)

    def find(self, organisation: str, name: str) -> Client | None:
        """The client of that name in that organisation, or None.

        Commands take a client's own name for its organisation; an end user's is that of its reseller.
        """
        organisation = organisation.partition(END_USER)[0]
        found = self._select(_CLIENT.organisation == organisation, _CLIENT.name == name)
        return found[0] if found else None

    def get(self, client: str) -> Client:
        """The client of that id. Raises NotFoundError."""
        found = self.find_id(client)
        if found is None:
            raise NotFoundError(f"no client with the id {client!r}")
        return found

    def find_id(self, client: str) -> Client | None:
        """The client of that id, or None."""
        found = self._select(_CLIENT.id == client)
        return found[0] if found else None

    def named(self, organisation: str, name: str) -> Client:
        """The client of that name. Raises NotFoundError with the names that look like it."""
        client = self.find(organisation, name)
        if client is None:
            known = (f"{client.organisation}/{client.name}" for client in self.registered())
            raise names.not_found("client", f"{organisation}/{name}", known)
        return client

    def all(self) -> list[Client]:
        """Every client, by organisation and name, revoked ones and end users included, of which may be a million."""
        return self._select()

    def registered(self) -> list[Client]:
        """The same without end users: those whom a person let in."""
        return self._select(end_user.c.reseller.is_(None))

    def decided(self) -> list[Client]:
        """Those whom a person let in, and the end users about whom anything was ever decided."""
        return self._select(
            end_user.c.reseller.is_(None) | select(_STANDING.id).where(_STANDING.client == _CLIENT.id).exists()
        )

    def among(self, clients: Iterable[str]) -> list[Client]:
        """Those that there are of these ids."""
        ids, found = list(clients), list[Client]()
        for start in range(0, len(ids), AT_ONCE):
            found += self._select(_CLIENT.id.in_(ids[start : start + AT_ONCE]))
        return found

    def of_reseller(self, client: str, *, most: int) -> list[Client]:
        """The end users of a client, whoever came last first; at most so many."""
        return self._select(end_user.c.reseller == client, order=(_CLIENT.created.desc(), _CLIENT.id), most=most)

    def revoke(self, client: str) -> Client:
        """Let this client in no more, with whatever key. Raises NotFoundError, ConflictError if it is revoked.

        ConflictError also for an end user, who is let in by its reseller's key.
        """
        found = self.get(client)
        if found.revoked_at is not None:
            raise ConflictError(f"client {client} was revoked on {found.revoked_at:%Y-%m-%d}")
        if found.parent is not None:
            raise ConflictError(f"{found.name} is an end user, who has no access of its own", _SUSPEND)
        now = self._transaction.now()
        self._transaction.change(update(tables.client).where(_with_end_users(client)).values(revoked_at=now))
        return self.get(client)

    def erase_name(self, client: str) -> Client:
        """Take name, scopes and keys from a revoked client: nobody can say any more who it was.

        Raises NotFoundError, ConflictError if it is let in. Its id stays, which says nothing: it was drawn at random.
        Those of its end users were made of their names, with a secret that `EndUsers.forget_secret` erases.
        """
        if self.get(client).revoked_at is None:
            raise ConflictError(f"client {client} is let in, and needs its name")
        # drawn anew, so that no second registry can be compared by it
        name = f"erased-{secrets.token_hex(ID_BYTES)}"
        self._transaction.change(delete(tables.client_key).where(_KEY.client == client))
        self._transaction.change(
            update(tables.client).where(_CLIENT.id == client).values(organisation=ERASED, name=name, scopes=[])
        )
        # an end user's name begins with its reseller's
        theirs = _with_end_users(client) & (_CLIENT.id != client)
        called = literal(f"{name}{END_USER}").concat(_CLIENT.id)
        self._transaction.change(update(tables.client).where(theirs).values(organisation=ERASED, name=called))
        return self.get(client)

    def add_key(self, client: str, *, prefix: str, key_hash: bytes, expires: datetime | None = None) -> ClientKey:
        """Give a client a key. Raises ConflictError if prefix or hash is taken, or the client is revoked."""
        if len(key_hash) != HASH_BYTES:
            raise ValueError(f"a key's hash has {HASH_BYTES} bytes, got {len(key_hash)}")
        names.token(prefix, what="the prefix of a key", characters_max=PREFIX_CHARACTERS_MAX)
        found = self.get(client)
        if found.revoked_at is not None:
            raise ConflictError(f"client {client} is revoked and gets no key")
        if found.parent is not None:
            raise ConflictError(f"{found.name} is an end user, who has no key of its own")
        now = self._transaction.now()
        if expires is not None and expires <= now:
            raise ConflictError(f"the key would have expired on {expires:%Y-%m-%d %H:%M} UTC already")
        taken = select(_KEY.prefix).where((_KEY.prefix == prefix) | (_KEY.hash == key_hash))
        if self._transaction.first(taken) is not None:
            raise ConflictError(f"there is a key that begins with {prefix} already", "make another one")
        self._transaction.change(
            insert(tables.client_key).values(prefix=prefix, client=client, hash=key_hash, created=now, expires=expires)
        )
        return self._key(prefix)

    def keys(self, client: str) -> list[ClientKey]:
        """The keys of a client, oldest first, dead ones included. Raises NotFoundError."""
        self.get(client)
        query = select(*_KEY_COLUMNS).where(_KEY.client == client).order_by(_KEY.created, _KEY.prefix)
        return [ClientKey(*row) for row in self._transaction.all(query)]

    def key(self, prefix: str) -> ClientKey:
        """The key that begins so, dead or alive. Raises NotFoundError."""
        return self._key(prefix)

    def revoke_key(self, prefix: str) -> ClientKey:
        """Accept this key no more. Raises NotFoundError, ConflictError if it was revoked already."""
        key = self._key(prefix)
        if key.revoked_at is not None:
            raise ConflictError(f"the key {prefix}… was revoked on {key.revoked_at:%Y-%m-%d}")
        now = self._transaction.now()
        self._transaction.change(update(tables.client_key).where(_KEY.prefix == prefix).values(revoked_at=now))
        return self._key(prefix)

    def end_key(self, prefix: str, expires: datetime) -> ClientKey:
        """Let a live key end at `expires`, or earlier if it does already. Raises NotFoundError, ConflictError."""
        key = self._key(prefix)
        if key.revoked_at is not None:
            raise ConflictError(f"the key {prefix}… was revoked on {key.revoked_at:%Y-%m-%d}")
        if key.expires is None or expires < key.expires:
            self._transaction.change(update(tables.client_key).where(_KEY.prefix == prefix).values(expires=expires))
        return self._key(prefix)

    def credentials(self) -> list[tuple[bytes, ClientKey]]:
        """The keyed hash of every key that is not revoked, with the key; for a process that looks them up itself."""
        query = select(_KEY.hash, *_KEY_COLUMNS).where(_KEY.revoked_at.is_(None)).order_by(_KEY.prefix)
        return [(bytes(row[0]), ClientKey(*row[1:])) for row in self._transaction.all(query)]

    def authenticate(self, key_hash: bytes) -> Client:
        """The client whose live key has this keyed hash. Raises KeysError: unknown, revoked or expired.

        The look-up may take a different time for different hashes: without the pepper nobody can choose one.
        """
        row = self._transaction.first(select(*_KEY_COLUMNS).where(_KEY.hash == key_hash))
        if row is None:
            raise KeysError("the API key is not known here")
        key = ClientKey(*row)
        client = self.get(key.client)
        if key.revoked_at is not None or client.revoked_at is not None:
            raise KeysError(f"the API key {key.prefix}… is revoked")
        if key.expires is not None and key.expires <= self._transaction.now():
            raise KeysError(f"the API key {key.prefix}… expired on {key.expires:%Y-%m-%d %H:%M} UTC")
        return client

    def _key(self, prefix: str) -> ClientKey:
        row = self._transaction.first(select(*_KEY_COLUMNS).where(_KEY.prefix == prefix))
        if row is None:
            raise NotFoundError(f"no API key begins with {prefix!r}")
        return ClientKey(*row)

    def _select(self, *conditions: Any, order: Sequence[Any] = (), most: int | None = None) -> list[Client]:
        standing = (
            select(_STANDING.standing)
            .where(_STANDING.client == _CLIENT.id)
            .order_by(_STANDING.id.desc())
            .limit(1)
            .scalar_subquery()
        )
        query = (
            select(
                _CLIENT.id,
                _CLIENT.organisation,
                _CLIENT.name,
                _CLIENT.scopes,
                # an end user is trusted until something is decided
                func.coalesce(standing, "trusted").label("standing"),
                _CLIENT.created,
                _CLIENT.revoked_at,
                reseller.c.client.is_not(None).label("reseller"),
                end_user.c.reseller.label("parent"),
                reseller_secret.c.secret,
            )
            .outerjoin(reseller, reseller.c.client == _CLIENT.id)
            .outerjoin(reseller_secret, reseller_secret.c.client == _CLIENT.id)
            .outerjoin(end_user, end_user.c.client == _CLIENT.id)
            .where(*conditions)
            .order_by(*(order or (_CLIENT.organisation, _CLIENT.name)))
            .limit(most)
        )
        return [
            Client(
                *(row.id, row.organisation, row.name, tuple(row.scopes), row.standing, row.created, row.revoked_at),
                reseller=bool(row.reseller),
                parent=row.parent,
                secret=row.secret or b"",
            )
            for row in self._transaction.all(query)
        ]


def _with_end_users(client: str) -> ColumnElement[bool]:
    """That a row is a client's, or one of its end users'."""
    return (_CLIENT.id == client) | _CLIENT.id.in_(select(end_user.c.client).where(end_user.c.reseller == client))


def check_scopes(scopes: Sequence[str]) -> None:
    """Raise PalladionError unless these can be the scopes of a client."""
    if len(scopes) > SCOPES_MAX:
        raise PalladionError(f"a client can have {SCOPES_MAX} scopes, got {len(scopes)}")
    for scope in scopes:
        names.token(scope, what="a scope", characters_max=SCOPE_CHARACTERS_MAX)
