"""Sources: regular files and nothing else, read as they were when they were opened, and let go of once."""

import gc
import os
import stat
import threading
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError, StorageError
from palladion.seal.source import FileSource, open_source, opened_source, read

CONTENT = bytes(range(256)) * 40


def _file(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / "x"
    path.write_bytes(content)
    return path


def _descriptors() -> set[str]:
    return {entry.name for entry in Path("/proc/self/fd").iterdir()}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(begin=st.integers(0, len(CONTENT)), end=st.integers(0, len(CONTENT)))
def test_every_range_is_the_files(tmp_path: Path, begin: int, end: int) -> None:
    with opened_source(_file(tmp_path)) as source:
        size = max(0, end - begin)
        assert read(source, size, begin) == CONTENT[begin : begin + size]


def test_a_file_says_its_name_size_and_mode(tmp_path: Path) -> None:
    path = _file(tmp_path)
    path.chmod(0o640)
    source = FileSource(path)
    assert (source.what, source.size, source.mode) == (str(path), len(CONTENT), 0o640)
    assert repr(source) == f"<FileSource {path}>"
    source.close()


@pytest.mark.timeout(10)
def test_a_pipe_that_nobody_writes_to_is_refused_at_once_and_its_descriptor_closed(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    before = _descriptors()
    with pytest.raises(FormatError, match="pipe is not a regular file"):
        FileSource(tmp_path / "pipe")
    assert _descriptors() == before


@pytest.mark.parametrize("path", [Path("/dev/null"), Path("/dev/zero"), Path("/proc/self")], ids=str)
def test_a_device_or_a_folder_is_refused_and_its_descriptor_closed(path: Path) -> None:
    before = _descriptors()
    with pytest.raises(FormatError, match="is not a regular file"):
        FileSource(path)
    assert _descriptors() == before


def test_a_file_that_is_not_there_is_refused_with_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing: no such file"):
        FileSource(tmp_path / "missing")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StorageError, match="loop"):
        FileSource(tmp_path / "loop")


def test_reading_beyond_the_end_of_a_file_is_refused(tmp_path: Path) -> None:
    with opened_source(_file(tmp_path)) as source:
        assert read(source, 0, len(CONTENT)) == b""
        for size, offset in ((1, len(CONTENT)), (len(CONTENT) + 1, 0), (1, 2**62)):
            with pytest.raises(FormatError, match="x became shorter"):
                read(source, size, offset)


def test_a_file_that_shrinks_is_refused_and_one_that_grows_keeps_its_size(tmp_path: Path) -> None:
    path = _file(tmp_path)
    with opened_source(path) as source:
        os.truncate(path, 100)
        assert read(source, 100, 0) == CONTENT[:100]
        with pytest.raises(FormatError, match="became shorter while it was read"):
            read(source, 101, 0)
        path.write_bytes(CONTENT * 2)
        assert source.size == len(CONTENT)


def test_a_file_that_is_replaced_meanwhile_is_read_as_it_was(tmp_path: Path) -> None:
    path = _file(tmp_path)
    with opened_source(path) as source:
        (tmp_path / "y").write_bytes(bytes(len(CONTENT)))
        (tmp_path / "y").replace(path)
        assert read(source, 256, 0) == CONTENT[:256]


def test_short_reads_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.preadv
    monkeypatch.setattr(os, "preadv", lambda descriptor, buffers, offset: whole(descriptor, [buffers[0][:7]], offset))
    with opened_source(_file(tmp_path)) as source:
        assert read(source, 1000, 3) == CONTENT[3:1003]


def test_a_disk_that_fails_is_said_in_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError(5, "Input/output error")

    with opened_source(_file(tmp_path)) as source:
        monkeypatch.setattr(os, "preadv", fail)
        with pytest.raises(StorageError, match="x: input/output error"):
            read(source, 1, 0)


def test_closing_twice_does_not_close_what_has_the_number_by_then(tmp_path: Path) -> None:
    source = FileSource(_file(tmp_path))
    source.close()
    reused = os.open(tmp_path, os.O_RDONLY)
    assert reused == source.descriptor
    source.close()
    assert stat.S_ISDIR(os.fstat(reused).st_mode)
    os.close(reused)


@pytest.mark.slow
def test_a_file_that_nobody_closes_is_closed_when_nobody_holds_it(tmp_path: Path) -> None:
    before = _descriptors()
    source = FileSource(_file(tmp_path))
    assert _descriptors() != before
    del source
    gc.collect()
    assert _descriptors() == before


def test_a_closed_source_is_not_read_even_if_another_file_has_its_number(tmp_path: Path) -> None:
    source = FileSource(_file(tmp_path))
    source.close()
    (tmp_path / "other").write_bytes(b"another file")
    reused = os.open(tmp_path / "other", os.O_RDONLY)
    assert reused == source.descriptor
    with pytest.raises(ValueError, match="x is closed"):
        read(source, 5, 0)
    os.close(reused)


def test_a_descriptor_is_not_handed_to_programs_that_are_started(tmp_path: Path) -> None:
    source = FileSource(_file(tmp_path))
    assert not os.get_inheritable(source.descriptor)
    source.close()


def test_several_threads_read_at_once(tmp_path: Path) -> None:
    wrong: list[int] = []
    with opened_source(_file(tmp_path)) as source:

        def check(first: int) -> None:
            places = range(first, len(CONTENT) - 100, 97)
            wrong.extend(begin for begin in places if read(source, 100, begin) != CONTENT[begin : begin + 100])

        threads = [threading.Thread(target=check, args=(first,)) for first in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert wrong == []


def test_a_path_is_opened_and_closed_and_a_source_is_handed_through_and_stays_open(tmp_path: Path) -> None:
    before = _descriptors()
    with opened_source(_file(tmp_path)):
        pass
    assert _descriptors() == before
    source = FileSource(tmp_path / "x")
    assert open_source(source) is source
    with opened_source(source) as same:
        assert same is source
    assert read(source, 3, 0) == CONTENT[:3]
    source.close()
