"""What goes between the gate and a worker over its pipes: a byte for what it is, and parts with their sizes. Pure.

Both sides cap what they read: a worker may have been taken over by what it was given to compute.
"""

import struct
from collections.abc import Sequence
from typing import Literal

PARTS_MAX = 32_768
FRAME_BYTES_MAX = 2 * 1024**3
_HEAD = struct.Struct("<BI")
_SIZE = struct.Struct("<Q")

# to a worker
PROGRAM, KEYS, DROP, INTERLEAVED, COLUMNS = 1, 2, 3, 4, 5
# from it
READY, ANSWER, REFUSED = 16, 17, 18

Kind = Literal[1, 2, 3, 4, 5, 16, 17, 18]
HEAD_BYTES = _HEAD.size


def head(kind: int, parts: Sequence[bytes]) -> bytes:
    """What goes before the parts themselves."""
    return _HEAD.pack(kind, len(parts)) + b"".join(_SIZE.pack(len(part)) for part in parts)


def parse_head(data: bytes) -> tuple[int, int]:
    """The kind of a frame, and how many bytes its sizes take. Raises ValueError."""
    kind, count = _HEAD.unpack(data)
    if count > PARTS_MAX:
        raise ValueError(f"a frame of {count} parts")
    return kind, count * _SIZE.size


def parse_sizes(data: bytes, *, bytes_max: int = FRAME_BYTES_MAX) -> list[int]:
    """The sizes of a frame's parts. Raises ValueError."""
    sizes = [size for (size,) in _SIZE.iter_unpack(data)]
    if sum(sizes) > bytes_max:
        raise ValueError(f"a frame of {sum(sizes)} bytes")
    return sizes
