"""One host on disk: its identities, the publishers it trusts, and what it has seen; needs no installation.

A folder of its own, `~/.config/palladion` unless another is named: `*.identity`, `publishers`, `seen.json`.
"""

import os
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from palladion import files
from palladion.clock import Clock, SystemClock
from palladion.errors import BusyError, ConflictError, FormatError, KeysError
from palladion.host.seen import SEEN_BYTES_MAX, Seen, decode_seen
from palladion.keys import Identity, Recipient
from palladion.seal.license import LICENSE_BYTES_MAX, Granted, authorise
from palladion.seal.machine import LicensesSeen, read_licenses_seen, read_machine, update_licenses_seen
from palladion.seal.recipients import read_identity
from palladion.seal.revocations import REVOCATIONS_BYTES_MAX, Revocations, verify_revocations
from palladion.seal.sign import parse_publisher, publisher_text
from palladion.seal.structure import SealedInfo

LICENSE_SUFFIX = ".license"
FOLDER_VARIABLE = "PALLADION_HOST"
PUBLISHERS_BYTES_MAX = 64 * 1024  # a key and a note on each line
IDENTITIES_MAX = 64  # each costs an attempt for each wrap
# A change takes milliseconds; the ranks of one server load a new version, and remember it, all at the same moment.
LOCK_TRIES = 1000
LOCK_PAUSE_SECONDS = 0.01


class Host:
    """A host's folder. `identities` and `publishers` are used instead of those in the folder where they are given."""

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        *,
        identities: Sequence[Identity] = (),
        publishers: Sequence[bytes] = (),
    ) -> None:
        self.folder = folder
        self.clock = clock
        self.granted: Granted | None = None  # by the licence of the file that was accepted last
        self._identities = tuple(identities)
        self._publishers = tuple(publishers)

    @classmethod
    def find(
        cls,
        folder: Path | None = None,
        *,
        clock: Clock | None = None,
        identities: Sequence[Identity] = (),
        publishers: Sequence[bytes] = (),
    ) -> "Host":
        """The host of this user: in `folder`, in the folder that PALLADION_HOST names, or in `~/.config/palladion`."""
        return cls(folder or _folder(), clock or SystemClock(), identities=identities, publishers=publishers)

    def __repr__(self) -> str:
        return f"<Host {self.folder}>"

    def identities(self) -> list[Identity]:
        """What this host opens sealed files with. Raises KeysError if there is nothing."""
        if self._identities:
            return list(self._identities)
        paths = self._identity_files()
        if not paths:
            raise KeysError(
                f"{self.folder} holds no identity to open sealed files with",
                f"palladion recipient new {self.folder / 'host.identity'}, and send the recipient it prints",
                "or name one: --identity FILE",
            )
        return [read_identity(path) for path in paths]

    def recipients(self) -> list[tuple[Path, Recipient]]:
        """The identity files in this host's folder, and what to seal to so that they open it."""
        return [(path, read_identity(path).recipient) for path in self._identity_files()]

    def publishers(self) -> list[bytes]:
        """The raw public keys whose signature this host accepts. Raises KeysError if there is none."""
        if self._publishers:
            return list(self._publishers)
        keys = [key for key, _ in self.trusted()]
        if not keys:
            raise KeysError(
                f"{self.folder} trusts no publisher: whose sealed files are to be opened?",
                "palladion host trust pallp1…, with the key that the publisher gave you",
            )
        return keys

    def trusted(self) -> list[tuple[bytes, str]]:
        """The trusted publishers: raw key and note. Raises FormatError on a line that is neither key nor comment."""
        return [item for _, item in self._lines() if item is not None]

    def trust(self, publisher: bytes, *, note: str = "") -> None:
        """Accept a publisher's signature from now on. Raises ValueError on a note of several lines."""
        if not note.isprintable():
            raise ValueError("a note is one line of characters that print")
        with self._changing():
            lines = self._lines()
            if publisher not in [item[0] for _, item in lines if item]:
                self._write_lines([*(line for line, _ in lines), f"{publisher_text(publisher)} {note}".rstrip()])

    def distrust(self, publisher: bytes) -> None:
        """Accept a publisher's signature no longer."""
        with self._changing():
            self._write_lines([line for line, item in self._lines() if item is None or item[0] != publisher])

    def seen(self) -> Seen:
        """The newest version of each model that this host has opened."""
        data = self._read("seen.json", SEEN_BYTES_MAX, "what this host remembers,")
        return Seen() if data is None else decode_seen(data, what=str(self.folder / "seen.json"))

    def revocations(self, publisher: str) -> Revocations | None:
        """The list that this host has of a publisher (by id), verified; None if it has none."""
        name = f"revocations-{publisher}"
        data = self._read(name, REVOCATIONS_BYTES_MAX, "the list of revocations")
        return None if data is None else verify_revocations(data, self.publishers(), what=str(self.folder / name))

    def update(self, path: Path) -> Revocations:
        """Take over the list of revocations at `path`.

        Raises TamperError unless a trusted publisher signed it, ConflictError if this host has a newer one.
        """
        data = files.read_limited(path, size_max=REVOCATIONS_BYTES_MAX, what="the list of revocations")
        new = verify_revocations(data, self.publishers(), what=str(path))
        with self._changing():
            newest = read_licenses_seen(self.folder).revocations.get(new.publisher, 0)
            held = self.revocations(new.publisher)
            newest = max(newest, held.sequence if held else 0)
            if new.sequence < newest:
                raise ConflictError(
                    f"{path} is list {new.sequence} of publisher {new.publisher}, this host has {newest}"
                )
            files.write_atomically(self.folder / f"revocations-{new.publisher}", data)
        return new

    def accept(self, info: SealedInfo, *, place: object = None, allow_older: bool = False) -> Granted | None:
        """What a licence grants of a verified file, None where there is none; to be asked before any key is touched.

        Raises ConflictError if the file is of an older version than this host has opened, LicenseError if it was
        revoked or if its licence, `.license` after the name of the file at `place`, does not let it be opened.
        """
        if not allow_older:
            self.seen().check(info)
        data = _license_beside(place)
        listed = self.revocations(info.header.publisher)
        if data is None and listed is None:
            # nothing to be remembered: a host whose folder cannot be written opens what needs no licence
            self.granted, _ = self._decide(None, info, None, read_licenses_seen(self.folder))
        else:
            self.granted = update_licenses_seen(self.folder, lambda seen: self._decide(data, info, listed, seen))
        return self.granted

    def remember(self, info: SealedInfo) -> None:
        """Remember that a verified file was opened. Raises StorageError where the folder cannot be written."""
        before = self.seen()
        if before.with_version(info) == before:
            return
        with self._changing():
            files.write_atomically(self.folder / "seen.json", self.seen().with_version(info).encode())

    def _decide(
        self, data: bytes | None, info: SealedInfo, listed: Revocations | None, seen: LicensesSeen
    ) -> tuple[Granted | None, LicensesSeen]:
        now = self.clock.now()
        machine = read_machine(Path("/"), self.identities() if data is not None else [], now=now)
        return authorise(data, info, self.publishers(), machine, now=now, seen=seen, revocations=listed)

    def _identity_files(self) -> list[Path]:
        with files.storage_errors(self.folder):
            return sorted(self.folder.glob("*.identity"))[:IDENTITIES_MAX] if self.folder.is_dir() else []

    @contextmanager
    def _changing(self) -> Iterator[None]:
        files.make_private_directory(self.folder)
        with ExitStack() as held:
            for tries_left in reversed(range(LOCK_TRIES)):
                try:
                    held.enter_context(files.exclusive_lock(self.folder, what=str(self.folder)))
                    break
                except BusyError:
                    if not tries_left:
                        raise
                    time.sleep(LOCK_PAUSE_SECONDS)
            yield

    def _lines(self) -> list[tuple[str, tuple[bytes, str] | None]]:
        # with what each says: comments are kept when the list is changed
        data = self._read("publishers", PUBLISHERS_BYTES_MAX, "the list of publishers") or b""
        return [
            (line, _parse_line(line, self.folder / "publishers")) for line in data.decode(errors="replace").splitlines()
        ]

    def _write_lines(self, lines: Sequence[str]) -> None:
        files.write_atomically(self.folder / "publishers", "".join(f"{line}\n" for line in lines).encode())

    def _read(self, name: str, size_max: int, what: str) -> bytes | None:
        path = self.folder / name
        # a folder that may not be looked into is no empty one
        with files.storage_errors(path):
            if not path.exists():
                return None
            modes = [(place, place.stat().st_mode) for place in (self.folder, path)]
        for place, mode in modes:
            if mode & 0o022:
                # who can write here decides whose models are opened, and which old ones
                raise KeysError(
                    f"{place} has mode {stat.S_IMODE(mode):04o}: others may write it", f"chmod go-w {place}"
                )
        return files.read_limited(path, size_max=size_max, what=what)


def _folder() -> Path:
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "palladion"


def _license_beside(place: object) -> bytes | None:
    path = place.with_name(f"{place.name}{LICENSE_SUFFIX}") if isinstance(place, Path) else None
    if path is None:
        return None
    with files.storage_errors(path):
        if not path.exists():
            return None
    return files.read_limited(path, size_max=LICENSE_BYTES_MAX, what="the licence")


def _parse_line(line: str, path: Path) -> tuple[bytes, str] | None:
    if not line.strip() or line.startswith("#"):
        return None
    text, _, note = line.strip().partition(" ")
    try:
        return parse_publisher(text), note.strip()
    except FormatError as error:
        raise FormatError(f"{path} has a line that is no publisher's key: {error.message}") from None
