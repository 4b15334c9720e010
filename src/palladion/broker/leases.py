"""Leases: which client may use which file's key until when. A small file that is replaced whole at every change.

It holds no key. Whoever ends a lease ends it here; the client loses the key when it next asks, or when its time is up.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from palladion import canonical, files
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import BusyError, FormatError, NotFoundError, StorageError
from palladion.host.broker_messages import LeaseId

LEASES_MAX = 4096  # some 3 MiB
OWNED_MAX = 512  # of one client, so that none takes the room of all
LEASES_BYTES_MAX = 8 * 1024 * 1024
FOLDER, FILE = "broker", "leases.json"
_Text = Annotated[str, msgspec.Meta(max_length=512)]


class Lease(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One release, as long as it is renewed. Times are timestamps; `until` is when it ends unless it is renewed.

    `end` is when it is renewed no more, "" for never; `machine` the digest of what was attested, "" for nothing.
    """

    id: LeaseId
    client: _Text
    name: _Text  # organisation/name, to be shown
    model: _Text
    version: int
    file_id: _Text
    header_digest: _Text
    recipient: _Text
    purpose: _Text
    machine: _Text
    approval: _Text
    made: _Text
    until: _Text
    end: _Text

    @property
    def ends_at(self) -> datetime:
        """The first moment at which it does not hold, unless it is renewed before."""
        return parse_timestamp(self.until)

    def prolonged(self, until: datetime) -> "Lease":
        """The same until then, or until its end."""
        ends = min(until, parse_timestamp(self.end)) if self.end else until
        return msgspec.structs.replace(self, until=timestamp(ends))


class _Document(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    v: Literal[1]
    leases: Annotated[tuple[Lease, ...], msgspec.Meta(max_length=LEASES_MAX)]


class Leases:
    """The leases in an installation's folder. Every change reads them first: a command may have ended one."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FOLDER / FILE

    def all(self) -> list[Lease]:
        """Every lease, oldest first. Raises StorageError for a file that is none of ours."""
        with files.storage_errors(self._path):
            if not self._path.exists():
                return []
        data = files.read_limited(self._path, size_max=LEASES_BYTES_MAX, what="the leases")
        try:
            document = canonical.decode(data, size_max=LEASES_BYTES_MAX, what="it")
            return list(msgspec.convert(document, _Document, strict=True).leases)
        except (FormatError, msgspec.ValidationError):
            # no FormatError: a host that asks to renew one has sent nothing wrong, and must not lose its model
            raise StorageError(
                f"{self._path} is not a list of leases", "move it away: hosts will have to ask for their keys anew"
            ) from None

    def get(self, lease: str, *, client: str) -> Lease:
        """A lease of that client. Raises NotFoundError: another's is none."""
        found = next((one for one in self.all() if one.id == lease and one.client == client), None)
        if found is None:
            raise NotFoundError("there is no such lease of this client")
        return found

    def put(self, lease: Lease, *, now: datetime, known: bool = False) -> None:
        """Keep a lease, new or renewed; forgets those that ended. Raises BusyError if there are too many.

        With `known`, raises NotFoundError if it was ended meanwhile.
        """
        with self._alone():
            leases = self.all()
            if known and all(one.id != lease.id for one in leases):
                raise NotFoundError("the lease was ended")
            kept = [one for one in leases if one.id != lease.id and one.ends_at > now]
            _require_room(kept, lease.client)
            self._write([*kept, lease])

    def require_room(self, client: str, *, now: datetime) -> None:
        """Raise BusyError if there are too many for one more of that client: before approvals are used up for it."""
        _require_room([one for one in self.all() if one.ends_at > now], client)

    def end(self, lease: str) -> Lease:
        """End one. Raises NotFoundError."""
        with self._alone():
            leases = self.all()
            found = next((one for one in leases if one.id == lease), None)
            if found is None:
                raise NotFoundError(f"there is no lease {lease!r}", "palladion key-broker leases")
            self._write([one for one in leases if one.id != lease])
        return found

    @contextmanager
    def _alone(self) -> Iterator[None]:
        files.make_private_directory(self._path.parent)
        with files.exclusive_lock(self._path.parent, what="the list of leases"):
            yield

    def _write(self, leases: list[Lease]) -> None:
        document = {"v": 1, "leases": [msgspec.to_builtins(one) for one in leases]}
        files.write_atomically(self._path, canonical.encode(document))


def _require_room(kept: list[Lease], client: str) -> None:
    own = sum(one.client == client for one in kept)
    if len(kept) >= LEASES_MAX or own >= OWNED_MAX:
        raise BusyError(
            f"there are {len(kept)} leases already, {own} of them of this client",
            "palladion key-broker leases lists them",
        )
