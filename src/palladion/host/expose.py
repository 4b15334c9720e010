"""The files of a sealed payload as paths that any program can open: in memory, read-only, and wiped at the end.

Two ways lead from a path to the memory, as neither works everywhere (docs/exec.md has what was measured): real files in
a tmpfs that only the engine's processes have mounted, or links to memory files that this process holds.
"""

import errno
import fcntl
import mmap
import os
import resource
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from palladion import files
from palladion.errors import NotFoundError, StorageError
from palladion.host import linux
from palladion.seal.manifest import Manifest
from palladion.seal.opening import Opening
from palladion.seal.scatter import read_into
from palladion.seal.structure import Progress

Way = Literal["mount", "links"]

FOLDER_PREFIX = "palladion-exec-"
MOUNT_SLACK_BYTES = 1024 * 1024  # beside the files' pages: the tmpfs's own entries
OTHER_OPEN_FILES = 128  # of this process beside the payload's
NAMES_SHOWN_MAX = 8  # of the files that there are, in an error
_FOLDERS = ("folder", "adapter")  # kinds whose loaders want the folder, be there one file or many
_MEMFD_NAME_BYTES = 200  # the kernel allows 249; shown in /proc/PID/maps
_MFD_NOEXEC_SEAL = 0x8  # Linux 6.3; Python has no name for it
_F_SEAL_FUTURE_WRITE = 0x10  # Linux 5.1; Python has a name for it from 3.13
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK
_WIPE_BYTES = 1024 * 1024
_ZEROS = bytes(_WIPE_BYTES)


@dataclass(frozen=True)
class PrivateMount:
    """A tmpfs over the folder, seen there by the engine's processes alone; `descriptor` is a writable way into it."""

    descriptor: int
    swappable: bool


@dataclass(frozen=True)
class Exposed:
    """Where the files of a payload are, for as long as `exposed` lasts."""

    path: Path  # of the file, if it is one, or else of the folder
    folder: Path
    way: Way
    swappable: bool


def check_file(manifest: Manifest, name: str) -> str:
    """`name`, if the payload has a file of that name. Raises NotFoundError."""
    names = [entry.name for entry in manifest.entries]
    if name in names:
        return name
    more = f" and {len(names) - NAMES_SHOWN_MAX} more" if len(names) > NAMES_SHOWN_MAX else ""
    raise NotFoundError(f"there is no file {name!r} in it: it holds {', '.join(names[:NAMES_SHOWN_MAX])}{more}")


@contextmanager
def private_folder(watch: Callable[[Path], None]) -> Iterator[Path]:
    """A new folder in memory that only this user can enter, for the length of the block.

    `watch` is told of it first, to remove it if this process is killed; what was left behind all the same, by processes
    that were killed together with their watcher, is removed here. Raises StorageError where no folder is in memory.
    """
    parent = _parent()
    with files.storage_errors(parent):
        _sweep(parent)
        folder, descriptor = _new_folder(parent)
    try:
        watch(folder)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(descriptor)


@contextmanager
def exposed(
    opening: Opening,
    manifest: Manifest,
    folder: Path,
    mount: PrivateMount | None,
    *,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Iterator[Exposed]:
    """Decrypt every file of the payload into memory, and have it at its name below `folder` for the block.

    The names appear when the last byte has been verified. Nobody else can write to the memory. At the end, and after
    any error, it is overwritten with zeros, so that whoever still has a file open there has nothing.
    """
    contents: list[_Content] = []
    try:
        with files.storage_errors(folder):
            _allow_open_files(len(manifest.entries))
            for entry in manifest.entries:
                descriptor = _file_in(mount.descriptor, entry.name) if mount else _memory_file(entry.name)
                contents.append(_Content(descriptor, entry.size))
        read_into(opening, manifest, [content.view for content in contents], threads=threads, progress=progress)
        with files.storage_errors(folder):
            if mount is None:
                _link(folder, manifest, contents)
        locked = [content.lock() for content in contents]
        swappable = (mount is None or mount.swappable) and not all(locked) and _has_swap()
        single = len(contents) == 1 and opening.info.header.kind not in _FOLDERS
        path = folder / manifest.entries[0].name if single else folder
        yield Exposed(path, folder, "links" if mount is None else "mount", swappable)
    finally:
        for content in contents:
            content.wipe()
        for content in contents:
            content.close()


def mount_bytes(manifest: Manifest) -> int:
    """How large a tmpfs has to be for the files of a payload: what it cannot hold would kill us (SIGBUS)."""
    return sum(-(-entry.size // mmap.PAGESIZE) * mmap.PAGESIZE for entry in manifest.entries) + MOUNT_SLACK_BYTES


class _Content:
    """The memory behind one file: shared with whoever opens it, written by this process alone."""

    def __init__(self, descriptor: int, size: int) -> None:
        self.descriptor = descriptor
        self._mapping: mmap.mmap | None = None
        self.view = memoryview(bytearray())
        try:
            os.ftruncate(descriptor, size)
            if size:
                self._mapping = mmap.mmap(descriptor, size, flags=mmap.MAP_SHARED)
        except BaseException:
            os.close(descriptor)
            raise
        if self._mapping is not None:
            self._mapping.madvise(mmap.MADV_DONTDUMP)
            self._mapping.madvise(mmap.MADV_DONTFORK)  # no child inherits the right to write
            self.view = memoryview(self._mapping)

    def seal(self) -> None:
        """Take everybody's right to change the file; our own mapping goes on writing, to wipe it."""
        try:
            # F_SEAL_WRITE would bind us too: nothing could be wiped while somebody still has the file open
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS | _F_SEAL_FUTURE_WRITE)
        except OSError:
            # before Linux 5.1: the kernel frees the memory with its last user, and clears it before the next one
            self._unmap()
            fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, _SEALS | fcntl.F_SEAL_WRITE)
        os.fchmod(self.descriptor, 0o400)

    def lock(self) -> bool:
        """Keep it out of swap. False where this user may not lock as much memory (RLIMIT_MEMLOCK)."""
        try:
            if self._mapping is not None:
                linux.lock_memory(self.view)
        except OSError:
            return False
        return True

    def wipe(self) -> None:
        """Overwrite with zeros whatever was written, for everybody who has it open."""
        end = 0
        while end < len(self.view):
            try:
                # after an early error most of it is holes, which to fill would take the memory of the whole model
                begin = os.lseek(self.descriptor, end, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:
                    raise
                return
            end = min(os.lseek(self.descriptor, begin, os.SEEK_HOLE), begin + _WIPE_BYTES)
            self.view[begin:end] = _ZEROS[: end - begin]

    def close(self) -> None:
        """Let go of it; the kernel takes the memory back with its last user."""
        self._unmap()
        os.close(self.descriptor)

    def _unmap(self) -> None:
        self.view.release()
        self.view = memoryview(b"")
        if self._mapping is not None:
            self._mapping.close()
            self._mapping = None


def _memory_file(name: str) -> int:
    flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING
    shown = os.fsdecode(os.fsencode(name.rpartition("/")[2])[:_MEMFD_NAME_BYTES])
    try:
        return os.memfd_create(shown, flags | _MFD_NOEXEC_SEAL)
    except OSError:
        return os.memfd_create(shown, flags)


def _file_in(root: int, name: str) -> int:
    # names are plain relative paths (docs/format.md §5), and nobody else has been in this folder
    parts = name.split("/")
    for depth in range(1, len(parts)):
        with suppress(FileExistsError):
            os.mkdir("/".join(parts[:depth]), 0o700, dir_fd=root)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    return os.open(name, flags, 0o400, dir_fd=root)


def _link(folder: Path, manifest: Manifest, contents: list[_Content]) -> None:
    for entry, content in zip(manifest.entries, contents, strict=True):
        content.seal()
        path = folder / entry.name
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        # by our number, not by "self": workers close what they inherit, and open this again by name
        path.symlink_to(f"/proc/{os.getpid()}/fd/{content.descriptor}")
    # /proc/PID/fd of a process that cannot be dumped is root's alone
    linux.set_dumpable(True)


def _allow_open_files(count: int) -> None:
    # a payload may have 4,096 files, and the usual limit is 1,024; the engine keeps the limit it was started with
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * count + OTHER_OPEN_FILES  # Python's mmap keeps a duplicate
    if soft != resource.RLIM_INFINITY and soft < wanted:
        limit = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))


def _parent() -> Path:
    named = os.environ.get("XDG_RUNTIME_DIR", "")
    for parent in (named, "/dev/shm", f"/run/user/{os.getuid()}", "/run"):  # noqa: S108 (a new private folder in it)
        with suppress(OSError):
            if parent.startswith("/") and linux.is_tmpfs(Path(parent)) and os.access(parent, os.W_OK | os.X_OK):
                return Path(parent)
    raise StorageError(
        "there is no folder in memory: neither $XDG_RUNTIME_DIR nor /dev/shm nor /run is a tmpfs that can be written",
        "mount one: the names of the model's files are as secret as the files",
    )


def _new_folder(parent: Path) -> tuple[Path, int]:
    """A new private folder, and a descriptor that holds its lock."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=FOLDER_PREFIX, dir=parent))
        with suppress(FileNotFoundError):
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if folder.is_dir():
                return folder, descriptor
            # swept by another process, before it was locked
            os.close(descriptor)


def _sweep(parent: Path) -> None:
    """Remove this user's folders whose process is gone: a living one holds the lock."""
    for path in parent.glob(f"{FOLDER_PREFIX}*"):
        with suppress(OSError):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if os.fstat(descriptor).st_uid == os.geteuid():
                    shutil.rmtree(path)
            finally:
                os.close(descriptor)


def _has_swap() -> bool:
    try:
        return len(Path("/proc/swaps").read_text().splitlines()) > 1
    except OSError:
        return True
