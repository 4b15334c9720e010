"""NVIDIA: a published report of an H100 verifies, and whatever is changed is refused by its name."""

import json
import random
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from palladion.attest.evidence import Evidence, Reason
from palladion.attest.nvidia.verifier import verify
from palladion.attest.pem import certificates_of
from palladion.attest.roots import Roots, vendor_roots
from palladion.errors import AttestationError
from tests.attest.nvidia.synthetic import VALUES, GpuReport, nvidia_lab
from tests.attest.refusals import VECTORS, refused
from tests.attest.synthetic import NOW, certify, with_bit_flipped

VECTOR_TIME = datetime(2025, 6, 1, tzinfo=UTC)
FOLDER = VECTORS / "nvidia"
REPORT = (FOLDER / "gpu_report.dat").read_bytes()
CHAIN = certificates_of((FOLDER / "gpu_certificate_chain.dat").read_bytes(), what="it", most=8)
RIMS = {f"{name}_rim": (FOLDER / f"{name}_rim.xml").read_text() for name in ("driver", "vbios")}
PUBLISHED = Evidence("nvidia", REPORT, CHAIN, json.dumps(RIMS).encode())


def check(evidence: Evidence, *, at: datetime = NOW, roots: Roots | None = None) -> Any:
    lab = nvidia_lab()
    return verify(evidence, at=at, roots=roots or lab.roots, rim_roots=(lab.rim_root,))


def published(evidence: Evidence = PUBLISHED, at: datetime = VECTOR_TIME) -> Any:
    return verify(evidence, at=at, roots=vendor_roots())


def test_a_published_report_verifies_with_nvidias_own_roots_and_values() -> None:
    claims = published()

    assert claims.root == "102bf659d5419614c9d8e6aecebc80454eb26b1df6a769ac720b9a690b167b48"
    assert claims.tcb == {"driver": "550.90.07", "vbios": "96.00.9F.00.01"}
    assert claims.bound.hex().startswith("931d8dd0add203ac")
    assert (claims.debug, claims.status) == (False, "matched")
    assert claims.measurements["measurement_2"].startswith("8048dfd18fe229bf")
    assert claims.measurements["driver_rim"].startswith("fec809461feed9da")
    assert claims.features == {"nvdec0_disabled": True}
    assert claims.expires == datetime(2026, 2, 22, 23, 17, 58, tzinfo=UTC)  # of who signed the VBIOS's values


def test_without_reference_values_a_gpu_counts_as_one_for_debugging() -> None:
    claims = published(replace(PUBLISHED, collateral=b""))
    assert (claims.debug, claims.status) == (True, "")
    assert "driver_rim" not in claims.measurements


@pytest.mark.parametrize("at", [datetime(2026, 3, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)])
def test_reference_values_are_refused_when_their_signer_has_expired(at: datetime) -> None:
    with refused("expired"):
        published(at=at)
    assert published(replace(PUBLISHED, collateral=b""), at)


def test_our_own_gpu_verifies() -> None:
    claims = check(nvidia_lab().evidence())
    assert (claims.debug, claims.bound, claims.tcb["vbios"]) == (False, bytes(range(32)), "96.00.9F.00.01")


def test_another_measurement_is_refused_with_its_number() -> None:
    with refused("measurement", match="else at 17 than"):
        check(nvidia_lab().evidence(GpuReport(values={**VALUES, 17: bytes(48)})))


def test_a_measurement_that_is_missing_is_refused() -> None:
    values = {index: value for index, value in VALUES.items() if index != 64}
    with refused("measurement", match="64"):
        check(nvidia_lab().evidence(GpuReport(values=values)))


def test_a_disabled_decoders_measurement_does_not_count() -> None:
    fields = tuple((kind, b"\x55" if kind == 11 else value) for kind, value in GpuReport().fields)
    values = {**VALUES, 36: bytes(range(48))}
    assert check(nvidia_lab().evidence(GpuReport(values=values, fields=fields))).status == "matched"
    with refused("measurement", match="36"):
        check(nvidia_lab().evidence(GpuReport(values=values)))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"driver": "550.90.08"}, "collateral"),
        ({"vbios": "96.00.9F.00.02"}, "collateral"),
    ],
)
def test_reference_values_of_another_version_are_refused(changes: dict[str, str], reason: Reason) -> None:
    lab = nvidia_lab()
    rims = {name: lab.rim(version, {1: [VALUES[1]]}) for name, version in changes.items()}
    with refused(reason, match="reference values of"):
        check(lab.evidence(collateral=lab.collateral(**rims)))


def test_two_documents_for_one_measurement_are_refused() -> None:
    lab = nvidia_lab()
    driver = lab.rim("550.90.07", {1: [VALUES[1]]})
    with refused("collateral", match="same measurement"):
        check(lab.evidence(collateral=lab.collateral(driver=driver)))


def test_firmware_that_the_certificate_was_not_made_for_is_refused() -> None:
    with refused("mismatch", match="firmware"):
        check(nvidia_lab().evidence(fwid=bytes(48)))
    without = tuple(pair for pair in GpuReport().fields if pair[0] != 20)
    with refused("mismatch"):
        check(nvidia_lab().evidence(extensions={}))
    # an old one that says nothing of it is anybody's that NVIDIA ever certified
    choices: tuple[dict[str, Any], ...] = ({}, {"fwid": bytes(48)}, {"extensions": {}})
    for options in choices:
        with refused("mismatch", match="does not say"):
            check(nvidia_lab().evidence(GpuReport(fields=without), **options))


def test_whoever_signs_reports_does_not_sign_reference_values() -> None:
    """A key that was taken out of one GPU must not say what all others should measure."""
    lab = nvidia_lab()
    forged = lab.rim("550.90.07", {1: [VALUES[1]]}, chain=(lab.leaf(extensions={}), lab.root), key=lab.leaf_key)
    with refused("root"):
        check(lab.evidence(collateral=lab.collateral(driver=forged)))


def test_whoever_signs_reference_values_does_not_sign_reports() -> None:
    lab = nvidia_lab()
    with refused("root"):
        check(replace(lab.evidence(), certificates=(lab.rim_leaf, lab.rim_root)))


def test_authorities_sign_neither() -> None:
    lab = nvidia_lab()
    with refused("chain", match="authority"):
        check(lab.evidence(authority=True))
    leaf = certify("signer", lab.rim_key, "values", lab.rim_root_key, authority=True)
    with refused("chain", match="authority"):
        check(lab.evidence(collateral=lab.collateral(driver=lab.rim("550.90.07", {1: [VALUES[1]]}, chain=(leaf,)))))


def test_another_root_is_not_trusted() -> None:
    with refused("root"):
        check(nvidia_lab().evidence(), roots=vendor_roots())
    with refused("root"):
        verify(nvidia_lab().evidence(), at=NOW, roots=nvidia_lab().roots)


def test_other_collateral_is_refused() -> None:
    for collateral in (
        b"x",
        b"{}",
        b'{"driver_rim": "x"}',
        b'{"driver_rim": "x", "vbios_rim": "y", "z": 1}',
        b"[" * 9999,
    ):
        with refused("malformed"):
            check(nvidia_lab().evidence(collateral=collateral))


def test_a_signature_of_another_report_is_refused() -> None:
    lab = nvidia_lab()
    other = lab.evidence(GpuReport(nonce=bytes(32))).document
    evidence = lab.evidence()
    with refused("signature"):
        check(replace(evidence, document=evidence.document[:-96] + other[-96:]))


def _refuse_flipped(count: int) -> None:
    bits = 8 * len(REPORT)
    evidence = replace(PUBLISHED, collateral=b"")
    for bit in [*random.Random(7).sample(range(bits), count), 0, bits - 1]:
        with pytest.raises(AttestationError):
            published(replace(evidence, document=with_bit_flipped(REPORT, bit)))


def test_a_flipped_bit_of_the_report_is_refused_at_60_places() -> None:
    _refuse_flipped(60)


@pytest.mark.slow
def test_a_flipped_bit_of_the_report_is_refused_at_one_place_of_fifty() -> None:
    _refuse_flipped(8 * len(REPORT) // 50)
