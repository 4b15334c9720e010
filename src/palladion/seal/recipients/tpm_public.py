"""The public area of a TPM's key, as far as it is needed to wrap to one (TPM 2.0 Library, Part 2, §12.2). No TPM.

Only one shape is made and read: an ECC P-256 key that agrees on secrets, was made in its TPM and cannot leave it.
"""

from dataclasses import dataclass, field
from typing import Self

from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey, EllipticCurvePublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from palladion.errors import FormatError

PUBLIC_BYTES_MAX = 128  # 122 with a policy
POINT_BYTES = 33  # SEC 1, compressed
POLICY_BYTES = 32
COORDINATE_BYTES = 32

# TPMA_OBJECT
_FIXED_TPM, _FIXED_PARENT, _DATA_ORIGIN, _USER_WITH_AUTH = 1 << 1, 1 << 4, 1 << 5, 1 << 6
_ADMIN_WITH_POLICY, _NO_DA, _RESTRICTED, _DECRYPT = 1 << 7, 1 << 10, 1 << 16, 1 << 17
_MADE_INSIDE = _FIXED_TPM | _FIXED_PARENT | _DATA_ORIGIN
# TPM_ALG_ECC, nameAlg TPM_ALG_SHA256
_HEAD = bytes.fromhex("0023 000b")
# symmetric and scheme TPM_ALG_NULL, TPM_ECC_NIST_P256, kdf TPM_ALG_NULL
_PARAMETERS = bytes.fromhex("0010 0010 0003 0010")
# The storage primary of TCG's EK Credential Profile 2.x and of every tool: P-256, AES-128-CFB. Made again from the
# owner's seed whenever it is needed, so nothing has to be kept in the TPM.
STORAGE_PRIMARY = (
    _HEAD
    + (_MADE_INSIDE | _USER_WITH_AUTH | _NO_DA | _RESTRICTED | _DECRYPT).to_bytes(4, "big")
    + bytes.fromhex("0000 0006 0080 0043 0010 0003 0010 0000 0000")
)


@dataclass(frozen=True)
class TpmPublic:
    """A checked public area: its bytes, the key's point (compressed), and the policy that its use needs, if any."""

    data: bytes = field(repr=False)
    point: bytes
    policy: bytes

    @property
    def has_pin(self) -> bool:
        """Whether it was made with an authorisation value, at which the TPM counts wrong tries."""
        return not int.from_bytes(self.data[4:8], "big") & _NO_DA

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """The public area of a key that this version makes. Raises FormatError for any other."""
        policy = data[10 : 10 + int.from_bytes(data[8:10], "big")] if len(data) <= PUBLIC_BYTES_MAX else b""
        rest = data[10 + len(policy) :]
        if len(policy) not in (0, POLICY_BYTES) or not rest.startswith(_PARAMETERS):
            raise _not_ours()
        if data[:8] not in (_front(policy=bool(policy), pin=False), _front(policy=bool(policy), pin=True)):
            raise _not_ours()
        x, rest = _coordinate(rest[len(_PARAMETERS) :])
        y, rest = _coordinate(rest)
        if rest:
            raise _not_ours()
        try:
            key = EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
        except ValueError:
            raise FormatError("the TPM's key is not a point of its curve") from None
        return cls(data, compressed(key), policy)


def template(*, policy: bytes, pin: bool) -> bytes:
    """What a TPM is asked to make. `policy` is a digest or empty; `pin` says that it has an authorisation value."""
    return (
        _front(policy=bool(policy), pin=pin)
        + len(policy).to_bytes(2, "big")
        + policy
        + _PARAMETERS
        + bytes(4)  # no coordinates yet
    )


def compressed(key: EllipticCurvePublicKey) -> bytes:
    """The point of a P-256 key, 33 bytes (SEC 1 §2.3.3)."""
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def point_key(point: bytes) -> EllipticCurvePublicKey:
    """The P-256 key of a compressed point. Raises ValueError if it is none: nothing else may reach a private key."""
    if len(point) != POINT_BYTES:
        raise ValueError(f"a point of {len(point)} bytes, expected {POINT_BYTES}")
    return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)


def _front(*, policy: bool, pin: bool) -> bytes:
    attributes = _MADE_INSIDE | _ADMIN_WITH_POLICY | _DECRYPT
    if not policy:
        attributes |= _USER_WITH_AUTH
    if not pin:
        # nothing to guess: and a TPM that is locked for another key's wrong PINs must not stop a service
        attributes |= _NO_DA
    return _HEAD + attributes.to_bytes(4, "big")


def _coordinate(data: bytes) -> tuple[int, bytes]:
    size = int.from_bytes(data[:2], "big")
    # a TPM may leave leading zeros out
    if not 0 < size <= COORDINATE_BYTES or len(data) < 2 + size:
        raise _not_ours()
    return int.from_bytes(data[2 : 2 + size], "big"), data[2 + size :]


def _not_ours() -> FormatError:
    return FormatError(
        "the TPM's key is not of the shape that this version makes",
        "palladion recipient new FILE --tpm tpm: makes one",
    )
