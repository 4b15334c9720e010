"""A guest's evidence, from the kernel's double to the broker's verdict."""

from dataclasses import replace
from typing import Any

import pytest

from palladion.attest.binding import report_data
from palladion.attest.evidence import Evidence
from palladion.attest.guest import machine_evidence
from palladion.attest.requirements import requirement
from palladion.attest.verify import verify, verify_one
from palladion.errors import StorageError, UnsupportedFormatError
from palladion.policy.attestation import AttestationPolicy, Tee
from tests.attest.kernel import Kernel
from tests.attest.refusals import refused
from tests.attest.snp.test_table import table
from tests.attest.synthetic import (
    MEASUREMENT,
    NOW,
    SnpReport,
    TdReport,
    lab_roots,
    revoke,
    snp_lab,
    tdx_lab,
)

NONCE, KEY, IDS = bytes(range(32)), b"\x07" * 32, ("ab" * 16,)


def snp_guest(report: SnpReport | None = None, *, crls: tuple[bytes, ...] = (), certificates: bool = True) -> Kernel:
    lab, report = snp_lab(), report or SnpReport()
    leaf = {"vlek": lab.vlek(report), "ask": lab.asvk} if report.flags else {"vcek": lab.vcek(report), "ask": lab.ask}
    beside = table({**leaf, "ark": lab.ark}, lists=crls) if certificates else b""

    def sign(data: bytes, privilege: int) -> tuple[bytes, bytes]:
        return lab.sign(replace(report, report_data=data, vmpl=privilege).build()), beside

    return Kernel("sev_guest", sign)


def tdx_guest() -> Kernel:
    return Kernel("tdx_guest", lambda data, _: (tdx_lab().quote(TdReport(report_data=data)), b""))


def accepted(*evidence: Evidence, tee: Tee) -> bool:
    register = "mrtd" if tee == "tdx" else "measurement"
    policy = AttestationPolicy(name="cvm", tee=tee, measurements=(f"{register}={MEASUREMENT.hex()}",))
    claims = verify(
        evidence, at=NOW, roots=lab_roots(), nonce=NONCE, public_key=KEY, file_ids=IDS,
        requirements=[requirement(policy)],
    )  # fmt: skip
    return claims[0].kind == tee


@pytest.mark.parametrize("flags", [0, 4], ids=["vcek", "vlek"])
def test_an_snp_guest_is_believed(flags: int) -> None:
    evidence = machine_evidence(NONCE, KEY, IDS, configfs=snp_guest(SnpReport(flags=flags)))

    assert len(evidence.certificates) == 2
    assert accepted(evidence, tee="sev-snp")


def test_a_tdx_guest_with_intels_collateral_is_believed() -> None:
    evidence = machine_evidence(NONCE, KEY, IDS, collateral=tdx_lab().collateral(), configfs=tdx_guest())

    assert accepted(evidence, tee="tdx")


def test_devices_are_vouched_for() -> None:
    gpu = Evidence("nvidia", b"gpu report")

    evidence = machine_evidence(NONCE, KEY, IDS, devices=(gpu,), configfs=snp_guest())

    claims = verify_one(evidence, at=NOW, roots=lab_roots())
    assert claims.bound == report_data(NONCE, KEY, IDS, devices=(gpu,))


def test_the_hosts_lists_go_along_and_count() -> None:
    lab = snp_lab()
    fine = machine_evidence(NONCE, KEY, IDS, configfs=snp_guest(crls=(revoke("ARK-Milan", lab.ark_key),)))
    revoked = machine_evidence(NONCE, KEY, IDS, configfs=snp_guest(crls=(revoke("ARK-Milan", lab.ark_key, (4711,)),)))

    assert accepted(fine, tee="sev-snp")
    with refused("revoked"):
        accepted(revoked, tee="sev-snp")


def test_a_host_without_certificates_needs_them_named() -> None:
    lab = snp_lab()
    bare = machine_evidence(NONCE, KEY, IDS, configfs=snp_guest(certificates=False))
    named = machine_evidence(
        NONCE, KEY, IDS, certificates=(lab.vcek(SnpReport()), lab.ask), configfs=snp_guest(certificates=False)
    )

    with refused("chain"):
        accepted(bare, tee="sev-snp")
    assert accepted(named, tee="sev-snp")


def test_the_privilege_level_is_named() -> None:
    evidence = machine_evidence(NONCE, KEY, IDS, privilege=3, configfs=snp_guest())

    assert verify_one(evidence, at=NOW, roots=lab_roots()).features["vmpl"] == 3


@pytest.mark.parametrize("fields", [{}, {"td": True}], ids=["snp", "tdx"])
def test_hardware_that_signs_something_else_is_an_error(fields: dict[str, Any]) -> None:
    other = tdx_guest() if fields else snp_guest()
    sign = other.sign
    other.sign = lambda data, privilege: sign(bytes(64), privilege)

    with pytest.raises(StorageError, match="something else"):
        machine_evidence(NONCE, KEY, IDS, configfs=other)


def test_another_provider_is_not_read() -> None:
    with pytest.raises(UnsupportedFormatError, match="arm_cca_guest"):
        machine_evidence(NONCE, KEY, IDS, configfs=Kernel("arm_cca_guest", lambda data, _: (data, b"")))
