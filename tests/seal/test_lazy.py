"""Lazy reading: every piece is the plaintext's, only its segments are fetched, and nothing unverified comes out."""

import os
import random
import threading
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError, TamperError
from palladion.seal import lazy
from palladion.seal.lazy import SEGMENTS_KEPT, LazyFiles, open_lazily
from palladion.seal.manifest import Manifest
from palladion.seal.memory import PrivateMemory
from palladion.seal.source import FileSource
from tests.seal.factories import CAPACITY, Parts, Party
from tests.seal.test_opening import SpiedSource

# where files end, begin and are empty at, before and behind the borders of segments
SIZES = {
    "first": CAPACITY - 4096,
    "none": 0,
    "folder/short": 5000,
    "folder/none": 0,
    "long": 2 * CAPACITY + 7,
    "last": CAPACITY,
    "end": 0,
}
CONTENTS = {name: random.Random(name).randbytes(size) for name, size in SIZES.items()}


@pytest.fixture(scope="module")
def party() -> Party:
    return Party()


@pytest.fixture(scope="module")
def path(party: Party, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return party.seal(tmp_path_factory.mktemp("lazy") / "x", list(CONTENTS.items()))


@pytest.fixture
def opened(party: Party, path: Path) -> Iterator[LazyFiles]:
    with open_lazily(path, [party.identity], party.publishers) as files:
        yield files


@pytest.fixture
def copy(path: Path, tmp_path: Path) -> Path:
    (tmp_path / "y").write_bytes(path.read_bytes())
    return tmp_path / "y"


@st.composite
def pieces(draw: st.DrawFn) -> tuple[str, int, int]:
    """A file and a range in it; borders of segments and files more often than chance has it."""
    name = draw(st.sampled_from(list(SIZES)))
    size = SIZES[name]
    offset = {entry.name: entry.offset for entry in Manifest.of_files(list(SIZES.items())).entries}[name]
    borders = [place - offset for place in range(0, 6 * CAPACITY, CAPACITY) if 0 <= place - offset <= size]
    places = st.one_of(
        st.integers(0, size),
        st.builds(
            lambda border, change: min(max(border + change, 0), size),
            st.sampled_from([0, *borders, size]),
            st.integers(-2, 2),
        ),
    )
    begin, end = sorted((draw(places), draw(places)))
    return name, begin, end - begin


@pytest.mark.slow
@given(wanted=st.lists(pieces(), min_size=1, max_size=5))
def test_every_piece_is_the_slice_of_the_plaintext(
    party: Party, path: Path, wanted: list[tuple[str, int, int]]
) -> None:
    with open_lazily(path, [party.identity], party.publishers) as files:
        for name, begin, size in wanted:
            assert files.read(name, begin, size) == CONTENTS[name][begin : begin + size]


def test_whole_files_are_read_too_and_are_the_callers_to_change(opened: LazyFiles) -> None:
    assert {name: bytes(opened.read(name)) for name in opened.entries} == CONTENTS
    piece = opened.read("folder/short", 10, 10)
    piece[:] = bytes(10)
    assert opened.read("folder/short", 10, 10) == CONTENTS["folder/short"][10:20]


def test_the_entries_are_those_that_were_sealed_in_their_order(opened: LazyFiles) -> None:
    assert {name: entry.size for name, entry in opened.entries.items()} == SIZES
    assert list(opened.entries) == list(SIZES)
    with pytest.raises(TypeError):
        opened.entries["other"] = opened.entries["long"]  # type: ignore[index]
    assert repr(opened) == f"<LazyFiles {list(SIZES)}>"
    assert (opened.info.header.model, opened.info.segments) == ("fraud", 5)


def test_a_piece_is_read_into_the_callers_memory_and_nothing_around_it(opened: LazyFiles) -> None:
    buffer = bytearray(b"\xaa" * 30)
    opened.read_into("long", memoryview(buffer)[10:20], CAPACITY)
    assert buffer == b"\xaa" * 10 + CONTENTS["long"][CAPACITY : CAPACITY + 10] + b"\xaa" * 10


@pytest.mark.parametrize(
    ("begin", "size"),
    [
        (-1, 1),
        (0, 5001),
        (5000, 1),
        (5001, 0),
        (5001, None),
        (-1, None),
        (0, -1),
        (10, -11),
        (0, 2**62),
        (-(2**62), None),
    ],
)
def test_a_range_that_is_not_in_the_file_is_the_callers_mistake_and_costs_no_memory(
    opened: LazyFiles, begin: int, size: int | None
) -> None:
    tracemalloc.start()
    with pytest.raises(ValueError, match="of folder/short, which has 5000"):
        opened.read("folder/short", begin, size)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100_000


def test_buffers_that_do_not_fit_are_the_callers_mistake(opened: LazyFiles) -> None:
    with pytest.raises(ValueError, match="which has 5000"):
        opened.read_into("folder/short", memoryview(bytearray(5001)))
    with pytest.raises(ValueError, match="which has 5000"):
        opened.read_into("folder/short", memoryview(bytearray(1)), 5000)
    with pytest.raises(ValueError, match="different structures"):
        opened.read_into("folder/short", memoryview(bytearray(8)).cast("I"))
    with pytest.raises(TypeError, match="read-only"):
        opened.read_into("folder/short", memoryview(bytes(8)))


def test_a_file_that_is_not_there_is_a_key_error(opened: LazyFiles) -> None:
    with pytest.raises(KeyError):
        opened.read("folder")


def test_only_the_segments_of_a_piece_are_fetched_and_each_of_them_once(party: Party, path: Path) -> None:
    source = SpiedSource(path)
    with open_lazily(source, [party.identity], party.publishers) as files:
        offsets = [files._opening.structure.layout.segment_offset(index) for index in range(5)]
        begin = 2 * CAPACITY - files.entries["long"].offset
        source.read_at.clear()
        files.read("long", begin - 10, 20)
        assert source.read_at == offsets[1:3]
        files.read("long", begin + 5000, 20)
        files.read("long", begin - 5000, 20)
        files.read("none")
        assert source.read_at == offsets[1:3]


@pytest.mark.slow
def test_a_manifest_longer_than_a_segment_is_read(party: Party, tmp_path: Path) -> None:
    names = [f"{index:04}/" + "n" * 250 for index in range(4096)]
    contents = dict.fromkeys(names, b"") | {names[-1]: os.urandom(10_000), names[7]: b"seven"}
    path = party.seal(tmp_path / "x", list(contents.items()))
    with open_lazily(path, [party.identity], party.publishers) as files:
        assert len(files._manifest.head) > CAPACITY
        assert list(files.entries) == names
        for name in (names[0], names[7], names[-1]):
            assert files.read(name) == contents[name]


def test_no_more_segments_are_kept_than_are_allowed_and_their_memory_is_used_again_and_wiped(
    party: Party, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lazy, "SEGMENTS_KEPT", 2)
    left = _watch(monkeypatch)
    files = open_lazily(path, [party.identity], party.publishers)
    left.clear()
    for name, begin in (("long", 0), ("long", CAPACITY), ("long", 2 * CAPACITY), ("last", CAPACITY - 1)):
        files.read(name, begin, 1)
        assert len(files._kept) <= 2
    assert list(files._kept) == [3, 4]
    assert len(files._spare) == 1
    assert left == []
    files.close()
    # two that are kept and one that is spare, for four segments that were read
    assert len(left) == 3
    assert not any(content.strip(b"\0") for content in left)


@pytest.mark.parametrize("spares", [0, 1])
def test_memory_that_is_not_used_again_is_wiped_at_once(
    party: Party, path: Path, monkeypatch: pytest.MonkeyPatch, spares: int
) -> None:
    monkeypatch.setattr(lazy, "SEGMENTS_KEPT", 1)
    monkeypatch.setattr(lazy, "SPARES_MAX", spares)
    left = _watch(monkeypatch)
    with open_lazily(path, [party.identity], party.publishers) as files:
        left.clear()
        read = files._opening.read
        files.read("first", 0, 1)

        def slowly(index: int, buffer: memoryview) -> memoryview:
            # meanwhile another thread reads another segment
            monkeypatch.setattr(files._opening, "read", read)
            files.read("long", CAPACITY, 1)
            return read(index, buffer)

        monkeypatch.setattr(files._opening, "read", slowly)
        files.read("last", CAPACITY - 1, 1)
        assert (len(files._kept), len(files._spare)) == (1, spares)
        assert len(left) == 2 - spares
    assert len(left) == 3
    assert not any(content.strip(b"\0") for content in left)


def test_who_is_slower_to_fetch_a_segment_gets_the_same_and_one_is_kept(
    party: Party, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with open_lazily(path, [party.identity], party.publishers) as files:
        read = files._opening.read

        def slowly(index: int, buffer: memoryview) -> memoryview:
            monkeypatch.setattr(files._opening, "read", read)
            assert files.read("long", 10, 10) == CONTENTS["long"][10:20]
            return read(index, buffer)

        monkeypatch.setattr(files._opening, "read", slowly)
        assert files.read("long", 10, 10) == CONTENTS["long"][10:20]
        assert (list(files._kept), len(files._spare)) == ([1], 1)
        assert files.read("long", 10, 10) == CONTENTS["long"][10:20]


def test_a_segment_that_is_used_is_kept_longer_than_one_that_is_not(party: Party, tmp_path: Path) -> None:
    path = party.seal(tmp_path / "x", [("a", bytes((SEGMENTS_KEPT + 2) * CAPACITY))])
    source = SpiedSource(path)
    with open_lazily(source, [party.identity], party.publishers) as files:
        for index in range(SEGMENTS_KEPT):
            files.read("a", index * CAPACITY, 1)
        files.read("a", 0, 1)
        files.read("a", SEGMENTS_KEPT * CAPACITY, 1)
        source.read_at.clear()
        files.read("a", 0, 1)
        assert source.read_at == []
        files.read("a", CAPACITY, 1)
        assert len(source.read_at) == 1


def _watch(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What private memory held when it was given back."""
    left: list[bytes] = []
    release = PrivateMemory.release

    def watched(memory: PrivateMemory) -> None:
        left.append(bytes(memory.view))
        release(memory)

    monkeypatch.setattr(PrivateMemory, "release", watched)
    return left


def test_what_is_kept_is_private_and_left_out_of_core_dumps(opened: LazyFiles) -> None:
    opened.read("first", 0, 1)
    (segment,) = opened._kept.values()
    assert isinstance(segment.memory, PrivateMemory)


def test_after_closing_nothing_is_read_and_nothing_is_kept(party: Party, path: Path) -> None:
    source = SpiedSource(path)
    files = open_lazily(source, [party.identity], party.publishers)
    files.read("long", 0, 10)
    files.close()
    files.close()
    assert source.closed >= 1
    assert not files._kept
    for name in ("long", "first"):
        with pytest.raises(ValueError, match="x is closed"):
            files.read(name, 0, 10)
    assert not files._kept


def test_after_closing_nothing_is_read_even_where_the_source_would_go_on(party: Party, path: Path) -> None:
    class Endless(SpiedSource):
        def close(self) -> None:
            self.closed += 1

    source = Endless(path)
    files = open_lazily(source, [party.identity], party.publishers)
    files.read("long", 0, 10)
    files.close()
    source.read_at.clear()
    with pytest.raises(ValueError, match="x is closed"):
        files.read("long", 0, 10)
    assert source.read_at == []
    FileSource.close(source)


def test_closing_while_a_segment_is_fetched_keeps_nothing(
    party: Party, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Closing(FileSource):
        """A source whose file is closed, from another thread, as soon as a segment is read."""

        armed = False

        def read_into(self, buffer: memoryview, offset: int) -> None:
            super().read_into(buffer, offset)
            if self.armed:
                closer = threading.Thread(target=files.close)
                closer.start()
                closer.join()

    left = _watch(monkeypatch)
    source = Closing(path)
    files = open_lazily(source, [party.identity], party.publishers)
    source.armed = True
    begin = 2 * CAPACITY - files.entries["long"].offset
    with pytest.raises(ValueError, match="is closed"):
        files.read("long", begin - 10, 20)
    assert not files._kept
    assert not any(content.strip(b"\0") for content in left)


@pytest.mark.slow
def test_a_reader_never_gets_the_zeros_that_closing_leaves(party: Party, path: Path) -> None:
    whole = CONTENTS["long"]
    for attempt in range(20):
        files = open_lazily(path, [party.identity], party.publishers)
        files.read("long")
        started = threading.Event()
        wrong: list[int] = []

        def read(files: LazyFiles = files, started: threading.Event = started, wrong: list[int] = wrong) -> None:
            while True:
                started.set()
                try:
                    piece = files.read("long", 1, CAPACITY)
                except ValueError:
                    return
                if piece != whole[1 : 1 + CAPACITY]:
                    wrong.append(1)

        readers = [threading.Thread(target=read) for _ in range(2)]
        for reader in readers:
            reader.start()
        started.wait()
        files.close()
        for reader in readers:
            reader.join()
        assert wrong == [], attempt


@pytest.mark.parametrize("kept", [1, SEGMENTS_KEPT])
def test_several_threads_read_at_once(party: Party, path: Path, monkeypatch: pytest.MonkeyPatch, kept: int) -> None:
    monkeypatch.setattr(lazy, "SEGMENTS_KEPT", kept)
    errors: list[object] = []
    with open_lazily(path, [party.identity], party.publishers) as files:

        def read(seed: int) -> None:
            choice = random.Random(seed)
            try:
                for _ in range(25):
                    name = choice.choice(list(SIZES))
                    begin, end = sorted(choice.randint(0, SIZES[name]) for _ in range(2))
                    if files.read(name, begin, end - begin) != CONTENTS[name][begin:end]:
                        errors.append((seed, name, begin, end))
            except Exception as error:
                errors.append((seed, error))
                raise

        threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(files._kept) <= kept
    assert errors == []


@pytest.mark.slow
def test_a_forked_process_reads_on_by_itself(party: Party, path: Path) -> None:
    # a data loader's workers are forked from a process that has opened the file
    with open_lazily(path, [party.identity], party.publishers) as files:
        files.read("long", 0, 10)
        child = os.fork()
        if not child:
            whole = all(files.read(name) == CONTENTS[name] for name in SIZES)
            files.close()
            os._exit(0 if whole else 1)
        assert files.read("long") == CONTENTS["long"]
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        assert files.read("last") == CONTENTS["last"]


def _flip(path: Path, place: int) -> None:
    with path.open("r+b", buffering=0) as stream:
        byte = os.pread(stream.fileno(), 1, place)[0]
        os.pwrite(stream.fileno(), bytes([byte ^ 4]), place)


def test_damage_in_a_segment_that_is_read_is_refused_and_elsewhere_it_is_not_noticed(party: Party, copy: Path) -> None:
    with open_lazily(copy, [party.identity], party.publishers) as files:
        layout, begin = files._opening.structure.layout, 2 * CAPACITY - files.entries["long"].offset
        _flip(copy, layout.segment_offset(2) + 5000)
        assert files.read("long", 0, begin) == CONTENTS["long"][:begin]
        assert files.read("long", begin + CAPACITY, 10) == CONTENTS["long"][begin + CAPACITY :][:10]
        for place, size in ((begin, 1), (begin - 1, 2), (begin + CAPACITY - 1, 2)):
            with pytest.raises(TamperError, match="segment 2 of 5 is not the one listed"):
                files.read("long", place, size)
        assert 2 not in files._kept
        _flip(copy, layout.segment_offset(2) + 5000)
        assert files.read("long", begin, 10) == CONTENTS["long"][begin : begin + 10]


def test_damage_in_the_first_segment_is_refused_at_once_as_the_manifest_lies_there(party: Party, copy: Path) -> None:
    _flip(copy, 16 + 1000 + CAPACITY // 2)
    with pytest.raises(TamperError, match="segment 0 of 5"):
        open_lazily(copy, [party.identity], party.publishers)


def test_a_segment_that_is_signed_and_yet_does_not_authenticate_is_refused(party: Party, copy: Path) -> None:
    parts = Parts.of(copy)
    broken = bytearray(parts.segments[2])
    broken[-1] ^= 1
    parts.segments[2] = bytes(broken)
    parts.redigest().resign(party.signer).write(copy)
    with open_lazily(copy, [party.identity], party.publishers) as files:
        begin = 2 * CAPACITY - files.entries["long"].offset
        assert files.read("long", 0, begin) == CONTENTS["long"][:begin]
        with pytest.raises(TamperError, match=r"segment 2 of .*y does not authenticate"):
            files.read("long", begin, 1)
        assert 2 not in files._kept


def test_padding_that_hides_something_is_refused_when_its_segment_is_read_and_nothing_of_it_comes_out(
    party: Party, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = _watch(monkeypatch)
    with open_lazily(copy, [party.identity], party.publishers) as files:
        begin, end = files._manifest.gaps[1]
        assert (begin // CAPACITY, end // CAPACITY) == (1, 1)
        _hide(files, begin + 1)
        assert files.read("first", 0, 10) == CONTENTS["first"][:10]
        buffer = bytearray(b"\xaa" * 10)
        with pytest.raises(FormatError, match="hides something between its files"):
            files.read_into("folder/short", memoryview(buffer))
        assert buffer == b"\xaa" * 10
        assert 1 not in files._kept
    assert not any(content.strip(b"\0") for content in left)


def _hide(files: LazyFiles, place: int) -> None:
    """Let the payload hold a byte at `place` that is not zero, as only its publisher could."""
    opening = files._opening
    read = opening.read

    def changed(index: int, buffer: memoryview) -> memoryview:
        plaintext = read(index, buffer)
        if index == place // CAPACITY:
            plaintext[place % CAPACITY] = 1
        return plaintext

    opening.read = changed  # type: ignore[method-assign]
