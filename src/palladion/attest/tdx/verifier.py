"""Evidence of a TDX guest, verified: the quote's chain, its two signatures, and Intel's judgement of the firmware.

`document` is the quote, which carries its certificates; `collateral` is Intel's (collateral.py), and where it is
missing nothing is said of the firmware: `Claims.status` is empty, and requirements refuse it.
"""

from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from palladion.attest.chains import check_known_lists, refuse, verify_chain
from palladion.attest.claims import Claims
from palladion.attest.evidence import Evidence
from palladion.attest.roots import Roots
from palladion.attest.signature import Scheme, ecdsa_der, holds
from palladion.attest.tdx.collateral import Collateral, moment, verify_collateral
from palladion.attest.tdx.judgement import Judgement, judge
from palladion.attest.tdx.pck import Platform, read_platform
from palladion.attest.tdx.quote import Quote, TrustDomain, parse_quote

# Intel TDX module 1.5 base specification, TD attributes. The first byte is about debugging: any bit is reason enough.
_DEBUG_BITS = 0xFF
_ATTRIBUTES = {
    16: "icssd",
    27: "lass",
    28: "sept_ve_disabled",
    29: "migratable",
    30: "pks",
    31: "key_locker",
    62: "tpa",
    63: "perfmon",
}
_KNOWN = _DEBUG_BITS | sum(1 << bit for bit in _ATTRIBUTES)


def verify(evidence: Evidence, *, at: datetime, roots: Roots) -> Claims:
    """What the quote says, once chain, signatures and, where there is collateral, revocation and firmware are checked.

    Raises AttestationError. That the quote was made for this request, and whether it satisfies, is not checked here.
    """
    if evidence.certificates:
        refuse("malformed", "certificates beside a TDX quote, which carries its own")
    quote = parse_quote(evidence.document)
    if not isinstance(quote.body, TrustDomain):
        refuse("malformed", "a quote of an SGX enclave, of a trust domain was expected")
    checked = verify_quote(quote, evidence.collateral, roots=roots, at=at)
    return _claims(quote, quote.body, checked)


class Checked:
    """What is known of a quote once its signatures hold; without collateral there is no judgement."""

    __slots__ = ("collateral", "expires", "judgement", "platform", "revocation_known", "root")

    def __init__(
        self,
        platform: Platform,
        *,
        root: str,
        expires: datetime,
        revocation_known: bool,
        collateral: Collateral | None = None,
        judgement: Judgement | None = None,
    ) -> None:
        self.platform = platform
        self.root = root
        self.expires = expires
        self.revocation_known = revocation_known
        self.collateral = collateral
        self.judgement = judgement


def verify_quote(quote: Quote, collateral: bytes, *, roots: Roots, at: datetime) -> Checked:
    """Check everything that Intel vouches for, of TDX and SGX alike. Raises AttestationError."""
    trusted = roots.of("tdx")
    # 1. The platform's certificate leads to Intel's root, now.
    path = verify_chain(quote.certificates, roots=trusted, at=at)
    platform = read_platform(path)
    expires = min(one.not_after for one in path)
    known = check_known_lists(path, roots.revoking("tdx"), at=at)
    # 2. The platform's key signed the quoting enclave's report, and that report names the attestation key.
    r, s = quote.qe_signature[:32], quote.qe_signature[32:]
    if not holds(Scheme(SHA256), path[0].public_key, ecdsa_der(r, s), quote.qe_report.raw):
        refuse("signature", "the signature under the quoting enclave's report does not hold")
    named = sha256(quote.attestation_key + quote.qe_auth).digest() + bytes(32)
    if not compare_digest(quote.qe_report.report_data, named):
        refuse("mismatch", "the quoting enclave's report names another attestation key")
    # 3. The attestation key signed the quote.
    r, s = quote.signature[:32], quote.signature[32:]
    key = _public_key(quote.attestation_key)
    if not holds(Scheme(SHA256), key, ecdsa_der(r, s), quote.signed):
        refuse("signature", "the signature under the quote does not hold")
    if not collateral:
        return Checked(platform, root=path[-1].fingerprint, expires=expires, revocation_known=known)
    # 4. Intel's word on revocation and firmware.
    said = verify_collateral(collateral, path=path, roots=trusted, at=at, known=roots.revoking("tdx"))
    judgement = judge(quote, platform, said)
    return Checked(
        platform,
        root=path[-1].fingerprint,
        expires=min(expires, said.until),
        revocation_known=known,
        collateral=said,
        judgement=judgement,
    )


def _public_key(raw: bytes) -> bytes:
    try:
        numbers = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + raw)
    except ValueError:
        refuse("malformed", "a quote whose attestation key is no point of P-256")
    return numbers.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def _claims(quote: Quote, body: TrustDomain, checked: Checked) -> Claims:
    attributes = int.from_bytes(body.td_attributes, "little")
    if attributes & ~_KNOWN:
        refuse("malformed", f"a trust domain with attributes that are not known here, {body.td_attributes.hex()}")
    measurements = {
        "mrtd": body.mrtd,
        **{f"rtmr{number}": value for number, value in enumerate(body.rtmrs)},
        "mrconfigid": body.mrconfigid,
        "mrowner": body.mrowner,
        "mrownerconfig": body.mrownerconfig,
        "mrseam": body.mrseam,
        "mrsignerseam": body.mrsignerseam,
    }
    if body.mrservicetd:
        measurements["mrservicetd"] = body.mrservicetd
    platform, judgement, said = checked.platform, checked.judgement, checked.collateral
    tcb: dict[str, int | str] = {
        "fmspc": platform.fmspc.hex(),
        "pce": platform.pce_svn,
        "quoting_enclave": quote.qe_report.svn,
        "tdx_module": body.tee_tcb_svn[0],
        "tdx_generation": body.tee_tcb_svn[1],
        "tdx_microcode": body.tee_tcb_svn[2],
    }
    if said is not None and judgement is not None:
        numbers = (said.tcb_info.tcb_evaluation_data_number, said.qe_identity.tcb_evaluation_data_number)
        tcb |= {"evaluation": min(numbers), "date": int(f"{moment(judgement.tcb_date):%Y%m%d}")}
    features: dict[str, bool | int | str] = {name: bool(attributes >> bit & 1) for bit, name in _ATTRIBUTES.items()}
    features |= {**platform.settings, "xfam": body.xfam[::-1].hex(), "quote": quote.version}
    return Claims(
        kind="tdx",
        measurements=MappingProxyType({name: value.hex() for name, value in measurements.items()}),
        bound=body.report_data,
        debug=bool(attributes & _DEBUG_BITS),
        root=checked.root,
        chip=platform.ppid.hex(),
        tcb=MappingProxyType(tcb),
        status=judgement.status if judgement else "",
        advisories=judgement.advisories if judgement else (),
        expires=checked.expires,
        revocation_known=checked.revocation_known,
        features=MappingProxyType(features),
    )
