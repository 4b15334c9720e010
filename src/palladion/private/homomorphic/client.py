"""The client's side: the only secret key, rows into ciphertexts, ciphertexts into answers.

CKKS hides what is encrypted from whoever sees ciphertexts alone (IND-CPA). Answers that were decrypted must not go back
to the server: their noise depends on the secret key, and few of them can give it away (Li and Micciancio, EUROCRYPT
2021). So this hands answers to its caller, and has no way to send any.
"""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from palladion.errors import FormatError, KeysError
from palladion.private.homomorphic.parameters import Ring
from palladion.private.homomorphic.program import Bundle, scaled

Outside = Literal["refuse", "allow"]
ROWS_MAX = 1_000_000


class HEClient:
    """Asks one program. Everything that `secret_bytes` returns is a secret; nothing else is."""

    def __init__(self, bundle: Bundle, secret: bytes | None = None) -> None:
        """With `secret`, as `secret_bytes` gave it; without, a new one is made. Raises KeysError, MissingExtraError."""
        self.bundle = bundle
        self.ring = Ring(bundle.parameters)
        seal, context = self.ring.seal, self.ring.context
        if secret is None:
            self._secret = seal.KeyGenerator(context).secret_key()
        else:
            try:
                self._secret = context.from_secret_str(secret)
            except (RuntimeError, ValueError):
                raise KeysError("the secret key is not one for this bundle's parameters") from None
        self._generator = seal.KeyGenerator(context, self._secret)
        self._encryptor = seal.Encryptor(context, self._secret)
        self._decryptor = seal.Decryptor(context, self._secret)

    def __repr__(self) -> str:
        return f"<HEClient of {self.bundle.id}>"

    def secret_bytes(self) -> bytes:
        """The secret key."""
        return bytes(self._secret.to_string())

    @cached_property
    def evaluation_keys(self) -> tuple[bytes, bytes]:
        """Keys for rotations and for squares, which the server may have; without squares, the second is empty."""
        keys = self.ring.seal.GaloisKeys()
        self._generator.create_galois_keys(list(self.bundle.layout.rotations), keys)
        squares = b""
        if self.bundle.hidden_layers:
            squares = bytes(self._generator.create_relin_keys().to_string())
        return bytes(keys.to_string()), squares

    def check(self, rows: NDArray[np.float64]) -> None:
        """Raise FormatError unless these are rows of numbers, as many as the program takes."""
        if rows.ndim != 2 or rows.shape[1] != self.bundle.features or not 1 <= rows.shape[0] <= ROWS_MAX:
            raise FormatError(f"rows of shape {rows.shape}, expected (rows, {self.bundle.features})")
        if not np.all(np.isfinite(rows)):
            raise FormatError("a row holds what is no number")

    def check_ranges(self, rows: NDArray[np.float64]) -> None:
        """Raise FormatError where a number lies outside of the ranges that the program was tested on."""
        outside = np.argwhere((rows < self.bundle.low) | (rows > self.bundle.high))
        if outside.size:
            row, feature = (int(number) for number in outside[0])
            low, high = self.bundle.low[feature], self.bundle.high[feature]
            raise FormatError(
                f"row {row} has {rows[row, feature]:g} as feature {feature}, outside of the {low:g} to {high:g} that "
                "the program was tested on: its polynomials mean nothing there",
                "leave the row out, or allow it and check what comes",
            )

    def encrypt(self, rows: NDArray[np.float64], *, outside: Outside = "refuse") -> list[bytes]:
        """Ciphertexts of rows (rows, features), interleaved, as many rows in each as fit. Raises FormatError."""
        values = self._scaled(rows, outside)
        count = self.bundle.layout.rows
        return [
            self._encrypt(self.bundle.layout.pack(values[start : start + count]))
            for start in range(0, len(values), count)
        ]

    def encrypt_columns(self, rows: NDArray[np.float64], *, outside: Outside = "refuse") -> list[bytes]:
        """A ciphertext for each feature of at most `slots` rows. Raises FormatError."""
        values = self._scaled(rows, outside)
        slots = self.bundle.parameters.slots
        if len(values) > slots:
            raise FormatError(f"{len(values)} rows, a request by columns carries {slots}")
        padded = np.zeros((slots, values.shape[1]))
        padded[: len(values)] = values
        return [self._encrypt(column) for column in padded.T.copy()]

    def decrypt(self, ciphertexts: Sequence[bytes], count: int) -> NDArray[np.float64]:
        """Answers (count, outputs) of what `encrypt` made. Raises FormatError. Never send them to the server."""
        rows, parts = self.bundle.layout.rows, []
        if len(ciphertexts) != -(-count // rows):
            raise FormatError(f"{len(ciphertexts)} ciphertexts came, {-(-count // rows)} were expected")
        for index, data in enumerate(ciphertexts):
            slots = self._decrypt(data)
            parts.append(self.bundle.layout.unpack(slots, min(rows, count - index * rows), self.bundle.outputs))
        return np.concatenate(parts)

    def decrypt_columns(self, ciphertexts: Sequence[bytes], count: int) -> NDArray[np.float64]:
        """The same of what `encrypt_columns` made."""
        if len(ciphertexts) != self.bundle.outputs:
            raise FormatError(f"{len(ciphertexts)} ciphertexts came, {self.bundle.outputs} were expected")
        return np.stack([self._decrypt(data)[:count] for data in ciphertexts], axis=1)

    def label(self, answers: NDArray[np.float64]) -> list[str]:
        """What answers decide: the label of the largest, or whether a single one is above 0; none without labels."""
        labels = self.bundle.header.labels
        if not labels:
            return []
        places = (answers[:, 0] > 0).astype(int) if answers.shape[1] == 1 else answers.argmax(axis=1)
        return [labels[place] for place in places]

    def _scaled(self, rows: NDArray[np.float64], outside: Outside) -> NDArray[np.float64]:
        self.check(rows)
        if outside == "refuse":
            self.check_ranges(rows)
        return scaled(rows, self.bundle.low, self.bundle.high)

    def _encrypt(self, slots: NDArray[np.float64]) -> bytes:
        plain = self.ring.encoder.encode(slots, 2.0**self.bundle.parameters.scale_bits)
        return bytes(self._encryptor.encrypt_symmetric(plain).to_string())

    def _decrypt(self, data: bytes) -> NDArray[np.float64]:
        if len(data) > 2 * self.bundle.parameters.ciphertext_bytes:
            raise FormatError("an answer is larger than any ciphertext of this program")
        try:
            value: Any = self.ring.context.from_cipher_str(data)
            # what the server says of the scale is not believed: a wrong one would only change the unit of the answer
            value.scale(self.bundle.answer_scale)
            plain = self._decryptor.decrypt(value)
            found: NDArray[np.float64] = np.asarray(self.ring.encoder.decode(plain), np.float64)
        except (RuntimeError, ValueError) as error:
            raise FormatError(f"an answer that cannot be decrypted: {error}") from None
        return found
