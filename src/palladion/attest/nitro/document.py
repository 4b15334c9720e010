"""A Nitro attestation document: bytes to a checked value. Signed by whom is verifier.py's.

Source: AWS, Nitro Enclaves Attestation Process (aws-nitro-enclaves-nsm-api, docs/attestation_process.md); RFC 9052.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Never

from palladion.attest.chains import refuse
from palladion.attest.evidence import CERTIFICATES_MAX
from palladion.attest.nitro import cbor
from palladion.errors import FormatError

CERTIFICATE_BYTES_MAX = 1024
PUBLIC_KEY_BYTES_MAX = 1024
USER_DATA_BYTES_MAX = 512
NONCE_BYTES_MAX = 512
MODULE_CHARACTERS_MAX = 128  # an instance's and an enclave's id have 39
PCRS_MAX = 32
PCR_BYTES = 48  # SHA-384, the one digest that the module makes
SIGNATURE_BYTES = 96
MEASURED = range(9)  # 0 image, 1 kernel, 2 application, 3 role, 4 instance, 8 signer; 5 to 7 are free
_ES384 = {1: -35}  # RFC 9053: ECDSA with SHA-384
_REQUIRED = frozenset({"module_id", "digest", "timestamp", "pcrs", "certificate", "cabundle"})
_OPTIONAL = frozenset({"public_key", "user_data", "nonce"})
_WHAT = "the Nitro document"


@dataclass(frozen=True)
class Document:
    """What an enclave's module states. `chain` is in DER, leaf first; `signed` is what `signature` (r, s) is over."""

    module: str
    signed_at: datetime
    pcrs: Mapping[int, bytes]
    chain: tuple[bytes, ...]
    public_key: bytes
    user_data: bytes
    nonce: bytes
    signed: bytes
    signature: tuple[bytes, bytes]

    @property
    def debug(self) -> bool:
        """Whether the enclave was started in debug mode: then its image is not measured, and its console is open."""
        return not any(any(self.pcrs[index]) for index in range(3))


def parse_document(data: bytes) -> Document:
    """The document that `data` is. Raises AttestationError, `malformed`."""
    try:
        protected, payload, signature = _envelope(cbor.decode(data, what=_WHAT))
        fields = cbor.decode(payload, what="the payload of the Nitro document")
    except FormatError as error:
        refuse("malformed", error.message)
    if not isinstance(fields, dict) or not _REQUIRED <= fields.keys() <= _REQUIRED | _OPTIONAL:
        _malformed("other fields than a document has")
    if fields["digest"] != "SHA384":
        _malformed("another digest than SHA384")
    bundle = fields["cabundle"]
    if not isinstance(bundle, list) or not 0 < len(bundle) < CERTIFICATES_MAX:
        _malformed(f"no chain of 1 to {CERTIFICATES_MAX - 1} authorities")
    leaf = _bytes(fields, "certificate", 1, CERTIFICATE_BYTES_MAX)
    # from the root down, says the source; the leaf is apart
    authorities = [_sized(one, "cabundle", 1, CERTIFICATE_BYTES_MAX) for one in reversed(bundle)]
    return Document(
        module=_module(fields["module_id"]),
        signed_at=_time(fields["timestamp"]),
        pcrs=_pcrs(fields["pcrs"]),
        chain=(leaf, *authorities),
        public_key=_optional(fields, "public_key", 1, PUBLIC_KEY_BYTES_MAX),
        user_data=_optional(fields, "user_data", 0, USER_DATA_BYTES_MAX),
        nonce=_optional(fields, "nonce", 0, NONCE_BYTES_MAX),
        signed=cbor.encode(["Signature1", protected, b"", payload]),  # RFC 9052 §4.4, Sig_structure
        signature=(signature[: SIGNATURE_BYTES // 2], signature[SIGNATURE_BYTES // 2 :]),
    )


def _envelope(value: cbor.Value) -> tuple[bytes, bytes, bytes]:
    """Protected header, payload and signature of a COSE_Sign1."""
    match value:
        case [bytes(protected), dict(unprotected), bytes(payload), bytes(signature)]:
            pass
        case _:
            raise FormatError(f"{_WHAT} is no COSE_Sign1 message")
    if unprotected:
        raise FormatError(f"{_WHAT} has headers that nothing signs")
    if cbor.decode(protected, what="the header of the Nitro document") != _ES384:
        raise FormatError(f"{_WHAT} is signed in another way than ES384")
    if len(signature) != SIGNATURE_BYTES:
        raise FormatError(f"{_WHAT} has a signature of {len(signature)} bytes, expected {SIGNATURE_BYTES}")
    return protected, payload, signature


def _pcrs(value: cbor.Value) -> Mapping[int, bytes]:
    if not isinstance(value, dict) or not len(MEASURED) <= len(value) <= PCRS_MAX:
        _malformed(f"not {len(MEASURED)} to {PCRS_MAX} PCRs")
    found = {}
    for index, digest in value.items():
        if not isinstance(index, int) or not 0 <= index < PCRS_MAX:
            _malformed("a PCR of a number that there is not")
        found[index] = _sized(digest, f"PCR {index}", PCR_BYTES, PCR_BYTES)
    if not found.keys() >= set(MEASURED):
        _malformed(f"PCR {MEASURED[0]} to {MEASURED[-1]} are not all there")
    return MappingProxyType(dict(sorted(found.items())))


def _module(value: cbor.Value) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MODULE_CHARACTERS_MAX:
        _malformed("no name of its module")
    if not (value.isascii() and value.isprintable()):
        _malformed("a name of its module that cannot be printed")
    return value


def _time(value: cbor.Value) -> datetime:
    if not isinstance(value, int):
        _malformed("no time in milliseconds")
    try:
        return datetime.fromtimestamp(value / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        _malformed("no time in milliseconds that calendars have")


def _optional(fields: Mapping[int | str, cbor.Value], name: str, least: int, most: int) -> bytes:
    return b"" if fields.get(name) is None else _bytes(fields, name, least, most)


def _bytes(fields: Mapping[int | str, cbor.Value], name: str, least: int, most: int) -> bytes:
    return _sized(fields[name], name, least, most)


def _sized(value: cbor.Value, name: str, least: int, most: int) -> bytes:
    if not isinstance(value, bytes) or not least <= len(value) <= most:
        _malformed(f"{name} is not of {least} to {most} bytes")
    return value


def _malformed(problem: str) -> Never:
    refuse("malformed", f"{_WHAT} is broken: {problem}")
