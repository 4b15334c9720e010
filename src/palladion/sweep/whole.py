"""Whether what begins as a sealed file is one to its end: its shape, its publisher's signature, its first segment."""

from collections.abc import Iterable

from palladion.errors import FormatError
from palladion.seal.structure import opened, read_segment
from palladion.sweep.item import Item


class ItemSource:
    """An item as a place that the reader of sealed files takes."""

    def __init__(self, item: Item) -> None:
        self.what = item.place
        self.size = item.size
        self._item = item

    def read_into(self, buffer: memoryview, offset: int) -> None:
        """Fill `buffer` with the bytes from `offset` on. Raises FormatError where there are fewer."""
        data = self._item.read(offset, len(buffer))
        if len(data) != len(buffer):
            raise FormatError(f"{self.what} became shorter while it was read")
        buffer[:] = data

    def close(self) -> None:
        """Nothing is held open."""


def check_sealed(item: Item, publishers: Iterable[bytes]) -> None:
    """Raise FormatError or TamperError where it is not a sealed file, or not what one of `publishers` signed.

    Without publishers, raw keys, its signature is not looked at. Reads the digests and 1 MiB, not all of it: that is
    what `palladion verify` is for. Of an item that is not whole nothing can be said.
    """
    if not item.whole:
        return
    pinned = list(publishers)
    with opened(ItemSource(item)) as (source, structure):
        if pinned:
            structure.verify_publisher(pinned)
        if structure.layout.segments:
            buffer = memoryview(bytearray(structure.layout.segment_bytes(0)))
            read_segment(source, structure, 0, buffer)
