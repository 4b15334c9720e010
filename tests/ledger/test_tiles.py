"""Tile paths and bundles as c2sp.org/tlog-tiles has them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.errors import FormatError
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
