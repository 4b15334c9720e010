"""On a machine with a GPU in confidential computing mode: asks it for a report, through NVIDIA's own library.

Not yet run on such a GPU: calls follow nvidia-ml-py's declarations, and are tested against a double that is as strict.
"""

from importlib import import_module
from types import ModuleType
from typing import Any

from palladion.attest.evidence import CERTIFICATES_MAX, Evidence
from palladion.attest.nvidia.report import NONCE_BYTES, REPORT_BYTES_MAX
from palladion.attest.pem import certificates_of
from palladion.errors import FormatError, MissingExtraError, NotFoundError, StorageError

CHAIN_BYTES_MAX = 0x1400  # NVML_GPU_ATTESTATION_CERT_CHAIN_SIZE
INDEX_MAX = 63


def attest(*, nonce: bytes, index: int = 0, library: ModuleType | None = None, collateral: bytes = b"") -> Evidence:
    """A fresh report of the GPU with that index, over `nonce` (32 bytes), with its chain and what `collateral` has.

    Raises NotFoundError without such a GPU, StorageError if it gives none, MissingExtraError without nvidia-ml-py.
    """
    if len(nonce) != NONCE_BYTES or not 0 <= index <= INDEX_MAX:
        raise ValueError(f"a nonce of {len(nonce)} bytes for GPU {index}, expected {NONCE_BYTES}, and 0 to {INDEX_MAX}")
    nvml: Any = library or _library()
    try:
        nvml.nvmlInit()
    except nvml.NVMLError as error:
        raise NotFoundError(f"no NVIDIA driver answers: {error}", "install it, and check nvidia-smi") from None
    try:
        count = nvml.nvmlDeviceGetCount()
        if index >= count:
            raise NotFoundError(f"no GPU {index} here: there are {count}", "they are counted from 0")
        state = nvml.nvmlSystemGetConfComputeState()
        if not state.ccFeature or state.devToolsMode:
            raise NotFoundError(
                "the GPU is not in confidential computing mode, or in the one for developers, which protects nothing",
                "the host turns it on (nvidia_gpu_tools.py --set-cc-mode=on)",
            )
        return _evidence(nvml, index, nonce, collateral)
    except nvml.NVMLError as error:
        raise StorageError(f"GPU {index} gives no attestation report: {error}") from None
    finally:
        nvml.nvmlShutdown()


def _evidence(nvml: Any, index: int, nonce: bytes, collateral: bytes) -> Evidence:
    handle = nvml.nvmlDeviceGetHandleByIndex(index)
    report = nvml.nvmlDeviceGetConfComputeGpuAttestationReport(handle, nonce)
    certificate = nvml.nvmlDeviceGetConfComputeGpuCertificate(handle)
    document = _filled(report.attestationReport, report.attestationReportSize, REPORT_BYTES_MAX)
    chain = _filled(certificate.attestationCertChain, certificate.attestationCertChainSize, CHAIN_BYTES_MAX)
    certificates = certificates_of(chain, what="the GPU's chain", most=CERTIFICATES_MAX)
    return Evidence("nvidia", document, certificates, collateral)


def _filled(field: Any, size: int, most: int) -> bytes:
    if not 0 < size <= min(most, len(field)):
        raise FormatError(f"the GPU's library states {size} bytes where {min(most, len(field))} fit")
    return bytes(field[:size])


def _library() -> ModuleType:
    try:
        return import_module("pynvml")
    except ImportError:
        raise MissingExtraError("evidence of a GPU needs NVIDIA's library", "pip install 'palladion[attest]'") from None
