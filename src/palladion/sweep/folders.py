"""Files of a folder of this machine, links not followed: with who may do what with them, and what kind of store it is.

A Hugging Face cache names model and revision, a folder of MLflow runs experiment and run. The folder `.git` is left to
`git`, but for what large file storage keeps in it.
"""

import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from palladion.errors import FormatError
from palladion.sweep.finding import Finding, found
from palladion.sweep.item import Access, Item, read_path

ANYBODY_WRITES = stat.S_IWOTH
# what the kernel makes up; /dev/shm is memory that holds files
_PSEUDO = frozenset({"/proc", "/sys", "/dev/pts", "/dev/mqueue", "/dev/hugepages", "/dev/fd"})
_LOOSE = re.compile(r"objects/[0-9a-f]{2}/[0-9a-f]{38}(?:[0-9a-f]{24})?")
_PACKED = re.compile(r"objects/pack/pack-[0-9a-f]{40}(?:[0-9a-f]{24})?\.(?:pack|idx|rev|bitmap|mtimes|keep|promisor)")
_HUB = "models--"
_LINKS_MAX = 100_000  # of one model of a cache


@dataclass
class Folder:
    """What lies in a folder: items, repositories met on the way, and findings about what could not be read."""

    root: Path
    repositories: list[Path] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    _stores: set[Path] = field(default_factory=set)  # folders that look like what git keeps its objects in

    def items(self) -> Iterator[Item]:
        """Every regular file, folder by folder, in the order of names."""
        if self.root.is_file():
            yield from self._item(self.root, self.root.parent)
            return
        pending = [self.root]  # not os.walk, which calls itself for each folder: a thousand deep would end it
        while pending:
            folder = pending.pop()
            listed = next(os.walk(folder, onerror=self._unread), None)
            if listed is None:
                continue
            _, folders, names = listed
            if _is_bare(folders, names):
                self._stores.add(folder)
            below_git = folder.name == ".git" and folder.parent in self.repositories
            if ".git" in folders or (_is_bare(folders, names) and not below_git):
                self.repositories.append(folder)
            for name in sorted(names):
                if folder.parent.parent not in self._stores or not _is_object(folder, name):
                    yield from self._item(folder / name, folder)
            pending += [
                folder / name
                for name in sorted(folders, reverse=True)
                if str(folder / name) not in _PSEUDO and not (folder / name).is_symlink()
            ]

    def _item(self, path: Path, folder: Path) -> Iterator[Item]:
        try:
            status, read = read_path(path)
        except FormatError:
            return  # a link, a socket, a named pipe
        except OSError as error:
            self._unread(error)
            return
        context, cached = _hub(path) or _mlflow(path) or ("", False)
        yield Item(
            str(path),
            path.name,
            status.st_size,
            read,
            parent=str(folder),
            context=context,
            cached=cached,
            path=path,
            access=Access(stat.S_IMODE(status.st_mode), status.st_uid, _open_folders(folder)),
        )

    def _unread(self, error: OSError) -> None:
        place = str(error.filename or self.root)
        self.findings.append(found("not-read", place, (error.strerror or str(error)).lower()))


def _is_bare(folders: list[str], names: list[str]) -> bool:
    return "objects" in folders and "refs" in folders and "HEAD" in names


def _is_object(folder: Path, name: str) -> bool:
    """Whether a file is one that git itself reads: a loose object, or a pack with its index.

    Anything else in a repository's `objects` is looked at like other files, a pack without an index among them.
    """
    if _LOOSE.fullmatch(f"{folder.parent.name}/{folder.name}/{name}"):
        return True
    known = _PACKED.fullmatch(f"{folder.parent.name}/{folder.name}/{name}")
    return bool(known) and (folder / name).with_suffix(".idx").is_file()


def _open_folders(folder: Path) -> tuple[str, ...]:
    """The folders from here up in which anybody may put another file in a file's place: those without a sticky bit."""
    return tuple(str(above) for above in (folder, *folder.parents) if _is_open(above))


@cache
def _is_open(folder: Path) -> bool:
    try:
        mode = folder.stat().st_mode
    except OSError:
        return False
    return bool(mode & ANYBODY_WRITES) and not mode & stat.S_ISVTX


def _hub(path: Path) -> tuple[str, bool] | None:
    """Of a file in a Hugging Face cache: which model, and in which revisions under which name."""
    at = next((index for index, part in enumerate(path.parts) if part.startswith(_HUB)), None)
    if at is None:
        return None
    folder = Path(*path.parts[: at + 1])
    name = folder.name.removeprefix(_HUB).replace("--", "/")
    where = _revisions(folder).get(path.name) if "blobs" in path.parts[at:] else None
    return f"Hugging Face cache: {name}" + (f", {where}" if where else ""), True


@cache
def _revisions(folder: Path) -> dict[str, str]:
    """What the links of a cached model's revisions lead to: blob -> name and revision."""
    named: dict[str, str] = {}
    snapshots = folder / "snapshots"
    for count, path in enumerate(sorted(snapshots.rglob("*")) if snapshots.is_dir() else ()):
        if count > _LINKS_MAX:
            break
        if path.is_symlink():
            revision, *rest = path.relative_to(snapshots).parts
            named[path.readlink().name] = f"{'/'.join(rest)} of revision {revision[:12]}"
    return named


def _mlflow(path: Path) -> tuple[str, bool] | None:
    """Of a file that an MLflow run or a logged model keeps: which run of which experiment."""
    parts = path.parts
    for at in range(len(parts) - 1, 1, -1):
        if parts[at] == "artifacts":
            run = Path(*parts[:at])
            if (run / "meta.yaml").is_file():
                return f"MLflow run {run.name} of experiment {run.parent.name}", False
    return None


def forget() -> None:
    """Let go of what was learned of folders: modes and links may be others at the next sweep."""
    _is_open.cache_clear()
    _revisions.cache_clear()
