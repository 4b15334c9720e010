"""Where the parts of a sealed file lie: all follows from its prefix, footer and size (docs/format.md §2).

Pure arithmetic. No length is believed unless all of them together make up the real file size.
"""

from dataclasses import dataclass
from typing import Self

from palladion.errors import FormatError
from palladion.seal import floe
from palladion.seal.header import PREFIX_BYTES

PARAMETERS = floe.Parameters(1024 * 1024)
DIGEST_BYTES = 32
FOOTER_BYTES = 48
TAIL_MAGIC = b"LLAP"
SEGMENTS_MAX = 2**20  # 1 TiB; keeps the digest list, which is read before it is authenticated, below 32 MiB
TRAILER_BYTES_MAX = 4 * 1024 * 1024  # 1,024 post-quantum wraps of 2.4 KB in hex take 2.6 MB


@dataclass(frozen=True)
class Footer:
    """The last 48 bytes: what the reader starts from. `trailer_digest` only finds damage; it proves nothing."""

    body_bytes: int
    trailer_bytes: int
    trailer_digest: bytes

    def encode(self) -> bytes:
        """Body length, trailer length, BLAKE3 of the trailer, tail magic."""
        lengths = self.body_bytes.to_bytes(8, "little") + self.trailer_bytes.to_bytes(4, "little")
        return lengths + self.trailer_digest + TAIL_MAGIC

    @classmethod
    def decode(cls, data: bytes, *, what: str) -> Self:
        """Raises FormatError, naming `what`."""
        if len(data) != FOOTER_BYTES or data[-4:] != TAIL_MAGIC:
            raise FormatError(f"{what} is cut off: it does not end as a sealed file does", "copy it again, whole")
        return cls(int.from_bytes(data[:8], "little"), int.from_bytes(data[8:12], "little"), data[12:44])


@dataclass(frozen=True)
class Layout:
    """Offsets and counts of one sealed file."""

    header_bytes: int
    body_bytes: int
    trailer_bytes: int

    @classmethod
    def of_file(cls, header_bytes: int, footer: Footer, file_bytes: int, *, what: str) -> Self:
        """The layout that the lengths describe. Raises FormatError unless they make up exactly `file_bytes`."""
        if footer.trailer_bytes > TRAILER_BYTES_MAX:
            raise FormatError(
                f"{what} claims a trailer of {footer.trailer_bytes} bytes, at most {TRAILER_BYTES_MAX} are allowed"
            )
        layout = cls(header_bytes, footer.body_bytes, footer.trailer_bytes)
        if layout.file_bytes != file_bytes:
            raise FormatError(
                f"{what} has {file_bytes} bytes, but its lengths add up to {layout.file_bytes}",
                "it was cut off, or something was added: copy it again, whole",
            )
        if not 0 < layout.segments <= SEGMENTS_MAX:
            raise FormatError(f"{what} has {layout.segments} segments, expected 1 to {SEGMENTS_MAX}")
        if layout.segment_bytes(layout.segments - 1) <= floe.OVERHEAD_BYTES:
            raise FormatError(f"{what} ends in an empty segment")
        return layout

    @classmethod
    def of_plaintext(cls, header_bytes: int, plaintext_bytes: int) -> Self:
        """The layout of a file to be written; its trailer is not known yet. Raises ValueError if it is too large."""
        segments = -(-plaintext_bytes // PARAMETERS.capacity)
        if not 0 < segments <= SEGMENTS_MAX:
            raise ValueError(f"{plaintext_bytes} bytes do not fit into 1 to {SEGMENTS_MAX} segments")
        return cls(header_bytes, plaintext_bytes + segments * floe.OVERHEAD_BYTES, 0)

    @property
    def segments(self) -> int:
        """How many encrypted segments the body has."""
        return -(-self.body_bytes // PARAMETERS.segment_bytes)

    @property
    def plaintext_bytes(self) -> int:
        """Bytes of the payload once decrypted."""
        return self.body_bytes - self.segments * floe.OVERHEAD_BYTES

    @property
    def floe_header_offset(self) -> int:
        """Where the FLOE header begins."""
        return PREFIX_BYTES + self.header_bytes

    @property
    def body_offset(self) -> int:
        """Where the first segment begins."""
        return self.floe_header_offset + floe.HEADER_BYTES

    @property
    def digests_offset(self) -> int:
        """Where the list of segment digests begins."""
        return self.body_offset + self.body_bytes

    @property
    def trailer_offset(self) -> int:
        """Where the trailer's JSON begins."""
        return self.digests_offset + self.segments * DIGEST_BYTES

    @property
    def file_bytes(self) -> int:
        """Size of the whole sealed file."""
        return self.trailer_offset + self.trailer_bytes + FOOTER_BYTES

    def segment_offset(self, index: int) -> int:
        """Where segment `index` begins in the file."""
        return self.body_offset + index * PARAMETERS.segment_bytes

    def segment_bytes(self, index: int) -> int:
        """Length of segment `index`: all are full but the last."""
        return min(PARAMETERS.segment_bytes, self.body_bytes - index * PARAMETERS.segment_bytes)

    def is_last(self, index: int) -> bool:
        """Whether segment `index` ends the body."""
        return index == self.segments - 1
