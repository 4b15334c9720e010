"""Lines of a log that grows: over renaming, cutting and restarts, none twice and none lost."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from palladion.errors import FormatError, StorageError
from palladion.watch import follow
from palladion.watch.follow import FileLines, Line, Position, StreamLines


def _write(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


class Reader:
    """Takes what is there until there is nothing new."""

    def __init__(self, path: Path, position: Position | None = None, *, follow: bool = True) -> None:
        self.lines = FileLines(path, position, follow=follow)
        self.position = position
        self._iterator: Iterator[Line | None] = iter(self.lines)

    def take(self) -> list[str]:
        found = []
        for line in self._iterator:
            if line is None:
                break
            found.append(line.data.decode())
            self.position = line.position
        return found


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    _write(path, "a\nb\n")
    return path


def test_lines_come_as_they_are_written(log: Path) -> None:
    reader = Reader(log)
    assert reader.take() == ["a\n", "b\n"]
    assert reader.take() == []
    _write(log, "c\nd")
    assert reader.take() == ["c\n"]
    _write(log, "e\n")
    assert reader.take() == ["de\n"]


def test_without_following_the_end_is_the_end_and_a_last_line_needs_none(log: Path) -> None:
    _write(log, "c")
    assert Reader(log, follow=False).take() == ["a\n", "b\n", "c"]


def test_a_log_that_is_renamed_is_read_to_its_end_first(log: Path) -> None:
    reader = Reader(log)
    reader.take()
    _write(log, "c\n")
    log.rename(log.with_name("log.1"))
    assert reader.take() == ["c\n"]  # the new one is not there yet
    _write(log.with_name("log.1"), "late\nunfinished")
    _write(log, "d\n")
    assert reader.take() == ["late\n", "unfinished", "d\n"]


def test_a_log_that_is_cut_in_place_begins_anew(log: Path) -> None:
    reader = Reader(log)
    reader.take()
    log.write_text("c\n")
    assert reader.take() == []
    assert reader.take() == ["c\n"]


def test_a_restart_goes_on_where_it_was(log: Path) -> None:
    reader = Reader(log)
    reader.take()
    _write(log, "c\n")
    again = Reader(log, reader.position)
    assert again.take() == ["c\n"]
    assert not again.lines.gap


def test_a_restart_in_the_middle_of_what_was_there_repeats_nothing(log: Path) -> None:
    first = next(iter(FileLines(log, None, follow=True)))
    assert first is not None
    assert Reader(log, first.position).take() == ["b\n"]


def test_a_log_that_was_renamed_between_two_runs_is_finished_first(log: Path) -> None:
    reader = Reader(log)
    reader.take()
    _write(log, "c\n")
    log.rename(log.with_name("log.1"))
    _write(log, "d\n")
    for following in (True, False):
        assert Reader(log, reader.position, follow=following).take() == ["c\n", "d\n"]


def test_a_log_that_is_gone_leaves_a_gap_that_is_told(log: Path) -> None:
    reader = Reader(log)
    reader.take()
    log.rename(log.with_name("other"))  # which keeps its inode from being given again
    _write(log, "d\n")
    again = Reader(log, reader.position)
    assert again.lines.gap
    assert again.take() == ["d\n"]


def test_a_log_that_is_not_there_yet_is_waited_for_or_said(tmp_path: Path) -> None:
    path = tmp_path / "later"
    reader = Reader(path)
    assert reader.take() == []
    _write(path, "a\n")
    assert reader.take() == ["a\n"]
    with pytest.raises(StorageError):
        Reader(tmp_path / "never", follow=False).take()


def test_what_cannot_be_read_on_later_is_refused() -> None:
    with pytest.raises(FormatError, match="no regular file"):
        Reader(Path("/dev/null")).take()


def test_a_line_that_is_too_long_is_handed_out_cut_and_once(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(follow, "LINE_BYTES_MAX", 8)
    _write(log, "x" * 100)
    reader = Reader(log)
    assert reader.take() == ["a\n", "b\n"]  # it has no end yet
    _write(log, "\nc\n")
    assert reader.take() == ["x" * 9, "c\n"]


# --- streams


@pytest.fixture
def pipe() -> Iterator[tuple[StreamLines, int]]:
    out, into = os.pipe()
    with os.fdopen(out, "rb") as stream:
        yield StreamLines(stream, wait_seconds=0), into


def test_lines_of_a_stream_come_whole_until_it_ends(pipe: tuple[StreamLines, int]) -> None:
    lines, into = pipe
    taken = iter(lines)
    assert next(taken) is None
    os.write(into, b"a\nb")
    assert next(taken) == Line(b"a\n", None)
    assert next(taken) is None
    os.write(into, b"c\nd")
    os.close(into)
    assert [line.data for line in taken if line] == [b"bc\n", b"d"]


def test_a_stream_without_ends_of_lines_is_not_held(
    pipe: tuple[StreamLines, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow, "LINE_BYTES_MAX", 8)
    monkeypatch.setattr(follow, "STREAM_BYTES", 16)
    lines, into = pipe
    os.write(into, b"x" * 40 + b"\nok\n")
    os.close(into)
    assert [len(line.data) if len(line.data) > 8 else line.data for line in lines if line] == [16, b"ok\n"]
