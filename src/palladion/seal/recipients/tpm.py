"""Wrapping to a P-256 key that never leaves its TPM (docs/format.md §7).

Sealing needs the public key alone, and no TPM. Owns what is done with the key; tpm_device.py owns the way to it.
"""

import hmac
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ec import ECDH, SECP256R1, generate_private_key
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from palladion.errors import FormatError, KeysError
from palladion.keys import Wrap
from palladion.seal.bech32 import decode_key, encode_key
from palladion.seal.recipients import tpm_device
from palladion.seal.recipients.envelope import KEY_BYTES, Envelope
from palladion.seal.recipients.tpm_public import POINT_BYTES, compressed, point_key
from palladion.seal.recipients.tpm_uri import TpmUri

KIND = "tpm"
RECIPIENT_TEXT = "pallr1t"
AskPin = Callable[[str], str]
_WRAPPED_BYTES = POINT_BYTES + KEY_BYTES + 16
_NONCE = bytes(12)  # each key is of one ephemeral point, and used once


@dataclass(frozen=True)
class TpmRecipient:
    """The public side of a TPM's key: wraps to it anywhere. `str()` gives its text form, `pallr1t…`.

    Raises ValueError on bytes that are no point of P-256.
    """

    point: bytes

    kind = KIND

    def __post_init__(self) -> None:
        point_key(self.point)

    @property
    def key_id(self) -> str:
        """16 hex digits of a hash of the public key."""
        return sha256(b"palladion/v1/tpm" + self.point).hexdigest()[:16]

    def __str__(self) -> str:
        return encode_key("pallr", self.point, tag="t")

    def wrap(self, secret: bytes, context: bytes) -> Wrap:
        """Encrypt `secret`, bound to `context`, under a fresh key that is encrypted to the TPM's."""

        def wrap_key(inner: bytes) -> bytes:
            ephemeral = generate_private_key(SECP256R1())
            point = compressed(ephemeral.public_key())
            key = _derive(ephemeral.exchange(ECDH(), point_key(self.point)), point, self.point)
            return point + AESGCM(key).encrypt(_NONCE, inner, context)

        return Wrap(KIND, self.key_id, {}, Envelope.enclose(secret, context, wrap_key).encode())


class TpmIdentity:
    """A key in a TPM. The PIN, if it has one, is read from `pin-source` at each use, or else asked once.

    Every use raises NotFoundError without the TPM, and KeysError if the TPM is another one, its PCRs hold other values,
    or it refuses the PIN.
    """

    __slots__ = ("_ask_pin", "_pin", "recipient", "uri")  # no __dict__: a tool that prints all would print the PIN

    def __init__(self, uri: TpmUri, *, ask_pin: AskPin | None = None) -> None:
        if uri.public is None:
            raise ValueError("a key that is still to be made")
        self.uri = uri
        self.recipient = TpmRecipient(uri.public.point)
        self._ask_pin = ask_pin
        self._pin: str | None = None

    def __str__(self) -> str:
        return str(self.uri)

    def __repr__(self) -> str:
        return f"<TpmIdentity of {self.recipient}>"

    def unwrap(self, wrap: Wrap, context: bytes) -> bytes | None:
        """The secret, or None if the wrap is for another key. Raises KeysError if it does not open."""
        if (wrap.kind, wrap.key_id) != (KIND, self.recipient.key_id):
            return None
        if wrap.parameters:
            raise FormatError("a tpm wrap has parameters, and none are defined")
        envelope = Envelope.decode(wrap.blob, kind=KIND)
        if len(envelope.wrapped_key) != _WRAPPED_BYTES:
            raise FormatError(f"a tpm wrap holds {len(envelope.wrapped_key)} bytes, expected {_WRAPPED_BYTES}")
        point, encrypted = envelope.wrapped_key[:POINT_BYTES], envelope.wrapped_key[POINT_BYTES:]
        try:
            point_key(point)
        except ValueError:
            raise KeysError(f"the wrap for {wrap.key_id} does not open: it is damaged") from None
        key = _derive(self._agree(point), point, self.recipient.point)
        try:
            inner = AESGCM(key).decrypt(_NONCE, encrypted, context)
        except InvalidTag:
            raise KeysError(
                f"the wrap for {wrap.key_id} does not open: it is damaged, or moved here from another file"
            ) from None
        return envelope.open(inner, context, key_id=wrap.key_id)

    def prove(self) -> None:
        """Have the TPM show that it holds the key, now and under its policy. Raises KeysError, NotFoundError."""
        challenge, context = secrets.token_bytes(32), b"palladion/v1/tpm-proof"
        answer = self.unwrap(self.recipient.wrap(challenge, context), context)
        if answer is None or not hmac.compare_digest(answer, challenge):
            raise KeysError("the TPM does not give back what was encrypted to its key")

    def unsafe_text(self) -> str:
        """What stands in the identity file. Nobody but the TPM can use it, and nobody else need read it."""
        return str(self.uri)

    def _agree(self, point: bytes) -> bytes:
        return tpm_device.agree(self.uri, point, self._answer if self.uri.has_pin else None)

    def _answer(self) -> str:
        if self._pin is None or self.uri.pin_source is not None:
            self._pin = _pin_of(self.uri, self._ask_pin)
        return self._pin


def parse(text: str, *, ask_pin: AskPin | None = None) -> TpmIdentity:
    """The identity of a text `tpm:PUBLIC.PRIVATE?…`. Raises FormatError. The TPM is not asked before it is used."""
    uri = TpmUri.parse(text)
    if uri.public is None:
        raise FormatError(
            "the TPM URI names no key",
            "palladion recipient new FILE --tpm tpm: makes one, and FILE then holds its name",
        )
    return TpmIdentity(uri, ask_pin=ask_pin)


def parse_tpm_recipient(text: str) -> TpmRecipient:
    """The recipient of a text `pallr1t…`. Raises FormatError."""
    point = decode_key(text, "pallr", tag="t", key_bytes=POINT_BYTES, what="the recipient")
    try:
        return TpmRecipient(point)
    except ValueError:
        raise FormatError("the recipient's key is not a point of its curve") from None


def generate_key(text: str, *, ask_pin: AskPin | None = None) -> TpmIdentity:
    """Make a key in a TPM as `text` describes it: `tpm:`, with `?pcrs=…&pin=ask` and so on.

    Raises FormatError, NotFoundError and KeysError. A key that cannot be used fails here, and not when it is needed.
    """
    uri = TpmUri.parse(text)
    if uri.public is not None:
        raise FormatError("the TPM URI of a new key cannot hold one already", "tpm:?pcrs=7")
    pin = _pin_of(uri, ask_pin) if uri.has_pin else None
    made = TpmIdentity(tpm_device.make_key(uri, pin), ask_pin=ask_pin)
    made._pin = pin
    made.prove()
    return made


def _pin_of(uri: TpmUri, ask_pin: AskPin | None) -> str:
    from palladion.seal.recipients.pkcs11 import read_pin

    if uri.pin_source is not None:
        pin = read_pin(uri.pin_source)
    elif ask_pin is not None:
        pin = ask_pin("TPM")
    else:
        raise KeysError("the TPM's key needs a PIN", "name a file of mode 0600 with pin-source=FILE in the TPM URI")
    # a TPM cuts trailing zeros off, and a longer value it refuses in words that nobody understands
    if not 0 < len(pin.encode()) <= tpm_device.PIN_BYTES_MAX:
        raise KeysError(f"a TPM's PIN has 1 to {tpm_device.PIN_BYTES_MAX} bytes")
    return pin


def _derive(shared: bytes, point: bytes, recipient: bytes) -> bytes:
    return HKDF(SHA256(), KEY_BYTES, None, b"palladion/v1/tpm" + point + recipient).derive(shared)
