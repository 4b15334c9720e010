"""Noise and samples for private training, from the operating system's randomness.

Gaussian numbers come of AES-256 in counter mode under a key that is drawn once and never shown: whoever sees a model
cannot foresee the noise in it, which a general-purpose generator does not promise. Floating-point Gaussians have gaps
by which they can be told (Mironov, CCS 2012); a sum of four independent ones, halved, fills them in to where no attack
is known (Holohan and Braghin, ESORICS 2021), and costs four draws. That holds of steps in doubles, as in `linear`:
torch modules mostly learn in float32, to which the noise is rounded, so that their noise does have gaps. No attack on
training in float32 is known to us, but nothing is claimed of it.
"""

import secrets
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

DRAWN = 4  # Gaussians in each number; their sum has twice their deviation
BLOCK = 1 << 20  # numbers at once

Array = NDArray[np.float64]


class Randomness(Protocol):
    """Where private training has its noise from."""

    @property
    def kind(self) -> Literal["cryptographic", "seeded"]:
        """What a statement says of it."""
        ...

    def gaussian(self, shape: tuple[int, ...]) -> Array:
        """Standard normal numbers of a shape."""
        ...

    def sample(self, rows: int, rate: float) -> NDArray[np.intp]:
        """The rows of a step: each is in it with probability `rate`, by itself."""
        ...


class Cryptographic:
    """Randomness that nobody can foresee or draw again."""

    kind: Literal["cryptographic", "seeded"] = "cryptographic"

    def __init__(self) -> None:
        from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

        self._stream = Cipher(algorithms.AES256(secrets.token_bytes(32)), modes.CTR(bytes(16))).encryptor()

    def gaussian(self, shape: tuple[int, ...]) -> Array:
        """Standard normal numbers of a shape."""
        count = int(np.prod(shape, dtype=np.int64))
        found = np.empty(count)
        for start in range(0, count, BLOCK):
            part = min(BLOCK, count - start)
            found[start : start + part] = self._normal(part * DRAWN).reshape(DRAWN, part).sum(axis=0) / 2
        return found.reshape(shape)

    def sample(self, rows: int, rate: float) -> NDArray[np.intp]:
        """The rows of a step: each is in it with probability `rate`, by itself."""
        return np.flatnonzero(self._uniform(rows) < rate)

    def _normal(self, count: int) -> Array:
        """Box and Muller's transform."""
        half = (count + 1) // 2
        radius = np.sqrt(-2 * np.log1p(-self._uniform(half)))
        angle = 2 * np.pi * self._uniform(half)
        return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)])[:count]

    def _uniform(self, count: int) -> Array:
        """Numbers of 53 bits from 0 to below 1."""
        whole = np.frombuffer(self._stream.update(bytes(8 * count)), dtype="<u8")
        return np.asarray((whole >> np.uint64(11)) * 2.0**-53)


class Seeded:
    """Randomness of a generator, for experiments that must come out the same: whoever has the seed has the noise."""

    kind: Literal["cryptographic", "seeded"] = "seeded"

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def gaussian(self, shape: tuple[int, ...]) -> Array:
        """Standard normal numbers of a shape."""
        return self._generator.standard_normal(shape)

    def sample(self, rows: int, rate: float) -> NDArray[np.intp]:
        """The rows of a step: each is in it with probability `rate`, by itself."""
        return np.flatnonzero(self._generator.random(rows) < rate)


def randomness_of(generator: Any) -> Randomness:
    """`Seeded` by a generator, or `Cryptographic` where there is None."""
    return Cryptographic() if generator is None else Seeded(generator)
