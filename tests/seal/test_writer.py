"""Sealing: sources, little memory, and nothing left behind when anything fails."""

import errno
import os
import resource
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from palladion.errors import FormatError, PalladionError, StorageError, TamperError
from palladion.keys import Ed25519Signer, Wrap
from palladion.seal.recipients import FileIdentity
from palladion.seal.writer import Pieces, seal_files
from tests.seal.factories import CAPACITY, Party


class Meddling:
    """A recipient that does something when the file key is wrapped: after the sizes are taken, before the body."""

    kind = "x25519"
    key_id = "0" * 16

    def __init__(self, meddle: Callable[[], object]) -> None:
        self._meddle = meddle

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        self._meddle()
        return Wrap(self.kind, self.key_id, {}, bytes(80))


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_buffers_arrays_and_files_can_be_sealed(tmp_path: Path) -> None:
    party = Party()
    (tmp_path / "plain").write_bytes(b"on disk" * 300_000)
    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    path = party.seal(
        tmp_path / "x",
        [
            ("a", b"bytes"),
            ("b", bytearray(b"bytearray")),
            ("c", array.data),
            ("d", tmp_path / "plain"),
            ("e", memoryview(b"")),
            ("f", np.zeros((0, 4)).data),
        ],
    )
    assert party.open(path) == {
        "a": b"bytes",
        "b": b"bytearray",
        "c": array.tobytes(),
        "d": b"on disk" * 300_000,
        "e": b"",
        "f": b"",
    }


def test_a_sealed_file_is_readable_by_its_owner_only(tmp_path: Path) -> None:
    assert Party().seal(tmp_path / "x").stat().st_mode & 0o777 == 0o600


def test_two_files_of_one_content_share_nothing(tmp_path: Path) -> None:
    party = Party()
    first, second = (party.seal(tmp_path / name).read_bytes() for name in "xy")
    begin = first.index(b"\0\0\x00\x10\x00\x00") + 6
    assert first[begin : begin + 4000] != second[begin : begin + 4000]
    assert b"weights" not in first
    assert b"model.bin" not in first


def test_memory_stays_small(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(bytes(24 * 1024 * 1024))
    party = Party()
    tracemalloc.start()
    party.seal(tmp_path / "x", [("model.bin", tmp_path / "plain")])
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 6 * 1024 * 1024


def test_progress_ends_at_the_whole(tmp_path: Path) -> None:
    party = Party()
    seen: list[tuple[int, int]] = []
    seal_files(
        [("a", bytes(2 * CAPACITY))],
        party.header(),
        [party.identity.recipient],
        party.signer,
        tmp_path / "x",
        progress=lambda done, total: seen.append((done, total)),
    )
    assert len(seen) == 3
    assert seen[-1][0] == seen[-1][1]


def test_an_existing_file_is_kept_unless_it_is_to_be_replaced(tmp_path: Path) -> None:
    party = Party()
    path = party.seal(tmp_path / "x")
    with pytest.raises(StorageError, match="a file of this name exists"):
        party.seal(path, [("other", b"")])
    assert party.open(path) == {"model.bin": b"weights"}
    seal_files([("other", b"")], party.header(), [party.identity.recipient], party.signer, path, replace=True)
    assert party.open(path) == {"other": b""}


@pytest.mark.parametrize("content", [b"longer than it was", b"less", b""])
@pytest.mark.parametrize("place", [0, 1])
def test_a_file_that_changes_its_size_meanwhile_is_refused(tmp_path: Path, content: bytes, place: int) -> None:
    plain = tmp_path / "plain"
    plain.write_bytes(b"ten bytes.")
    sources: list[tuple[str, bytes | Path]] = [("other", b"x" * 5000)]
    sources.insert(place, ("plain", plain))
    with pytest.raises(FormatError, match="plain changed while it was sealed: it no longer has 10 bytes"):
        Party().seal(tmp_path / "x", sources, recipients=[Meddling(lambda: plain.write_bytes(content))])
    assert _names(tmp_path) == ["plain"]


def test_only_regular_files_are_sealed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for source in (tmp_path / "pipe", tmp_path):
        with pytest.raises(FormatError, match="not a regular file"):
            Party().seal(tmp_path / "x", [("a", source)])
    with pytest.raises(StorageError):
        Party().seal(tmp_path / "x", [("a", tmp_path / "missing")])


def test_a_caller_learns_of_his_mistakes_before_anything_is_written(tmp_path: Path) -> None:
    party, other = Party(), Party()
    recipient = party.identity.recipient
    header = party.header()
    with pytest.raises(ValueError, match="another key is to sign"):
        seal_files([("a", b"")], header, [recipient], other.signer, tmp_path / "x")
    with pytest.raises(ValueError, match="nobody can open"):
        seal_files([("a", b"")], header, [], party.signer, tmp_path / "x")
    with pytest.raises(ValueError, match="0 files"):
        seal_files([], header, [recipient], party.signer, tmp_path / "x")
    with pytest.raises(ValueError, match="plain relative path"):
        seal_files([("../a", b"")], header, [recipient], party.signer, tmp_path / "x")
    with pytest.raises(ValueError, match="two wraps for the same key"):
        seal_files([("a", b"")], header, [recipient, recipient], party.signer, tmp_path / "x")
    assert _names(tmp_path) == []


def test_a_signer_that_signs_wrongly_leaves_nothing(tmp_path: Path) -> None:
    class Broken(Ed25519Signer):
        def sign(self, message: bytes) -> bytes:
            return super().sign(message + b"!")

    party = Party(signer=Broken(os.urandom(32)))
    with pytest.raises(TamperError, match="the new file"):
        party.seal(tmp_path / "x")
    assert _names(tmp_path) == []


def test_a_recipient_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> None:
        raise PalladionError("the key service does not answer")

    with pytest.raises(PalladionError, match="does not answer"):
        Party().seal(tmp_path / "x", recipients=[FileIdentity.generate().recipient, Meddling(fail)])
    assert _names(tmp_path) == []


@pytest.mark.parametrize("limit", [0, 1, 500, 1000, 4000, CAPACITY, CAPACITY + 2000, 2 * CAPACITY + 4500])
def test_a_full_disk_leaves_nothing(tmp_path: Path, limit: int) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        with pytest.raises(StorageError):
            Party().seal(tmp_path / "x", [("a", bytes(2 * CAPACITY))])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert _names(tmp_path) == []


@pytest.mark.parametrize("operation", ["fsync", "link"])
def test_a_disk_that_refuses_at_the_end_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operation: str
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "input/output error")

    monkeypatch.setattr(os, operation, fail)
    with pytest.raises(StorageError, match="input/output error"):
        Party().seal(tmp_path / "x")
    assert _names(tmp_path) == []


def test_a_file_that_is_made_piece_by_piece_is_sealed_as_it_is_made(tmp_path: Path) -> None:
    buffer = bytearray(70_000)

    def made() -> Iterator[memoryview]:
        for number in range(40):
            buffer[:] = bytes([number]) * len(buffer)  # a piece is used before the next one takes its memory
            yield memoryview(buffer)

    party = Party()
    path = party.seal(tmp_path / "x", [("a", Pieces(40 * 70_000, made)), ("b", Pieces(0, lambda: iter([])))])
    assert party.open(path) == {"a": b"".join(bytes([number]) * 70_000 for number in range(40)), "b": b""}


@pytest.mark.parametrize("size", [4, 6])
def test_pieces_of_another_length_than_was_announced_leave_nothing(tmp_path: Path, size: int) -> None:
    with pytest.raises(RuntimeError, match=f"a was made with other than the {size} bytes"):
        Party().seal(tmp_path / "x", [("a", Pieces(size, lambda: iter([b"12", b"345"]))), ("b", b"more")])
    assert _names(tmp_path) == []
