"""The ledger's files in C2SP tlog-tiles layout: where a tile or entry bundle lies, and what its bytes mean.

`tile/<level>/<index>` holds 256 hashes, `tile/entries/<index>` 256 entries; a rightmost one that is not full yet
lies at `….p/<width>`. Bytes in, bytes out; `reader` and `writer` do the reading and writing.
"""

from collections.abc import Iterable, Sequence

from palladion.errors import FormatError
from palladion.ledger.merkle import HASH_BYTES

TILE_WIDTH = 256
TILE_LEVELS = 8  # tree levels that a tile spans
LEVELS_MAX = 64
ENTRY_BYTES_MAX = 0xFFFF  # an entry's length is written in two bytes
BUNDLE_BYTES_MAX = TILE_WIDTH * (ENTRY_BYTES_MAX + 2)
TILE_BYTES_MAX = TILE_WIDTH * HASH_BYTES


def tile_path(level: int | str, index: int, width: int = TILE_WIDTH) -> str:
    """The relative path of tile `index` at `level` (`entries` for bundles), full or of `width` elements."""
    groups = [f"{index % 1000:03d}"]
    while index >= 1000:
        index //= 1000
        groups.insert(0, f"x{index % 1000:03d}")
    suffix = "" if width == TILE_WIDTH else f".p/{width}"
    return f"tile/{level}/{'/'.join(groups)}{suffix}"


def tiles_of(count: int) -> Iterable[tuple[int, int]]:
    """Index and width of each tile that holds `count` elements."""
    for index in range(count // TILE_WIDTH):
        yield index, TILE_WIDTH
    if count % TILE_WIDTH:
        yield count // TILE_WIDTH, count % TILE_WIDTH


def width_of(index: int, count: int) -> int:
    """The width of tile `index` when its level holds `count` elements. Raises ValueError if it has none."""
    width = min(TILE_WIDTH, count - index * TILE_WIDTH)
    if index < 0 or width <= 0:
        raise ValueError(f"tile {index} does not exist among {count} elements")
    return width


def encode_bundle(entries: Sequence[bytes]) -> bytes:
    """Entries with a two-byte big-endian length before each. Raises ValueError on one that is too long."""
    longest = max(map(len, entries), default=0)
    if longest > ENTRY_BYTES_MAX:
        raise ValueError(f"an entry of {longest} bytes does not fit, at most {ENTRY_BYTES_MAX} do")
    return b"".join([len(entry).to_bytes(2, "big") + entry for entry in entries])


def decode_bundle(data: bytes, width: int, *, what: str) -> list[bytes]:
    """The `width` entries of a bundle. Raises FormatError, naming `what`, if it holds fewer, more, or half a one."""
    entries, end = split_entries(data, width)
    if len(entries) < width:
        raise FormatError(f"{what} ends after {len(entries)} whole entries, {width} were expected")
    if end != len(data):
        raise FormatError(f"{what} goes on after its {width} entries")
    return entries


def split_entries(data: bytes, count_max: int) -> tuple[list[bytes], int]:
    """The whole entries at the beginning of `data`, at most `count_max`, and where the last of them ends."""
    entries: list[bytes] = []
    append, end, last = entries.append, 0, len(data) - 2
    for _ in range(count_max):
        if end > last:
            break
        start = end + 2
        after = start + (data[end] << 8 | data[end + 1])
        if after > last + 2:
            break
        append(data[start:after])
        end = after
    return entries, end


def decode_hashes(data: bytes, width: int, *, what: str) -> list[bytes]:
    """The `width` hashes of a tile. Raises FormatError, naming `what`, if there is another number of bytes."""
    if len(data) != width * HASH_BYTES:
        raise FormatError(f"{what} has {len(data)} bytes, {width * HASH_BYTES} were expected")
    return [data[position : position + HASH_BYTES] for position in range(0, len(data), HASH_BYTES)]
