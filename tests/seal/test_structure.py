"""Reading the structure, and passing over the segments on several threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from palladion.errors import FormatError, StorageError, TamperError
from palladion.seal.source import Source
from palladion.seal.structure import SegmentPass, Structure, opened
from tests.seal.factories import CAPACITY, Party


@contextmanager
def _three_segments(folder: Path) -> Iterator[tuple[Source, Structure]]:
    path = Party().seal(folder / "x", [("model.bin", os.urandom(2 * CAPACITY))])
    with opened(path) as (source, structure):
        yield source, structure


@pytest.mark.parametrize("threads", [None, 1, 2, 7])
def test_every_segment_is_handed_over_once(tmp_path: Path, threads: int | None) -> None:
    seen: dict[int, int] = {}
    progress: list[tuple[int, int]] = []
    with _three_segments(tmp_path) as (source, structure):
        SegmentPass(
            source,
            structure,
            lambda index, segment: seen.__setitem__(index, len(segment)),
            lambda done, total: progress.append((done, total)),
        ).run(threads)
        assert seen == {index: structure.layout.segment_bytes(index) for index in range(3)}
        assert progress[-1] == (structure.layout.body_bytes, structure.layout.body_bytes)
        assert [done for done, _ in progress] == sorted(done for done, _ in progress)


@pytest.mark.parametrize("threads", [1, 2])
def test_after_an_error_no_further_segment_is_begun(tmp_path: Path, threads: int) -> None:
    def fail(index: int, segment: memoryview) -> None:
        raise TamperError(f"segment {index}")

    with _three_segments(tmp_path) as (source, structure):
        segments = SegmentPass(source, structure, fail)
        with pytest.raises(TamperError):
            segments.run(threads)
        assert segments.begun <= threads


def test_a_segment_that_is_not_the_listed_one_is_named(tmp_path: Path) -> None:
    with _three_segments(tmp_path) as (source, structure):
        with (tmp_path / "x").open("r+b") as stream:
            stream.seek(structure.layout.segment_offset(1) + 100)
            stream.write(b"changed")
        with pytest.raises(TamperError, match="segment 1 of 3 is not the one listed"):
            SegmentPass(source, structure, lambda _index, _segment: None).run(1)


def test_a_file_that_becomes_shorter_is_refused(tmp_path: Path) -> None:
    with _three_segments(tmp_path) as (source, structure):
        os.truncate(tmp_path / "x", structure.layout.segment_offset(2))
        with pytest.raises(FormatError, match="became shorter"):
            SegmentPass(source, structure, lambda _index, _segment: None).run(1)


def test_something_that_is_not_a_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", tmp_path):
        with pytest.raises(FormatError, match="not a regular file"), opened(path):
            pass
    with pytest.raises(StorageError, match="no such file"), opened(tmp_path / "missing"):
        pass


def test_a_trailer_that_rotted_is_found_without_a_key(tmp_path: Path) -> None:
    path = Party().seal(tmp_path / "x")
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(data)
    with pytest.raises(TamperError, match="its list of recipients"), opened(path):
        pass


def test_a_structure_is_what_was_written(tmp_path: Path) -> None:
    with _three_segments(tmp_path) as (_, structure):
        info = structure.info
    assert (info.segments, info.file_bytes) == (3, (tmp_path / "x").stat().st_size)
    assert info.payload_bytes == 4096 + 2 * CAPACITY
    assert info.header == structure.header
