"""TDX: published quotes verify as they should, with Intel's judgement, and what is changed is refused by its name."""

import json
import random
import struct
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from palladion.attest.evidence import Evidence, Reason
from palladion.attest.roots import vendor_roots
from palladion.attest.tdx.quote import parse_quote
from palladion.attest.tdx.verifier import verify, verify_quote
from palladion.errors import AttestationError
from tests.attest.refusals import VECTORS, refused
from tests.attest.synthetic import (
    FMSPC,
    INTEL,
    MEASUREMENT,
    NOW,
    PCK,
    PLATFORM,
    PPID,
    ROOT,
    SIGNING,
    UNTIL,
    TdReport,
    TdxLab,
    certify,
    changed,
    pck_extension,
    platform_level,
    raw_signature,
    revoke,
    tdx_lab,
    to_pem,
    with_bit_flipped,
)

VECTOR_TIME = datetime(2025, 6, 25, tzinfo=UTC)


def published(name: str) -> bytes:
    return (VECTORS / name).read_bytes()


def published_evidence() -> Evidence:
    return Evidence("tdx", published("tdx/quote_with_collateral.dat"), (), published("tdx/quote_with_collateral.json"))


def lab_evidence(report: TdReport | None = None, **options: Any) -> Evidence:
    return tdx_lab().evidence(report, **options)


def test_a_published_quote_with_collateral_verifies() -> None:
    claims = verify(published_evidence(), at=VECTOR_TIME, roots=vendor_roots())

    assert claims.status == "UpToDate"
    assert claims.advisories == ()
    assert claims.measurements["mrtd"].startswith("91eb2b44d141d4ec")
    assert claims.measurements["rtmr3"] == "00" * 48
    assert not claims.debug
    assert claims.features["sept_ve_disabled"] is True
    assert claims.features["migratable"] is False
    assert claims.tcb["fmspc"] == "b0c06f000000"
    assert claims.tcb["evaluation"] == 17
    assert claims.tcb["date"] == 20240313
    assert (claims.tcb["tdx_generation"], claims.tcb["tdx_module"]) == (1, 6)
    assert claims.root == "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
    assert claims.expires == datetime(2025, 7, 19, 10, 0, 35, tzinfo=UTC)  # of the list of platforms


@pytest.mark.parametrize("member", ["pck_crl", "root_ca_crl"])
def test_claims_expire_with_the_first_list_of_revoked_certificates(member: str) -> None:
    lab, soon = tdx_lab(), NOW + timedelta(hours=1)
    lists = {"pck_crl": (PLATFORM, lab.ca_key), "root_ca_crl": (ROOT, lab.root_key)}
    replaced: dict[str, Any] = {member: revoke(*lists[member], until=soon).hex()}
    collateral = lab.collateral(**replaced)

    assert verify(lab.evidence(collateral=collateral), at=NOW, roots=lab.roots).expires == soon
    with refused("expired"):
        verify(lab.evidence(collateral=collateral), at=soon + timedelta(seconds=1), roots=lab.roots)


def test_published_collateral_expires() -> None:
    with refused("expired"):
        verify(published_evidence(), at=VECTOR_TIME + timedelta(days=200), roots=vendor_roots())
    with refused("early"):
        verify(published_evidence(), at=VECTOR_TIME - timedelta(days=20), roots=vendor_roots())


@pytest.mark.parametrize(
    ("name", "size", "when", "version", "mrtd"),
    [
        ("tdx/quote_v4.dat", 4935, VECTOR_TIME, 4, "6363b8043668a3ad"),
        ("tdx/quote_v5.dat", 5006, datetime(2026, 3, 1, tzinfo=UTC), 5, "91eb2b44"),
    ],
)
def test_published_quotes_without_collateral_verify_and_are_not_judged(
    name: str, size: int, when: datetime, version: int, mrtd: str
) -> None:
    claims = verify(Evidence("tdx", published(name)[:size]), at=when, roots=vendor_roots())

    assert claims.features["quote"] == version
    assert claims.status == ""
    assert "evaluation" not in claims.tcb
    assert len(claims.measurements["mrtd"]) == 96
    if version == 4:
        assert claims.measurements["mrtd"].startswith(mrtd)
    assert ("mrservicetd" in claims.measurements) == (version == 5)


def test_bytes_behind_a_published_quote_are_refused_unless_they_are_zeros() -> None:
    text, zeros = published("tdx/quote_v4.dat"), published("tdx/quote_with_collateral.dat")

    with refused("malformed", "belong to nothing"):
        verify(Evidence("tdx", text), at=VECTOR_TIME, roots=vendor_roots())
    assert zeros[4936:] == bytes(70)
    assert verify(Evidence("tdx", zeros), at=VECTOR_TIME, roots=vendor_roots()).kind == "tdx"


def test_a_published_sgx_quote_is_judged_as_intel_does() -> None:
    quote = parse_quote(published("sgx/quote.dat"))

    checked = verify_quote(quote, published("sgx/quote_collateral.json"), roots=vendor_roots(), at=VECTOR_TIME)

    assert checked.judgement is not None
    assert checked.judgement.status == "ConfigurationAndSWHardeningNeeded"
    assert checked.judgement.advisories == ("INTEL-SA-00289", "INTEL-SA-00615")


def test_an_enclaves_quote_is_no_evidence_of_a_trust_domain() -> None:
    with refused("malformed", "SGX"):
        verify(Evidence("tdx", published("sgx/quote.dat")), at=VECTOR_TIME, roots=vendor_roots())


def test_collateral_of_another_technology_is_refused() -> None:
    evidence = changed(published_evidence(), collateral=published("sgx/quote_collateral.json"))

    # Intel's lists of processors, while a platform's authority stands in this chain
    with refused("chain"):
        verify(evidence, at=VECTOR_TIME, roots=vendor_roots())


def test_a_sample_of_flipped_bits_is_refused() -> None:
    """Every 997th bit of the quote; the slow tests try each one, and the collateral."""
    good = published_evidence()
    for bit in range(0, 4936 * 8, 997):
        _refused(changed(good, document=with_bit_flipped(good.document, bit), collateral=b""), f"bit {bit}")


@pytest.mark.slow
@pytest.mark.parametrize("part", range(8))
def test_each_flipped_bit_of_a_quote_is_refused(part: int) -> None:
    good = published_evidence()
    for bit in range(part, len(good.document) * 8, 8):
        _refused(changed(good, document=with_bit_flipped(good.document, bit), collateral=b""), f"bit {bit}")


@pytest.mark.slow
def test_flipped_bits_of_collateral_change_nothing_or_are_refused() -> None:
    """Every 97th bit. Members of JSON that nobody reads, such as the PCK CRL's chain, may differ; claims may not."""
    good = published_evidence()
    claims = verify(good, at=VECTOR_TIME, roots=vendor_roots())
    refusals = 0
    for bit in range(0, len(good.collateral) * 8, 97):
        evidence = changed(good, collateral=with_bit_flipped(good.collateral, bit))
        try:
            assert verify(evidence, at=VECTOR_TIME, roots=vendor_roots()) == claims, f"bit {bit}"
        except AttestationError:
            refusals += 1
    assert refusals > len(good.collateral) * 8 / 97 * 0.8


def _refused(evidence: Evidence, what: str) -> None:
    try:
        verify(evidence, at=VECTOR_TIME, roots=vendor_roots())
    except AttestationError:
        return
    pytest.fail(f"accepted with {what} flipped")


@pytest.mark.parametrize(
    "report", [TdReport(), TdReport(version=5), TdReport(version=5, td15=True)], ids=["4", "5", "5 of TDX 1.5"]
)
def test_every_version_verifies(report: TdReport) -> None:
    claims = verify(lab_evidence(report), at=NOW, roots=tdx_lab().roots)

    assert claims.measurements["mrtd"] == MEASUREMENT.hex()
    assert claims.measurements["rtmr1"] == "01" * 48
    assert claims.status == "UpToDate"
    assert claims.chip == PPID.hex()
    assert claims.tcb["evaluation"] == 17
    assert claims.features["smt_enabled"] is True
    assert claims.expires == UNTIL


@pytest.mark.parametrize("bit", range(8))
def test_any_bit_about_debugging_makes_it_debug(bit: int) -> None:
    assert verify(lab_evidence(TdReport(td_attributes=1 << bit)), at=NOW, roots=tdx_lab().roots).debug


def test_attributes_are_claims_and_unknown_ones_are_refused() -> None:
    claims = verify(lab_evidence(TdReport(td_attributes=1 << 29 | 1 << 63)), at=NOW, roots=tdx_lab().roots)

    assert claims.features["migratable"] is True
    assert claims.features["perfmon"] is True
    with refused("malformed", "attributes"):
        verify(lab_evidence(TdReport(td_attributes=1 << 40)), at=NOW, roots=tdx_lab().roots)


@pytest.mark.parametrize(
    ("report", "qe_svn", "status", "advisories"),
    [
        (TdReport(tee_tcb_svn=bytes([4, 1, 3]) + bytes(13)), 4, "OutOfDate", ("INTEL-SA-7",)),
        (TdReport(tee_tcb_svn=bytes([5, 1, 2]) + bytes(13)), 4, "OutOfDate", ("INTEL-SA-8",)),
        (TdReport(), 3, "OutOfDate", ("INTEL-SA-9",)),
        (TdReport(tee_tcb_svn=bytes([3, 0, 3]) + bytes(13)), 4, "UpToDate", ()),
    ],
    ids=["old module", "old microcode", "old quoting enclave", "first generation"],
)
def test_firmware_is_judged_by_its_worst_part(
    report: TdReport, qe_svn: int, status: str, advisories: tuple[str, ...]
) -> None:
    claims = verify(lab_evidence(report, svn=qe_svn), at=NOW, roots=tdx_lab().roots)

    assert (claims.status, claims.advisories) == (status, advisories)


@pytest.mark.parametrize(
    ("report", "qe", "reason"),
    [
        (TdReport(tee_tcb_svn=bytes([1, 1, 3]) + bytes(13)), {}, "tcb"),
        (TdReport(tee_tcb_svn=bytes([9, 7, 3]) + bytes(13)), {}, "tcb"),
        (TdReport(tee_tcb_svn=bytes([5, 1, 1]) + bytes(13)), {}, "tcb"),
        (TdReport(), {"svn": 1}, "tcb"),
        (TdReport(), {"mrsigner": bytes(32)}, "mismatch"),
        (TdReport(), {"product": 1}, "mismatch"),
        (TdReport(), {"attributes": bytes([0x13]) + bytes(15)}, "mismatch"),
        (TdReport(), {"report_data": bytes(64)}, "mismatch"),
        (TdReport(mrsignerseam=b"\x01" * 48), {}, "mismatch"),
    ],
    ids=["module too old", "unknown module", "platform too old", "enclave too old", "other enclave", "other product",
         "enclave under debug", "other key", "other module"],
)  # fmt: skip
def test_what_intel_does_not_list_is_refused(report: TdReport, qe: dict[str, Any], reason: Reason) -> None:
    with refused(reason):
        verify(lab_evidence(report, **qe), at=NOW, roots=tdx_lab().roots)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"info": {"fmspc": "00" * 6}}, "collateral"),
        ({"info": {"pceId": "0100"}}, "collateral"),
        ({"info": {"id": "SGX"}}, "collateral"),
        ({"info": {"version": 2}}, "collateral"),
        ({"info": {"tcbType": 1}}, "collateral"),
        ({"info": {"tcbLevels": [platform_level(3, 11, 3, "Revoked")]}}, "revoked"),
        ({"info": {"tcbLevels": [platform_level(3, 12, 3, "UpToDate")]}}, "tcb"),
        ({"info": {"tcbLevels": [platform_level(3, 11, 3, "Splendid")]}}, "collateral"),
        ({"info": {"tcbLevels": []}}, "tcb"),
        ({"info": {"tdxModuleIdentities": []}}, "tcb"),
        ({"info": {"nextUpdate": "2026-03-02T11:59:59Z"}}, "expired"),
        ({"info": {"issueDate": "2026-03-02T12:00:01Z"}}, "early"),
        ({"info": {"issueDate": "yesterday"}}, "malformed"),
        ({"identity": {"id": "QE"}}, "collateral"),
        ({"identity": {"nextUpdate": "2026-03-02T11:59:59Z"}}, "expired"),
        ({"identity": {"attributesMask": "FF"}}, "mismatch"),
        ({"root_revokes": (21,)}, "revoked"),
        ({"ca_revokes": (22,)}, "revoked"),
        ({"root_revokes": (23,)}, "revoked"),
    ],
)  # fmt: skip
def test_collateral_that_does_not_fit_or_speaks_against_it_is_refused(changes: dict[str, Any], reason: Reason) -> None:
    with refused(reason):
        verify(lab_evidence(collateral=tdx_lab().collateral(**changes)), at=NOW, roots=tdx_lab().roots)


def test_lists_have_to_be_of_both_authorities_and_current() -> None:
    lab = tdx_lab()
    root_list, ca_list = revoke(ROOT, lab.root_key).hex(), revoke(PLATFORM, lab.ca_key).hex()
    old = revoke(PLATFORM, lab.ca_key, until=NOW - timedelta(seconds=1)).hex()
    forged = revoke(PLATFORM, lab.signing_key).hex()

    cases: tuple[tuple[dict[str, Any], Reason], ...] = (
        ({"pck_crl": root_list}, "collateral"),
        ({"root_ca_crl": ca_list}, "collateral"),
        ({"pck_crl": old}, "expired"),
        ({"pck_crl": forged}, "chain"),
        ({"pck_crl": ""}, "malformed"),
        ({"pck_crl": "zz"}, "malformed"),
    )
    for replaced, reason in cases:
        with refused(reason):
            verify(lab_evidence(collateral=lab.collateral(**replaced)), at=NOW, roots=lab.roots)


def test_collateral_is_signed_by_the_key_for_that_alone() -> None:
    """A platform's key has the same root, and whoever owns the platform could sign with it."""
    lab = tdx_lab()
    info = json.dumps(lab.tcb_info())
    chain = to_pem(lab.pck) + to_pem(lab.ca) + to_pem(lab.root)
    signature = raw_signature(lab.pck_key, info.encode()).hex()
    by_platform = lab.collateral(tcb_info=info, tcb_info_signature=signature, tcb_info_issuer_chain=chain)

    with refused("collateral", SIGNING):
        verify(lab_evidence(collateral=by_platform), at=NOW, roots=lab.roots)


def test_signatures_of_collateral_are_over_its_very_bytes() -> None:
    lab = tdx_lab()
    document = json.loads(lab.collateral())
    document["tcb_info"] = document["tcb_info"].replace(": ", ":", 1)

    with refused("collateral", "does not hold"):
        verify(lab_evidence(collateral=json.dumps(document).encode()), at=NOW, roots=lab.roots)


@pytest.mark.parametrize("collateral", [b"{}", b"x", b"[" * 100_000, b'{"tcb_info": 1}'])
def test_collateral_of_another_form_is_malformed(collateral: bytes) -> None:
    with refused("malformed"):
        verify(lab_evidence(collateral=collateral), at=NOW, roots=tdx_lab().roots)


def test_another_root_is_refused() -> None:
    with refused("root"):
        verify(lab_evidence(collateral=b""), at=NOW, roots=vendor_roots())
    with refused("root"):
        verify(published_evidence(), at=VECTOR_TIME, roots=tdx_lab().roots)


@pytest.mark.parametrize(
    ("chain", "reason"),
    [
        (lambda lab: (lab.ca, lab.root), "mismatch"),
        (lambda lab: (lab.signer, lab.root), "mismatch"),
        (lambda lab: (lab.pck, lab.root), "chain"),
        (lambda lab: (lab.pck, lab.ca, lab.root, lab.signer), "chain"),
        (lambda lab: (lab.platform(since=NOW + timedelta(days=1)), lab.ca, lab.root), "early"),
        (lambda lab: (lab.platform(until=NOW - timedelta(days=1)), lab.ca, lab.root), "expired"),
        (lambda lab: (lab.platform(extensions={}), lab.ca, lab.root), "malformed"),
        (lambda lab: (lab.platform(extensions={INTEL: b"\x30\x00"}), lab.ca, lab.root), "malformed"),
        (lambda lab: (certify(PCK, lab.ca_key, PLATFORM, lab.ca_key, extensions=_platform()), lab.ca, lab.root),
         "signature"),
    ],
    ids=["no leaf", "collateral's key", "gap", "more", "early", "expired", "no extension", "empty", "swapped leaf"],
)  # fmt: skip
def test_a_chain_that_is_not_the_platforms_is_refused(
    chain: Callable[[TdxLab], tuple[bytes, ...]], reason: Reason
) -> None:
    lab = tdx_lab()

    with refused(reason):
        verify(lab_evidence(chain=chain(lab), collateral=b""), at=NOW, roots=lab.roots)


def _platform() -> dict[str, bytes]:
    return {INTEL: pck_extension((3,) * 16, 11)}


def test_the_platform_is_read_from_its_certificate() -> None:
    lab = tdx_lab()
    old = lab.platform(extensions={INTEL: pck_extension((3,) * 15 + (2,), 11)})
    other = lab.platform(extensions={INTEL: pck_extension((3,) * 16, 11, fmspc=bytes(6))})

    judged = verify(lab_evidence(chain=(old, lab.ca, lab.root)), at=NOW, roots=lab.roots)

    assert (judged.status, judged.advisories) == ("OutOfDate", ("INTEL-SA-8",))
    assert judged.tcb["fmspc"] == FMSPC.hex()
    with refused("collateral", "FMSPC|fmspc|platforms"):
        verify(lab_evidence(chain=(other, lab.ca, lab.root)), at=NOW, roots=lab.roots)


def test_certificates_beside_the_quote_are_refused() -> None:
    with refused("malformed"):
        verify(changed(lab_evidence(), certificates=(tdx_lab().pck,)), at=NOW, roots=tdx_lab().roots)


@pytest.mark.parametrize(
    ("offset", "data"),
    [
        (0, struct.pack("<H", 3)),
        (0, struct.pack("<H", 6)),
        (2, struct.pack("<H", 3)),
        (4, struct.pack("<I", 0)),
        (4, struct.pack("<I", 0x82)),
        (8, b"\x01"),
        (12, b"\x00"),
        (48 + 584, struct.pack("<I", 2**32 - 1)),
        (48 + 584, struct.pack("<I", 0)),
        (48 + 584 + 4 + 128, struct.pack("<H", 5)),
        (48 + 584 + 4 + 128 + 2, struct.pack("<I", 2**32 - 1)),
        (48 + 584 + 4 + 128 + 6 + 448, struct.pack("<H", 65535)),
        (48 + 584 + 4 + 128 + 6 + 450 + 32, struct.pack("<H", 1)),
        (48 + 584 + 4 + 128 + 6 + 450 + 32 + 2, struct.pack("<I", 2**31)),
        (48 + 584 + 4 + 64, bytes(64)),
    ],
)
def test_fields_of_another_value_than_any_quote_has_are_malformed(offset: int, data: bytes) -> None:
    good = bytearray(lab_evidence(collateral=b"").document)
    good[offset : offset + len(data)] = data

    with pytest.raises(AttestationError) as caught:
        verify(Evidence("tdx", bytes(good)), at=NOW, roots=tdx_lab().roots)
    # an attestation key that is no key is one that the quoting enclave did not name
    assert caught.value.reason == ("mismatch" if offset == 48 + 584 + 4 + 64 else "malformed")


def test_zeros_are_let_pass_behind_the_quote_and_not_within() -> None:
    good, place = lab_evidence(collateral=b"").document, 48 + 584
    longer = struct.pack("<I", int.from_bytes(good[place : place + 4], "little") + 1)

    assert verify(Evidence("tdx", good + b"\0"), at=NOW, roots=tdx_lab().roots).kind == "tdx"
    with refused("malformed", "belong to nothing"):
        within = good[:place] + longer + good[place + 4 :] + b"\0"
        verify(Evidence("tdx", within), at=NOW, roots=tdx_lab().roots)


def test_a_module_of_the_first_generation_is_judged_with_the_platform() -> None:
    level = platform_level(3, 11, 3, "UpToDate")
    level["tcb"]["tdxtcbcomponents"][0] = {"svn": 4}
    collateral = tdx_lab().collateral(info={"tcbLevels": [level]})

    def judged(*svn: int) -> str:
        report = TdReport(tee_tcb_svn=bytes(svn) + bytes(13))
        return verify(lab_evidence(report, collateral=collateral), at=NOW, roots=tdx_lab().roots).status

    assert judged(4, 0, 3) == "UpToDate"
    assert judged(2, 1, 3) == "OutOfDate"
    with refused("tcb"):
        judged(3, 0, 3)


def test_a_quote_that_is_cut_off_anywhere_is_malformed() -> None:
    good = lab_evidence(collateral=b"").document
    for size in (*range(0, len(good), 97), len(good) - 1):
        with refused("malformed"):
            verify(Evidence("tdx", good[:size]), at=NOW, roots=tdx_lab().roots)


def test_random_bytes_are_refused_and_do_no_harm() -> None:
    choice, good = random.Random(5), lab_evidence(collateral=b"").document
    for _ in range(300):
        data = bytearray(good)
        start = choice.randrange(len(data))
        data[start : start + choice.randrange(1, 40)] = choice.randbytes(choice.randrange(40))
        if bytes(data) == good:
            continue
        with pytest.raises(AttestationError):
            verify(Evidence("tdx", bytes(data)), at=NOW, roots=tdx_lab().roots)
