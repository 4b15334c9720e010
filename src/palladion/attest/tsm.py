"""Inside a guest: asks its hardware for a report or quote through Linux (configfs-tsm, since kernel 6.7).

Not yet run on such hardware: the order of calls and every limit follow the kernel's own description
(Documentation/ABI/testing/configfs-tsm-report), and are tested against a double of the file system that is as strict.
"""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from palladion.attest.evidence import COLLATERAL_BYTES_MAX, DOCUMENT_BYTES_MAX
from palladion.errors import BusyError, NotFoundError, StorageError

FOLDER = Path("/sys/kernel/config/tsm/report")
INPUT_BYTES = 64  # SNP's and TDX's both; the kernel takes 32 to 64
PRIVILEGE_MAX = 3
_TEXT_BYTES_MAX = 64
_TRIES = 3  # another process that writes into our entry is somebody who wants it to fail


@dataclass(frozen=True)
class Answer:
    """What the hardware gave: who signs, the signed document, and what the host put beside it."""

    provider: str
    document: bytes
    auxiliary: bytes


class Configfs:
    """The few calls on a folder of configfs. Each write is one system call, as the kernel wants it."""

    def __init__(self, folder: Path = FOLDER) -> None:
        self.folder = folder

    def make(self, name: str) -> None:
        """Make an entry: the kernel fills it with attributes."""
        (self.folder / name).mkdir()

    def remove(self, name: str) -> None:
        """Remove an entry, attributes and all."""
        (self.folder / name).rmdir()

    def write(self, name: str, attribute: str, data: bytes) -> None:
        """Write an attribute as a whole."""
        descriptor = os.open(self.folder / name / attribute, os.O_WRONLY | os.O_CLOEXEC)
        try:
            if os.write(descriptor, data) != len(data):
                raise StorageError(f"{attribute} of {self.folder / name} took a part of what was written")
        finally:
            os.close(descriptor)

    def read(self, name: str, attribute: str, size_max: int) -> bytes:
        """An attribute as a whole. Raises StorageError for more than `size_max` bytes."""
        with (self.folder / name / attribute).open("rb", buffering=0) as stream:
            data = b""
            while chunk := stream.read(size_max + 1 - len(data)):
                data += chunk
        if len(data) > size_max:
            raise StorageError(f"{attribute} of {self.folder / name} is larger than {size_max} bytes")
        return data


def ask(data: bytes, *, privilege: int | None = None, configfs: Configfs | None = None) -> Answer:
    """Have the hardware sign `data`, 64 bytes. `privilege` is the level (VMPL) to be named in an SNP report.

    Raises NotFoundError where the kernel offers no such reports, StorageError if it refuses, BusyError if another
    process writes between. Takes as long as the firmware does: some ten milliseconds, of TDX up to seconds.
    """
    if len(data) != INPUT_BYTES:
        raise ValueError(f"{len(data)} bytes to sign, {INPUT_BYTES} were expected")
    if privilege is not None and not 0 <= privilege <= PRIVILEGE_MAX:
        raise ValueError(f"privilege level {privilege}, 0 to {PRIVILEGE_MAX} were expected")
    configfs = configfs or Configfs()
    try:
        for _ in range(_TRIES):
            answer = _try(data, privilege, configfs)
            if answer is not None:
                return answer
    except FileNotFoundError as error:
        raise NotFoundError(
            f"this machine offers no reports of its hardware: {error.filename or configfs.folder} is not there",
            "it has to be an SEV-SNP or TDX guest with kernel 6.7 or newer, modules tsm and sev-guest or tdx-guest, "
            "and configfs mounted on /sys/kernel/config",
        ) from None
    except PermissionError:
        raise StorageError(f"{configfs.folder} refuses: only root may ask the hardware") from None
    except OSError as error:
        raise StorageError(f"the kernel refuses a report: {(error.strerror or str(error)).lower()}") from None
    raise BusyError("another process changes each report that is asked for", "see who else writes to configfs-tsm")


def _try(data: bytes, privilege: int | None, configfs: Configfs) -> Answer | None:
    """One entry, from making to removing it; None if it was written to by somebody else."""
    # an entry of its own for each request, with a name that nobody can wait for
    name = f"palladion-{secrets.token_hex(8)}"
    configfs.make(name)
    try:
        writes = [("inblob", data)]
        provider = configfs.read(name, "provider", _TEXT_BYTES_MAX).decode("ascii", "replace").strip()
        if privilege is not None:
            writes.insert(0, ("privlevel", str(privilege).encode()))
        before = _generation(configfs, name)
        for attribute, value in writes:
            configfs.write(name, attribute, value)
        document = configfs.read(name, "outblob", DOCUMENT_BYTES_MAX)
        auxiliary = _optional(configfs, name)
        if _generation(configfs, name) != before + len(writes):
            return None
        return Answer(provider, document, auxiliary)
    except BlockingIOError:
        return None  # EWOULDBLOCK: the kernel saw a write between
    finally:
        configfs.remove(name)


def _generation(configfs: Configfs, name: str) -> int:
    text = configfs.read(name, "generation", _TEXT_BYTES_MAX).strip()
    if not text.isdigit():
        raise StorageError(f"generation of {configfs.folder / name} is no number")
    return int(text)


def _optional(configfs: Configfs, name: str) -> bytes:
    """Auxiliary data, which not every provider has."""
    try:
        return configfs.read(name, "auxblob", COLLATERAL_BYTES_MAX)
    except FileNotFoundError:
        return b""
