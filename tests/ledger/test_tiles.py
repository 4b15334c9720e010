"""Tile paths and bundles as c2sp.org/tlog-tiles has them."""

import base64
import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
from palladion.ledger.record import encode_record
from palladion.ledger.tiles import (
    ENTRY_BYTES_MAX,
    decode_bundle,
    decode_hashes,
    encode_bundle,
    split_entries,
    tile_path,
    tiles_of,
    width_of,
)

from .ledgers import ORIGIN, make, record


def test_paths_are_those_of_the_specification() -> None:
    assert tile_path(0, 1234067) == "tile/0/x001/x234/067"
    assert tile_path(1, 0, 17) == "tile/1/000.p/17"
    assert tile_path("entries", 999) == "tile/entries/999"
    assert tile_path("entries", 1000, 255) == "tile/entries/x001/000.p/255"


def test_the_tiles_of_a_tree_of_70000_are_those_of_the_specification() -> None:
    levels = [list(tiles_of(70_000 >> (8 * level))) for level in range(3)]
    assert [(len(tiles), tiles[-1][1]) for tiles in levels] == [(274, 112), (2, 17), (1, 1)]
    assert list(tiles_of(256)) == [(0, 256)]
    assert list(tiles_of(0)) == []


def test_the_width_of_a_tile_that_does_not_exist_is_an_error() -> None:
    assert width_of(0, 3) == 3
    assert width_of(1, 300) == 44
    for index, count in ((1, 256), (-1, 5), (0, 0)):
        with pytest.raises(ValueError, match="does not exist"):
            width_of(index, count)


@given(st.lists(st.binary(max_size=50), max_size=20))
def test_bundles_read_back(entries: list[bytes]) -> None:
    assert decode_bundle(encode_bundle(entries), len(entries), what="it") == entries


@given(st.binary(max_size=200), st.integers(0, 5))
def test_whatever_is_read_as_a_bundle_encodes_to_the_same_bytes(data: bytes, width: int) -> None:
    try:
        entries = decode_bundle(data, width, what="it")
    except FormatError:
        return
    assert encode_bundle(entries) == data


@pytest.mark.parametrize(("data", "width"), [(b"\x00", 1), (b"\x00\x02a", 1), (b"", 1), (b"\x00\x01aa", 1), (b"a", 0)])
def test_a_bundle_with_too_few_or_too_many_bytes_is_refused(data: bytes, width: int) -> None:
    with pytest.raises(FormatError, match="it "):
        decode_bundle(data, width, what="it")


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(0, 25), st.binary(max_size=1))
def test_the_whole_entries_of_a_cut_bundle_are_those_before_the_cut(
    entries: list[bytes], count_max: int, rest: bytes
) -> None:
    kept = entries[:count_max]
    assert split_entries(encode_bundle(entries) + rest, count_max) == (kept, len(encode_bundle(kept)))


def test_an_entry_that_its_length_cannot_say_is_refused() -> None:
    assert len(encode_bundle([bytes(ENTRY_BYTES_MAX)])) == ENTRY_BYTES_MAX + 2
    with pytest.raises(ValueError, match="does not fit"):
        encode_bundle([bytes(ENTRY_BYTES_MAX + 1)])


def test_a_tile_of_another_length_is_refused() -> None:
    assert decode_hashes(bytes(64), 2, what="it") == [bytes(32), bytes(32)]
    for length in (63, 65, 0):
        with pytest.raises(FormatError, match="it has"):
            decode_hashes(bytes(length), 2, what="it")


@pytest.mark.parametrize(
    ("data", "entries", "end"),
    [
        (b"\0\2ab\0\0\0\1c", [b"ab", b"", b"c"], 9),
        (b"\0\2ab\0\2c", [b"ab"], 4),
        (b"\0\2ab\0", [b"ab"], 4),
        (b"\0\2a", [], 0),
        (b"\0", [], 0),
        (b"", [], 0),
        (b"\0\1a" * 5, [b"a"] * 4, 12),
    ],
)
def test_only_whole_entries_are_split_off(data: bytes, entries: list[bytes], end: int) -> None:
    assert split_entries(data, 4) == (entries, end)


def _naive_path(level: str, number: int, width: int) -> str:
    """Written anew from c2sp.org/tlog-tiles: three digits at a time, an x before all but the last."""
    text = str(number)
    text = "0" * (-len(text) % 3) + text
    parts = [text[place : place + 3] for place in range(0, len(text), 3)]
    name = "/".join([f"x{part}" for part in parts[:-1]] + parts[-1:])
    return f"tile/{level}/{name}" + (f".p/{width}" if width < 256 else "")


def _naive_root(leaves: list[bytes]) -> bytes:
    """RFC 6962 §2.1."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1
    while half * 2 < len(leaves):
        half *= 2
    return hashlib.sha256(b"\x01" + _naive_root(leaves[:half]) + _naive_root(leaves[half:])).digest()


@pytest.mark.parametrize("size", [1, 255, 256, 600])
def test_another_implementation_reads_the_files_that_we_write(size: int, tmp_path: Path) -> None:
    make(tmp_path / "l", size)
    origin, stated, root, *_ = (tmp_path / "l" / "checkpoint").read_text(encoding="utf-8").split("\n")
    assert (origin, stated) == (ORIGIN, str(size))
    leaves: list[bytes] = []
    for number in range((size + 255) // 256):
        width = min(256, size - 256 * number)
        data = (tmp_path / "l" / _naive_path("entries", number, width)).read_bytes()
        hashes = (tmp_path / "l" / _naive_path("0", number, width)).read_bytes()
        for place in range(width):
            length = int.from_bytes(data[:2], "big")
            entry, data = data[2 : 2 + length], data[2 + length :]
            assert entry == encode_record(record(len(leaves)))
            leaves.append(hashlib.sha256(b"\x00" + entry).digest())
            assert hashes[32 * place : 32 * place + 32] == leaves[-1]
        assert data == b""
    assert _naive_root(leaves) == base64.b64decode(root)
    if size >= 256:
        above = (tmp_path / "l" / _naive_path("1", 0, size // 256)).read_bytes()
        assert above == b"".join(_naive_root(leaves[start : start + 256]) for start in range(0, size - 255, 256))
