"""The manifest: files and zeros make up the payload exactly, and names are harmless."""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion import canonical
from palladion.errors import FormatError
from palladion.seal.manifest import (
    ALIGNMENT_BYTES,
    FILES_MAX,
    MANIFEST_BYTES_MAX,
    Manifest,
    check_padding,
    decode_head,
    decode_manifest,
    head_bytes,
)

NAMES = st.lists(st.from_regex(r"\A([a-c]{1,3}|x/[d-f]{1,3})\Z"), min_size=1, max_size=5, unique=True)


def _payload(manifest: Manifest) -> bytearray:
    payload = bytearray(manifest.payload_bytes)
    payload[: len(manifest.head)] = manifest.head
    for entry in manifest.entries:
        payload[entry.offset : entry.end] = b"\xff" * entry.size
    return payload


def _decode(payload: bytes | bytearray) -> Manifest:
    return decode_manifest(memoryview(payload), what="it")


def _with_document(document: Any) -> bytes:
    data = canonical.encode(document)
    return (len(data).to_bytes(4, "little") + data).ljust(ALIGNMENT_BYTES, b"\0")


@pytest.mark.slow
@given(names=NAMES, sizes=st.lists(st.integers(0, 10_000), min_size=5, max_size=5))
def test_manifests_survive_the_round_trip(names: list[str], sizes: list[int]) -> None:
    manifest = Manifest.of_files(list(zip(names, sizes, strict=False)))
    assert all(entry.offset % ALIGNMENT_BYTES == 0 for entry in manifest.entries)
    assert _decode(_payload(manifest)) == manifest


@given(place=st.integers(0), value=st.integers(1, 255))
def test_whatever_parses_encodes_to_the_same_bytes(place: int, value: int) -> None:
    payload = _payload(Manifest.of_files([("a.bin", 5), ("b", 0), ("c/d", 300)]))
    payload[place % 200] ^= value
    try:
        manifest = _decode(payload)
    except FormatError:
        return
    assert payload.startswith(manifest.head)


def _decode_by_pieces(payload: bytes | bytearray, cuts: list[int]) -> Manifest:
    """As a lazy reader does it: the head from as much as holds it, padding piece by piece."""
    length = head_bytes(payload[:4], len(payload), what="it")
    manifest = decode_head(bytes(payload[:length]), len(payload), what="it")
    borders = sorted({0, len(payload), *(cut % (len(payload) + 1) for cut in cuts)})
    for begin, end in pairwise(borders):
        check_padding(manifest, begin, memoryview(payload)[begin:end], what="it")
    return manifest


FILES = st.lists(
    st.one_of(st.integers(0, 3), st.integers(4094, 4098), st.integers(0, 9000)), min_size=1, max_size=6
).map(lambda sizes: [(f"{index}.bin", size) for index, size in enumerate(sizes)])


@given(
    files=FILES,
    cuts=st.lists(st.integers(0), max_size=8),
    changes=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), max_size=2),
)
def test_reading_by_pieces_says_what_reading_at_once_says(
    files: list[tuple[str, int]], cuts: list[int], changes: list[tuple[int, int]]
) -> None:
    payload = _payload(Manifest.of_files(files))
    for place, value in changes:
        payload[place % len(payload)] = value
    by_pieces = _verdict(lambda: _decode_by_pieces(payload, cuts))
    assert by_pieces == _verdict(lambda: _decode(payload))


def _verdict(decode: Callable[[], Manifest]) -> Manifest | str:
    try:
        return decode()
    except FormatError as error:
        return error.message


@given(files=FILES, data=st.data())
def test_a_piece_is_refused_exactly_when_it_holds_the_hidden_byte(
    files: list[tuple[str, int]], data: st.DataObject
) -> None:
    manifest = Manifest.of_files(files)
    payload = _payload(manifest)
    padding = [place for begin, end in manifest.gaps for place in (begin, (begin + end) // 2, end - 1)]
    hidden = data.draw(st.sampled_from(padding)) if padding else None
    if hidden is not None:
        payload[hidden] = 1
    begin, end = sorted(data.draw(st.tuples(*[st.integers(0, len(payload))] * 2)))
    if hidden is not None and begin <= hidden < end:
        with pytest.raises(FormatError, match="hides something"):
            check_padding(manifest, begin, memoryview(payload)[begin:end], what="it")
    else:
        check_padding(manifest, begin, memoryview(payload)[begin:end], what="it")


def test_a_piece_that_holds_one_byte_of_padding_is_looked_at() -> None:
    manifest = Manifest.of_files([("a", 5), ("b", 4097)])
    for begin, end in manifest.gaps:
        for hidden in (begin, begin + 1, end - 1):
            payload = _payload(manifest)
            payload[hidden] = 1
            for first, last in ((hidden, hidden + 1), (hidden - 3, hidden + 1), (hidden, hidden + 3)):
                with pytest.raises(FormatError, match="hides something"):
                    check_padding(manifest, first, memoryview(payload)[first:last], what="it")
            for first, last in ((hidden - 3, hidden), (hidden + 1, hidden + 3), (hidden, hidden)):
                check_padding(manifest, first, memoryview(payload)[first:last], what="it")


@given(files=FILES)
def test_gaps_heads_and_files_make_up_the_whole_payload(files: list[tuple[str, int]]) -> None:
    manifest = Manifest.of_files(files)
    spans = [(0, len(manifest.head)), *manifest.gaps, *((entry.offset, entry.end) for entry in manifest.entries)]
    position = 0
    for begin, end in sorted(span for span in spans if span[0] != span[1]):
        assert begin == position
        position = end
    assert position == manifest.payload_bytes


def test_the_length_of_a_head_is_limited_before_anything_is_read() -> None:
    for length in (0, MANIFEST_BYTES_MAX + 1, 2**32 - 1):
        with pytest.raises(FormatError, match=f"claims a manifest of {length} bytes"):
            head_bytes(length.to_bytes(4, "little"), 2**40, what="it")
    assert head_bytes(MANIFEST_BYTES_MAX.to_bytes(4, "little"), 2**40, what="it") == MANIFEST_BYTES_MAX + 4
    for size in (0, 1, 4, 5):
        with pytest.raises(FormatError, match=f"in a payload of {size}"):
            head_bytes(b"\x02\0\0\0"[:size], size, what="it")


def test_something_hidden_in_the_padding_is_refused() -> None:
    manifest = Manifest.of_files([("a", 5), ("b", 0), ("c", 5000)])
    assert manifest.gaps == ((len(manifest.head), 4096), (4101, 8192))
    for begin, end in manifest.gaps:
        for place in (begin, end - 1):
            payload = _payload(manifest)
            payload[place] = 1
            with pytest.raises(FormatError, match="hides something"):
                _decode(payload)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_payload_of_another_length_is_refused(change: int) -> None:
    payload = bytes(_payload(Manifest.of_files([("a", 5)]))) + b"\0"
    with pytest.raises(FormatError, match="its files end at"):
        _decode(payload[: len(payload) - 1 + change])


@pytest.mark.parametrize("length", [0, 4093, 2**32 - 1])
def test_a_manifest_longer_than_the_payload_is_refused(length: int) -> None:
    with pytest.raises(FormatError, match=f"a manifest of {length} bytes"):
        _decode(length.to_bytes(4, "little").ljust(ALIGNMENT_BYTES, b"\0"))


def test_a_payload_too_short_for_a_manifest_is_refused() -> None:
    for payload in (b"", b"\x01", b"\x01\0\0\0"):
        with pytest.raises(FormatError):
            _decode(payload)


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"files": []},
        {"files": [{"name": "a"}]},
        {"files": [{"name": "a", "size": -1}]},
        {"files": [{"name": "a", "size": 2**53 - 1}]},
        {"files": [{"name": "a", "size": "0"}]},
        {"files": [{"name": "a", "offset": 0, "size": 0}]},
        {"files": [{"name": "a", "size": 0}], "more": 1},
        {"files": [{"name": "a", "size": 0}] * 2},
    ],
)
def test_manifests_of_another_shape_are_refused(document: Any) -> None:
    with pytest.raises(FormatError, match="does not know"):
        _decode(_with_document(document))


UNSAFE = [
    "", ".", "..", "/etc/passwd", "a/../b", "a//b", "a/", "./a", "a\\b", "a\0b", "a\nb", "a\x1b[0m", "a\x85",
    "a\u202eb", "a\ufeff", "x" * 256, "/".join("a" * 33), "/".join(["x" * 200] * 6), "é" * 128,
]  # fmt: skip


@pytest.mark.parametrize("name", UNSAFE)
def test_names_that_could_do_harm_are_refused(name: str) -> None:
    with pytest.raises(FormatError):
        _decode(_with_document({"files": [{"name": name, "size": 0}]}))
    with pytest.raises(ValueError, match="file name"):
        Manifest.of_files([(name, 0)])


@pytest.mark.parametrize("name", ["model.onnx", "..a", "a b", "modèle 模型.onnx", "a/b/c", "x" * 255, "-rf"])
def test_ordinary_names_are_accepted(name: str) -> None:
    assert _decode(_with_document({"files": [{"name": name, "size": 0}]})).entries[0].name == name


@pytest.mark.parametrize("names", [["a", "a"], ["a", "a/b"], ["a/b/c", "a/b"]])
def test_names_that_exclude_each_other_are_refused(names: list[str]) -> None:
    with pytest.raises(ValueError, match="one name, or a file that is also a folder"):
        Manifest.of_files([(name, 0) for name in names])


def test_the_number_of_files_is_limited() -> None:
    assert len(Manifest.of_files([(str(index), 0) for index in range(FILES_MAX)]).entries) == FILES_MAX
    with pytest.raises(ValueError, match="4097 files"):
        Manifest.of_files([(str(index), 0) for index in range(FILES_MAX + 1)])
