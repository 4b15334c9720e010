"""The GPU's side, through a double of NVIDIA's library that takes what nvidia-ml-py takes."""

import ctypes
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from palladion.attest.nvidia.device import CHAIN_BYTES_MAX, INDEX_MAX, attest
from palladion.attest.nvidia.report import REPORT_BYTES_MAX
from palladion.errors import FormatError, NotFoundError, StorageError
from tests.attest.refusals import VECTORS

REPORT = (VECTORS / "nvidia" / "gpu_report.dat").read_bytes()
CHAIN = (VECTORS / "nvidia" / "gpu_certificate_chain.dat").read_bytes()


class NvmlError(Exception):
    """What the library raises."""


@dataclass
class Nvml:
    """NVML as nvidia-ml-py declares it: what is given back stands in arrays of fixed size, beside a length."""

    count: int = 2
    feature: int = 1
    dev_tools: int = 0
    report_size: int = len(REPORT)
    chain_size: int = len(CHAIN)
    fails: str = ""
    open: int = 0
    nonce: bytes = b""
    NVMLError = NvmlError

    def _call(self, name: str) -> None:
        if self.fails == name:
            raise NvmlError("Not Supported")

    def nvmlInit(self) -> None:
        self._call("init")
        self.open += 1

    def nvmlShutdown(self) -> None:
        self.open -= 1

    def nvmlSystemGetConfComputeState(self) -> Any:
        self._call("state")
        return SimpleNamespace(environment=2, ccFeature=self.feature, devToolsMode=self.dev_tools)

    def nvmlDeviceGetCount(self) -> int:
        return self.count

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        if index >= self.count:
            raise NvmlError("Invalid Argument")
        return "handle"

    def nvmlDeviceGetConfComputeGpuAttestationReport(self, handle: str, nonce: bytes) -> Any:
        self._call("report")
        assert handle == "handle"
        self.nonce = bytes((ctypes.c_uint8 * 32)(*nonce))
        filled = (ctypes.c_uint8 * 0x2000)(*REPORT)
        return SimpleNamespace(attestationReport=filled, attestationReportSize=self.report_size)

    def nvmlDeviceGetConfComputeGpuCertificate(self, handle: str) -> Any:
        filled = (ctypes.c_uint8 * CHAIN_BYTES_MAX)(*CHAIN)
        return SimpleNamespace(attestationCertChain=filled, attestationCertChainSize=self.chain_size)


def ask(nvml: Nvml, **options: Any) -> Any:
    library: Any = nvml
    return attest(nonce=bytes(range(32)), library=library, **options)


def test_report_and_chain_come_from_the_library() -> None:
    nvml = Nvml()
    evidence = ask(nvml, collateral=b"{}")
    assert ask(Nvml(), index=1).document == REPORT
    assert (evidence.document, len(evidence.certificates), evidence.collateral) == (REPORT, 5, b"{}")
    assert (nvml.nonce, nvml.open) == (bytes(range(32)), 0)


@pytest.mark.parametrize("nvml", [Nvml(feature=0), Nvml(dev_tools=1)], ids=["off", "for developers"])
def test_a_gpu_that_protects_nothing_is_refused(nvml: Nvml) -> None:
    with pytest.raises(NotFoundError, match="confidential computing mode"):
        ask(nvml)
    assert nvml.open == 0


@pytest.mark.parametrize(
    ("nvml", "error"),
    [(Nvml(fails="init"), NotFoundError), (Nvml(fails="state"), StorageError), (Nvml(fails="report"), StorageError)],
)
def test_what_the_library_refuses_is_a_sentence(nvml: Nvml, error: type[Exception]) -> None:
    with pytest.raises(error, match="Not Supported"):
        ask(nvml)
    assert nvml.open == 0


@pytest.mark.parametrize(("nvml", "index"), [(Nvml(count=0), 0), (Nvml(count=2), 2)])
def test_a_gpu_that_is_not_there_is_a_sentence(nvml: Nvml, index: int) -> None:
    with pytest.raises(NotFoundError, match=f"no GPU {index} here"):
        ask(nvml, index=index)
    assert nvml.open == 0


@pytest.mark.parametrize(
    "nvml", [Nvml(report_size=0), Nvml(report_size=REPORT_BYTES_MAX), Nvml(chain_size=CHAIN_BYTES_MAX + 1)]
)
def test_a_length_beyond_what_was_given_is_refused(nvml: Nvml) -> None:
    with pytest.raises(FormatError, match="where"):
        ask(nvml)


def test_a_nonce_of_another_length_is_the_callers_mistake() -> None:
    library: Any = Nvml()
    for nonce, index in ((bytes(31), 0), (bytes(32), -1), (bytes(32), INDEX_MAX + 1)):
        with pytest.raises(ValueError, match="nonce"):
            attest(nonce=nonce, index=index, library=library)
