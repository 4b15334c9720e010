"""Scattering: every file lands in its own memory, whatever its size, and an error is never taken for success."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from palladion.errors import FormatError, TamperError
from palladion.seal import scatter
from palladion.seal.manifest import Manifest
from palladion.seal.opening import Opening, begun
from palladion.seal.source import FileSource
from tests.seal.factories import CAPACITY, Parts, Party

# files that end, begin or are empty around the borders of segments; the first begins at 4,096
sizes_around_borders = st.one_of(
    st.integers(0, 3),
    st.builds(lambda border, change: border + change, st.sampled_from([4096, 8192]), st.integers(-2, 2)),
    st.builds(
        lambda segments, less, change: segments * CAPACITY - less + change,
        st.integers(1, 2),
        st.sampled_from([0, 4096, 8192]),
        st.integers(-2, 2),
    ),
)


@pytest.fixture(scope="module")
def party() -> Party:
    return Party()


def _scatter(party: Party, path: Path, *, threads: int | None = None) -> dict[str, bytes]:
    with begun(path, [party.identity], party.publishers) as opening:
        manifest = opening.manifest()
        targets = [bytearray(b"\xaa" * entry.size) for entry in manifest.entries]
        scatter.read_into(opening, manifest, [memoryview(target) for target in targets], threads=threads)
        return {entry.name: bytes(target) for entry, target in zip(manifest.entries, targets, strict=True)}


@pytest.mark.slow
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], max_examples=15)
@given(sizes=st.lists(sizes_around_borders, min_size=1, max_size=6), threads=st.sampled_from([1, 2, 3]))
def test_files_of_any_sizes_land_whole(party: Party, tmp_path: Path, sizes: Sequence[int], threads: int) -> None:
    files = {f"{index}.bin": os.urandom(size) for index, size in enumerate(sizes)}
    path = party.seal(tmp_path / os.urandom(8).hex(), list(files.items()))
    try:
        assert _scatter(party, path, threads=threads) == files
    finally:
        path.unlink()


@pytest.mark.slow
def test_thousands_of_small_and_empty_files_land_whole(party: Party, tmp_path: Path) -> None:
    files = {f"{index}/{index % 7}.bin": bytes([index % 251]) * (index % 3) for index in range(1000)}
    assert _scatter(party, party.seal(tmp_path / "x", list(files.items()))) == files


@pytest.mark.slow
def test_a_manifest_longer_than_a_segment_lands_nowhere(party: Party, tmp_path: Path) -> None:
    names = [f"{index:04}/" + "n" * 250 for index in range(4096)]
    files = dict.fromkeys(names, b"") | {names[-1]: os.urandom(5000)}
    assert _scatter(party, party.seal(tmp_path / "x", list(files.items()))) == files


def test_nothing_but_the_files_is_written_to_the_targets(party: Party, tmp_path: Path) -> None:
    files = {"a": os.urandom(CAPACITY), "b": b"", "c": os.urandom(77)}
    path = party.seal(tmp_path / "x", list(files.items()))
    around = bytearray(b"\xaa" * (CAPACITY + 1000))
    with begun(path, [party.identity], party.publishers) as opening:
        view = memoryview(around)
        targets = [view[100 : 100 + CAPACITY], view[50:50], view[CAPACITY + 200 : CAPACITY + 277]]
        scatter.read_into(opening, opening.manifest(), targets)
    expected = bytearray(b"\xaa" * len(around))
    expected[100 : 100 + CAPACITY] = files["a"]
    expected[CAPACITY + 200 : CAPACITY + 277] = files["c"]
    assert around == expected


@pytest.mark.parametrize("sizes", [[], [10], [10, 5], [10, 4], [10, 6, 0], [9, 6], [6, 10]])
def test_targets_of_other_sizes_are_the_callers_mistake_and_nothing_is_read(
    party: Party, tmp_path: Path, sizes: list[int]
) -> None:
    path = party.seal(tmp_path / "x", [("a", b"1" * 10), ("b", b"2" * 6)])
    with begun(path, [party.identity], party.publishers) as opening:
        targets = [bytearray(size) for size in sizes]
        with pytest.raises(ValueError, match="other sizes than the files"):
            scatter.read_into(opening, opening.manifest(), [memoryview(target) for target in targets])
        assert not any(any(target) for target in targets)


def test_targets_that_count_otherwise_than_in_bytes_are_the_callers_mistake(party: Party, tmp_path: Path) -> None:
    path = party.seal(tmp_path / "x", [("a", b"1" * 8)])
    with begun(path, [party.identity], party.publishers) as opening:
        manifest = opening.manifest()
        for array in (np.zeros(2, np.uint32), np.zeros(8, np.uint32), np.zeros((8, 1), np.uint8)):
            with pytest.raises((ValueError, NotImplementedError)):
                scatter.read_into(opening, manifest, [array.data])
            assert not array.any()
        with pytest.raises(TypeError, match="read-only"):
            scatter.read_into(opening, manifest, [memoryview(bytes(8))])


def _damage(path: Path, opening: Opening, segment: int) -> None:
    place = opening.structure.layout.segment_offset(segment) + 200
    with path.open("r+b", buffering=0) as stream:
        byte = os.pread(stream.fileno(), 1, place)[0]
        os.pwrite(stream.fileno(), bytes([byte ^ 1]), place)


@pytest.mark.slow
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("segment", [0, 1, 2, 3])
@pytest.mark.parametrize("signed", [False, True], ids=["changed", "signed but not authentic"])
def test_damage_in_any_segment_is_refused_and_none_of_it_lands(
    party: Party, tmp_path: Path, segment: int, threads: int, signed: bool
) -> None:
    content = b"\x55" * (3 * CAPACITY + 100)
    path = party.seal(tmp_path / "x", [("a", content)])
    if signed:
        parts = Parts.of(path)
        broken = bytearray(parts.segments[segment])
        broken[-1] ^= 1
        parts.segments[segment] = bytes(broken)
        parts.redigest().resign(party.signer).write(path)
    manifest = Manifest.of_files([("a", len(content))])
    with begun(path, [party.identity], party.publishers) as opening:
        if not signed:
            _damage(path, opening, segment)
        target = bytearray(b"\xaa" * len(content))
        with pytest.raises(TamperError, match=f"segment {segment} of"):
            scatter.read_into(opening, manifest, [memoryview(target)], threads=threads)
    begin = max(segment * CAPACITY - 4096, 0)
    end = min((segment + 1) * CAPACITY - 4096, len(content))
    assert target[begin:end] == b"\xaa" * (end - begin)
    # the rest is what was verified, or what it was before
    assert all(set(target[place : place + 4096]) <= {0x55, 0xAA} for place in range(0, len(target), 4096))
    if threads == 1:
        assert target[:begin] == content[:begin]
        assert target[end:] == b"\xaa" * (len(content) - end)


def test_padding_that_hides_something_is_refused(party: Party, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = party.seal(tmp_path / "x", [("a", b"1" * (2 * CAPACITY)), ("b", b"2")])
    with begun(path, [party.identity], party.publishers) as opening:
        manifest = opening.manifest()
        decrypt = opening.decrypt
        for gap in manifest.gaps:
            for place in (gap[0], gap[1] - 1):

                def changed(index: int, segment: memoryview, plaintext: memoryview, place: int = place) -> None:
                    decrypt(index, segment, plaintext)
                    if index == place // CAPACITY:
                        plaintext[place % CAPACITY] = 1

                monkeypatch.setattr(opening, "decrypt", changed)
                target = bytearray(1)
                with pytest.raises(FormatError, match="hides something"):
                    scatter.read_into(
                        opening, manifest, [memoryview(bytearray(2 * CAPACITY)), memoryview(target)], threads=1
                    )


def test_a_source_that_fails_in_the_middle_is_no_success(party: Party, tmp_path: Path) -> None:
    path = party.seal(tmp_path / "x", [("a", os.urandom(2 * CAPACITY))])
    source = FileSource(path)
    with begun(source, [party.identity], party.publishers) as opening:
        manifest = opening.manifest()
        os.truncate(path, opening.structure.layout.segment_offset(1))
        with pytest.raises(FormatError, match="became shorter"):
            scatter.read_into(opening, manifest, [memoryview(bytearray(2 * CAPACITY))])


def test_progress_ends_at_the_whole(party: Party, tmp_path: Path) -> None:
    path = party.seal(tmp_path / "x", [("a", bytes(2 * CAPACITY))])
    seen: list[tuple[int, int]] = []
    with begun(path, [party.identity], party.publishers) as opening:
        scatter.read_into(
            opening,
            opening.manifest(),
            [memoryview(bytearray(2 * CAPACITY))],
            progress=lambda done, total: seen.append((done, total)),
        )
    assert seen[-1][0] == seen[-1][1] > 2 * CAPACITY
