"""Rows on the wire against a naive loop over their bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from palladion.model import wire_rows
from tests.model.wire import varint

TAG = 0x28  # field 5, varint


def naive_varint_run(data: bytes, position: int) -> tuple[int, int]:
    count = 0
    while position < len(data) and data[position] == TAG:
        end = position + 1
        while end < len(data) and data[end] & 0x80:
            end += 1
        if end == len(data):
            break
        position, count = end + 1, count + 1
    return position, count


def view(data: bytes) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(data, np.uint8)


@given(
    st.lists(st.integers(0, 2**64 - 1), max_size=80),
    st.binary(max_size=12),
    st.sampled_from([8, wire_rows.CHUNK_BYTES]),
)
def test_a_row_of_varints_ends_where_a_byte_by_byte_reader_says(values: list[int], rest: bytes, chunk: int) -> None:
    data = b"".join(bytes([TAG]) + varint(value) for value in values) + rest
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wire_rows, "CHUNK_BYTES", max(chunk, wire_rows.WINDOW_BYTES_MIN))
        assert wire_rows.varint_run(view(data), 0, TAG) == naive_varint_run(data, 0)


@given(st.integers(0, 200), st.integers(0, 4), st.sampled_from([5, 9]))
def test_a_row_of_fixed_values_ends_at_the_first_other_tag_or_a_cut_value(count: int, cut: int, stride: int) -> None:
    row = (bytes([TAG]) + bytes(stride - 1)) * count
    data = row + bytes([TAG]) + bytes(cut % (stride - 1))
    assert wire_rows.fixed_run(view(data), 0, TAG, stride) == (len(row), count)
    other = row + bytes([TAG + 1]) + bytes(stride)
    assert wire_rows.fixed_run(view(other), 0, TAG, stride) == (len(row), count)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50))
def test_varints_decode_to_what_was_encoded(values: list[int]) -> None:
    encoded = [varint(value) for value in values]
    ends = np.cumsum([len(item) for item in encoded]) - 1
    decoded = wire_rows.decode_varints(view(b"".join(encoded)), ends)
    assert decoded is not None
    assert decoded.tolist() == values


@pytest.mark.parametrize("data", [b"\xff" * 9 + b"\x02", b"\x80" * 10 + b"\x00"])
def test_a_varint_beyond_64_bits_is_not_a_number(data: bytes) -> None:
    assert wire_rows.decode_varints(view(data), np.array([len(data) - 1])) is None
