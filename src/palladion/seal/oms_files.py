"""Digests of files as they lie on the disk: of one, of several, or of all in a folder; no link is followed on the way.

Knows nothing of bundles and signatures: those are in `oms`.
"""

import errno
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from hashlib import blake2b, sha256
from pathlib import Path
from typing import Any

from blake3 import blake3

from palladion.errors import FormatError, NotFoundError
from palladion.files import storage_errors
from palladion.seal.manifest import check_name

Files = Path | Mapping[str, Path]  # one file, a folder with all that is in it, or files by the names they go by

SINGLE = "."  # the name of a file that stands alone: its path relative to itself, as OMS has it
FILES_MAX = 16_384  # a sharded model has hundreds of files, a data set thousands
HASHES: dict[str, Callable[[], Any]] = {"sha256": sha256, "blake2b": blake2b, "blake3": blake3}

_READ_BYTES = 1024 * 1024
_THREADS_MAX = 4  # one file is one thread's work; more at once only fight for the disk


@contextmanager
def opened_files(files: Files, left_out: Set[str]) -> Iterator[Mapping[str, Callable[[], int]]]:
    """For the length of the block: the names of `files`, and how to open each.

    What is `left_out` of a folder is not even looked at. Raises FormatError on links and on names that no reader would
    accept, NotFoundError if there is no file, StorageError.
    """
    if not isinstance(files, Path):
        found = {checked_name(name): partial(_open, path) for name, path in files.items()}
        if not found:
            raise NotFoundError("no file was named")
        yield found
        return
    descriptor = _open(files)
    try:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            yield {name: partial(_open_below, descriptor, name) for name in _listed(descriptor, left_out, files)}
        else:
            yield {SINGLE: partial(os.dup, descriptor)}
    finally:
        os.close(descriptor)


def digests_of(sources: Mapping[str, Callable[[], int]], algorithms: Mapping[str, str]) -> dict[str, str]:
    """The digest of each of the `opened_files`, in hex, by the algorithm of its name. Reads every byte once."""
    with ThreadPoolExecutor(min(_THREADS_MAX, len(os.sched_getaffinity(0)))) as pool:
        digests = pool.map(lambda name: _digest(name, sources[name], HASHES[algorithms[name]]()), sources)
        return dict(zip(sources, digests, strict=True))


def checked_name(name: str) -> str:
    """`name`, if it is a plain relative path (docs/format.md §5). Raises FormatError."""
    try:
        check_name(name)
    except ValueError as error:
        raise FormatError(str(error)) from None
    return name


def _listed(descriptor: int, left_out: Set[str], top: Path) -> list[str]:
    found: list[str] = []
    with storage_errors(top):
        for folder, folders, names, here in os.fwalk(".", dir_fd=descriptor, follow_symlinks=False, onerror=_fail):
            prefix = folder.removeprefix(".").removeprefix("/")
            paths = {name: f"{prefix}/{name}" if prefix else name for name in (*folders, *names)}
            kept = {name: checked_name(path) for name, path in paths.items() if path not in left_out}
            for name, path in kept.items():
                if stat.S_ISLNK(os.stat(name, dir_fd=here, follow_symlinks=False).st_mode):
                    raise _link(f"{top}/{path}")
            folders[:] = [name for name in folders if name in kept]
            found += [kept[name] for name in names if name in kept]
            if len(found) > FILES_MAX:
                raise FormatError(f"{top} holds more than {FILES_MAX} files")
    if not found:
        raise NotFoundError(f"{top} holds no file that could be signed")
    return found


def _digest(name: str, opener: Callable[[], int], digest: Any) -> str:
    descriptor = opener()
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise FormatError(f"{name} is not a regular file")
        buffer = memoryview(bytearray(_READ_BYTES))
        offset = 0
        with storage_errors(Path(name)):
            # at an offset of our own: descriptors of one file share their position
            while count := os.preadv(descriptor, [buffer], offset):
                digest.update(buffer[:count])
                offset += count
    finally:
        os.close(descriptor)
    return str(digest.hexdigest())


def _open_below(descriptor: int, name: str) -> int:
    """Open the file `name` below an open folder, part by part: a folder on the way may have become a link."""
    *folders, last = name.split("/")
    here = os.dup(descriptor)
    try:
        for part in folders:
            above, here = here, _open(Path(part), folder=here, flags=os.O_DIRECTORY)
            os.close(above)
        return _open(Path(last), folder=here)
    finally:
        os.close(here)


def _open(path: Path, *, folder: int | None = None, flags: int = 0) -> int:
    with storage_errors(path):
        try:
            # not blocking: a named pipe must not make us wait for ever
            return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, dir_fd=folder)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise _link(str(path)) from None
            raise


def _link(path: str) -> FormatError:
    return FormatError(f"{path} is a link, and no link is followed", "name the file or folder itself")


def _fail(error: OSError) -> None:
    raise error  # a folder that cannot be read must not be passed over
