"""Reading ahead: few requests where somebody reads on, hardly a byte too much where he does not."""

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import StorageError
from palladion.seal.layout import PARAMETERS
from palladion.seal.lazy import open_lazily
from palladion.seal.reader import open_sealed
from palladion.seal.source import FileSource, read
from palladion.transit.ahead import EAGERNESS, WINDOW_MAX, Ahead, read_ahead
from palladion.transit.places import open_url
from tests.transit.factories import QUICK, SEGMENT, sealed
from tests.transit.servers import serving


class Counting:
    """Bytes in memory that count what is fetched; fails at one offset if it is told to."""

    what = "it"

    def __init__(self, content: bytes, *, head: int = 100) -> None:
        self.content = content
        self.size = len(content)
        self.head = content[:head]
        self.fetched: list[tuple[int, int]] = []
        self.closed = 0
        self.failing: set[int] = set()
        self._lock = threading.Lock()

    def read_into(self, buffer: memoryview, offset: int) -> None:
        with self._lock:
            self.fetched.append((offset, len(buffer)))
            if offset in self.failing:
                self.failing.remove(offset)
                raise StorageError("no")
        buffer[:] = self.content[offset : offset + len(buffer)]

    def close(self) -> None:
        self.closed += 1


def test_a_local_file_is_read_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"content")
    source = FileSource(tmp_path / "x")
    assert read_ahead(source, connections=2) is source
    source.close()


@pytest.mark.slow
@given(reads=st.lists(st.tuples(st.integers(0, 99_999), st.integers(0, 3000)), max_size=30), piece=st.integers(1, 5000))
def test_whatever_is_read_in_whatever_order_is_what_lies_there(reads: list[tuple[int, int]], piece: int) -> None:
    content = os.urandom(100_000)
    source = Ahead(Counting(content), connections=2)
    steady = [(offset, piece) for offset in range(50, 100_000 - piece, piece)][:40]
    for offset, size in [*reads, *steady, *reads]:
        expected = content[offset : offset + size]
        assert read(source, len(expected), offset) == expected
    source.close()


def test_the_end_is_fetched_once() -> None:
    remote = Counting(os.urandom(100_000))
    source = Ahead(remote, connections=2)
    for offset in (99_952, 99_000, 90_000):
        assert read(source, 48, offset) == remote.content[offset : offset + 48]
    assert remote.fetched == [(100_000 - 16 * 1024, 16 * 1024)]


def test_a_steady_reader_finds_pieces_fetched_and_few_are_fetched_in_vain() -> None:
    remote = Counting(os.urandom(200_000))
    source = Ahead(remote, connections=2)
    for number in range(40):
        read(source, 1000, 200 + number * 1000)
    source.close()
    wanted = {200 + number * 1000 for number in range(40)}
    assert wanted <= {offset for offset, _ in remote.fetched}
    assert len(remote.fetched) == len(set(remote.fetched))
    assert len(remote.fetched) - 40 <= min(40 // EAGERNESS, WINDOW_MAX)


def test_nothing_is_fetched_early_that_the_end_brings_anyway() -> None:
    remote = Counting(os.urandom(80_100))
    source = Ahead(remote, connections=2)
    for offset in range(100, 80_100, 1000):
        assert read(source, 1000, offset) == remote.content[offset : offset + 1000]
    source.close()
    assert len(remote.fetched) == 1 + (80_000 - 16 * 1024) // 1000 + 1


@pytest.mark.parametrize("step", [1500, 3000, -1000])
def test_whoever_jumps_gets_nothing_early(step: int) -> None:
    remote = Counting(os.urandom(200_000))
    source = Ahead(remote, connections=2)
    for number in range(40):
        read(source, 1000, 60_000 + number * step)
    source.close()
    assert len(remote.fetched) == 40


def test_threads_that_share_a_file_count_as_one_steady_reader() -> None:
    remote = Counting(os.urandom(200_000))
    source = Ahead(remote, connections=2)
    order = [number ^ 1 for number in range(60)]  # 1, 0, 3, 2 …
    for number in order:
        assert read(source, 1000, 200 + number * 1000) == remote.content[200 + number * 1000 :][:1000]
    source.close()
    assert len(remote.fetched) <= 60 + WINDOW_MAX
    assert len(remote.fetched) == len(set(remote.fetched))


def test_a_piece_that_could_not_be_fetched_early_is_asked_for_again() -> None:
    remote = Counting(os.urandom(200_000))
    source = Ahead(remote, connections=1)
    remote.failing = {200 + 6 * 1000}
    for number in range(12):
        assert read(source, 1000, 200 + number * 1000) == remote.content[200 + number * 1000 :][:1000]
    remote.failing = {200_000 - 17_000}
    with pytest.raises(StorageError):
        read(source, 10, 200_000 - 17_000)
    source.close()
    source.close()
    assert remote.closed == 2


@pytest.mark.slow
def test_a_piece_of_a_file_costs_the_segments_it_lies_in_and_the_two_ends(tmp_path: Path) -> None:
    made = sealed(tmp_path, segments=24)
    with serving({"/x": made.data}) as shelf:
        source = open_url(shelf.url("/x"), limits=QUICK)
        with open_lazily(source, [made.party.identity], made.publishers) as lazy:
            wanted = 12 * PARAMETERS.capacity
            piece = lazy.read("model.bin", wanted, PARAMETERS.capacity)
            requests, fetched = len(shelf.asked), shelf.sent_bytes
            assert len(piece) == PARAMETERS.capacity
    # head, tail, the manifest's segment, and the two that the piece lies in: it does not begin where a segment does
    assert requests <= 5
    assert fetched <= 3 * SEGMENT + 128 * 1024


@pytest.mark.slow
def test_a_whole_file_is_opened_over_few_connections(tmp_path: Path) -> None:
    made = sealed(tmp_path, segments=16)
    with serving({"/x": made.data}) as shelf:
        source = open_url(shelf.url("/x"), limits=QUICK)
        with open_sealed(source, [made.party.identity], made.publishers, threads=2) as opened:
            content = bytes(opened.files["model.bin"])
        source.close()
        assert content == made.party.open(made.path)["model.bin"]
        assert len(shelf.asked) <= 2 + 16
        assert len(shelf.connections) <= QUICK.connections
        assert shelf.sent_bytes < len(made.data) + 256 * 1024
