"""What a TPM 2.0 signs, and the keys that it signs with: bytes to checked values (TPM 2.0 Library, Part 2)."""

import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, Hash, HashAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_der_public_key

from palladion.attest.chains import refuse

ATTEST_BYTES_MAX: Final = 1024  # a quote of one bank has 145
NONCE_BYTES_MAX: Final = 66  # TPM2B_DATA: the largest digest and its name
SIGNATURE_BYTES_MAX: Final = 1024  # RSA of 8192 bits
PUBLIC_BYTES_MAX: Final = 1280
PCRS: Final = range(24)
PCR_BYTES: Final = 32
HASHES: Final[Mapping[int, type[HashAlgorithm]]] = {0x000B: SHA256, 0x000C: SHA384}
_SHA256 = 0x000B
_RSASSA, _RSAPSS, _ECDSA, _NULL = 0x0014, 0x0016, 0x0018, 0x0010
_GENERATED, _QUOTE = 0xFF544347, 0x8018
_RSA, _ECC = 0x0001, 0x0023
_CURVES: Mapping[int, type[ec.EllipticCurve]] = {0x0003: ec.SECP256R1, 0x0004: ec.SECP384R1}
_EXPONENT = 65537
# TPMA_OBJECT: made in this TPM, never leaves it, and signs only what the TPM itself has made
_FIXED_TPM, _FIXED_PARENT, _DATA_ORIGIN, _RESTRICTED, _DECRYPT, _SIGN = (
    1 << 1,
    1 << 4,
    1 << 5,
    1 << 16,
    1 << 17,
    1 << 18,
)
_ATTESTS = _FIXED_TPM | _FIXED_PARENT | _DATA_ORIGIN | _RESTRICTED | _SIGN


@dataclass(frozen=True)
class Quote:
    """TPMS_ATTEST of a quote. `digest` is over the values of `pcrs` (SHA-256 bank), in order, with the key's hash."""

    nonce: bytes
    clock_ms: int
    reset_count: int
    restart_count: int
    clock_safe: bool
    firmware: int
    pcrs: tuple[int, ...]
    digest: bytes
    signed: bytes


@dataclass(frozen=True)
class Signature:
    """TPMT_SIGNATURE. `numbers` is one for RSA, and r and s for ECDSA; `padding` is empty, pkcs1 or pss."""

    hash: type[HashAlgorithm]
    padding: str
    numbers: tuple[bytes, ...]


@dataclass(frozen=True)
class SigningKey:
    """The public area of an attestation key: its name, and its SubjectPublicKeyInfo in DER."""

    name: bytes
    spki: bytes


def parse_document(data: bytes) -> tuple[Quote, Signature]:
    """A TPM2B_ATTEST, and behind it the TPMT_SIGNATURE. Raises AttestationError, `malformed`."""
    reader = _Reader(data, "the TPM's document")
    attest = reader.sized(ATTEST_BYTES_MAX)
    signature = _signature(reader)
    reader.end()
    return _quote(attest), signature


def parse_signing_key(data: bytes) -> SigningKey:
    """The TPMT_PUBLIC of a key that signs nothing but what its TPM has made. Raises AttestationError, `malformed`."""
    if len(data) > PUBLIC_BYTES_MAX:
        refuse("malformed", f"the TPM's key has {len(data)} bytes, at most {PUBLIC_BYTES_MAX} are read")
    reader = _Reader(data, "the TPM's key")
    kind, name_hash, attributes = reader.number(2), reader.number(2), reader.number(4)
    if name_hash != _SHA256:
        refuse("malformed", "the TPM's key is not named by SHA-256")
    if attributes & _ATTESTS != _ATTESTS or attributes & _DECRYPT:
        refuse("feature", "the TPM's key may leave it, or sign what somebody hands to it: it attests nothing")
    reader.sized(64)  # its policy is the TPM's business
    if reader.number(2) != _NULL:
        refuse("malformed", "the TPM's key has a cipher, and signing keys have none")
    scheme = reader.number(2)
    if scheme != _NULL and reader.number(2) not in HASHES:
        refuse("malformed", "the TPM's key signs with a hash that is not accepted")
    key = _rsa(reader) if kind == _RSA else _ecc(reader) if kind == _ECC else None
    if key is None:
        refuse("malformed", "the TPM's key is neither RSA nor of an elliptic curve")
    reader.end()
    spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(b"\0\x0b" + sha256(data).digest(), spki)


def check_values(quote: Quote, values: Mapping[int, bytes], algorithm: type[HashAlgorithm]) -> None:
    """Raise AttestationError unless `values` are those of the PCRs that were quoted."""
    if tuple(sorted(values)) != quote.pcrs or any(len(value) != PCR_BYTES for value in values.values()):
        refuse("mismatch", f"values of PCR {_listed(sorted(values))}, with a quote of PCR {_listed(quote.pcrs)}")
    digest = Hash(algorithm())
    for index in quote.pcrs:
        digest.update(values[index])
    if not hmac.compare_digest(digest.finalize(), quote.digest):
        refuse("mismatch", "the PCRs' values are not those that the TPM has quoted")


def is_key(anchor: bytes) -> bool:
    """Whether what is trusted is a bare public key (SubjectPublicKeyInfo in DER), and no certificate."""
    try:
        load_der_public_key(anchor)
    except UnsupportedAlgorithm:
        return True  # a key all the same, of which no signature holds
    except (ValueError, TypeError):
        return False
    return True


def _quote(data: bytes) -> Quote:
    reader = _Reader(data, "the TPM's quote")
    if reader.number(4) != _GENERATED:
        refuse("malformed", "the TPM's quote was not made by a TPM")
    if reader.number(2) != _QUOTE:
        refuse("malformed", "the TPM attests something else than PCRs")
    reader.sized(68)  # qualified name of the key; which key it was the signature says
    nonce = reader.sized(NONCE_BYTES_MAX)
    clock, resets, restarts, safe = reader.number(8), reader.number(4), reader.number(4), reader.number(1)
    firmware = reader.number(8)
    if safe > 1:
        refuse("malformed", "the TPM's quote has a flag that is neither yes nor no")
    pcrs = _selection(reader)
    digest = reader.sized(48)
    reader.end()
    return Quote(nonce, clock, resets, restarts, bool(safe), firmware, pcrs, digest, data)


def _selection(reader: "_Reader") -> tuple[int, ...]:
    banks, algorithm, size = reader.number(4), reader.number(2), reader.number(1)
    if banks != 1 or algorithm != _SHA256 or not 0 < size <= 4:
        refuse("malformed", "the TPM's quote is not of PCRs of the SHA-256 bank alone")
    bits = int.from_bytes(reader.take(size), "little")
    pcrs = tuple(index for index in range(8 * size) if bits >> index & 1)
    if not pcrs or pcrs[-1] not in PCRS:
        refuse("malformed", "the TPM's quote is of no PCR, or of one that there is not")
    return pcrs


def _signature(reader: "_Reader") -> Signature:
    scheme, algorithm = reader.number(2), HASHES.get(reader.number(2))
    if algorithm is None:
        refuse("malformed", "the TPM signs with a hash that is not accepted")
    if scheme in (_RSASSA, _RSAPSS):
        return Signature(algorithm, "pkcs1" if scheme == _RSASSA else "pss", (reader.sized(SIGNATURE_BYTES_MAX),))
    if scheme != _ECDSA:
        refuse("malformed", "the TPM signs in a way that is not read here")
    return Signature(algorithm, "", (reader.sized(48), reader.sized(48)))


def _rsa(reader: "_Reader") -> rsa.RSAPublicKey:
    bits, exponent = reader.number(2), reader.number(4)
    modulus = reader.sized(1024)
    if exponent not in (0, _EXPONENT) or bits != 8 * len(modulus):
        refuse("malformed", "the TPM's RSA key is not of the size or exponent that it states")
    try:
        return rsa.RSAPublicNumbers(_EXPONENT, int.from_bytes(modulus, "big")).public_key()
    except ValueError:
        refuse("malformed", "the TPM's RSA key is none")


def _ecc(reader: "_Reader") -> ec.EllipticCurvePublicKey:
    curve = _CURVES.get(reader.number(2))
    if curve is None or reader.number(2) != _NULL:
        refuse("malformed", "the TPM's key is of a curve that is not accepted")
    x, y = (int.from_bytes(reader.sized(48), "big") for _ in range(2))
    try:
        return ec.EllipticCurvePublicNumbers(x, y, curve()).public_key()
    except ValueError:
        refuse("malformed", "the TPM's key is not a point of its curve")


def _listed(indices: Sequence[int]) -> str:
    return ", ".join(map(str, indices)) or "none"


class _Reader:
    """A place in a TPM's structure; what is taken beyond its end is refused."""

    def __init__(self, data: bytes, what: str) -> None:
        self.data = data
        self.what = what
        self.offset = 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.offset:
            refuse("malformed", f"{self.what} is cut off")
        self.offset += size
        return self.data[self.offset - size : self.offset]

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def sized(self, most: int) -> bytes:
        """A TPM2B: two bytes of length, and so many."""
        size = self.number(2)
        if size > most:
            refuse("malformed", f"{self.what} has a part of {size} bytes, at most {most} are read")
        return self.take(size)

    def end(self) -> None:
        if self.offset != len(self.data):
            refuse("malformed", f"{self.what} has bytes after its end")
