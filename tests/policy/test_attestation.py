"""The settings of trusted machines: those that would let any machine in are refused."""

from typing import Any

import pytest

from palladion.errors import PolicyError
from palladion.policy.attestation import AttestationPolicy, check_attestation


def machine(**settings: Any) -> AttestationPolicy:
    return AttestationPolicy(**{"name": "cvm", "tee": "sev-snp", "measurements": ("measurement=aa",), **settings})


def test_what_can_be_satisfied_is_accepted() -> None:
    check_attestation([])
    check_attestation(
        [machine(), machine(tee="tdx", measurements=("mrtd=bb",)), machine(tee="nvidia", measurements=())]
    )
    check_attestation([machine(tee="tpm", roots=("maker.pem",))])


@pytest.mark.parametrize(
    ("policies", "text"),
    [
        ([machine(measurements=())], "any sev-snp machine"),
        ([machine(tee="tpm")], "roots is empty"),
        ([machine(need=("smt_enabled",), forbid=("smt_enabled",))], "in need and in forbid"),
        ([machine()] * 17, "17 alternatives"),
    ],
)
def test_what_lets_any_in_or_none_is_refused(policies: list[AttestationPolicy], text: str) -> None:
    with pytest.raises(PolicyError, match=text):
        check_attestation(policies)
