"""The publisher's side of a release channel: a plain folder with TUF metadata and sealed files, to be copied or served.

The state that counts is private and kept elsewhere; the folder is only written. Who can write to the folder can stop
the channel, and no more.
"""

import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import sha256
from pathlib import Path
from typing import Self

from palladion.clock import Clock
from palladion.errors import ConflictError, FormatError, NotFoundError, TamperError
from palladion.files import (
    COPY_BYTES,
    atomic_writer,
    exclusive_lock,
    make_private_directory,
    read_limited,
    storage_errors,
    sync_directory,
    write_atomically,
)
from palladion.keys import Signer
from palladion.release.entries import (
    Catalogue,
    Release,
    Revocation,
    add_release,
    add_revocation,
    catalogue_of,
    release_of,
)
from palladion.release.keys import ROLES, ChannelKeys, RoleName
from palladion.release.metadata import STATE_BYTES_MAX, TARGETS_BYTES_MAX, Lifetimes, SignedRoles
from palladion.seal.reader import inspect_file, verify_file

_PUBLIC_FILE = 0o644  # a web server of another user serves it; sealed files are safe in strangers' hands
_PUBLIC_FOLDER = 0o755
_PARTIAL = ".partial"
# what a channel may remove again: sealed files, and copies that a killed process did not finish
_OUR_FILE = re.compile(r"[0-9a-f]{64}\.[0-9a-f]{32}\.sealed|\.?\.partial.*")


@dataclass(frozen=True)
class Channel:
    """One release channel. Every change is complete in `state` before the first byte of it shows in `folder`.

    Signers are those that happen to be unlocked: each signs for the roles that its key has, and an operation raises
    KeysError if a role that it changes lacks one. Raises BusyError while another process changes the channel.
    """

    folder: Path
    state: Path
    clock: Clock
    lifetimes: Lifetimes = field(default_factory=Lifetimes)

    @classmethod
    def create(
        cls,
        folder: Path,
        state: Path,
        keys: ChannelKeys,
        signers: Sequence[Signer],
        *,
        clock: Clock,
        lifetimes: Lifetimes | None = None,
    ) -> Self:
        """Begin a channel in an empty or new folder; all of its roles sign. Raises ConflictError if it is not empty."""
        channel = cls(folder, state, clock, lifetimes or Lifetimes())
        if state.exists():
            raise ConflictError(f"{state}: there is a release channel already")
        if folder.exists() and any(folder.iterdir()):
            raise ConflictError(f"{folder} is not empty", "a channel has a folder of its own: name a new one")
        make_private_directory(state.parent)
        with channel._locked():
            channel._commit(SignedRoles.unsigned(keys), {"root", "targets"}, signers)
        return channel

    def trusted_root(self) -> bytes:
        """The newest root: what a host is given beforehand, on a way of its own, as it is given a publisher's key."""
        return self._load().roots[-1]

    def catalogue(self) -> Catalogue:
        """What the channel says, and until when it says so without being refreshed."""
        return _catalogue(self._load())

    def publish(self, sealed: Path, publishers: Sequence[bytes], signers: Sequence[Signer]) -> Release:
        """Copy the sealed file into the channel and list it, once every byte of the copy is what a publisher signed.

        A file that was rewrapped takes the place of its earlier form. Raises TamperError or FormatError on a file that
        is not whole, ConflictError on one that is revoked or not meant for hosts (originals, backups).
        """
        with self._changing() as roles:
            claimed = inspect_file(sealed)
            _catalogue(roles).check(claimed.header_digest)
            release_of(claimed.header, claimed.header_digest, length=0, sha256="")
            release = self._take_in(sealed, publishers)
            add_release(roles.targets.signed, release)
            self._commit(roles, {"targets"}, signers)
        return release

    def revoke(self, header_digest: str, reason: str, signers: Sequence[Signer]) -> None:
        """Tell all hosts not to open the sealed file of this header any more, and take it out of the channel.

        The file need not have been in the channel. It is for good: a version revoked by mistake is sealed again. Raises
        ValueError on a digest or reason that no host would accept.
        """
        with self._changing() as roles:
            add_revocation(roles.targets.signed, header_digest, Revocation(reason, self.clock.now()))
            self._commit(roles, {"targets"}, signers)

    def refresh(self, signers: Sequence[Signer]) -> datetime:
        """Sign the timestamp again, and each other role that has lived half its life if its signers are here.

        To be run more often than the timestamp lives. Returns when the channel expires unless it is refreshed again.
        """
        with self._changing() as roles:
            now = self.clock.now()
            due: set[RoleName] = set()
            for name in ("root", "targets", "snapshot"):
                left = roles.of(name).signed.expires - now
                if left < self.lifetimes.of(name) / 2 and roles.can_sign(name, signers):
                    due.add(name)
            self._commit(roles, due, signers)
        return self.catalogue().expires

    def rotate(self, keys: ChannelKeys, signers: Sequence[Signer]) -> None:
        """Replace the channel's keys. The old root's keys and the new one's sign, and every role whose key is new."""
        with self._changing() as roles:
            roles.set_keys(keys)
            self._commit(roles, {"root"}, signers)

    @contextmanager
    def _changing(self) -> Iterator[SignedRoles]:
        with self._locked():
            yield self._load()

    def _locked(self) -> AbstractContextManager[None]:
        return exclusive_lock(self.state.with_name(f"{self.state.name}.lock"), what="the release channel")

    def _load(self) -> SignedRoles:
        if not self.state.exists():
            raise NotFoundError(f"{self.state}: there is no release channel here")
        data = read_limited(self.state, size_max=STATE_BYTES_MAX, what="the release channel's state")
        return SignedRoles.decode(data, what=f"the release channel's state {self.state}")

    def _commit(self, roles: SignedRoles, changed: set[RoleName], signers: Sequence[Signer]) -> None:
        roles.sign(changed, signers, now=self.clock.now(), lifetimes=self.lifetimes)
        write_atomically(self.state, roles.encode())
        self._show(roles)

    def _show(self, roles: SignedRoles) -> None:
        """Write what the folder lacks, be it of an earlier change, then remove what is superseded or revoked."""
        place = self._folder("metadata")
        # the timestamp last: what it leads to is there already
        for name, data in roles.files():
            if _content(place / name) != data:
                write_atomically(place / name, data, mode=_PUBLIC_FILE)
        # a host that has just read the last timestamp still asks for the snapshot and targets that it leads to
        superseded: tuple[RoleName, ...] = ("targets", "snapshot")
        for name in superseded:
            for path in place.glob(f"*.{name}.json"):
                number = path.name.split(".")[0]
                if number.isdigit() and int(number) < roles.of(name).signed.version - 1:
                    path.unlink(missing_ok=True)
        # an earlier form of a file may have wraps for recipients that were removed since
        kept = {release.location for release in _catalogue(roles).releases if not release.revoked}
        for path in self._folder("targets").rglob("*"):
            ours = _OUR_FILE.fullmatch(path.name) and path.relative_to(self.folder).as_posix() not in kept
            if ours and not path.is_dir():
                path.unlink(missing_ok=True)

    def _folder(self, *parts: str) -> Path:
        """A folder in the channel, made if missing; never by way of a link that somebody put there."""
        path = self.folder
        with storage_errors(path):
            path.mkdir(mode=_PUBLIC_FOLDER, parents=True, exist_ok=True)
            for part in parts:
                path = path / part
                if path.is_symlink():
                    raise TamperError(f"{path} is a link, where the channel has a folder", "find out who put it there")
                path.mkdir(mode=_PUBLIC_FOLDER, exist_ok=True)
                sync_directory(path.parent)
        return path

    def _take_in(self, sealed: Path, publishers: Sequence[bytes]) -> Release:
        """Copy, then verify the copy: what is listed is what was verified, whatever happens to the source meanwhile."""
        partial = self._folder("targets") / _PARTIAL
        digest, length = sha256(), 0
        try:
            with storage_errors(sealed), sealed.open("rb") as source, atomic_writer(partial, mode=_PUBLIC_FILE) as copy:
                while piece := source.read(COPY_BYTES):
                    digest.update(piece)
                    length += len(piece)
                    copy.write(piece)
            info = verify_file(partial, publishers)
            release = release_of(info.header, info.header_digest, length=length, sha256=digest.hexdigest())
            *folders, name = release.location.split("/")
            place = self._folder(*folders) / name
            with storage_errors(place):
                partial.replace(place)
                sync_directory(place.parent)
        finally:
            partial.unlink(missing_ok=True)
        return release


def _catalogue(roles: SignedRoles) -> Catalogue:
    return catalogue_of(roles.targets.signed, min(roles.of(name).signed.expires for name in ROLES))


def _content(path: Path) -> bytes | None:
    if not path.exists():
        return None
    try:
        return read_limited(path, size_max=TARGETS_BYTES_MAX, what="metadata")
    except FormatError:
        return None  # whatever it is, it is not what belongs here
