"""Secret carriers: a sign or a nearly normal number for every weight of a tensor, from a key; noise to everybody else.

AES-256 in counter mode is the generator. A tensor has a key of its own, so that one can be shown without the others.
"""

from functools import cache
from statistics import NormalDist

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray

KEY_BYTES = 32
LEVELS = 256


def derive(key: bytes, *context: str) -> bytes:
    """A key for one context: HKDF-SHA-256 (RFC 5869) with the lengths of its parts in the label."""
    _require_key(key)
    label = b"palladion/v1/mark" + b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in context)
    return HKDF(SHA256(), KEY_BYTES, salt=None, info=label).derive(key)


def signs(key: bytes, count: int) -> NDArray[np.float32]:
    """`count` independent fair signs, -1 or 1 (count,)."""
    # a table of eight signs for each byte: a tenth of the cost of a look at every bit
    return np.asarray(_signs_of_bytes().take(_stream(key, (count + 7) // 8), axis=0).reshape(-1)[:count], np.float32)


def normals(key: bytes, count: int) -> NDArray[np.float32]:
    """`count` independent numbers (count,) with mean 0, variance just below 1, and a lighter tail than the normal's.

    Each is E[Z | bin of Z] for one of 256 equally likely bins of a normal Z, hence sub-Gaussian by Jensen's inequality.
    """
    pairs = _stream(key, count + count % 2).view("<u2")
    return np.asarray(_normals_of_pairs().take(pairs, axis=0).reshape(-1)[:count], np.float32)


def _stream(key: bytes, count: int) -> NDArray[np.uint8]:
    _require_key(key)
    # a key is used for one tensor only, so the counter may start at 0
    encryptor = Cipher(AES256(key), CTR(bytes(16))).encryptor()
    return np.frombuffer(encryptor.update(bytes(count)), np.uint8)


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
def _normals_of_pairs() -> NDArray[np.float32]:
    normal = NormalDist()
    edges = [normal.inv_cdf(index / LEVELS) for index in range(1, LEVELS)]
    densities = np.array([0.0, *(normal.pdf(edge) for edge in edges), 0.0])
    levels = ((densities[:-1] - densities[1:]) * LEVELS).astype(np.float32)
    pairs = np.arange(LEVELS**2)
    table = np.stack([levels[pairs % LEVELS], levels[pairs // LEVELS]], axis=1)  # (65536, 2), the first byte first
    table.flags.writeable = False
    return table
