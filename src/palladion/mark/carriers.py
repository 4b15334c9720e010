"""Secret carriers: a sign or a nearly normal number for every weight of a tensor, from a key; noise to everybody else.

AES-256 in counter mode is the generator. A tensor has a key of its own, so that one can be shown without the others.
"""

from functools import cache
from statistics import NormalDist

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

KEY_BYTES = 32
LEVELS = 256
AES_BLOCK_BYTES = 16
NORMALS_BLOCK = 65_536  # numbers that are made at a time; they and what they are made from fit the second-level cache
_ZEROS = memoryview(bytes(NORMALS_BLOCK))


def derive(key: bytes, *context: str) -> bytes:
    """A key for one context: HKDF-SHA-256 (RFC 5869) with the lengths of its parts in the label."""
    _require_key(key)
    label = b"palladion/v1/mark" + b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in context)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=label).derive(key)


def signs(key: bytes, count: int) -> NDArray[np.float32]:
    """`count` independent fair signs, -1 or 1 (count,)."""
    return signs_of(sign_bits(key, count), count)


def sign_bits(key: bytes, count: int) -> NDArray[np.uint8]:
    """The same signs, eight in a byte, most significant first; 1 is 1, and 0 is -1."""
    return _stream(key, (count + 7) // 8)


def signs_of(bits: NDArray[np.uint8], count: int) -> NDArray[np.float32]:
    """`count` signs (count,) from their bits."""
    # a table of eight signs for each byte: a tenth of the cost of a look at every bit
    return np.asarray(_signs_of_bytes().take(bits, axis=0).reshape(-1)[:count], np.float32)


def normals(key: bytes, count: int) -> NDArray[np.float32]:
    """`count` independent numbers (count,) with mean 0, variance just below 1, and a lighter tail than the normal's.

    Each is E[Z | bin of Z] for one of 256 equally likely bins of a normal Z, hence sub-Gaussian by Jensen's inequality.
    """
    numbers = np.empty(count, np.float32)
    NormalStream(key).fill(numbers)
    return numbers


class NormalStream:
    """`normals` of a key one after the other, into the caller's memory."""

    def __init__(self, key: bytes) -> None:
        self._key, self._next = key, 0
        self._encryptor = _encryptor(key, 0)
        self._bytes = bytearray(NORMALS_BLOCK + AES_BLOCK_BYTES)
        self._ranks = np.frombuffer(self._bytes, np.uint8)
        self._indices = np.empty(NORMALS_BLOCK // 2, np.intp)
        self._table = _normals_of_pairs()

    def seek(self, start: int) -> None:
        """Go to number `start`, which will be the next."""
        if start != self._next:
            self._encryptor = _encryptor(self._key, start // AES_BLOCK_BYTES)
            self._encryptor.update_into(_ZEROS[: start % AES_BLOCK_BYTES], self._bytes)
            self._next = start

    def fill(self, out: NDArray[np.float32]) -> None:
        """Write the next numbers into `out` (count,), which is contiguous."""
        self._next += len(out)
        # in blocks that stay in the processor's cache, each pass finds there what the one before has left
        for first in range(0, len(out), NORMALS_BLOCK):
            block = out[first : first + NORMALS_BLOCK]
            count, pairs = len(block), len(block) // 2
            self._encryptor.update_into(_ZEROS[:count], self._bytes)
            indices = self._indices[:pairs]
            indices[:] = self._ranks[: 2 * pairs].view("<u2")
            # the indices are in range: "wrap" spares the check, and writes straight into the output
            self._table.take(indices, out=block[: 2 * pairs].view(np.complex64), mode="wrap")
            if count % 2:
                block[-1] = self._table.view(np.float32)[2 * int(self._ranks[count - 1])]


class NormalRanks:
    """From which of the 256 bins, 0 the lowest, the `normals` of a key come: a carrier too, at half the price.

    Its correlation with the numbers themselves is 0.977, sqrt(3 / pi).
    """

    def __init__(self) -> None:
        self._bytes = bytearray(NORMALS_BLOCK + AES_BLOCK_BYTES)
        self._ranks = np.frombuffer(self._bytes, np.uint8)

    def read(self, key: bytes, start: int, count: int) -> NDArray[np.uint8]:
        """The bins of `count` numbers from number `start` on, a multiple of 16; valid until the next call."""
        if start % AES_BLOCK_BYTES or count > NORMALS_BLOCK:
            raise ValueError(f"got {count} numbers from {start} on, expected a multiple of 16, {NORMALS_BLOCK} at most")
        _encryptor(key, start // AES_BLOCK_BYTES).update_into(_ZEROS[:count], self._bytes)
        return self._ranks[:count]


def _stream(key: bytes, count: int) -> NDArray[np.uint8]:
    return np.frombuffer(_encryptor(key, 0).update(bytes(count)), np.uint8)


def _encryptor(key: bytes, counter: int) -> CipherContext:
    _require_key(key)
    # a key is used for one tensor only, so the counter may start at 0
    return Cipher(AES256(key), CTR(counter.to_bytes(AES_BLOCK_BYTES, "big"))).encryptor()


def _require_key(key: bytes) -> None:
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, got {len(key)}")


@cache
def _signs_of_bytes() -> NDArray[np.float32]:
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)
    table: NDArray[np.float32] = np.where(bits, np.float32(1), np.float32(-1))  # (256, 8)
    table.flags.writeable = False
    return table


@cache
def _normals_of_pairs() -> NDArray[np.complex64]:
    normal = NormalDist()
    edges = [normal.inv_cdf(index / LEVELS) for index in range(1, LEVELS)]
    densities = np.array([0.0, *(normal.pdf(edge) for edge in edges), 0.0])
    levels = ((densities[:-1] - densities[1:]) * LEVELS).astype(np.float32)
    pairs = np.arange(LEVELS**2)
    table = np.stack([levels[pairs % LEVELS], levels[pairs // LEVELS]], axis=1)  # (65536, 2), the first byte first
    both = table.reshape(-1).view(np.complex64)  # one element for two numbers
    both.flags.writeable = False
    return both
