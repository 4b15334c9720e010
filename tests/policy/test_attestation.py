"""The settings of trusted machines: those that would let any machine in are refused."""

from typing import Any

import msgspec
import pytest

from palladion.errors import PolicyError
from palladion.policy.attestation import AttestationPolicy, check_attestation


def machine(**settings: Any) -> AttestationPolicy:
    return AttestationPolicy(
        **{"name": "cvm", "tee": "sev-snp", "measurements": ("measurement=aa",), "minimum_tcb": ("snp=23",), **settings}
    )


def test_what_can_be_satisfied_is_accepted() -> None:
    check_attestation([])
    check_attestation(
        [machine(), machine(tee="tdx", measurements=("mrtd=bb",)), machine(tee="nvidia", measurements=())]
    )
    check_attestation([machine(tee="tpm", measurements=("pcr0=aa", "pcr23=00"), roots=("maker.pem",))])
    check_attestation(
        [machine(measurements=(f"{name}=aa", "host_data=00")) for name in ("measurement", "id_key_digest")]
    )
    check_attestation(
        [machine(tee="nitro", measurements=("pcr8=aa",), chips=("i-0f73a4b4cb74cc9f2-enc0192e4188fef781d",))]
    )


@pytest.mark.parametrize(
    ("policies", "text"),
    [
        ([machine(measurements=())], "any sev-snp machine"),
        ([machine(tee="tpm", measurements=("pcr7=aa",))], "roots is empty"),
        ([machine(minimum_tcb=())], "minimum_tcb is empty"),
        # set by the host, by the guest, or the same on every machine
        ([machine(measurements=("host_data=aa",))], "nothing that says what any sev-snp"),
        ([machine(measurements=("author_key_digest=0000",))], "nothing that says"),
        ([machine(measurements=("measurement=aa", "measurement=00"))], "nothing that says"),
        ([machine(tee="tdx", measurements=("rtmr1=aa", "mrseam=aa"))], "nothing that says"),
        ([machine(tee="nitro", measurements=("pcr4=aa", "pcr16=aa"))], "nothing that says"),
        ([machine(tee="tpm", measurements=("pcr16=aa", "pcr23=aa"), roots=("x.pem",))], "nothing that says"),
        ([machine(need=("smt_enabled",), forbid=("smt_enabled",))], "in need and in forbid"),
        ([machine()] * 17, "17 alternatives"),
        ([machine(require_crl=True)], "crls names no list"),
        ([machine(tee="nitro", measurements=("pcr0=aa",), crls=("x.crl",))], "crls are for sev-snp and tdx"),
    ],
)
def test_what_lets_any_in_or_none_is_refused(policies: list[AttestationPolicy], text: str) -> None:
    with pytest.raises(PolicyError, match=text):
        check_attestation(policies)


def test_chips_are_named_as_evidence_names_them() -> None:
    table = {"name": "n", "tee": "nitro", "measurements": ["pcr0=aa"]}
    name = "i-0f73a4b4cb74cc9f2-enc0192e4188fef781d"
    assert msgspec.convert({**table, "chips": [name]}, AttestationPolicy).chips == (name,)
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert({**table, "chips": ["i-0f73 x"]}, AttestationPolicy)
