"""What the bytes of a ciphertext and of evaluation keys look like for one program, so that SEAL parses nothing else.

Under fixed parameters everything but the polynomials is always the same: lengths, digests of the parameters, levels,
scales, which rotations there are. It is compared with that of keys made here, byte for byte, before SEAL sees anything
(Microsoft SEAL 4.4, native/src/seal: serialization.cpp, ciphertext.cpp, kswitchkeys.cpp).
"""

import struct
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from palladion.errors import FormatError
from palladion.private.homomorphic.parameters import Ring
from palladion.private.homomorphic.program import Bundle

_WORD = struct.Struct("<Q")
_OUTER = 16 + 32  # SEAL's header, and the digest of the parameters


@dataclass(frozen=True, eq=False)
class Form:
    """Bytes of which some stand fixed: pieces (offset, bytes), and how many there are in all."""

    size: int
    fixed: tuple[tuple[int, bytes], ...]

    def check(self, data: bytes, *, what: str) -> None:
        """Raise FormatError unless `data` is of this form."""
        if len(data) != self.size:
            raise FormatError(f"{what} of {len(data)} bytes, expected {self.size} for the program's parameters")
        for offset, piece in self.fixed:
            if data[offset : offset + len(piece)] != piece:
                raise FormatError(f"{what} that is not of the program's parameters")


class Forms:
    """The forms of one program. Making them takes as long as a client takes for its keys."""

    def __init__(self, bundle: Bundle) -> None:
        """Raises MissingExtraError, and FormatError where SEAL writes otherwise than it did."""
        self._bundle = bundle
        self._ring = Ring(bundle.parameters)
        self._generator: Any = self._ring.seal.KeyGenerator(self._ring.context)

    @cached_property
    def ciphertext(self) -> Form:
        """Of a fresh ciphertext."""
        parameters = self._bundle.parameters
        encryptor = self._ring.seal.Encryptor(self._ring.context, self._generator.secret_key())
        plain = self._ring.encoder.encode(1.0, 2.0**parameters.scale_bits)
        data = bytes(encryptor.encrypt_symmetric(plain).to_string())
        return Form(len(data), ((0, data[: len(data) - parameters.ciphertext_bytes]),))

    @cached_property
    def rotation(self) -> Form:
        """Of the keys for rotations."""
        keys = self._ring.seal.GaloisKeys()
        self._generator.create_galois_keys(list(self._bundle.layout.rotations), keys)
        return self._keys_form(bytes(keys.to_string()))

    @cached_property
    def squares(self) -> Form:
        """Of the key for squares; nothing where there are none."""
        if not self._bundle.hidden_layers:
            return Form(0, ())
        return self._keys_form(bytes(self._generator.create_relin_keys().to_string()))

    def check_keys(self, rotation: bytes, squares: bytes) -> None:
        """Raise FormatError unless these are evaluation keys of this program's parameters and rotations."""
        self.rotation.check(rotation, what="keys for rotations")
        self.squares.check(squares, what="a key for squares")

    def make(self) -> None:
        """Make every form now. Raises FormatError as the constructor says."""
        if not (self.ciphertext.size and self.rotation.size) or self.squares.size < 0:
            raise FormatError("this SEAL writes nothing")

    def _keys_form(self, data: bytes) -> Form:
        """All but the polynomials of the keys in `data`."""
        primes = len(self._bundle.parameters.prime_bits)
        polynomials = self._bundle.parameters.key_bytes // (primes - 1)
        head = self.ciphertext.size - self._bundle.parameters.ciphertext_bytes
        fixed, start, at = [], 0, _OUTER + _WORD.size
        (groups,) = _WORD.unpack_from(data, _OUTER)
        for _ in range(groups):
            (count,) = _WORD.unpack_from(data, at)
            at += _WORD.size
            for _ in range(count):
                at += head
                fixed.append((start, data[start:at]))
                at += polynomials
                start = at
        fixed.append((start, data[start:at]))
        if at != len(data):
            raise FormatError("this SEAL writes keys otherwise than the one that this was made for")
        return Form(len(data), tuple(fixed))
