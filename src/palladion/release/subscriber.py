"""The host's side of a release channel: what is current, and the sealed file of it, verified.

python-tuf carries out the client workflow of the TUF specification (§5.3): against old metadata that is put back, a
channel that stands still, metadata of different times mixed, endless data, and signatures below a threshold.
"""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256
from pathlib import Path

from tuf.api.exceptions import DownloadError, DownloadLengthMismatchError, ExpiredMetadataError, RepositoryError
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from palladion.clock import Clock, parse_timestamp, timestamp
from palladion.errors import FormatError, InconclusiveError, StorageError, TamperError
from palladion.files import (
    COPY_BYTES,
    atomic_writer,
    exclusive_lock,
    make_private_directory,
    read_limited,
    storage_errors,
    sync_directory,
    sync_tree,
    write_atomically,
)
from palladion.release import metadata
from palladion.release.entries import Catalogue, Release, catalogue_of
from palladion.release.fetchers import address_of
from palladion.release.keys import require_sound_keys
from palladion.seal.header import PREFIX_BYTES, decode_header, decode_prefix, header_digest

_STALE_HINTS = (
    "ask the publisher to refresh the channel; if he has, somebody holds this host back on old metadata",
    "check this machine's clock",
)


@dataclass(frozen=True)
class Subscriber:
    """One host's view of one channel.

    `channel` is a folder, an http(s) address, or any address that `fetcher` reads. `trusted_root` was given to the host
    on a way of its own: what the channel says of itself proves nothing. `state` is a private folder that this host
    keeps: it holds what was last seen, and with it the protection against older metadata is lost.
    """

    channel: str | Path
    trusted_root: bytes
    state: Path
    clock: Clock
    fetcher: FetcherInterface | None = None

    def refresh(self) -> Catalogue:
        """What the channel says now, and until when that may be relied upon.

        Raises InconclusiveError if its metadata has expired, TamperError if it does not verify or is older than seen
        here, FormatError if it is too large or says what no publisher of ours writes, StorageError if it cannot be
        read; BusyError while another process of this host asks.
        """
        address, fetcher = self._source()
        make_private_directory(self.state / "tuf")
        with exclusive_lock(self.state / "lock", what="this host's view of the release channel"):
            now = self._now()
            with storage_errors(self.state), _reported(address):
                client = _Client(self.state / "tuf", address, fetcher, self.trusted_root, now)
                catalogue = client.catalogue()
                _sync(self.state / "tuf")
            write_atomically(self.state / "seen", timestamp(now).encode())
        return catalogue

    def fetch(self, model: str, target: Path, *, file_id: str = "") -> Release:
        """Put the current sealed file of `model` at `target`, unless it is there already; it was not opened yet.

        Beyond what `refresh` and `Catalogue.current` raise: TamperError unless length, digest and header are those that
        the channel states. Whoever opens the file still holds its publisher's signature against pinned keys.
        """
        release = self.refresh().current(model, file_id=file_id)
        if not _is_there(target, release):
            address, fetcher = self._source()
            with atomic_writer(target) as stream, _reported(address):
                for piece in _verified(fetcher.fetch(address + release.location), release):
                    stream.write(piece)
        return release

    def _source(self) -> tuple[str, FetcherInterface]:
        if self.fetcher is None:
            return address_of(self.channel)
        return f"{self.channel}".rstrip("/") + "/", self.fetcher

    def _now(self) -> datetime:
        """The time, but never before one at which the channel was in order here.

        A clock that is set back would make expired metadata good again. This cannot lock a host out for long: the
        channel was in order at the remembered moment, so that lies before the end of a timestamp's life.
        """
        seen = self.state / "seen"
        if not seen.exists():
            return self.clock.now()
        try:
            remembered = parse_timestamp(read_limited(seen, size_max=64, what="the time last seen").decode())
        except (ValueError, FormatError):
            raise FormatError(
                f"{seen} is damaged", "remove it: only the protection against a clock set back is lost"
            ) from None
        return max(self.clock.now(), remembered)


class _Client(Updater):
    """python-tuf's client at a time that is handed in."""

    def __init__(
        self, folder: Path, address: str, fetcher: FetcherInterface, trusted_root: bytes, now: datetime
    ) -> None:
        config = UpdaterConfig(
            max_root_rotations=metadata.ROOTS_MAX,
            max_delegations=0,
            root_max_length=metadata.ROOT_BYTES_MAX,
            timestamp_max_length=metadata.TIMESTAMP_BYTES_MAX,
            snapshot_max_length=metadata.SNAPSHOT_BYTES_MAX,
            targets_max_length=metadata.TARGETS_BYTES_MAX,
        )
        super().__init__(str(folder), f"{address}metadata/", fetcher=fetcher, config=config, bootstrap=trusted_root)
        # it has no parameter for this; expiry is looked at from the timestamp on, so not before this line
        self._trusted_set.reference_time = now
        # before it vouches for another one
        require_sound_keys(self._trusted_set.root)

    def catalogue(self) -> Catalogue:
        self.refresh()
        trusted = self._trusted_set
        require_sound_keys(trusted.root)
        parts = (trusted.root, trusted.timestamp, trusted.snapshot, trusted.targets)
        return catalogue_of(trusted.targets, min(part.expires for part in parts))


def _verified(pieces: Iterable[bytes], release: Release) -> Iterator[bytes]:
    """`pieces`, as long as they can be those of the sealed file of `release`; at the end, only if they were."""
    digest, length, head, begun = sha256(), 0, bytearray(), False
    for piece in pieces:
        length += len(piece)
        if length > release.length:
            raise FormatError(f"the channel sends more than the {release.length} bytes that {release.name} has")
        digest.update(piece)
        if not begun:
            head += piece
            begun = _check_head(bytes(head), release)
        yield piece
    if not begun or (length, digest.hexdigest()) != (release.length, release.sha256):
        raise TamperError(
            f"{release.name} was altered or cut off: it is not the file that the channel lists",
            "try again; if it stays so, tell the publisher",
        )


def _check_head(head: bytes, release: Release) -> bool:
    """Whether the header is here; raises TamperError if it is another than stated, before 100 GB follow."""
    if len(head) < PREFIX_BYTES:
        return False
    end = PREFIX_BYTES + decode_prefix(head, what=release.name)
    if len(head) < end:
        return False
    encoded = head[PREFIX_BYTES:end]
    header = decode_header(encoded, what=release.name)
    stated = (release.header_digest, release.model, release.version, release.file_id)
    if (header_digest(encoded), header.model, header.version, header.file_id) != stated:
        raise TamperError(f"{release.name} has another header than the channel states")
    return True


def _sync(folder: Path) -> None:
    """Make durable what python-tuf has written: after a power cut an older state must not look like the newest seen."""
    for name in ("timestamp.json", "snapshot.json", "targets.json"):
        with (folder / name).open("rb") as stream:
            os.fsync(stream.fileno())
    sync_tree(folder / "root_history")
    sync_directory(folder)


def _is_there(target: Path, release: Release) -> bool:
    if not target.is_file() or target.stat().st_size != release.length:
        return False
    try:
        with storage_errors(target), target.open("rb") as stream:
            for _ in _verified(iter(lambda: stream.read(COPY_BYTES), b""), release):
                continue
    except (TamperError, FormatError):
        return False
    return True


@contextmanager
def _reported(address: str) -> Iterator[None]:
    try:
        yield
    except ExpiredMetadataError as error:
        raise InconclusiveError(f"the release channel stands still: {str(error).lower()}", *_STALE_HINTS) from None
    except RepositoryError as error:
        hint = "somebody altered the channel or put an older one back, or this is not the channel's root"
        raise TamperError(f"the release channel does not verify: {str(error).lower()}", hint) from None
    except DownloadLengthMismatchError as error:
        raise FormatError(f"the release channel sends more than allowed: {str(error).lower()}") from None
    except DownloadError as error:
        raise StorageError(f"the release channel at {address} cannot be read: {str(error).lower()}") from None
