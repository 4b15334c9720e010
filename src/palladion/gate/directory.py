"""Who may come in: clients by the keyed hash of their API keys, and their standing, in memory and renewed at will."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from palladion.access.identity import KEY_CHARACTERS_MAX, hash_api_key, parse_api_key
from palladion.errors import KeysError
from palladion.gate.problems import Problem
from palladion.lifecycle.clients import scope
from palladion.registry import Client, ClientKey, Records, StandingChange
from palladion.registry.rows import Standing
from palladion.watch.response import rank

WATCH = "watch"  # the actor of changes that no person decided


@dataclass(frozen=True)
class Caller:
    """An authenticated client: who it is, its standing, since when, and who decided that.

    `user` is its own customer on whose behalf it asks, where a proxy or a token that is believed says so.
    """

    client: Client
    standing: Standing
    since: datetime
    decided_by: str
    user: str | None = None

    @property
    def id(self) -> str:
        """The client's id."""
        return self.client.id

    def may_ask(self, model: str) -> bool:
        """Whether the client's scopes include a model; a client without scopes may ask all."""
        return not self.client.scopes or scope(model) in self.client.scopes

    def overrules(self, change: StandingChange) -> bool:
        """Whether a person put the client where it is, and later than `change` was decided."""
        return self.decided_by != WATCH and self.since > change.at


@dataclass(frozen=True)
class Roll:
    """What the registry says of clients at one moment: live keys by their keyed hash, and callers by client id."""

    keys: Mapping[bytes, ClientKey]
    callers: Mapping[str, Caller]


def read_roll(records: Records) -> Roll:
    """Every client that is not revoked, and every key of theirs that is not."""
    standings = records.standings.current()
    callers = {
        client.id: Caller(client, change.standing, change.at, change.actor)
        for client in records.clients.all()
        if client.revoked_at is None
        for change in [standings[client.id]]
    }
    keys = {key_hash: key for key_hash, key in records.clients.credentials() if key.client in callers}
    return Roll(keys, callers)


class Directory:
    """All clients of the registry, as of the last `load`, and what was changed since. For one thread."""

    def __init__(self, pepper: bytes) -> None:
        self._pepper = pepper
        self._keys: Mapping[bytes, ClientKey] = {}
        self._callers: dict[str, Caller] = {}

    @property
    def callers(self) -> Mapping[str, Caller]:
        """Every client that is not revoked, by id."""
        return self._callers

    def load(self, roll: Roll, unwritten: Iterable[StandingChange] = ()) -> list[str]:
        """Take over what the registry says; returns the clients whose standing was raised since the last time.

        `unwritten` are changes that the watch decided and the registry does not have yet: they hold, unless a person
        decided something later. Without them, any command would undo the watch's last decisions.
        """
        before, self._keys, self._callers = self._callers, roll.keys, dict(roll.callers)
        for change in unwritten:
            known = self._callers.get(change.client)
            if known is not None and not known.overrules(change):
                self.change(change)
        return [
            client
            for client, caller in self._callers.items()
            if client in before and rank(caller.standing) < rank(before[client].standing)
        ]

    def identify(self, headers: Mapping[bytes, bytes], now: datetime) -> Caller:
        """The client whose API key the headers hold: `Authorization: Bearer KEY` or `X-API-Key: KEY`.

        Raises Problem. An unknown, a revoked and an expired key are told apart in no way.
        """
        text = _credential(headers)
        try:
            # the look-up may take a different time for different hashes: without the pepper nobody can choose one
            key = self._keys.get(hash_api_key(self._pepper, parse_api_key(text)))
        except KeysError as error:
            raise Problem("unauthenticated", error.message) from None
        if key is None or (key.expires is not None and key.expires <= now):
            raise Problem("unauthenticated", "the API key is not accepted")
        return self._callers[key.client]

    def change(self, change: StandingChange) -> None:
        """Take over a change of standing at once."""
        caller = self._callers.get(change.client)
        if caller is not None:
            self.put(replace(caller, standing=change.standing, since=change.at, decided_by=change.actor))

    def put(self, caller: Caller) -> None:
        """Let a client stand as `caller` says, if it is still let in."""
        if caller.id in self._callers:
            self._callers[caller.id] = caller


def _credential(headers: Mapping[bytes, bytes]) -> str:
    authorization, header = headers.get(b"authorization"), headers.get(b"x-api-key")
    if authorization is not None and header is not None:
        raise Problem("unauthenticated", "one of Authorization and X-API-Key was expected, not both")
    if authorization is not None:
        scheme, _, value = authorization.partition(b" ")
        if scheme.lower() != b"bearer":
            raise Problem("unauthenticated", "Authorization: Bearer KEY was expected")
        header = value.strip()
    if not header:
        raise Problem("unauthenticated", "Authorization: Bearer KEY was expected")
    if len(header) > KEY_CHARACTERS_MAX or not header.isascii():
        raise Problem("unauthenticated", "this is not an API key")
    return header.decode("ascii")
