"""What one gate tells another of its clients: canonical JSON, inside a sealed file. Bytes in, bytes out.

It holds no key of a client: hashes of keys, and the pepper that they are keyed with, so that they can be compared.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from palladion import canonical
from palladion.access.identity import PEPPER_BYTES
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import FormatError
from palladion.registry import Client, ClientIdentity, ClientKey
from palladion.registry.rows import IdentityKind, Standing

BUNDLE_BYTES_MAX = 128 * 1024 * 1024  # some 250,000 clients with a key each: all of them are in memory at once
CLIENTS_FILE = "clients.json"

_Id = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{16}\Z")]
_Hash = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
_Moment = Annotated[str, msgspec.Meta(max_length=27)]
_Slug = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]


class KeyThere(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An API key of a client elsewhere: prefix, keyed hash, and its dates."""

    prefix: Annotated[str, msgspec.Meta(pattern=r"^[!-~]{1,64}\Z")]
    hash: _Hash
    created: _Moment
    expires: _Moment | None
    revoked: _Moment | None

    def row(self, client: str) -> ClientKey:
        """As a row of the registry."""
        return ClientKey(self.prefix, client, parse_timestamp(self.created), _moment(self.expires), self.revoked_at)

    @property
    def revoked_at(self) -> datetime | None:
        """When it was revoked there."""
        return _moment(self.revoked)


class IdentityThere(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """By what else a client is known elsewhere."""

    kind: IdentityKind
    value: Annotated[str, msgspec.Meta(min_length=1, max_length=2500)]
    created: _Moment
    revoked: _Moment | None

    @property
    def created_at(self) -> datetime:
        """When it was added there."""
        return parse_timestamp(self.created)

    @property
    def revoked_at(self) -> datetime | None:
        """When it was revoked there."""
        return _moment(self.revoked)


class ClientThere(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A client as another gate has it."""

    id: _Id
    organisation: _Slug
    name: _Slug
    scopes: Annotated[tuple[str, ...], msgspec.Meta(max_length=64)]
    standing: Standing
    reason: Annotated[str, msgspec.Meta(max_length=2000)]
    created: _Moment
    revoked: _Moment | None
    keys: tuple[KeyThere, ...]
    identities: tuple[IdentityThere, ...]

    def row(self) -> Client:
        """As a row of the registry."""
        return Client(
            self.id,
            self.organisation,
            self.name,
            self.scopes,
            self.standing,
            parse_timestamp(self.created),
            self.revoked_at,
        )

    @property
    def revoked_at(self) -> datetime | None:
        """When it was revoked there."""
        return _moment(self.revoked)


class Bundle(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """All clients that a gate registered, as of `issued`; `pepper` is what the hashes of their keys are keyed with."""

    v: Literal[1]
    gate: _Id
    issued: _Moment
    pepper: _Hash
    clients: tuple[ClientThere, ...]

    def __repr__(self) -> str:
        return f"<Bundle of gate {self.gate}, {self.issued}, {len(self.clients)} clients>"

    @property
    def issued_at(self) -> datetime:
        """When it was made."""
        return parse_timestamp(self.issued)


def client_there(
    client: Client, reason: str, keys: Iterable[tuple[ClientKey, bytes]], identities: Iterable[ClientIdentity]
) -> ClientThere:
    """What is told of one client; `reason` is that of its standing, keys come with their hashes."""
    return ClientThere(
        client.id,
        client.organisation,
        client.name,
        client.scopes,
        client.standing,
        reason,
        timestamp(client.created),
        _text(client.revoked_at),
        tuple(
            KeyThere(key.prefix, digest.hex(), timestamp(key.created), _text(key.expires), _text(key.revoked_at))
            for key, digest in keys
        ),
        tuple(IdentityThere(row.kind, row.value, timestamp(row.created), _text(row.revoked_at)) for row in identities),
    )


def new_bundle(gate: str, pepper: bytes, issued: datetime, clients: Iterable[ClientThere]) -> Bundle:
    """A bundle. Raises ValueError on a pepper that is none."""
    if len(pepper) != PEPPER_BYTES:
        raise ValueError(f"the pepper has {len(pepper)} bytes, expected {PEPPER_BYTES}")
    return Bundle(v=1, gate=gate, issued=timestamp(issued), pepper=pepper.hex(), clients=tuple(clients))


def encode_bundle(bundle: Bundle) -> bytes:
    """Its bytes. Raises ValueError if there are more than readers accept."""
    data = canonical.encode(msgspec.to_builtins(bundle))
    if len(data) > BUNDLE_BYTES_MAX:
        raise ValueError(f"the clients take {len(data)} bytes, and at most {BUNDLE_BYTES_MAX} are read")
    return data


def decode_bundle(data: bytes, *, what: str) -> Bundle:
    """The bundle of such bytes, every date and name checked, none of them twice. Raises FormatError, naming `what`."""
    document = canonical.decode(data, size_max=BUNDLE_BYTES_MAX, what=what)
    try:
        bundle = msgspec.convert(document, Bundle, strict=True)
        bundle.issued_at  # noqa: B018  # raises on a text that is no moment
        live = [identity for client in bundle.clients for identity in _checked(client)]
        _refuse_twice("identity", live)
        _refuse_twice("client", [client.id for client in bundle.clients])
        _refuse_twice("client", [f"{client.organisation}/{client.name}" for client in bundle.clients])
        keys = [key for client in bundle.clients for key in client.keys]
        _refuse_twice("key", [key.prefix for key in keys])
        _refuse_twice("hash", [key.hash for key in keys])
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} holds no clients that this version knows: {error}") from None
    return bundle


def _checked(client: ClientThere) -> list[str]:
    """The identities that a client has, once every text of it is known to be what it should be."""
    client.row()
    for key in client.keys:
        key.row(client.id)
    live = []
    for identity in client.identities:
        identity.created_at  # noqa: B018  # raises on a text that is no moment
        if identity.revoked_at is None:
            live.append(f"{identity.kind} {identity.value}")
        if not identity.value.isprintable():
            raise ValueError("an identity holds characters that do not print")
    if not client.reason.replace("\n", "").isprintable() or not all(scope.isprintable() for scope in client.scopes):
        raise ValueError("a reason or a scope holds characters that do not print")
    return live


def _refuse_twice(what: str, values: list[str]) -> None:
    if len(set(values)) != len(values):
        raise ValueError(f"a {what} stands in it twice")


def _moment(text: str | None) -> datetime | None:
    return None if text is None else parse_timestamp(text)


def _text(moment: datetime | None) -> str | None:
    return None if moment is None else timestamp(moment)
