"""FLOE: encryption of a long message in segments that can be read in any order (c2sp.org/FLOE, ePrint 2025/2275).

Bytes in, bytes out; no files. Owns the FLOE header, segments and key derivation; what the associated data holds, how
many segments there are and which is the last is for the caller to know: see docs/format.md §4.
"""

import hmac
import secrets
from dataclasses import dataclass
from typing import Self

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA384
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from cryptography.utils import Buffer

from palladion.errors import FormatError, TamperError

KEY_BYTES = 32
HEADER_BYTES = 74  # parameters 10, IV 32, tag 32
OVERHEAD_BYTES = 32  # of each segment: length 4, IV 12, tag 16
SEGMENTS_MAX = 2**40  # AEAD_MAX_SEGMENTS of AES-GCM-256
_MESSAGE_KEY_BYTES = 48
_NOT_LAST = b"\xff\xff\xff\xff"


@dataclass(frozen=True)
class Parameters:
    """What may differ between FLOE messages: bytes of an encrypted segment, and segments (log2) under one AES key."""

    segment_bytes: int
    rotation_bits: int = 20

    def __post_init__(self) -> None:
        if not OVERHEAD_BYTES < self.segment_bytes < 2**32 - 1:
            raise ValueError(f"a segment of {self.segment_bytes} bytes cannot be encoded")

    @property
    def capacity(self) -> int:
        """Bytes of plaintext in a full segment."""
        return self.segment_bytes - OVERHEAD_BYTES

    def encode(self) -> bytes:
        """PARAM_ENCODE: AES-256-GCM (0), HKDF-Expand-SHA-384 (0), segment length, IV length."""
        return b"\x00\x00" + self.segment_bytes.to_bytes(4) + (32).to_bytes(4)


class _Message:
    """Keys of one message: `Encryption` and `Decryption` share it."""

    def __init__(self, parameters: Parameters, key: bytes, iv: bytes, associated_data: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a FLOE key has {KEY_BYTES} bytes, got {len(key)}")
        self.parameters = parameters
        self._iv = iv
        self._associated_data = associated_data
        self.header_tag = self._derive(key, b"HEADER_TAG:", 32)
        self._message_key = self._derive(key, b"MESSAGE_KEY:", _MESSAGE_KEY_BYTES)
        self._ciphers: dict[int, AESGCM] = {}

    def cipher(self, position: int) -> AESGCM:
        if not 0 <= position < SEGMENTS_MAX:
            raise ValueError(f"segment {position} is beyond the {SEGMENTS_MAX} that a message may have")
        epoch = position >> self.parameters.rotation_bits
        cipher = self._ciphers.get(epoch)
        if cipher is None:
            masked = epoch << self.parameters.rotation_bits
            cipher = AESGCM(self._derive(self._message_key, b"DEK:" + masked.to_bytes(8), KEY_BYTES))
            self._ciphers = {epoch: cipher}
        return cipher

    def _derive(self, key: bytes, purpose: bytes, length: int) -> bytes:
        info = self.parameters.encode() + self._iv + purpose + self._associated_data
        return HKDFExpand(SHA384(), length, info).derive(key)


class Encryption:
    """Encrypts one message, segment after segment; `header` goes in front of them."""

    def __init__(self, key: bytes, associated_data: bytes, parameters: Parameters) -> None:
        iv = secrets.token_bytes(32)
        self._message = _Message(parameters, key, iv, associated_data)
        self._position = 0
        self._closed = False
        self.header = parameters.encode() + iv + self._message.header_tag

    def encrypt_into(self, plaintext: Buffer, segment: memoryview, *, last: bool) -> int:
        """Write the next segment into `segment` and return its length; only the `last` one may be shorter."""
        parameters = self._message.parameters
        length = len(plaintext) + OVERHEAD_BYTES
        if self._closed:
            raise ValueError("the message has its last segment already")
        if length > parameters.segment_bytes or (length < parameters.segment_bytes and not last):
            raise ValueError(f"{len(plaintext)} bytes do not fill a segment of {parameters.capacity}")
        nonce = secrets.token_bytes(12)
        segment[:4] = length.to_bytes(4) if last else _NOT_LAST
        segment[4:16] = nonce
        cipher = self._message.cipher(self._position)
        cipher.encrypt_into(nonce, plaintext, _segment_data(self._position, last=last), segment[16:length])
        self._position += 1
        self._closed = last
        return length


class Decryption:
    """Decrypts the segments of one message in any order, from any thread.

    Committing only while the caller knows from elsewhere which segment is the last (FLOE, "Semi-Public Functions").
    """

    def __init__(self, message: _Message, what: str) -> None:
        self._message = message
        self._what = what

    @classmethod
    def start(cls, key: bytes, associated_data: bytes, header: bytes, parameters: Parameters, *, what: str) -> Self:
        """Check the FLOE header: it commits to key, parameters and associated data.

        Raises FormatError on other parameters, TamperError if the tag does not hold; both name `what`.
        """
        if len(header) != HEADER_BYTES or header[:10] != parameters.encode():
            raise FormatError(f"{what} has no FLOE payload with segments of {parameters.segment_bytes} bytes")
        message = _Message(parameters, key, header[10:42], associated_data)
        if not hmac.compare_digest(message.header_tag, header[42:]):
            raise TamperError(f"{what} has a payload of another header or another file key: its FLOE tag does not hold")
        return cls(message, what)

    def decrypt_into(self, segment: memoryview, plaintext: memoryview, *, position: int, last: bool) -> None:
        """Decrypt one segment; `plaintext` has exactly its room, and holds rubbish if this raises.

        Raises FormatError or TamperError, naming the segment.
        """
        size = self._message.parameters.segment_bytes
        length = len(segment)
        if not OVERHEAD_BYTES <= length <= size or (length != size and not last):
            raise FormatError(f"segment {position} of {self._what} has {length} bytes, which none may have there")
        if segment[:4] != (length.to_bytes(4) if last else _NOT_LAST):
            raise FormatError(f"segment {position} of {self._what} lies about its length or about being the last")
        try:
            self._message.cipher(position).decrypt_into(
                segment[4:16], segment[16:], _segment_data(position, last=last), plaintext
            )
        except InvalidTag:
            raise TamperError(f"segment {position} of {self._what} does not authenticate") from None


def _segment_data(position: int, *, last: bool) -> bytes:
    return position.to_bytes(8) + (b"\x01" if last else b"\x00")
