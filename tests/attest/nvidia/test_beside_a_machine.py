"""A GPU in an enclave's machine, as the broker verifies both: each made for the request, and one for the other."""

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from palladion.attest.binding import device_nonce, report_data
from palladion.attest.evidence import Evidence
from palladion.attest.nvidia import verifier
from palladion.attest.requirements import Requirement
from palladion.attest.roots import Roots
from palladion.attest.verify import verify
from palladion.errors import AttestationError
from tests.attest.nitro.synthetic import nitro_lab
from tests.attest.nvidia.synthetic import GpuReport, nvidia_lab
from tests.attest.refusals import refused
from tests.attest.synthetic import NOW

NONCE, KEY, FILES = bytes(range(32)), b"k" * 32, ("ab" * 16,)
REQUIREMENTS = [Requirement("enclave", "nitro", {}, {}), Requirement("gpu", "nvidia", {}, {})]


@pytest.fixture(autouse=True)
def values_of_our_own() -> Iterator[None]:
    with patch.object(verifier, "reference_roots", lambda: (nvidia_lab().rim_root,)):
        yield


def gpu(nonce: bytes = NONCE, *, collateral: bytes | None = None) -> Evidence:
    return nvidia_lab().evidence(GpuReport(nonce=device_nonce(nonce, KEY, FILES)), collateral=collateral)


def machine(*devices: Evidence) -> Evidence:
    bound = report_data(NONCE, KEY, FILES, devices=devices)
    return nitro_lab().evidence(nonce=NONCE, public_key=KEY, user_data=bound)


def check(*evidence: Evidence) -> list[str]:
    roots = Roots({"nitro": (nitro_lab().root,), "nvidia": (nvidia_lab().root,)})
    claims = verify(
        evidence, at=NOW, roots=roots, nonce=NONCE, public_key=KEY, file_ids=FILES, requirements=REQUIREMENTS
    )
    return [one.kind for one in claims]


def test_both_together_are_accepted() -> None:
    device = gpu()
    assert check(machine(device), device) == ["nitro", "nvidia"]


def test_a_gpu_of_another_machine_is_refused() -> None:
    """It was made for this request, but this machine does not vouch for it."""
    with refused("binding"):
        check(machine(gpu()), gpu())


def test_a_gpu_that_answered_another_request_is_refused() -> None:
    device = gpu(bytes(32))
    with refused("binding"):
        check(machine(device), device)


def test_a_gpu_without_reference_values_is_refused() -> None:
    device = gpu(collateral=b"")
    with pytest.raises(AttestationError, match="gpu"):
        check(machine(device), device)


def test_a_gpu_alone_or_a_machine_without_its_gpu_is_refused() -> None:
    with refused("missing"):
        check(gpu())
    with refused("missing"):
        check(machine())
