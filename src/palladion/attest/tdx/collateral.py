"""Intel's collateral of a quote: signed statements on firmware and on the quoting enclave, and lists of revoked keys.

As JSON with the members that Intel's provisioning service (PCS, version 4) gives and dcap-qvl writes down: the signed
texts stand in it as strings, since the signatures are over their bytes.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Literal, TypeVar

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256

from palladion.attest.certificate import Certificate
from palladion.attest.chains import check_known_lists, check_revoked, check_validity, refuse, verify_chain
from palladion.attest.evidence import CERTIFICATES_MAX
from palladion.attest.pem import certificates_of
from palladion.attest.signature import Scheme, ecdsa_der, holds
from palladion.errors import FormatError

Status = Literal[
    "UpToDate",
    "SWHardeningNeeded",
    "ConfigurationNeeded",
    "ConfigurationAndSWHardeningNeeded",
    "OutOfDate",
    "OutOfDateConfigurationNeeded",
    "Revoked",
]
_SIGNER, _ROOT = "Intel SGX TCB Signing", "Intel SGX Root CA"
_Hex = Annotated[str, msgspec.Meta(pattern=r"^([0-9A-Fa-f]{2})*$", max_length=128)]
_Svn = Annotated[int, msgspec.Meta(ge=0, le=0xFFFF)]
_Advisories = Annotated[tuple[str, ...], msgspec.Meta(max_length=256)]


class Component(msgspec.Struct, frozen=True):
    """One security version."""

    svn: Annotated[int, msgspec.Meta(ge=0, le=255)]


_Components = Annotated[tuple[Component, ...], msgspec.Meta(min_length=16, max_length=16)]


class PlatformVersions(msgspec.Struct, frozen=True):
    """The least versions of a level of platforms."""

    sgxtcbcomponents: _Components
    pcesvn: _Svn
    tdxtcbcomponents: _Components | None = None


class PlatformLevel(msgspec.Struct, frozen=True, rename="camel"):
    """What Intel says of platforms of at least these versions."""

    tcb: PlatformVersions
    tcb_date: str
    tcb_status: Status
    advisories: _Advisories = msgspec.field(default=(), name="advisoryIDs")


class Svn(msgspec.Struct, frozen=True):
    """The least version of an enclave or module."""

    isvsvn: _Svn


class Level(msgspec.Struct, frozen=True, rename="camel"):
    """What Intel says of an enclave or module of at least this version."""

    tcb: Svn
    tcb_date: str
    tcb_status: Status
    advisories: _Advisories = msgspec.field(default=(), name="advisoryIDs")


class Module(msgspec.Struct, frozen=True, rename="camel"):
    """Who signs the TDX module, and which of its attributes count."""

    mrsigner: _Hex
    attributes: _Hex
    attributes_mask: _Hex


class ModuleIdentity(Module, frozen=True, rename="camel"):
    """The same for one generation of the module, `TDX_01` and so on, and what Intel says of its versions."""

    id: str
    tcb_levels: Annotated[tuple[Level, ...], msgspec.Meta(max_length=256)]


class TcbInfo(msgspec.Struct, frozen=True, rename="camel"):
    """What Intel says of the firmware of one family of platforms."""

    id: Literal["SGX", "TDX"]
    version: Literal[3]
    issue_date: str
    next_update: str
    fmspc: _Hex
    pce_id: _Hex
    tcb_type: Literal[0]
    tcb_evaluation_data_number: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    tcb_levels: Annotated[tuple[PlatformLevel, ...], msgspec.Meta(max_length=1024)]
    tdx_module: Module | None = None
    tdx_module_identities: Annotated[tuple[ModuleIdentity, ...], msgspec.Meta(max_length=64)] = ()


class EnclaveIdentity(msgspec.Struct, frozen=True, rename="camel"):
    """What Intel says of its quoting enclave."""

    id: Literal["QE", "TD_QE"]
    version: Literal[2]
    issue_date: str
    next_update: str
    tcb_evaluation_data_number: Annotated[int, msgspec.Meta(ge=0, le=1_000_000)]
    miscselect: _Hex
    miscselect_mask: _Hex
    attributes: _Hex
    attributes_mask: _Hex
    mrsigner: _Hex
    isvprodid: _Svn
    tcb_levels: Annotated[tuple[Level, ...], msgspec.Meta(max_length=256)]


_Statement = TypeVar("_Statement", TcbInfo, EnclaveIdentity)


class _Document(msgspec.Struct, frozen=True):
    """The collateral as it comes."""

    root_ca_crl: str
    pck_crl: str
    tcb_info_issuer_chain: str
    tcb_info: str
    tcb_info_signature: _Hex
    qe_identity_issuer_chain: str
    qe_identity: str
    qe_identity_signature: _Hex


class Collateral(msgspec.Struct, frozen=True):
    """Verified collateral, and the moment from which it counts no more."""

    tcb_info: TcbInfo
    qe_identity: EnclaveIdentity
    until: datetime


def verify_collateral(
    data: bytes, *, path: tuple[Certificate, ...], roots: Sequence[bytes], at: datetime, known: Sequence[bytes] = ()
) -> Collateral:
    """What Intel said, for the chain `path` of a quote: signatures, times and revocations checked at `at`.

    `known` are lists of revoked certificates that whoever made the evidence did not choose, which count for Intel's
    signers too. Raises AttestationError. That it is of this platform and enclave is for the judgement to see.
    """
    try:
        document = msgspec.json.decode(data, type=_Document, strict=True)
        root_list, pck_list = bytes.fromhex(document.root_ca_crl), bytes.fromhex(document.pck_crl)
    except (msgspec.DecodeError, ValueError, RecursionError):
        refuse("malformed", "collateral that is not JSON with the members of Intel's")
    # 1. Nothing in the quote's chain is revoked, neither by Intel's root nor by the authority of platforms.
    lists = check_revoked(path, [root_list, pck_list], at=at)
    authorities = lists.authorities
    if authorities != (path[2].name, path[1].name):
        refuse("collateral", f"lists of {', '.join(authorities)}: of {path[2].name} and {path[1].name} were expected")
    # 2. Both statements are signed by Intel's key for that, which is not revoked, and are current.
    until = [lists.until]
    documents = []
    for text, signature, chain in (
        (document.tcb_info, document.tcb_info_signature, document.tcb_info_issuer_chain),
        (document.qe_identity, document.qe_identity_signature, document.qe_identity_issuer_chain),
    ):
        signers = _signers(chain, root_list, roots=roots, at=at)
        check_known_lists(signers, known, at=at)
        signed = bytes.fromhex(signature)
        if len(signed) != 64 or not holds(
            Scheme(SHA256), signers[0].public_key, ecdsa_der(signed[:32], signed[32:]), text.encode()
        ):
            refuse("collateral", "a signature of Intel's under collateral does not hold")
        until += [one.not_after for one in signers]
        documents.append(text)
    tcb_info, identity = _decode(documents[0], TcbInfo), _decode(documents[1], EnclaveIdentity)
    for statement, what in ((tcb_info, "the TCB info"), (identity, "the identity of the quoting enclave")):
        since, end = moment(statement.issue_date), moment(statement.next_update)
        check_validity(since, end, at, what=what)
        until.append(end)
    return Collateral(tcb_info, identity, min(until))


def moment(text: str) -> datetime:
    """A time as Intel writes it. Raises AttestationError `malformed`."""
    try:
        return datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    except ValueError:
        refuse("malformed", "collateral with a time that is none")


def _signers(chain: str, root_list: bytes, *, roots: Sequence[bytes], at: datetime) -> tuple[Certificate, ...]:
    """The verified chain of who signs collateral: that key is for nothing else, and a platform's would not do."""
    try:
        certificates = certificates_of(chain.encode(), what="a chain in collateral", most=CERTIFICATES_MAX)
    except FormatError as error:
        refuse("malformed", error.message)
    path = verify_chain(certificates, roots=roots, at=at)
    if [one.name for one in path] != [_SIGNER, _ROOT]:
        refuse("collateral", f"collateral signed by {path[0].name!r}: {_SIGNER!r} was expected")
    check_revoked(path, [root_list], at=at)
    return path


def _decode(text: str, kind: type[_Statement]) -> _Statement:
    """A signed text, read. Raises AttestationError `collateral`."""
    try:
        return msgspec.json.decode(text, type=kind, strict=True)
    except (msgspec.DecodeError, ValueError, RecursionError):
        refuse("collateral", "signed collateral of a form that is not read here: version 3 of TCB info was expected")
