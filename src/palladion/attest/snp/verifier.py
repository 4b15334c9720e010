"""Evidence of a SEV-SNP guest, verified: chain of the key, signature of the report, and that the two belong together.

`document` is the report, `certificates` the VCEK or VLEK and, where they are not the known ones, those above it;
`collateral` is empty or JSON, {"crls": ["hex of DER", …]}, lists of AMD's that revoke authorities.
"""

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType

import msgspec
from cryptography.hazmat.primitives.hashes import SHA384

from palladion.attest.chains import check_known_lists, check_revoked, refuse, verify_chain
from palladion.attest.claims import Claims
from palladion.attest.evidence import Evidence
from palladion.attest.roots import Roots
from palladion.attest.signature import Scheme, ecdsa_der, holds
from palladion.attest.snp.endorsement import CHIP_ID_BYTES, Endorsement, read_endorsement
from palladion.attest.snp.report import Report, parse_report, tcb_numbers

LISTS_MAX = 4


class Collateral(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Further data of a report: lists of revoked certificates, as hex of DER."""

    crls: tuple[str, ...] = ()


def verify(evidence: Evidence, *, at: datetime, roots: Roots) -> Claims:
    """What the report says, once chain, signature, lists and the certificate's firmware and chip fit.

    Raises AttestationError. That the report was made for this request, and whether it satisfies, is not checked here.
    """
    # 1. The report is one.
    report = parse_report(evidence.document)
    # 2. The key's certificate leads to a root of AMD's, now, and no list revokes it.
    path = verify_chain(evidence.certificates, roots=roots.of("sev-snp"), at=at, intermediates=roots.between("sev-snp"))
    lists = check_revoked(path, _lists(evidence.collateral), at=at)
    known = check_known_lists(path, roots.revoking("sev-snp"), at=at)
    endorsement = read_endorsement(path)
    # 3. That key signed the report.
    if not holds(Scheme(SHA384), path[0].public_key, ecdsa_der(*report.signature), report.signed):
        refuse("signature", "the signature under the SNP report does not hold")
    # 4. The key was made for the firmware and the chip that the report names.
    _check_belongs(report, endorsement)
    expires = min(lists.until, *(one.not_after for one in path))
    return _claims(report, endorsement, root=path[-1].fingerprint, expires=expires, revocation_known=known)


def _lists(collateral: bytes) -> list[bytes]:
    if not collateral:
        return []
    try:
        lists = msgspec.json.decode(collateral, type=Collateral, strict=True).crls
        if len(lists) > LISTS_MAX:
            raise ValueError
        return [bytes.fromhex(text) for text in lists]
    except (msgspec.DecodeError, ValueError, RecursionError):
        refuse(
            "malformed", f'collateral of an SNP report that is not {{"crls": [hex, …]}} with up to {LISTS_MAX} lists'
        )


def _check_belongs(report: Report, endorsement: Endorsement) -> None:
    """Raise `mismatch` unless the certificate is of the key, product, firmware and chip of the report."""
    if report.key != endorsement.key:
        refuse(
            "mismatch", f"a report signed by a {report.key.upper()}, with a certificate of a {endorsement.key.upper()}"
        )
    if report.product not in (None, endorsement.product):
        refuse("mismatch", f"a report of {report.product}, with a certificate of {endorsement.product}")
    reported = tcb_numbers(report.reported_tcb, endorsement.product)
    if dict(endorsement.tcb) != reported:
        refuse("mismatch", f"a report of firmware {_text(reported)}, with a certificate for {_text(endorsement.tcb)}")
    # hosts can mask the identifier; the certificate still says which chip it is
    masked = not any(report.chip_id)
    if endorsement.chip_id and not masked and report.chip_id != endorsement.chip_id.ljust(CHIP_ID_BYTES, b"\0"):
        refuse("mismatch", "a report of another chip than its certificate's")


def _claims(
    report: Report, endorsement: Endorsement, *, root: str, expires: datetime, revocation_known: bool
) -> Claims:
    tcb: dict[str, int | str] = {}
    for prefix, value in (
        ("", report.reported_tcb),
        ("current_", report.current_tcb),
        ("committed_", report.committed_tcb),
        ("launch_", report.launch_tcb),
    ):
        tcb |= {f"{prefix}{name}": number for name, number in tcb_numbers(value, endorsement.product).items()}
    measurements = {
        "measurement": report.measurement,
        "host_data": report.host_data,
        "family_id": report.family_id,
        "image_id": report.image_id,
        "id_key_digest": report.id_key_digest,
        "author_key_digest": report.author_key_digest if report.author_key else bytes(48),
    }
    # the report's own id tells guests apart where the maker's key of a cloud does not name the chip
    features = {**report.features, "product": endorsement.product, "report_id": report.report_id.hex()}
    if endorsement.cloud:
        features["cloud"] = endorsement.cloud
    return Claims(
        kind="sev-snp",
        measurements=MappingProxyType({name: value.hex() for name, value in measurements.items()}),
        bound=report.report_data,
        debug=report.debug,
        root=root,
        chip=endorsement.chip_id.hex() or (report.chip_id.hex() if any(report.chip_id) else ""),
        tcb=MappingProxyType(tcb),
        expires=expires,
        revocation_known=revocation_known,
        features=MappingProxyType(features),
    )


def _text(tcb: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number}" for name, number in sorted(tcb.items()))
