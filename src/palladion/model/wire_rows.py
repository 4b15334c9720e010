"""Rows of numbers on the Protocol Buffers wire: where they end and what they are, without a Python loop over them."""

import numpy as np
from numpy.typing import NDArray

VARINT_BYTES_MAX = 10
CHUNK_BYTES = 64 * 1024  # decoding a chunk of varints takes about 30 times its size in scratch memory
WINDOW_BYTES_MIN = 64  # first guess at the length of a row; doubled while it lasts, so the cost follows the row


def fixed_run(data: NDArray[np.uint8], position: int, tag: int, stride: int) -> tuple[int, int]:
    """End and count of a row of `tag` byte and fixed-width value, `stride` bytes together."""
    count = 0
    window = WINDOW_BYTES_MIN // stride
    while available := min(window, (len(data) - position) // stride):
        same = data[position : position + available * stride : stride] == tag
        found = available if same.all() else int(same.argmin())
        count += found
        position += found * stride
        if found < available:
            break
        window = min(2 * window, CHUNK_BYTES)
    return position, count


def varint_run(data: NDArray[np.uint8], position: int, tag: int) -> tuple[int, int]:
    """End and count of a row of `tag` byte and varint."""
    count = 0
    window = WINDOW_BYTES_MIN
    while position < len(data):
        block = data[position : position + window]
        ends = np.flatnonzero(block < 0x80)
        pairs = len(ends) // 2
        value_ends = ends[1::2][:pairs]
        starts = np.concatenate([[0], value_ends[:-1] + 1])[:pairs]
        same = (ends[::2][:pairs] == starts) & (block[starts] == tag)
        found = pairs if same.all() else int(same.argmin())
        if found:
            count += found
            position += int(value_ends[found - 1]) + 1
        if not pairs or found < pairs:
            break
        window = min(2 * window, CHUNK_BYTES)
    return position, count


def decode_varints(block: NDArray[np.uint8], ends: NDArray[np.intp]) -> NDArray[np.uint64] | None:
    """The varints of `block` that end at `ends`; None if one is longer than 64 bits."""
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    longest = int(lengths.max())
    if longest > VARINT_BYTES_MAX:
        return None
    values = np.zeros(len(ends), np.uint64)
    for place in range(longest):
        here = lengths > place
        part = (block[starts[here] + place] & 0x7F).astype(np.uint64)
        if place == VARINT_BYTES_MAX - 1 and (part > 1).any():
            return None
        values[here] |= part << np.uint64(7 * place)
    return values
