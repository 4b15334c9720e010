"""One host on disk: its identities, the publishers it trusts, and what it has seen; needs no installation.

A folder of its own, `~/.config/palladion` unless another is named: `*.identity`, `publishers`, `seen.json`.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from palladion import files
from palladion.clock import Clock, SystemClock
from palladion.errors import FormatError, KeysError
from palladion.host.seen import SEEN_BYTES_MAX, Seen, decode_seen
from palladion.keys import Identity
from palladion.seal.recipients import read_identity
from palladion.seal.sign import parse_publisher, publisher_text
from palladion.seal.structure import SealedInfo

FOLDER_VARIABLE = "PALLADION_HOST"
PUBLISHERS_BYTES_MAX = 64 * 1024  # a key and a note on each line
IDENTITIES_MAX = 64  # each costs an attempt for each wrap


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
        with files.storage_errors(self.folder):
            paths = sorted(self.folder.glob("*.identity"))[:IDENTITIES_MAX] if self.folder.is_dir() else []
        if not paths:
            raise KeysError(
                f"{self.folder} holds no identity to open sealed files with",
                f"palladion recipient new {self.folder / 'host.identity'}, and send the recipient it prints",
                "or name one: --identity FILE",
            )
        return [read_identity(path) for path in paths]

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
        path = self.folder / "publishers"
        if not path.exists():
            return []
        data = files.read_limited(path, size_max=PUBLISHERS_BYTES_MAX, what="the list of publishers")
        lines = data.decode(errors="replace").splitlines()
        return [_parse_line(line, path) for line in lines if line.strip() and not line.startswith("#")]

    def trust(self, publisher: bytes, *, note: str = "") -> None:
        """Accept a publisher's signature from now on. Raises ValueError on a note of several lines."""
        if not note.isprintable():
            raise ValueError("a note is one line of characters that print")
        with self._changing():
            known = self.trusted()
            if publisher not in [key for key, _ in known]:
                self._write_publishers([*known, (publisher, note)])

    def distrust(self, publisher: bytes) -> None:
        """Accept a publisher's signature no longer."""
        with self._changing():
            self._write_publishers([item for item in self.trusted() if item[0] != publisher])

    def seen(self) -> Seen:
        """What this host has seen so far."""
        path = self.folder / "seen.json"
        if not path.exists():
            return Seen()
        data = files.read_limited(path, size_max=SEEN_BYTES_MAX, what="what this host remembers,")
        return decode_seen(data, what=str(path))

    def accept(self, info: SealedInfo, *, allow_older: bool = False) -> None:
        """Raise ConflictError if a verified file is of an older version than this host has opened.

        To be asked after the publisher's signature and before any key is touched.
        """
        if not allow_older:
            self.seen().check_version(info)

    def remember(self, info: SealedInfo) -> None:
        """Remember that a verified file was opened. Raises StorageError where the folder cannot be written."""
        before = self.seen()
        if before.with_version(info) == before:
            return
        with self._changing():
            seen = self.seen().with_version(info).with_time(self.clock.now())
            files.write_atomically(self.folder / "seen.json", seen.encode())

    @contextmanager
    def _changing(self) -> Iterator[None]:
        files.make_private_directory(self.folder)
        with files.exclusive_lock(self.folder, what=str(self.folder)):
            yield

    def _write_publishers(self, items: Sequence[tuple[bytes, str]]) -> None:
        lines = [f"{publisher_text(key)} {note}".rstrip() for key, note in items]
        files.write_atomically(self.folder / "publishers", "".join(f"{line}\n" for line in lines).encode())


def _folder() -> Path:
    named = os.environ.get(FOLDER_VARIABLE)
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "palladion"


def _parse_line(line: str, path: Path) -> tuple[bytes, str]:
    text, _, note = line.strip().partition(" ")
    try:
        return parse_publisher(text), note.strip()
    except FormatError as error:
        raise FormatError(f"{path} has a line that is no publisher's key: {error.message}") from None
