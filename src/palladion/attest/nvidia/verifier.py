"""Evidence of an NVIDIA GPU, verified: chain of its key, signature of the report, and NVIDIA's reference values.

`document` is the report, `certificates` its chain; `collateral` is empty or JSON, {"driver_rim": XML, "vbios_rim":
XML}.
"""

from collections.abc import Sequence
from datetime import datetime
from hashlib import sha256
from types import MappingProxyType

import msgspec
from cryptography.hazmat.primitives.hashes import SHA384

from palladion.attest.certificate import Certificate
from palladion.attest.chains import refuse, verify_chain
from palladion.attest.claims import Claims
from palladion.attest.evidence import Evidence
from palladion.attest.nvidia.reference import Reference, read_reference, reference_roots
from palladion.attest.nvidia.report import Report, parse_report
from palladion.attest.roots import Roots
from palladion.attest.signature import Scheme, ecdsa_der, holds

MATCHED = "matched"
_FWID_EXTENSION = "2.23.133.5.4.1"  # TCG's DICE: what the firmware that holds this key measured
_NVDEC0 = 36  # its measurement means nothing while that decoder is disabled (nvtrust, verifier.py)


class Collateral(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Reference values as NVIDIA publishes them, one document for each."""

    driver_rim: str
    vbios_rim: str


def verify(evidence: Evidence, *, at: datetime, roots: Roots, rim_roots: Sequence[bytes] | None = None) -> Claims:
    """What the report says, once chain and signature hold, and every measurement is one that NVIDIA vouches for.

    Without reference values nothing says what was measured, nor that it is no build for debugging: `debug` is then
    true. Raises AttestationError. That it was made for this request is not checked here.
    """
    # 1. The report is one.
    report = parse_report(evidence.document)
    # 2. The key's certificate leads to NVIDIA's root for devices.
    path = verify_chain(evidence.certificates, roots=roots.of("nvidia"), at=at)
    leaf = path[0]
    if leaf.authority:
        refuse("chain", "the report is signed by an authority, not by a GPU")
    # 3. That key signed the request with our nonce and the answer.
    if not holds(Scheme(SHA384), leaf.public_key, ecdsa_der(*report.signature), report.signed):
        refuse("signature", "the signature under the GPU's report does not hold")
    # 4. The firmware that holds the key is the one that the certificate was made for.
    if not report.fwid or not _names(leaf, report.fwid):
        refuse("mismatch", "a report of other firmware than its certificate's, or that does not say of which")
    # 5. NVIDIA signed for everything that was measured.
    references = _references(evidence.collateral, at, reference_roots() if rim_roots is None else rim_roots)
    if references:
        _check_measurements(report, references)
    expires = min([one.not_after for one in path] + [one.expires for one in references])
    return _claims(report, leaf, references, root=path[-1].raw, expires=expires)


def _names(leaf: Certificate, fwid: bytes) -> bool:
    extension = leaf.extensions.get(_FWID_EXTENSION, b"")
    # the digest ends the structure, as an octet string; NVIDIA's is of a draft that TCG's later form only extends
    return extension.endswith(b"\x04" + bytes([len(fwid)]) + fwid)


def _references(collateral: bytes, at: datetime, roots: Sequence[bytes]) -> tuple[Reference, ...]:
    if not collateral:
        return ()
    try:
        given = msgspec.json.decode(collateral, type=Collateral, strict=True)
    except (msgspec.DecodeError, ValueError, RecursionError):  # bytes that are no text are a ValueError
        refuse("malformed", 'collateral of a GPU that is not {"driver_rim": XML, "vbios_rim": XML}')
    return (
        read_reference(given.driver_rim.encode(), at=at, roots=roots, what="the driver's reference values"),
        read_reference(given.vbios_rim.encode(), at=at, roots=roots, what="the VBIOS's reference values"),
    )


def _check_measurements(report: Report, references: tuple[Reference, ...]) -> None:
    driver, vbios = references
    for what, reported, reference in (
        ("driver", report.driver, driver.version),
        ("VBIOS", report.vbios, vbios.version),
    ):
        if reported.upper() != reference.upper():
            refuse("collateral", f"a report of {what} {reported}, with reference values of {reference[:32]!r}")
    if driver.values.keys() & vbios.values.keys():
        refuse("collateral", "driver and VBIOS have reference values for the same measurement")
    for index, accepted in sorted({**driver.values, **vbios.values}.items()):
        if index == _NVDEC0 and report.nvdec0_disabled:
            continue
        if report.measurements.get(index) not in accepted:
            refuse("measurement", f"the GPU measured something else at {index} than NVIDIA's reference values say")


def _claims(
    report: Report, leaf: Certificate, references: tuple[Reference, ...], *, root: bytes, expires: datetime
) -> Claims:
    measurements = {f"measurement_{index}": value.hex() for index, value in report.measurements.items()}
    if references:
        # to be pinned: the documents name in one digest each all that a version may measure
        measurements |= {"driver_rim": references[0].digest, "vbios_rim": references[1].digest}
    return Claims(
        kind="nvidia",
        measurements=MappingProxyType(measurements),
        bound=report.nonce,
        debug=not references,
        root=sha256(root).hexdigest(),
        chip=sha256(leaf.public_key).hexdigest(),
        tcb=MappingProxyType({"driver": report.driver, "vbios": report.vbios}),
        status=MATCHED if references else "",
        expires=expires,
        features=MappingProxyType({"nvdec0_disabled": report.nvdec0_disabled}),
    )
