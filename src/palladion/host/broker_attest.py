"""What a host shows a key broker of itself: evidence of the machine, its TPM, and its GPUs, bound to one request."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal, get_args

from palladion import files
from palladion.attest.binding import device_nonce, report_data
from palladion.attest.evidence import COLLATERAL_BYTES_MAX, Evidence

Part = Literal["machine", "tpm", "gpu"]
PARTS: tuple[Part, ...] = get_args(Part)
PCRS = (0, 1, 2, 3, 4, 5, 6, 7)  # firmware, its settings, boot loader and secure boot: TCG PC Client profile


class MachineAttester:
    """Asks this machine's hardware, each time anew. `collateral` is a file of what the vendor says.

    `tcti` says how the TPM is reached; without it, as the kernel's device.
    """

    def __init__(
        self,
        parts: Collection[Part],
        *,
        collateral: Path | None = None,
        pcrs: Sequence[int] = PCRS,
        tcti: str = "",
    ) -> None:
        self._parts = frozenset(parts)
        self._tcti = tcti
        self._collateral = collateral
        self._pcrs = tuple(pcrs)

    def __call__(self, *, nonce: bytes, public_key: bytes, file_ids: Sequence[str]) -> Sequence[Evidence]:
        """Evidence of the parts. Raises NotFoundError or StorageError where there is no such hardware."""
        bound = device_nonce(nonce, public_key, file_ids)
        devices: list[Evidence] = []
        if "gpu" in self._parts:
            from palladion.attest.nvidia import device as gpu

            devices.append(gpu.attest(nonce=bound))
        if "tpm" in self._parts:
            from palladion.attest.tpm import device as tpm

            devices.append(tpm.attest(nonce=bound, pcrs=list(self._pcrs), tcti=self._tcti or tpm.DEVICE))
        if "machine" not in self._parts:
            return devices
        return [self._machine(nonce, public_key, file_ids, devices), *devices]

    def _machine(
        self, nonce: bytes, public_key: bytes, file_ids: Sequence[str], devices: Sequence[Evidence]
    ) -> Evidence:
        from palladion.attest.nitro import module

        if module.DEVICE.exists():
            bound = report_data(nonce, public_key, file_ids, devices=devices)
            return module.attest(nonce=nonce, public_key=public_key, user_data=bound)
        from palladion.attest.guest import machine_evidence

        data = b""
        if self._collateral is not None:
            data = files.read_limited(self._collateral, size_max=COLLATERAL_BYTES_MAX, what="the collateral")
        return machine_evidence(nonce, public_key, file_ids, devices=devices, collateral=data)


def needs_small_keys() -> bool:
    """Whether this is a Nitro enclave, whose documents have no room for a hybrid key."""
    from palladion.attest.nitro import module

    return module.DEVICE.exists()
