"""Requirements: what is not as required is refused by its name, and what is not mentioned is not accepted."""

from dataclasses import replace
from datetime import timedelta
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from palladion.attest.chains import LIST_BYTES_MAX
from palladion.attest.claims import Claims
from palladion.attest.evidence import Reason
from palladion.attest.requirements import Requirement, check, load, requirement
from palladion.attest.roots import Roots, vendor_roots
from palladion.attest.verify import verify_one
from palladion.errors import FormatError, StorageError
from palladion.policy.attestation import AttestationPolicy
from tests.attest.refusals import refused
from tests.attest.synthetic import NOW, PLATFORM, ROOT, SnpReport, lab_roots, revoke, snp_lab, tdx_lab, to_pem

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


def _with_lists(folder: Path, lists: dict[str, bytes], **settings: Any) -> tuple[Requirement, Roots]:
    """What a policy requires of the labs' SNP guests, with these lists in files."""
    (folder / "amd.pem").write_text(to_pem(snp_lab().ark))
    for name, data in lists.items():
        (folder / name).write_bytes(data)
    report = SnpReport()
    policy = AttestationPolicy(
        name="cvm", tee="sev-snp", measurements=(f"measurement={report.measurement.hex()}",), roots=("amd.pem",),
        minimum_tcb=("launch_snp=0",), crls=tuple(lists), **settings,
    )  # fmt: skip
    (required,), roots = load([policy], folder)
    return required, roots


def test_evidence_that_leaves_out_a_list_is_refused_by_that_of_the_policy(tmp_path: Path) -> None:
    lab, evidence = snp_lab(), snp_lab().evidence()
    assert verify_one(evidence, at=NOW, roots=lab.roots).revocation_known is False

    _, roots = _with_lists(tmp_path, {"ark.crl": revoke("ARK-Milan", lab.ark_key, (4711,))})

    with refused("revoked", "'SEV-Milan'"):
        verify_one(evidence, at=NOW, roots=roots)


@pytest.mark.parametrize("lists", ["none of it", "late"])
def test_without_a_current_list_that_is_required_evidence_is_refused(tmp_path: Path, lists: str) -> None:
    lab = snp_lab()
    late = revoke("ARK-Milan", lab.ark_key, until=NOW - timedelta(hours=1))
    found = {"none of it": revoke("ARK-Genoa", lab.ark_key), "late": late}[lists]
    required, roots = _with_lists(tmp_path, {"a.crl": found}, require_crl=True)
    claims = verify_one(lab.evidence(), at=NOW, roots=roots)

    with refused("collateral", "no current list"):
        check(claims, required)
    check(claims, replace(required, require_crl=False))

    # the lab's ASK may sign lists, too; AMD's may not
    whole = {"b.crl": revoke("ARK-Milan", lab.ark_key), "c.crl": revoke("SEV-Milan", lab.ask_key)}
    required, roots = _with_lists(tmp_path, {"a.crl": found, **whole}, require_crl=True)
    check(verify_one(lab.evidence(), at=NOW, roots=roots), required)


def test_of_tdx_both_authorities_have_to_have_a_list(tmp_path: Path) -> None:
    lab = tdx_lab()
    root, platforms = revoke(ROOT, lab.root_key), revoke(PLATFORM, lab.ca_key)
    roots = lab_roots()

    assert verify_one(lab.evidence(), at=NOW, roots=roots.with_lists("tdx", [root, platforms])).revocation_known
    assert not verify_one(lab.evidence(), at=NOW, roots=roots.with_lists("tdx", [root])).revocation_known
    with refused("revoked", "PCK Certificate"):
        verify_one(lab.evidence(), at=NOW, roots=roots.with_lists("tdx", [revoke(PLATFORM, lab.ca_key, (22,))]))
    with refused("revoked", "TCB Signing"):
        verify_one(lab.evidence(), at=NOW, roots=roots.with_lists("tdx", [revoke(ROOT, lab.root_key, (23,))]))


def test_a_list_that_is_none_is_refused_when_the_policy_is_loaded(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"a\.crl"):
        _with_lists(tmp_path, {"a.crl": b"-----BEGIN X509 CRL-----"})
    with pytest.raises(FormatError, match="larger than"):
        _with_lists(tmp_path, {"a.crl": bytes(LIST_BYTES_MAX + 1)})
