"""Pieces cut by content: the same bytes give the same pieces wherever they lie, whatever blocks they come in."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.sweep import chunks
from palladion.sweep.chunks import SALT_BYTES, WINDOW, Cutter, average_for

SALT = bytes(range(32))
DATA = np.random.default_rng(3).integers(0, 256, 300_000, dtype=np.uint8).tobytes()


def test_pieces_make_up_the_whole_and_keep_to_their_sizes() -> None:
    pieces = list(Cutter(SALT, 1024).pieces([DATA]))
    sizes = [size for _, size in pieces]
    assert sum(sizes) == len(DATA)
    assert all(128 <= size <= 4096 for size in sizes[:-1])
    assert 700 <= np.mean(sizes) <= 1500


@given(st.lists(st.integers(1, 40_000), min_size=1, max_size=30), st.integers(5_000, 60_000))
def test_blocks_make_no_difference(cuts: list[int], block: int) -> None:
    data, cutter = DATA[:120_000], Cutter(SALT, 512)
    whole = list(cutter.pieces([data]))
    parts, at = [], 0
    for cut in cuts:
        parts.append(data[at : at + cut])
        at += cut
    parts.append(data[at:])
    real = chunks.BLOCK_BYTES
    chunks.BLOCK_BYTES = block
    try:
        assert list(cutter.pieces(parts)) == whole
    finally:
        chunks.BLOCK_BYTES = real


@given(st.binary(min_size=0, max_size=3000), st.integers(0, 100_000))
def test_what_lies_before_and_after_changes_few_pieces(before: bytes, begin: int) -> None:
    inside = DATA[begin : begin + 150_000]
    cutter = Cutter(SALT, 512)
    own = [digest for digest, _ in cutter.inner([inside])]
    around = {digest for digest, _ in cutter.pieces([before, inside, b"\7" * 100])}
    missing = sum(digest not in around for digest in own)
    assert missing <= 12  # until the cuts fall together again


def test_the_first_and_the_last_piece_are_not_inner_ones() -> None:
    cutter = Cutter(SALT, 1024)
    assert list(cutter.inner([DATA])) == list(cutter.pieces([DATA]))[1:-1]
    assert list(cutter.inner([DATA[:200]])) == []


def test_a_hash_depends_on_the_window_alone() -> None:
    cutter = Cutter(SALT, 512)
    table = cutter._sums(np.frombuffer(bytes(range(256)), np.uint8))
    assert table.dtype == np.uint32
    slow = []
    single = {byte: int(cutter._sums(np.array([byte], np.uint8))[0]) for byte in range(256)}
    for at in range(100, 140):
        window = DATA[at - WINDOW + 1 : at + 1]
        slow.append(sum(single[byte] << (WINDOW - 1 - index) for index, byte in enumerate(window)) % 2**32)
    assert cutter._sums(np.frombuffer(DATA[:200], np.uint8))[100:140].tolist() == slow


def test_another_salt_cuts_and_hashes_otherwise() -> None:
    one = {digest for digest, _ in Cutter(SALT, 1024).pieces([DATA])}
    other = {digest for digest, _ in Cutter(bytes(32), 1024).pieces([DATA])}
    assert not one & other


def test_pieces_are_as_small_as_a_version_needs() -> None:
    assert average_for(1000) == 256
    assert average_for(512 * 4096) == 4096
    assert average_for(10**12) == 16_384


def test_what_is_no_cutter_is_refused() -> None:
    with pytest.raises(ValueError, match="a salt has"):
        Cutter(b"x", 1024)
    with pytest.raises(ValueError, match="power of two"):
        Cutter(bytes(SALT_BYTES), 1000)
    assert list(Cutter(SALT, 256).pieces([])) == []
