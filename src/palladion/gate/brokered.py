"""Keys of served models that a key broker lends: asked for when a file is opened, and given up when they are lost.

Told by a thread of its own; what is then withdrawn, the lineup decides on its loop.
"""

import logging
import threading
from collections.abc import Callable, Collection
from pathlib import Path

from palladion.errors import PalladionError
from palladion.host.broker import BrokerClient, BrokeredIdentity, Lease
from palladion.host.broker_lease import LeaseKeeper
from palladion.keys import Identity, Wrap
from palladion.seal.structure import opened

PURPOSE = "serve"

log = logging.getLogger("palladion.gate")


class BrokeredKeys:
    """What opens the served versions where a broker holds their keys; satisfies `installation.FileKeys`."""

    def __init__(self, client: BrokerClient, *, approval: str = "") -> None:
        self._client = client
        self._approval = approval
        self._keeper = LeaseKeeper(client, self._lose)
        self._follow: Callable[[str], object] | None = None
        self._lock = threading.Lock()
        self._lost: set[str] = set()  # file ids that nobody could be told of yet
        self._leases: dict[str, str] = {}  # by file id: the newest lease of it, the only one that is kept

    def start(self) -> None:
        """Begin to ask the broker again and again."""
        self._keeper.start()

    def stop(self) -> None:
        """Ask no more."""
        self._keeper.stop()

    def identity(self, path: Path) -> Identity:
        """What opens the sealed file at `path`, by asking the broker; its lease is kept from then on."""
        with opened(path) as (_, structure):
            return _Kept(BrokeredIdentity(self._client, structure, purpose=PURPOSE, approval=self._approval), self._add)

    def follow(self, lost: Callable[[str], object]) -> None:
        """Have `lost` told, from another thread, the id of each file whose key must not be used any more."""
        with self._lock:
            self._follow = lost
            before, self._lost = self._lost, set()
        for file_id in before:
            lost(file_id)

    def keep(self, file_ids: Collection[str]) -> None:
        """Ask no more for the keys of other files than these, which are what is still used.

        Not to be called while a file is being opened that is not among them: its key would be watched by nobody.
        """
        with self._lock:
            gone = [self._leases.pop(file_id) for file_id in self._leases.keys() - set(file_ids)]
        for lease in gone:
            self._keeper.drop(lease)

    def _add(self, lease: Lease) -> None:
        with self._lock:
            self._leases[lease.file_id] = lease.id
        self._keeper.add(lease)

    def _lose(self, lease: Lease, why: str) -> None:
        log.error("the key of %s@%s is taken back: %s", lease.model, lease.version, why)
        with self._lock:
            if self._leases.get(lease.file_id) == lease.id:
                del self._leases[lease.file_id]
            follow = self._follow
            if follow is None:
                self._lost.add(lease.file_id)
        if follow is not None:
            follow(lease.file_id)


class _Kept:
    """An identity whose lease is kept once the key is there."""

    def __init__(self, identity: BrokeredIdentity, add: Callable[[Lease], None]) -> None:
        self._identity = identity
        self._add = add

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """As the identity does."""
        file_key = self._identity.unwrap(wrap, context)
        if file_key is not None:
            if self._identity.lease is None:
                raise PalladionError("the broker gave a key without a lease")
            self._add(self._identity.lease)
        return file_key
