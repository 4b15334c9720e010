"""Sealing and rewrapping, broken off at every operation: the old file or the new one, never a mix, and no litter.

An operation fails (a full disk), or the process dies before it and cleans nothing up; then the power goes, too, and
takes what was not made durable.
"""

import io
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from palladion.errors import StorageError
from palladion.seal.recipients import FileIdentity
from palladion.seal.rewrap import rewrap_file
from palladion.seal.writer import seal_files
from tests.seal.factories import CAPACITY, Party

PARTY = Party()
OLD = {"model.bin": b"old weights"}
NEW = {"model.bin": os.urandom(CAPACITY), "config.json": b"{}"}


class Killed(BaseException):
    """The end of the process, before its n-th operation."""


class Disk:
    """Counts what is asked of the disk, and breaks off at the n-th; knows which bytes would survive a power cut."""

    def __init__(self, patch: pytest.MonkeyPatch, *, breaks_at: int, killed: bool) -> None:
        self.operations = 0
        self.broken = False
        self._breaks_at = breaks_at
        self._killed = killed
        self._durable: dict[int, int] = {}
        for name in ("open", "link", "sendfile"):
            patch.setattr(os, name, self._counted(getattr(os, name)))
        patch.setattr(Path, "replace", self._counted(Path.replace))
        patch.setattr(Path, "unlink", self._counted(Path.unlink, counts=False))
        patch.setattr(os, "fsync", self._synced(os.fsync))
        patch.setattr(os, "fdopen", self._stream)

    def cut_power(self, folder: Path) -> None:
        """Take away what no fsync made durable; renames survive, as they may."""
        for path in folder.iterdir():
            os.truncate(path, self._durable.get(path.stat().st_ino, 0))

    def believe(self, path: Path) -> None:
        """What was there before is durable."""
        if path.exists():
            self._durable[path.stat().st_ino] = path.stat().st_size

    def step(self, *, counts: bool = True) -> None:
        self.operations += counts
        if self.broken and self._killed:
            raise Killed  # a dead process does nothing more
        if self.operations == self._breaks_at and not self.broken:
            self.broken = True
            raise Killed if self._killed else OSError(28, "No space left on device")

    def _counted(self, function: Callable[..., Any], *, counts: bool = True) -> Callable[..., Any]:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.step(counts=counts)
            return function(*arguments, **named)

        return counted

    def _synced(self, fsync: Callable[[int], None]) -> Callable[[int], None]:
        def synced(descriptor: int) -> None:
            self.step()
            fsync(descriptor)
            status = os.fstat(descriptor)
            self._durable[status.st_ino] = status.st_size

        return synced

    def _stream(self, descriptor: int, mode: str) -> io.BufferedWriter:
        disk = self

        class Raw(io.FileIO):
            def write(self, data: Any, /) -> int:
                disk.step()
                # a short write, as the kernel may make it: the rest comes in another operation
                return super().write(memoryview(data)[: max(1, len(data) * 2 // 3)])

        return io.BufferedWriter(Raw(descriptor, mode))


def _seal(path: Path) -> None:
    seal_files(list(NEW.items()), PARTY.header(), [PARTY.identity.recipient], PARTY.signer, path)


def _reseal(path: Path) -> None:
    seal_files(list(NEW.items()), PARTY.header(), [PARTY.identity.recipient], PARTY.signer, path, replace=True)


OTHER = FileIdentity.generate()


def _rewrap(path: Path) -> None:
    rewrap_file(path, [PARTY.identity], PARTY.publishers, add=[OTHER.recipient])


def _contents(path: Path) -> tuple[dict[str, bytes], int] | None:
    """What the file opens to, and how many may open it; None if there is no file."""
    if not path.exists():
        return None
    return PARTY.open(path), path.read_bytes().count(b'"kind":"x25519"')


JOBS: dict[str, tuple[Callable[[Path], None], tuple[dict[str, bytes], int] | None, tuple[dict[str, bytes], int]]] = {
    "sealing": (_seal, None, (NEW, 1)),
    "sealing over an old file": (_reseal, (OLD, 1), (NEW, 1)),
    "rewrapping": (_rewrap, (OLD, 1), (OLD, 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("killed", [False, True], ids=["disk full", "killed, and the power is cut"])
@pytest.mark.parametrize("job", JOBS)
def test_whichever_operation_breaks_off_the_file_is_the_old_or_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, job: str, killed: bool
) -> None:
    work, old, new = JOBS[job]
    n, outcomes, finished = 0, [], False
    while not finished:
        n += 1
        folder = tmp_path / str(n)
        folder.mkdir()
        path = folder / "x"
        if old:
            PARTY.seal(path, list(OLD.items()))
        with monkeypatch.context() as patch:
            disk = Disk(patch, breaks_at=n, killed=killed)
            disk.believe(path)
            try:
                work(path)
                finished = not disk.broken
            except (Killed, StorageError):
                assert disk.broken
        if killed and not finished:
            disk.cut_power(folder)
        outcomes.append(_contents(path))
        assert outcomes[-1] in (old, new)
        if not killed:
            # what failed is cleaned up: the new name and nothing else
            assert [item.name for item in folder.iterdir()] == (["x"] if outcomes[-1] else [])
    assert n > 5
    assert outcomes[0] == old
    assert outcomes[-1] == new
    # it takes effect once, and stays
    assert outcomes == sorted(outcomes, key=lambda outcome: outcome == new)


def test_short_writes_and_short_copies_make_the_same_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    copy = os.sendfile
    with monkeypatch.context() as patch:
        disk = Disk(patch, breaks_at=0, killed=False)
        _seal(path)
        assert disk.operations > 8
        patch.setattr(os, "sendfile", lambda to, source, offset, count: copy(to, source, offset, min(count, 100_003)))
        _rewrap(path)
    assert _contents(path) == (NEW, 2)


def test_this_disk_loses_what_was_not_synced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the test above finds nothing if the disk that it simulates loses nothing
    path = tmp_path / "x"
    with monkeypatch.context() as patch:
        disk = Disk(patch, breaks_at=0, killed=True)
        patch.setattr(os, "fsync", lambda _descriptor: None)
        _seal(path)
    disk.cut_power(tmp_path)
    assert path.read_bytes() == b""
