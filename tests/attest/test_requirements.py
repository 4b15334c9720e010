"""Requirements: what is not as required is refused by its name, and what is not mentioned is not accepted."""

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from palladion.attest.claims import Claims
from palladion.attest.evidence import Reason
from palladion.attest.requirements import Requirement, check, load, requirement
from palladion.attest.roots import vendor_roots
from palladion.errors import FormatError, StorageError
from palladion.policy.attestation import AttestationPolicy
from tests.attest.refusals import refused
from tests.attest.synthetic import snp_lab, tdx_lab, to_pem

DIGEST = "ab" * 48
SNP = Claims(
    kind="sev-snp",
    measurements=MappingProxyType({"measurement": DIGEST, "host_data": "cd" * 32}),
    bound=b"",
    debug=False,
    root="ef" * 32,
    chip="0123",
    tcb=MappingProxyType(
        {"snp": 23, "microcode": 213, "fmspc": "00906ed50000", "launch_snp": 22, "launch_microcode": 213}
    ),
    features=MappingProxyType({"vmpl": 0, "smt_enabled": True, "migration_agent_allowed": False, "alias": True}),
)
TDX = replace(SNP, kind="tdx", status="UpToDate", features=MappingProxyType({"migratable": False}))


def required(**settings: Any) -> Requirement:
    return requirement(
        AttestationPolicy(**{"name": "cvm", "tee": "sev-snp", "measurements": (f"measurement={DIGEST}",), **settings})
    )


def test_what_is_as_required_passes() -> None:
    check(SNP, required())
    check(
        SNP,
        required(
            measurements=(f"measurement={'00' * 48}", f"measurement={DIGEST}", f"host_data={'cd' * 32}"),
            minimum_tcb=("snp=22", "microcode=200"),
            need=("alias",),
            chips=("9999", "0123"),
        ),
    )
    check(TDX, required(tee="tdx"))
    check(replace(TDX, status="SWHardeningNeeded"), required(tee="tdx", statuses=("UpToDate", "SWHardeningNeeded")))


@pytest.mark.parametrize(
    ("claims", "settings", "reason"),
    [
        (SNP, {"tee": "tdx"}, "missing"),
        (replace(SNP, debug=True), {}, "debug"),
        (SNP, {"measurements": (f"measurement={'00' * 48}",)}, "measurement"),
        (SNP, {"measurements": (f"measurement={DIGEST}", f"host_data={'00' * 32}")}, "measurement"),
        (SNP, {"measurements": (f"measurement={DIGEST}", f"mrtd={DIGEST}")}, "measurement"),
        (SNP, {"minimum_tcb": ("snp=24",)}, "tcb"),
        (SNP, {"minimum_tcb": ("fmc=0",)}, "tcb"),
        (SNP, {"minimum_tcb": ("fmspc=1",)}, "tcb"),
        (replace(SNP, features={**SNP.features, "vmpl": 1}), {}, "feature"),
        (replace(SNP, features={**SNP.features, "migration_agent_allowed": True}), {}, "feature"),
        (replace(TDX, features={"migratable": True}), {"tee": "tdx"}, "feature"),
        (SNP, {"forbid": ("smt_enabled",)}, "feature"),
        (SNP, {"forbid": ("of_unknown",)}, "feature"),
        (SNP, {"need": ("migration_agent_allowed",)}, "feature"),
        (SNP, {"need": ("of_unknown",)}, "feature"),
        (SNP, {"need": ("vmpl",)}, "feature"),
        (SNP, {"chips": ("0124",)}, "chip"),
        (replace(SNP, chip=""), {"chips": ("0123",)}, "chip"),
        (replace(TDX, status=""), {"tee": "tdx"}, "collateral"),
        (replace(TDX, status="OutOfDate"), {"tee": "tdx"}, "status"),
        (replace(TDX, status="SWHardeningNeeded", advisories=("INTEL-SA-1",)), {"tee": "tdx"}, "status"),
    ],
)
def test_what_is_not_as_required_is_refused(claims: Claims, settings: dict[str, Any], reason: Reason) -> None:
    with refused(reason, "cvm"):
        check(claims, required(**settings))


def test_an_snp_guest_has_to_have_been_started_under_the_least_firmware_as_well() -> None:
    with refused("tcb", "launch_snp is 22, at least 23"):
        check(SNP, required(minimum_tcb=("snp=23",)))
    with refused("tcb", "launch_snp is not known"):
        check(replace(SNP, tcb={"snp": 23}), required(minimum_tcb=("snp=23",)))
    # who says so can accept less, and other kinds have no such number
    check(SNP, required(minimum_tcb=("snp=23", "launch_snp=22")))
    check(replace(TDX, tcb={"evaluation": 18}), required(tee="tdx", minimum_tcb=("evaluation=18",)))


def test_a_gpu_without_reference_values_is_refused_by_that_name() -> None:
    gpu = replace(SNP, kind="nvidia", debug=True, features=MappingProxyType({}))

    with refused("collateral", "reference values"):
        check(gpu, required(tee="nvidia", measurements=()))
    check(replace(gpu, debug=False, status="matched"), required(tee="nvidia", measurements=()))


def test_what_is_dangerous_can_be_accepted_by_name() -> None:
    check(replace(SNP, debug=True), required(debug=True))
    check(replace(SNP, features={**SNP.features, "vmpl": 2}), required(privilege_max=2))
    check(replace(SNP, features={**SNP.features, "migration_agent_allowed": True}), required(migration=True))


def test_a_root_that_is_not_the_requirements_is_refused() -> None:
    named = replace(required(), roots=frozenset({"ef" * 32}))

    check(SNP, named)
    with refused("root"):
        check(replace(SNP, root="00" * 32), named)


def test_policies_are_loaded_with_their_roots(tmp_path: Path) -> None:
    (tmp_path / "amd.pem").write_text(to_pem(snp_lab().ark))
    own = AttestationPolicy(name="lab", tee="sev-snp", measurements=(f"measurement={DIGEST}",), roots=("amd.pem",))
    vendor = AttestationPolicy(name="cvm", tee="sev-snp", measurements=(f"measurement={DIGEST}",))

    requirements, roots = load([own, vendor], tmp_path)

    assert requirements[0].roots == {sha256(snp_lab().ark).hexdigest()}
    assert requirements[1].roots == {sha256(one).hexdigest() for one in vendor_roots().of("sev-snp")}
    assert set(roots.of("sev-snp")) == {snp_lab().ark, *vendor_roots().of("sev-snp")}
    assert roots.of("tdx") == vendor_roots().of("tdx")


def test_roots_of_a_file_take_the_vendors_place(tmp_path: Path) -> None:
    (tmp_path / "intel.pem").write_text(to_pem(tdx_lab().root))
    own = AttestationPolicy(name="lab", tee="tdx", measurements=(f"mrtd={DIGEST}",), roots=("intel.pem",))

    assert load([own], tmp_path)[1].of("tdx") == (tdx_lab().root,)


def test_roots_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    own = AttestationPolicy(name="lab", tee="tdx", measurements=(f"mrtd={DIGEST}",), roots=("intel.pem",))
    with pytest.raises(StorageError):
        load([own], tmp_path)
    (tmp_path / "intel.pem").write_text("no certificate")
    with pytest.raises(FormatError, match=r"intel\.pem"):
        load([own], tmp_path)
