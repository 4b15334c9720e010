"""A TDX quote (or the SGX quote of the same make): bytes to a checked value. Signatures are verifier.py's.

Source: Intel, TDX DCAP Quoting Library API, appendix A (versions 4 and 5); SGX DCAP, appendix A (version 3).
"""

import struct
from dataclasses import dataclass
from typing import Literal

from palladion.attest.chains import refuse
from palladion.attest.evidence import CERTIFICATES_MAX
from palladion.attest.pem import certificates_of
from palladion.errors import FormatError

Tee = Literal["sgx", "tdx"]
VENDOR = bytes.fromhex("939a7233f79c4ca9940a0db3957f0607")  # Intel's quoting enclave
_HEADER_BYTES, _ENCLAVE_BYTES, _TD_BYTES, _TD15_BYTES = 48, 384, 584, 648
_ECDSA_P256 = 2
_TEES = {0x00: "sgx", 0x81: "tdx"}
_BODIES: dict[int, tuple[Tee, int]] = {1: ("sgx", _ENCLAVE_BYTES), 2: ("tdx", _TD_BYTES), 3: ("tdx", _TD15_BYTES)}
_PCK_CHAIN, _QE_REPORT = 5, 6
_SIGNATURE_BYTES = _KEY_BYTES = 64
_AUTH_BYTES_MAX = 1024  # the quoting enclave's own data: 32 bytes in Intel's
_TD = struct.Struct("<16s48s48s8s8s8s48s48s48s48s48s48s48s48s64s")
_ENCLAVE = struct.Struct("<16s4s28s16s32s32s32s96sHH60s64s")


@dataclass(frozen=True)
class TrustDomain:
    """The report of a trust domain: what was started in it, what it may do, and the module below it."""

    tee_tcb_svn: bytes
    mrseam: bytes
    mrsignerseam: bytes
    seam_attributes: bytes
    td_attributes: bytes
    xfam: bytes
    mrtd: bytes
    mrconfigid: bytes
    mrowner: bytes
    mrownerconfig: bytes
    rtmrs: tuple[bytes, bytes, bytes, bytes]
    report_data: bytes
    mrservicetd: bytes = b""  # of TDX 1.5, in quotes of version 5
    tee_tcb_svn_now: bytes = b""


@dataclass(frozen=True)
class Enclave:
    """The report of an SGX enclave; the quoting enclave's own is in every quote."""

    misc_select: bytes
    attributes: bytes
    mrenclave: bytes
    mrsigner: bytes
    product_id: int
    svn: int
    report_data: bytes
    raw: bytes


@dataclass(frozen=True)
class Quote:
    """A quote in parts: the body, signed by the attestation key, which the quoting enclave's signed report names."""

    version: int
    body: TrustDomain | Enclave
    signed: bytes
    signature: bytes  # r and s
    attestation_key: bytes  # x and y
    qe_report: Enclave
    qe_signature: bytes
    qe_auth: bytes
    certificates: tuple[bytes, ...]


class _Reader:
    """Takes bytes off the front, or refuses."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.offset = 0

    def take(self, size: int) -> bytes:
        """The next `size` bytes."""
        if size > len(self._data) - self.offset:
            refuse("malformed", "a quote that is cut off")
        self.offset += size
        return self._data[self.offset - size : self.offset]

    def number(self, size: int) -> int:
        """The next number, little-endian."""
        return int.from_bytes(self.take(size), "little")

    def sized(self, size: int) -> bytes:
        """What a length of `size` bytes stands before."""
        return self.take(self.number(size))

    def end(self, *, padded: bool = False) -> None:
        """Refuse what is left; zeros may be if it is `padded`."""
        rest = self._data[self.offset :]
        if any(rest) or (rest and not padded):
            refuse("malformed", "a quote with bytes that belong to nothing")


def parse_quote(data: bytes) -> Quote:
    """The quote that `data` is. Raises AttestationError `malformed`."""
    reader = _Reader(data)
    version, tee = _header(reader)
    size = _TD_BYTES if tee == "tdx" else _ENCLAVE_BYTES
    if version == 5:
        kind, size = reader.number(2), reader.number(4)
        if _BODIES.get(kind) != (tee, size):
            refuse("malformed", f"a {tee.upper()} quote with a body of type {kind} and {size} bytes")
    body = reader.take(size)
    signed = data[: reader.offset]
    authentication = _Reader(reader.sized(4))
    reader.end(padded=True)  # guests get quotes in a buffer that is larger
    signature, key = authentication.take(_SIGNATURE_BYTES), authentication.take(_KEY_BYTES)
    if version == 3:
        certified = authentication
    else:
        kind = authentication.number(2)
        if kind != _QE_REPORT:
            refuse("malformed", f"a quote with certification data of type {kind}, {_QE_REPORT} was expected")
        certified = _Reader(authentication.sized(4))
        authentication.end()
    qe_report, qe_signature = parse_enclave(certified.take(_ENCLAVE_BYTES)), certified.take(_SIGNATURE_BYTES)
    qe_auth = certified.sized(2)
    if len(qe_auth) > _AUTH_BYTES_MAX:
        refuse("malformed", f"a quoting enclave's data of {len(qe_auth)} bytes, at most {_AUTH_BYTES_MAX} are read")
    kind = certified.number(2)
    if kind != _PCK_CHAIN:
        refuse("malformed", f"a quote certified by data of type {kind}: {_PCK_CHAIN}, certificates, was expected")
    chain = certified.sized(4)
    certified.end()
    try:
        certificates = certificates_of(chain, what="the chain in a quote", most=CERTIFICATES_MAX)
    except FormatError as error:
        refuse("malformed", error.message)
    return Quote(
        version=version,
        body=_trust_domain(body) if tee == "tdx" else parse_enclave(body),
        signed=signed,
        signature=signature,
        attestation_key=key,
        qe_report=qe_report,
        qe_signature=qe_signature,
        qe_auth=qe_auth,
        certificates=certificates,
    )


def parse_enclave(data: bytes) -> Enclave:
    """The report of an enclave, of 384 bytes."""
    _, misc, _, attributes, mrenclave, _, mrsigner, _, product, svn, _, report_data = _ENCLAVE.unpack(data)
    return Enclave(misc, attributes, mrenclave, mrsigner, product, svn, report_data, data)


def _header(reader: _Reader) -> tuple[int, Tee]:
    """Version and technology, of a header that is otherwise as it should be."""
    header = reader.take(_HEADER_BYTES)
    version, key_type, tee_type, reserved = struct.unpack_from("<HHII", header)
    tee = _TEES.get(tee_type)
    if (version, tee) not in {(3, "sgx"), (4, "tdx"), (4, "sgx"), (5, "tdx"), (5, "sgx")}:
        refuse("malformed", f"a quote of version {version} and technology {tee_type:#x}, which is not read here")
    if key_type != _ECDSA_P256:
        refuse("malformed", f"a quote with a key of type {key_type}, {_ECDSA_P256} (ECDSA P-256) was expected")
    if header[12:28] != VENDOR:
        refuse("malformed", "a quote that Intel's quoting enclave did not make")
    if tee == "tdx" and reserved:
        refuse("malformed", "a quote with content where its version has none")
    return version, "tdx" if tee == "tdx" else "sgx"


def _trust_domain(data: bytes) -> TrustDomain:
    svn, mrseam, signer, seam_attributes, td_attributes, xfam, mrtd, config, owner, owner_config, *rest = (
        _TD.unpack_from(data)
    )
    domain = TrustDomain(
        tee_tcb_svn=svn,
        mrseam=mrseam,
        mrsignerseam=signer,
        seam_attributes=seam_attributes,
        td_attributes=td_attributes,
        xfam=xfam,
        mrtd=mrtd,
        mrconfigid=config,
        mrowner=owner,
        mrownerconfig=owner_config,
        rtmrs=(rest[0], rest[1], rest[2], rest[3]),
        report_data=rest[4],
        mrservicetd=data[_TD_BYTES + 16 :],
        tee_tcb_svn_now=data[_TD_BYTES : _TD_BYTES + 16],
    )
    if any(domain.seam_attributes):
        refuse("malformed", "a quote of a TDX module that is under debug")
    return domain
