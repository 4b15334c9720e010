"""Custody of a suspect: what was acquired, when, where and by whom, with its digests at that moment, on record.

The thing itself stays with the person who acquired it; only what comes from a URL is kept, since nobody else would have
it. ISO/IEC 27037 calls this acquisition. Each later handling of the same thing is one more record.
"""

import os
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256, sha512
from pathlib import Path
from typing import Any, Literal, get_args

from palladion import canonical, files
from palladion.clock import timestamp
from palladion.errors import FormatError, NotFoundError, PalladionError, ScanRefusedError, StorageError
from palladion.incident.cases import find_case
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.servers import Server, noting_context
from palladion.model.digest import model_digest
from palladion.model.read import read_weights
from palladion.registry import Incident, names
from palladion.seal.http import exchange
from palladion.transit.url import shown_address

Step = Literal["acquired", "examined", "handed over", "returned", "destroyed"]
# of a URL: HTTP status, body piece by piece, and over TLS the server
Fetch = Callable[[str], tuple[int, Iterator[bytes], Server | None]]

STEPS: tuple[Step, ...] = get_args(Step)
RECORDED = "custody.recorded"
SOURCES_MAX = 64  # in one call, each a record
FILES_MAX = 128  # in a folder: a record has 64 KiB, and a file takes some 350 bytes of it
RECORD_BYTES_MAX = 60_000  # an entry of the ledger has 64 KiB, its other fields some 1,000 bytes
ADDRESS_CHARACTERS_MAX = 400
FETCHED_BYTES_MAX = 4 * 1024**3
_PIECE_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Digests:
    """A file as it was: its name, length, SHA-256 and SHA-512 in hexadecimal."""

    name: str
    bytes: int
    sha256: str
    sha512: str


@dataclass(frozen=True)
class Exhibit:
    """A source as it was: its files, and `content`, the digest by which `palladion prove` knows a model.

    `too_large` says that it was not looked at as a model: it has more bytes than `scan.file_bytes_max`. Of a URL,
    `source` lacks user and query, which can be credentials; `?…` stands where a query was. `server` is who gave it over
    TLS.
    """

    source: str
    kind: Literal["file", "folder", "url"]
    files: tuple[Digests, ...]
    content: str | None
    status: int | None = None
    too_large: bool = False
    server: Server | None = None


@dataclass(frozen=True)
class Handling:
    """What happened to the sources: the step, by whom, where, when in the words of that person, and a note."""

    step: Step
    by: str
    place: str
    at: datetime
    note: str = ""


def record_custody(
    installation: Installation,
    incident: str,
    sources: Sequence[str],
    handling: Handling,
    *,
    keep: Path | None,
    actor: str,
    fetch: Fetch | None = None,
) -> tuple[Incident, list[tuple[Exhibit, Receipt]]]:
    """Digest `sources`, files, folders and URLs, and record each under the case `incident`.

    What a URL gives is written into the folder `keep`, under its SHA-256. Raises NotFoundError, and PalladionError
    where a URL is given without `keep`, or a time that lies in the future.
    """
    _check(handling, sources, keep=keep, now=installation.clock.now())
    with installation.open_registry() as registry, registry.read() as records:
        case = find_case(records, incident)
    exhibits = [_exhibit(installation, source, keep, fetch or _fetch) for source in sources]
    lines = [
        Record(RECORDED, installation.clock.now(), actor, f"incident:{case.id}", _details(exhibit, handling))
        for exhibit in exhibits
    ]
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        return case, list(zip(exhibits, ledger.append(lines), strict=True))


def digest_file(path: Path, name: str) -> Digests:
    """The digests of a regular file. Raises FormatError if it is none, or a link, or changes while it is read."""
    if path.is_symlink():
        raise _link(path)
    # a named pipe that nobody writes to must not hang this, nor a link lead elsewhere that was put there meanwhile
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOFOLLOW
    with files.storage_errors(path), os.fdopen(os.open(path, flags), "rb") as stream:
        before = os.fstat(stream.fileno())
        if not stat.S_ISREG(before.st_mode):
            raise FormatError(f"{path} is not a regular file")
        digests = _digested(name, iter(lambda: stream.read(_PIECE_BYTES), b""))
        after = os.fstat(stream.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise FormatError(f"{path} changed while it was read", "work on a copy that nobody writes to")
    return digests


def _check(handling: Handling, sources: Sequence[str], *, keep: Path | None, now: datetime) -> None:
    names.one_of(handling.step, STEPS, what="the step")
    names.label(handling.by, what="who handled it")
    names.label(handling.place, what="the place")
    names.note(handling.note, what="the note")
    if handling.at > now:
        raise PalladionError(f"{timestamp(handling.at)} lies in the future: when was it {handling.step}?")
    if not 0 < len(sources) <= SOURCES_MAX:
        raise PalladionError(f"{len(sources)} sources were given, 1 to {SOURCES_MAX} are taken at once")
    if keep is None and any(_is_url(source) for source in sources):
        raise PalladionError("what a URL gives has to be kept, or nothing can be compared later", "name --keep FOLDER")


def _exhibit(installation: Installation, source: str, keep: Path | None, fetch: Fetch) -> Exhibit:
    if _is_url(source) and keep is not None:
        return _fetched(source, keep, fetch)
    path = Path(source)
    if not os.path.lexists(path):
        raise NotFoundError(f"there is no {path}")
    if path.is_symlink():
        raise _link(path)
    folder = path.is_dir()
    if folder:
        digests = tuple(digest_file(item, item.relative_to(path).as_posix()) for item in _walked(path))
    else:
        digests = (digest_file(path, path.name),)
    bytes_max = installation.policy.scan.file_bytes_max
    if sum(item.bytes for item in digests) > bytes_max:
        content, too_large = None, True
    else:
        content, too_large = _content(path, bytes_max), False
    return Exhibit(path.name or str(path), "folder" if folder else "file", digests, content, None, too_large)


def _walked(folder: Path) -> list[Path]:
    """The files of a folder and of those in it, sorted. Raises PalladionError at a link, and at too many files."""

    def refused(error: OSError) -> None:
        raise error  # a folder that cannot be read would be left out

    found: list[Path] = []
    with files.storage_errors(folder):
        for parent, folders, names_there in os.walk(folder, onerror=refused):
            for path in (Path(parent, name) for name in (*folders, *names_there)):
                if path.is_symlink():
                    raise _link(path)
            found += [Path(parent, name) for name in names_there]
            if len(found) > FILES_MAX:
                break
    if not 0 < len(found) <= FILES_MAX:
        raise PalladionError(
            f"{folder} has {'no' if not found else f'more than {FILES_MAX}'} files, 1 to {FILES_MAX} can be recorded",
            "pack it into one archive first",
        )
    return sorted(found)


def _link(path: Path) -> FormatError:
    return FormatError(
        f"{path} is a link, and leads to something else than what is named",
        "name what it leads to, or record a copy that has no links (cp -RL)",
    )


def _fetched(url: str, keep: Path, fetch: Fetch) -> Exhibit:
    shown = _shown(url)
    files.make_private_directory(keep)
    partial = keep / f".{os.urandom(8).hex()}.part"
    try:
        with files.atomic_writer(partial) as stream:
            status, pieces, server = fetch(url)
            digests = _digested(shown, _written(pieces, stream.write))
        with files.storage_errors(keep):
            partial.replace(keep / digests.sha256)
    finally:
        partial.unlink(missing_ok=True)
    return Exhibit(shown, "url", (digests,), None, status, server=server)


def _written(pieces: Iterator[bytes], write: Callable[[bytes], int]) -> Iterator[bytes]:
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > FETCHED_BYTES_MAX:
            raise StorageError(f"the address gives more than the {FETCHED_BYTES_MAX} bytes that are kept")
        write(piece)
        yield piece


def _fetch(url: str) -> tuple[int, Iterator[bytes], Server | None]:
    def pieces() -> Iterator[bytes]:
        with exchange(url, context=noting_context(seen)) as answer:
            statuses.append(answer.status)
            yield b""
            yield from answer.pieces

    statuses, seen = list[int](), list[Server]()
    body = pieces()
    next(body)  # so far that the status is known
    return statuses[0], body, seen[-1] if seen else None


def _digested(name: str, pieces: Iterator[bytes]) -> Digests:
    short, long, total = sha256(), sha512(), 0
    for piece in pieces:
        short.update(piece)
        long.update(piece)
        total += len(piece)
    return Digests(name, total, short.hexdigest(), long.hexdigest())


def _content(path: Path, bytes_max: int) -> str | None:
    """The digest by which `palladion prove` names the model at `path`; None if nothing there can be read as one."""
    try:
        return model_digest(read_weights(path, bytes_max=bytes_max)).hex()
    except (FormatError, ScanRefusedError):
        return None  # a capture, a screenshot, a letter: evidence all the same


def _details(exhibit: Exhibit, handling: Handling) -> dict[str, Any]:
    details = {
        "step": handling.step,
        "by": handling.by,
        "place": handling.place,
        "at": timestamp(handling.at),
        "note": handling.note,
        "source": exhibit.source,
        "kind": exhibit.kind,
        "content": exhibit.content,
        "status": exhibit.status,
        "server": exhibit.server.document() if exhibit.server is not None else None,
        "files": [
            {"name": item.name, "bytes": item.bytes, "sha256": item.sha256, "sha512": item.sha512}
            for item in exhibit.files
        ],
    }
    try:
        size = len(canonical.encode(details))
    except UnicodeEncodeError:
        raise PalladionError("a name is not UTF-8, and cannot be recorded", "rename a copy, and record that") from None
    if size > RECORD_BYTES_MAX:
        raise PalladionError("the names of these files are too long for one record", "pack them into one archive first")
    return details


def _is_url(source: str) -> bool:
    return source.lower().startswith(("http://", "https://"))


def _shown(url: str) -> str:
    """What is recorded of an address: all but user, query and fragment, which can be credentials."""
    if len(url) > ADDRESS_CHARACTERS_MAX:
        raise PalladionError(f"the address has {len(url)} characters, at most {ADDRESS_CHARACTERS_MAX} are taken")
    try:
        return shown_address(url)
    except ValueError as error:
        raise PalladionError(f"the address cannot be read: {error}") from None
