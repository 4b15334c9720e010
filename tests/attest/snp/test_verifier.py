"""SEV-SNP: published reports verify as they should, and whatever is changed is refused by its name."""

import random
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from palladion.attest.evidence import CERTIFICATE_BYTES_MAX, Evidence
from palladion.attest.roots import Roots, vendor_roots
from palladion.attest.snp.verifier import verify
from palladion.errors import AttestationError, FormatError
from tests.attest.refusals import VECTORS, refused
from tests.attest.synthetic import (
    AMD,
    CHIP,
    MEASUREMENT,
    NOW,
    SINCE,
    UNTIL,
    SnpReport,
    certify,
    changed,
    revoke,
    small,
    snp_lab,
    with_bit_flipped,
)

VECTOR_TIME = datetime(2025, 6, 25, tzinfo=UTC)
TURIN = SnpReport(
    product="Turin", chip=CHIP[:8], tcb={"fmc": 1, "boot_loader": 4, "tee": 0, "snp": 23, "microcode": 213}
)


def milan() -> Evidence:
    report = bytes.fromhex((VECTORS / "snp" / "report_milan.hex").read_text())
    return Evidence("sev-snp", report, ((VECTORS / "snp" / "vcek_milan.der").read_bytes(),))


def lab_evidence(report: SnpReport | None = None, **options: Any) -> Evidence:
    return snp_lab().evidence(report, **options)


def test_a_published_report_verifies_with_amds_own_root() -> None:
    claims = verify(milan(), at=VECTOR_TIME, roots=vendor_roots())

    assert claims.measurements["measurement"].startswith("7a1e5c266c0108db")
    assert not claims.debug
    assert {name: claims.tcb[name] for name in ("boot_loader", "tee", "snp", "microcode")} == {
        "boot_loader": 3,
        "tee": 0,
        "snp": 8,
        "microcode": 115,
    }
    assert claims.chip.startswith("d49554ec717f4e5b")
    assert claims.features["smt_allowed"] is True
    assert claims.features["migration_agent_allowed"] is False
    assert claims.features["product"] == "Milan"
    assert claims.root == "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd"
    assert claims.expires == datetime(2030, 4, 3, 19, 23, 43, tzinfo=UTC)


def test_a_published_report_that_allows_debug_says_so() -> None:
    report = (VECTORS / "snp" / "debug_allowed_report.bin").read_bytes()
    certificate = (VECTORS / "snp" / "debug_allowed_vcek.der").read_bytes()

    claims = verify(Evidence("sev-snp", report, (certificate,)), at=VECTOR_TIME, roots=vendor_roots())

    assert claims.debug


def test_a_published_report_is_refused_with_another_chips_certificate() -> None:
    other = (VECTORS / "snp" / "debug_allowed_vcek.der").read_bytes()

    with refused("signature"):
        verify(changed(milan(), certificates=(other,)), at=VECTOR_TIME, roots=vendor_roots())


@pytest.mark.parametrize(("days", "reason"), [(-4000, "early"), (4000, "expired")])
def test_a_published_report_is_refused_outside_of_its_certificates_life(days: int, reason: Any) -> None:
    with refused(reason, "SEV-VCEK"):
        verify(milan(), at=VECTOR_TIME + timedelta(days=days), roots=vendor_roots())


def test_a_sample_of_flipped_bits_is_refused() -> None:
    """Every 131st bit of report and certificate; the slow tests try each one."""
    _refuses_flips(of_report=range(0, 1184 * 8, 131), of_certificate=range(0, 1360 * 8, 131))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_each_flipped_bit_of_a_report_is_refused(part: int) -> None:
    _refuses_flips(of_report=range(part, 1184 * 8, 4))


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_each_flipped_bit_of_a_certificate_is_refused(part: int) -> None:
    _refuses_flips(of_certificate=range(part, 1360 * 8, 4))


def _refuses_flips(*, of_report: range = range(0), of_certificate: range = range(0)) -> None:
    good = milan()
    for bit in of_report:
        _refused(changed(good, document=with_bit_flipped(good.document, bit)), f"report bit {bit}")
    for bit in of_certificate:
        flipped = with_bit_flipped(good.certificates[0], bit)
        _refused(changed(good, certificates=(flipped,)), f"certificate bit {bit}")


def _refused(evidence: Evidence, what: str) -> None:
    try:
        verify(evidence, at=VECTOR_TIME, roots=vendor_roots())
    except AttestationError:
        return
    pytest.fail(f"accepted with {what} flipped")


@pytest.mark.parametrize("version", [2, 3, 4, 5])
@pytest.mark.parametrize("flags", [0, 4], ids=["vcek", "vlek"])
def test_every_version_verifies_by_either_key(version: int, flags: int) -> None:
    claims = verify(
        lab_evidence(SnpReport(version=version, flags=flags, report_data=b"\x07" * 64)), at=NOW, roots=snp_lab().roots
    )

    assert claims.bound == b"\x07" * 64
    assert claims.measurements["measurement"] == MEASUREMENT.hex()
    assert claims.features["leased_key"] is bool(flags)
    assert claims.features["signing_key"] == ("vlek" if flags else "vcek")
    assert claims.features["report"] == version
    assert claims.chip == CHIP.hex()
    assert claims.features.get("cloud") == ("cloud" if flags else None)


def test_turins_layout_of_firmware_and_its_short_chip_are_read() -> None:
    lab = snp_lab("Turin")

    claims = verify(lab.evidence(TURIN), at=NOW, roots=lab.roots)

    assert claims.tcb["fmc"] == 1
    assert claims.tcb["snp"] == 23
    assert claims.chip == CHIP[:8].hex()


def test_a_masked_chip_is_named_by_the_certificate() -> None:
    masked = SnpReport(chip=bytes(64))
    lab = snp_lab()
    evidence = Evidence("sev-snp", lab.sign(masked.build()), (lab.vcek(SnpReport()), lab.ask))

    assert verify(evidence, at=NOW, roots=lab.roots).chip == CHIP.hex()


def test_policy_bits_and_privilege_are_claims() -> None:
    policy = 0x30000 | 1 << 18 | 1 << 19 | 1 << 20
    claims = verify(lab_evidence(SnpReport(policy=policy, vmpl=2)), at=NOW, roots=snp_lab().roots)

    assert claims.debug
    assert claims.features["migration_agent_allowed"] is True
    assert claims.features["single_socket_required"] is True
    assert claims.features["vmpl"] == 2
    assert claims.features["alias_check_complete"] is True


@pytest.mark.parametrize(
    "report",
    [
        SnpReport(version=1),
        SnpReport(version=6),
        SnpReport(policy=0x10000),
        SnpReport(policy=0x30000 | 1 << 40),
        SnpReport(algorithm=2),
        SnpReport(vmpl=4),
        SnpReport(flags=7 << 2),
        SnpReport(flags=1 << 1),
        SnpReport(flags=1 << 9),
        SnpReport(cpuid=(0x17, 1, 1)),
    ],
    ids=["version 1", "version 6", "no reserved bit", "unknown policy", "algorithm", "vmpl", "unsigned", "masked key",
         "unknown flag", "unknown processor"],
)  # fmt: skip
def test_a_well_signed_report_of_no_known_form_is_malformed(report: SnpReport) -> None:
    lab = snp_lab()
    evidence = Evidence("sev-snp", lab.sign(report.build()), (lab.vcek(SnpReport()), lab.ask))

    with refused("malformed"):
        verify(evidence, at=NOW, roots=lab.roots)


@pytest.mark.parametrize("offset", [0x4C, 0x190, 0x1F8, 0x208, 0x29F, 0x2A0 + 60, 0x2A0 + 130, 0x2A0 + 200, 0x49F])
def test_content_where_the_form_has_none_is_malformed(offset: int) -> None:
    lab = snp_lab()
    data = bytearray(SnpReport().build())
    if offset < 0x2A0:
        data[offset] = 1
    signed = bytearray(lab.sign(bytes(data)))
    signed[offset] = 1

    with refused("malformed"):
        verify(changed(lab_evidence(), document=bytes(signed)), at=NOW, roots=lab.roots)


@pytest.mark.parametrize("size", [0, 1, 1183, 1185, 4096])
def test_a_report_of_another_size_is_malformed(size: int) -> None:
    good = lab_evidence()

    with refused("malformed"):
        verify(changed(good, document=good.document.ljust(size, b"\0")[:size]), at=NOW, roots=snp_lab().roots)


def test_what_is_larger_than_any_evidence_is_not_even_held() -> None:
    with pytest.raises(FormatError, match="measures"):
        Evidence("sev-snp", bytes(64 * 1024 + 1))
    with pytest.raises(FormatError, match="certificate"):
        Evidence("sev-snp", b"", (bytes(CERTIFICATE_BYTES_MAX + 1),))


def test_firmware_the_certificate_was_not_made_for_is_a_mismatch() -> None:
    """A downgraded host reports old firmware with a certificate for new, or the other way around."""
    lab = snp_lab()
    old = SnpReport(tcb={"boot_loader": 4, "tee": 0, "snp": 22, "microcode": 213})
    evidence = Evidence("sev-snp", lab.sign(old.build()), (lab.vcek(SnpReport()), lab.ask))

    with refused("mismatch", "snp 22"):
        verify(evidence, at=NOW, roots=lab.roots)


def test_another_chip_than_the_certificates_is_a_mismatch() -> None:
    lab = snp_lab()
    evidence = Evidence(
        "sev-snp", lab.sign(SnpReport(chip=bytes(63) + b"\x01").build()), (lab.vcek(SnpReport()), lab.ask)
    )

    with refused("mismatch", "another chip"):
        verify(evidence, at=NOW, roots=lab.roots)


def test_a_report_that_names_the_other_kind_of_key_is_a_mismatch() -> None:
    lab = snp_lab()
    leased = SnpReport(flags=4)
    evidence = Evidence("sev-snp", lab.sign(leased.build()), (lab.vcek(leased), lab.ask))

    with refused("mismatch", "VLEK"):
        verify(evidence, at=NOW, roots=lab.roots)


def test_a_certificate_of_another_product_than_its_authoritys_is_a_mismatch() -> None:
    lab = snp_lab()
    genoa = SnpReport(product="Genoa")
    evidence = Evidence("sev-snp", lab.sign(genoa.build()), (lab.vcek(genoa), lab.ask))

    with refused("mismatch", "Genoa"):
        verify(evidence, at=NOW, roots=lab.roots)


def test_a_processor_of_another_product_than_the_certificates_is_a_mismatch() -> None:
    with refused("mismatch", "Genoa"):
        verify(lab_evidence(SnpReport(cpuid=(0x19, 0x11, 0))), at=NOW, roots=snp_lab().roots)


def test_another_root_is_refused_with_a_hint() -> None:
    with refused("root", "trusted"):
        verify(lab_evidence(), at=NOW, roots=vendor_roots())
    with refused("root"):
        verify(milan(), at=VECTOR_TIME, roots=snp_lab().roots)
    with refused("root"):
        verify(lab_evidence(), at=NOW, roots=Roots({}))


def test_a_root_that_comes_with_the_evidence_is_believed_only_if_it_is_trusted() -> None:
    good = lab_evidence()
    with_root = changed(good, certificates=(*good.certificates, snp_lab().ark))

    assert verify(with_root, at=NOW, roots=snp_lab().roots).kind == "sev-snp"
    with refused("root"):
        verify(with_root, at=NOW, roots=snp_lab("Turin").roots)


def test_certificates_that_belong_to_no_chain_are_refused() -> None:
    good = lab_evidence()

    with refused("chain"):
        verify(changed(good, certificates=(*good.certificates, snp_lab().asvk)), at=NOW, roots=snp_lab().roots)
    with refused("chain"):
        verify(changed(good, certificates=()), at=NOW, roots=snp_lab().roots)


def test_a_leaf_that_is_no_snp_key_is_a_mismatch() -> None:
    good, lab = lab_evidence(), snp_lab()

    with refused("mismatch", "SEV-Milan"):
        verify(changed(good, certificates=(lab.ask,)), at=NOW, roots=lab.roots)


@pytest.mark.parametrize("number", range(2))
def test_an_authority_that_is_revoked_is_refused(number: int) -> None:
    lab = snp_lab()
    report = SnpReport(flags=4 * number)
    serial = 4711 + number

    fine = verify(lab.evidence(report, crls=(revoke("ARK-Milan", lab.ark_key, (1, 2)),)), at=NOW, roots=lab.roots)
    assert fine.kind == "sev-snp"
    with refused("revoked", "SEV-"):
        verify(lab.evidence(report, crls=(revoke("ARK-Milan", lab.ark_key, (1, serial)),)), at=NOW, roots=lab.roots)


def test_a_list_by_somebody_else_or_of_another_time_is_refused() -> None:
    lab, other = snp_lab(), snp_lab("Turin")

    with refused("chain"):
        verify(lab_evidence(crls=(revoke("ARK-Milan", other.ark_key),)), at=NOW, roots=lab.roots)
    with refused("chain"):
        verify(lab_evidence(crls=(revoke("ARK-Turin", other.ark_key),)), at=NOW, roots=lab.roots)
    with refused("expired"):
        old = revoke("ARK-Milan", lab.ark_key, until=NOW - timedelta(days=1))
        verify(lab_evidence(crls=(old,)), at=NOW, roots=lab.roots)
    with refused("early"):
        coming = revoke("ARK-Milan", lab.ark_key, since=NOW + timedelta(days=1))
        verify(lab_evidence(crls=(coming,)), at=NOW, roots=lab.roots)


@pytest.mark.parametrize(
    "collateral", [b"{}x", b'{"crls": ["zz"]}', b'{"other": 1}', b'{"crls": ["", "", "", "", ""]}', b"[" * 100_000]
)
def test_collateral_of_another_form_is_malformed(collateral: bytes) -> None:
    with refused("malformed"):
        verify(changed(lab_evidence(), collateral=collateral), at=NOW, roots=snp_lab().roots)


def test_an_authority_that_may_not_issue_is_refused() -> None:
    lab = snp_lab()
    good = lab_evidence()
    for ask, text in (
        (lab.authority("SEV-Milan", lab.ask_key, authority=False, path_length=None), "may not issue"),
        (lab.authority("SEV-Milan", lab.ask_key, may_sign=False), "may not issue"),
        (lab.authority("SEV-Milan", lab.asvk_key), "does not hold"),
        (lab.authority("SEV-Other", lab.ask_key), "not issued by"),
    ):
        with refused("chain", text):
            verify(changed(good, certificates=(good.certificates[0], ask)), at=NOW, roots=lab.roots)


def test_a_critical_extension_that_is_not_known_is_refused() -> None:
    lab = snp_lab()
    good = lab_evidence()
    odd = lab.vcek(SnpReport(), critical=True)

    with refused("malformed", "critical"):
        verify(changed(good, certificates=(odd, lab.ask)), at=NOW, roots=lab.roots)


@pytest.mark.parametrize("missing", ["2", "4"])
def test_a_certificate_without_what_it_has_to_say_is_refused(missing: str) -> None:
    lab = snp_lab()
    extensions = lab.extensions(SnpReport()) | {f"{AMD}4": CHIP}
    del extensions[f"{AMD}{missing}"]

    with refused("malformed", f"3704.1.{missing}"):
        evidence = changed(lab_evidence(), certificates=(lab.vcek(SnpReport(), extensions=extensions), lab.ask))
        verify(evidence, at=NOW, roots=lab.roots)


def test_a_certificate_without_a_number_of_the_firmware_is_a_mismatch() -> None:
    lab = snp_lab()
    extensions = lab.extensions(SnpReport()) | {f"{AMD}4": CHIP}
    del extensions[f"{AMD}3.3"]

    with refused("mismatch"):
        evidence = changed(lab_evidence(), certificates=(lab.vcek(SnpReport(), extensions=extensions), lab.ask))
        verify(evidence, at=NOW, roots=lab.roots)


def test_a_certificate_with_firmware_that_is_not_known_is_refused() -> None:
    lab = snp_lab()
    extensions = lab.extensions(SnpReport()) | {f"{AMD}4": CHIP, f"{AMD}3.5": small(1)}

    with refused("malformed", "not known"):
        evidence = changed(lab_evidence(), certificates=(lab.vcek(SnpReport(), extensions=extensions), lab.ask))
        verify(evidence, at=NOW, roots=lab.roots)


@pytest.mark.parametrize(("moment", "reason"), [(SINCE - timedelta(seconds=1), "early"), (UNTIL, None),
                                                (UNTIL + timedelta(seconds=1), "expired")])  # fmt: skip
def test_the_ends_of_a_certificates_life(moment: datetime, reason: Any) -> None:
    if reason is None:
        assert verify(lab_evidence(), at=moment, roots=snp_lab().roots).expires == UNTIL
        return
    with refused(reason):
        verify(lab_evidence(), at=moment, roots=snp_lab().roots)


def test_a_forged_chain_with_the_vendors_names_is_refused() -> None:
    """Everything is right but for the key of the root: the forger's has AMD's name."""
    lab, forger = snp_lab(), snp_lab("Turin")
    ark = certify("ARK-Milan", forger.ark_key, "ARK-Milan", forger.ark_key, authority=True)
    ask = certify("SEV-Milan", forger.ask_key, "ARK-Milan", forger.ark_key, authority=True, path_length=0)
    report = SnpReport()
    vcek = certify(
        "SEV-VCEK",
        lab.vek_key,
        "SEV-Milan",
        forger.ask_key,
        extensions=lab.extensions(report) | {f"{AMD}4": report.chip},
    )
    evidence = Evidence("sev-snp", lab.sign(report.build()), (vcek, ask, ark))

    with refused("chain"):
        verify(evidence, at=NOW, roots=lab.roots)
    assert verify(evidence, at=NOW, roots=Roots({"sev-snp": (ark,)})).kind == "sev-snp"


def test_random_bytes_are_refused_and_do_no_harm() -> None:
    choice = random.Random(5)
    for _ in range(200):
        document, certificate = choice.randbytes(0x4A0), choice.randbytes(choice.randrange(2000))
        with pytest.raises(AttestationError):
            verify(Evidence("sev-snp", document, (certificate,)), at=NOW, roots=snp_lab().roots)
        with pytest.raises(AttestationError):
            verify(replace(milan(), certificates=(certificate,)), at=NOW, roots=snp_lab().roots)
