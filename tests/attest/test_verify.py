"""The whole of it, as a broker calls it: evidence for this request, of one machine, that satisfies what is required."""

from dataclasses import replace
from typing import Any

import pytest

from palladion.attest.binding import device_nonce, report_data
from palladion.attest.claims import Claims
from palladion.attest.evidence import Evidence, Kind, Reason
from palladion.attest.requirements import Requirement, requirement
from palladion.attest.verify import (
    EVIDENCE_MAX,
    check_binding,
    check_composition,
    check_requirements,
    verify,
    verify_one,
)
from palladion.policy.attestation import AttestationPolicy, Tee
from tests.attest.nvidia.synthetic import nvidia_lab
from tests.attest.refusals import refused
from tests.attest.synthetic import MEASUREMENT, NOW, SnpReport, TdReport, changed, lab_roots, snp_lab, tdx_lab

NONCE, KEY, IDS = bytes(range(32)), b"\x07" * 32, ("ab" * 16,)


def required(name: str = "cvm", tee: Tee = "sev-snp", **settings: Any) -> Requirement:
    register = {"sev-snp": "measurement", "tdx": "mrtd"}.get(tee)
    measurements = (f"{register}={MEASUREMENT.hex()}",) if register else ()
    return requirement(AttestationPolicy(**{"name": name, "tee": tee, "measurements": measurements, **settings}))


def snp(**fields: Any) -> Evidence:
    return snp_lab().evidence(SnpReport(**{"report_data": report_data(NONCE, KEY, IDS), **fields}))


def tdx(**fields: Any) -> Evidence:
    return tdx_lab().evidence(TdReport(**{"report_data": report_data(NONCE, KEY, IDS), **fields}))


def verified(*evidence: Evidence, **changes: Any) -> tuple[Claims, ...]:
    request: dict[str, Any] = {
        "at": NOW,
        "roots": lab_roots(),
        "nonce": NONCE,
        "public_key": KEY,
        "file_ids": IDS,
        "requirements": [required()],
    }
    return verify(evidence, **request | changes)


def test_evidence_for_the_request_that_satisfies_is_accepted() -> None:
    assert [one.kind for one in verified(snp())] == ["sev-snp"]
    assert [one.kind for one in verified(tdx(), requirements=[required(tee="tdx")])] == ["tdx"]


@pytest.mark.parametrize("make", [snp, tdx])
@pytest.mark.parametrize(
    "change",
    [{"nonce": bytes(32)}, {"public_key": b"\x08" * 32}, {"file_ids": ()}, {"file_ids": (*IDS, "cd" * 16)}],
    ids=["nonce", "key", "no file", "another file"],
)
def test_evidence_for_another_request_is_refused(make: Any, change: dict[str, Any]) -> None:
    requirements = [required(), required(name="cvm", tee="tdx")]

    with refused("binding"):
        verified(make(), requirements=requirements, **change)


def test_file_ids_may_come_in_any_order_and_from_any_iterable() -> None:
    ids = ("cd" * 16, "ab" * 16)
    evidence = snp(report_data=report_data(NONCE, KEY, sorted(ids)))

    assert verified(evidence, file_ids=iter(ids))


@pytest.mark.parametrize(
    ("evidence", "settings", "reason"),
    [
        (snp(policy=0x30000 | 1 << 19), {}, "debug"),
        (snp(policy=0x30000 | 1 << 18), {}, "feature"),
        (snp(measurement=bytes(48)), {}, "measurement"),
        (snp(vmpl=1), {}, "feature"),
        (snp(), {"minimum_tcb": ("snp=24",)}, "tcb"),
        (snp(), {"minimum_tcb": ("launch_snp=24",)}, "tcb"),
        (snp(launch={"boot_loader": 4, "tee": 0, "snp": 4, "microcode": 213}), {"minimum_tcb": ("snp=23",)}, "tcb"),
        (snp(), {"chips": ("00" * 64,)}, "chip"),
        (tdx(td_attributes=1), {"tee": "tdx"}, "debug"),
        (tdx(td_attributes=1 << 29), {"tee": "tdx"}, "feature"),
        (tdx(mrtd=bytes(48)), {"tee": "tdx"}, "measurement"),
        (tdx(tee_tcb_svn=bytes([4, 1, 3]) + bytes(13)), {"tee": "tdx"}, "status"),
        (changed(tdx(), collateral=b""), {"tee": "tdx"}, "collateral"),
        (tdx(), {"tee": "tdx", "minimum_tcb": ("evaluation=18",)}, "tcb"),
    ],
)
def test_evidence_that_does_not_satisfy_is_refused(
    evidence: Evidence, settings: dict[str, Any], reason: Reason
) -> None:
    with refused(reason):
        verified(evidence, requirements=[required(**settings)])


def test_nothing_is_required_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="any machine"):
        verified(snp(), requirements=[])


def test_of_one_name_one_is_enough_and_every_name_counts() -> None:
    either = [required(), required(tee="tdx")]

    assert verified(snp(), requirements=either)
    assert verified(tdx(), requirements=either)
    with refused("missing", "tpm"):
        verified(snp(), requirements=[*either, required(name="host", tee="tpm", measurements=("pcr0=00",))])


def test_another_image_is_an_alternative_as_a_whole() -> None:
    """An old image on new firmware, or the other way around, satisfies neither of two alternatives."""
    one = required(minimum_tcb=("snp=30",))
    two = required(measurements=(f"measurement={'00' * 48}",), minimum_tcb=("snp=20",))

    with refused("tcb"):
        verified(snp(), requirements=[one, two])


def test_evidence_of_what_nothing_is_required_is_refused() -> None:
    with refused("missing"):
        verified(tdx())
    claims = [_claims("sev-snp"), _claims("tpm")]
    with refused("unwanted", "tpm"):
        check_requirements(claims, [required(measurements=("measurement=aa",))])


@pytest.mark.parametrize(
    ("kinds", "reason"),
    [
        ((), "missing"),
        (("nvidia",), "missing"),
        (("nvidia", "tpm"), "missing"),
        (("sev-snp", "tdx"), "malformed"),
        (("sev-snp", "sev-snp"), "malformed"),
        (("sev-snp", "tpm", "tpm"), "malformed"),
        (("sev-snp", *["nvidia"] * EVIDENCE_MAX), "malformed"),
    ],
)
def test_evidence_is_of_one_machine(kinds: tuple[Kind, ...], reason: Reason) -> None:
    evidence = [Evidence(kind, bytes([number])) for number, kind in enumerate(kinds)]

    with refused(reason):
        check_composition(evidence)


def test_a_machine_may_have_devices_and_a_tpm_may_stand_alone() -> None:
    check_composition(
        [Evidence("nvidia", b"1"), Evidence("tdx", b"2"), Evidence("nvidia", b"3"), Evidence("tpm", b"4")]
    )
    check_composition([Evidence("tpm", b"1")])
    with refused("malformed", "twice"):
        check_composition([Evidence("tdx", b"2"), Evidence("nvidia", b"3"), Evidence("nvidia", b"3")])


def _claims(kind: Kind, bound: bytes = b"", **fields: Any) -> Claims:
    return Claims(kind=kind, measurements={"measurement": "aa"}, bound=bound, debug=False, root="", **fields)


def test_the_machine_vouches_for_its_devices() -> None:
    gpu, machine = Evidence("nvidia", b"gpu"), Evidence("sev-snp", b"machine")
    device = _claims("nvidia", device_nonce(NONCE, KEY, IDS))
    welded = _claims("sev-snp", report_data(NONCE, KEY, IDS, devices=(gpu,)))
    request: dict[str, Any] = {"nonce": NONCE, "public_key": KEY, "file_ids": IDS}

    check_binding([machine, gpu], [welded, device], **request)
    for evidence, claims in (
        ([machine, gpu], [_claims("sev-snp", report_data(NONCE, KEY, IDS)), device]),
        ([machine, Evidence("nvidia", b"another gpu")], [welded, device]),
        ([machine], [welded]),
        ([machine, gpu], [welded, _claims("nvidia", NONCE)]),
    ):
        with refused("binding"):
            check_binding(evidence, claims, **request)


def test_nitro_binds_nonce_key_and_the_rest_in_fields_of_their_own() -> None:
    evidence = [Evidence("nitro", b"document")]
    good = _claims("nitro", NONCE, public_key=KEY, user_data=report_data(NONCE, KEY, IDS))
    request: dict[str, Any] = {"nonce": NONCE, "public_key": KEY, "file_ids": IDS}

    check_binding(evidence, [good], **request)
    for other in (
        replace(good, bound=bytes(32)),
        replace(good, public_key=b""),
        replace(good, user_data=report_data(NONCE, KEY)),
    ):
        with refused("binding"):
            check_binding(evidence, [other], **request)


def test_every_gpu_has_to_satisfy() -> None:
    pinned = required(name="gpu", tee="nvidia", measurements=("measurement=aa",))
    machine = required(measurements=("measurement=aa",))
    gpu = _claims("nvidia", status="matched")
    other = replace(gpu, measurements={"measurement": "bb"})

    check_requirements([_claims("sev-snp"), gpu, gpu], [machine, pinned])
    with refused("measurement"):
        check_requirements([_claims("sev-snp"), gpu, other], [machine, pinned])


def test_two_gpus_do_not_satisfy_together_what_neither_does() -> None:
    """One is the right chip with an old driver, the other has the wanted driver and is anybody's."""
    wanted = required(name="driver", tee="nvidia", measurements=("measurement=aa",))
    ours = required(name="chip", tee="nvidia", measurements=(), chips=("01", "02"))
    machine = required(measurements=("measurement=aa",))
    good = _claims("nvidia", status="matched", chip="01")
    old = replace(good, measurements={"measurement": "bb"})
    foreign = replace(good, chip="99")

    check_requirements([_claims("sev-snp"), good, replace(good, chip="02")], [machine, wanted, ours])
    for gpus, reason in (((old, foreign), "measurement"), ((foreign, old), "measurement"), ((good, foreign), "chip")):
        with refused(reason):  # type: ignore[arg-type]
            check_requirements([_claims("sev-snp"), *gpus], [machine, wanted, ours])


def test_one_gpu_does_not_count_twice() -> None:
    """Of one ECDSA signature there are two, (r, s) and (r, n - s), so that the bytes differ."""
    gpu, machine = required(name="gpu", tee="nvidia", measurements=()), required(measurements=("measurement=aa",))
    one = _claims("nvidia", status="matched", chip="01")

    check_requirements([_claims("sev-snp", chip="01"), one, replace(one, chip="02")], [machine, gpu])
    with refused("malformed", "twice"):
        check_requirements([_claims("sev-snp"), one, replace(one, signed_at=NOW)], [machine, gpu])


@pytest.mark.parametrize(
    "collateral", [b'{"driver_rim":"\xff","vbios_rim":""}', b'{"driver_rim":"\\ud800","vbios_rim":""}']
)
def test_text_that_is_none_is_a_refusal(collateral: bytes) -> None:
    lab = nvidia_lab()
    with refused("malformed"):
        verify_one(replace(lab.evidence(), collateral=collateral), at=NOW, roots=lab.roots)
