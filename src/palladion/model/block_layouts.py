"""How ggml's quantised types lay out a block: codes, and the grid they stand on (ggml/src/ggml-common.h, `block_*`).

A weight is step × (code - zero) + minimum; the weights of a group share step and minimum. Codes are unsigned here.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Bytes: TypeAlias = NDArray[Any]  # of uint8; NumPy's stubs call what remains after `& 15` signed
Floats: TypeAlias = NDArray[np.float32]

# Steps and minima of the groups of n blocks (n, groups); no minima: they are all 0.
Grid: TypeAlias = tuple[Floats, Floats | None]


@dataclass(frozen=True)
class BlockLayout:
    """One type: `unpack` takes blocks (n, bytes) to codes (n, elements), `pack` writes codes back into blocks.

    Codes lie from `lowest` to `highest`. `grid` says where they stand.
    """

    unpack: Callable[[Bytes], Bytes]
    pack: Callable[[Bytes, Bytes], None]
    grid: Callable[[Bytes], Grid]
    zero: int
    highest: int
    lowest: int = 0


def _halves(blocks: Bytes, at: int) -> Floats:
    """The float16 at byte `at` of each block (n, 1)."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(part: Bytes, run: int) -> Bytes:
    """The low nibbles of `run` bytes, then their high ones, and so on (n, 2 × bytes)."""
    grouped = part.reshape(len(part), -1, 1, run)
    return np.concatenate([grouped & 15, grouped >> 4], axis=2).reshape(len(part), -1)


def _to_nibbles(codes: Bytes, run: int) -> Bytes:
    grouped = codes.reshape(len(codes), -1, 2, run)
    joined: Bytes = (grouped[:, :, 0] & 15) | (grouped[:, :, 1] << 4)
    return joined.reshape(len(codes), -1)


def _pairs(part: Bytes) -> Bytes:
    """The lowest two bits of 32 bytes, then the next two, and so on (n, 4 × bytes)."""
    grouped = part.reshape(len(part), -1, 1, 32)
    return np.concatenate([(grouped >> shift) & 3 for shift in (0, 2, 4, 6)], axis=2).reshape(len(part), -1)


def _to_pairs(codes: Bytes) -> Bytes:
    grouped = (codes & 3).reshape(len(codes), -1, 4, 32)
    joined: Bytes = grouped[:, :, 0] | (grouped[:, :, 1] << 2) | (grouped[:, :, 2] << 4) | (grouped[:, :, 3] << 6)
    return joined.reshape(len(codes), -1)


def _bits(part: Bytes) -> Bytes:
    """The lowest bits of 32 bytes, then the next ones, and so on (n, 256)."""
    return np.concatenate([(part >> shift) & 1 for shift in range(8)], axis=1)


def _to_bits(codes: Bytes) -> Bytes:
    """The reverse, of the lowest bit of each code (n, 256)."""
    grouped = (codes & 1).reshape(len(codes), 8, 32) << np.arange(8, dtype=np.uint8)[:, None]
    joined: Bytes = np.bitwise_or.reduce(grouped, axis=1)
    return joined


def _q4(head: int, *, zero: int) -> BlockLayout:
    def pack(codes: Bytes, blocks: Bytes) -> None:
        blocks[:, head:] = _to_nibbles(codes, 16)

    return BlockLayout(lambda blocks: _nibbles(blocks[:, head:], 16), pack, _plain_grid(head), zero, 15)


def _q5(head: int, *, zero: int) -> BlockLayout:
    # the fifth bits of all 32 codes stand in front, as one number
    def unpack(blocks: Bytes) -> Bytes:
        high = np.unpackbits(np.ascontiguousarray(blocks[:, head : head + 4]), axis=1, bitorder="little")
        codes: Bytes = _nibbles(blocks[:, head + 4 :], 16) | (high << 4)
        return codes

    def pack(codes: Bytes, blocks: Bytes) -> None:
        blocks[:, head : head + 4] = np.packbits(codes >> 4, axis=1, bitorder="little")
        blocks[:, head + 4 :] = _to_nibbles(codes, 16)

    return BlockLayout(unpack, pack, _plain_grid(head), zero, 31)


def _q8() -> BlockLayout:
    def pack(codes: Bytes, blocks: Bytes) -> None:
        blocks[:, 2:] = codes ^ 128

    # -128 is never used: kernels take the absolute value in 8 bits
    return BlockLayout(lambda blocks: blocks[:, 2:] ^ 128, pack, _plain_grid(2), 128, 255, 1)


def _plain_grid(head: int) -> Callable[[Bytes], Grid]:
    """A step, and where the head of a block is longer than 2 bytes, a minimum."""
    return lambda blocks: (_halves(blocks, 0), _halves(blocks, 2) if head > 2 else None)


def _q2_k() -> BlockLayout:
    def pack(codes: Bytes, blocks: Bytes) -> None:
        blocks[:, 16:80] = _to_pairs(codes)

    def grid(blocks: Bytes) -> Grid:
        scales = blocks[:, :16]
        return _halves(blocks, 80) * (scales & 15), -_halves(blocks, 82) * (scales >> 4)

    return BlockLayout(lambda blocks: _pairs(blocks[:, 16:80]), pack, grid, 0, 3)


def _q3_k() -> BlockLayout:
    def unpack(blocks: Bytes) -> Bytes:
        codes: Bytes = _pairs(blocks[:, 32:96]) | (_bits(blocks[:, :32]) << 2)
        return codes

    def pack(codes: Bytes, blocks: Bytes) -> None:
        blocks[:, :32] = _to_bits(codes >> 2)
        blocks[:, 32:96] = _to_pairs(codes)

    def grid(blocks: Bytes) -> Grid:
        low = _nibbles(blocks[:, 96:104], 8)
        high = np.concatenate([(blocks[:, 104:108] >> shift) & 3 for shift in (0, 2, 4, 6)], axis=1)
        scales = (low | (high << 4)).astype(np.float32) - 32
        return _halves(blocks, 108) * scales, None

    return BlockLayout(unpack, pack, grid, 4, 7)


def _q4_k() -> BlockLayout:
    def pack(codes: Bytes, blocks: Bytes) -> None:
        blocks[:, 16:] = _to_nibbles(codes, 32)

    return BlockLayout(lambda blocks: _nibbles(blocks[:, 16:], 32), pack, _six_bit_grid, 0, 15)


def _q5_k() -> BlockLayout:
    def unpack(blocks: Bytes) -> Bytes:
        codes: Bytes = _nibbles(blocks[:, 48:], 32) | (_bits(blocks[:, 16:48]) << 4)
        return codes

    def pack(codes: Bytes, blocks: Bytes) -> None:
        blocks[:, 16:48] = _to_bits(codes >> 4)
        blocks[:, 48:] = _to_nibbles(codes, 32)

    return BlockLayout(unpack, pack, _six_bit_grid, 0, 31)


def _six_bit_grid(blocks: Bytes) -> Grid:
    """Eight scales and eight minima of six bits: four of each whole, and above them the top bits of the others."""
    first, second, rest = blocks[:, 4:8], blocks[:, 8:12], blocks[:, 12:16]
    scales = np.concatenate([first & 63, (rest & 15) | ((first >> 6) << 4)], axis=1)
    minima = np.concatenate([second & 63, (rest >> 4) | ((second >> 6) << 4)], axis=1)
    return _halves(blocks, 0) * scales, -_halves(blocks, 2) * minima


def _q6_k() -> BlockLayout:
    def unpack(blocks: Bytes) -> Bytes:
        codes: Bytes = _nibbles(blocks[:, :128], 64) | (_pairs(blocks[:, 128:192]) << 4)
        return codes

    def pack(codes: Bytes, blocks: Bytes) -> None:
        blocks[:, :128] = _to_nibbles(codes, 64)
        blocks[:, 128:192] = _to_pairs(codes >> 4)

    def grid(blocks: Bytes) -> Grid:
        return _halves(blocks, 208) * blocks[:, 192:208].view(np.int8), None

    return BlockLayout(unpack, pack, grid, 32, 63)


LAYOUTS: Mapping[str, BlockLayout] = {
    "q4_0": _q4(2, zero=8),
    "q4_1": _q4(4, zero=0),
    "q5_0": _q5(2, zero=16),
    "q5_1": _q5(4, zero=0),
    "q8_0": _q8(),
    "q2_k": _q2_k(),
    "q3_k": _q3_k(),
    "q4_k": _q4_k(),
    "q5_k": _q5_k(),
    "q6_k": _q6_k(),
}
