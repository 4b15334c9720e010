"""A double of the kernel's configfs-tsm, as strict as its description: Documentation/ABI/testing/configfs-tsm-report.

Attributes appear with an entry, an input has 32 to 64 bytes in one write, each write counts as a generation, reports
are made of the last input and privilege level, and an entry is gone for good once it is removed.
"""

import errno
import os
from collections.abc import Callable
from pathlib import Path

from palladion.attest.tsm import Configfs


class Kernel(Configfs):
    """`sign(data, privilege)` is the hardware: it returns the report and what the host puts beside it."""

    def __init__(self, provider: str, sign: Callable[[bytes, int], tuple[bytes, bytes]]) -> None:
        super().__init__(Path("/kernel"))
        self.provider = provider
        self.sign = sign
        self.entries: dict[str, dict[str, bytes | int]] = {}
        self.calls: list[str] = []
        self.meanwhile: Callable[[str, str], None] = lambda name, attribute: None  # another process, before each read

    def make(self, name: str) -> None:
        self.calls.append("make")
        if name in self.entries:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), name)
        self.entries[name] = {"generation": 0, "privilege": 0}

    def remove(self, name: str) -> None:
        self.calls.append("remove")
        self._entry(name)
        del self.entries[name]

    def write(self, name: str, attribute: str, data: bytes) -> None:
        self.calls.append(f"write {attribute}")
        entry = self._entry(name)
        if attribute == "inblob":
            if not 32 <= len(data) <= 64:
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            entry["inblob"] = data
        elif attribute == "privlevel":
            if self.provider != "sev_guest":
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), attribute)
            if data not in (b"0", b"1", b"2", b"3"):
                raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
            entry["privilege"] = int(data)
        else:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), attribute)
        entry["generation"] = int(entry["generation"]) + 1

    def read(self, name: str, attribute: str, size_max: int) -> bytes:
        self.calls.append(f"read {attribute}")
        self.meanwhile(name, attribute)
        entry = self._entry(name)
        if attribute == "provider":
            return f"{self.provider}\n".encode()
        if attribute == "generation":
            return f"{entry['generation']!r}\n".encode()
        if attribute not in ("outblob", "auxblob"):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), attribute)
        data, privilege = entry.get("inblob"), entry["privilege"]
        if not isinstance(data, bytes) or not isinstance(privilege, int):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        document, auxiliary = self.sign(data, privilege)
        if attribute == "auxblob" and not auxiliary:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), attribute)
        return document if attribute == "outblob" else auxiliary

    def _entry(self, name: str) -> dict[str, bytes | int]:
        if name not in self.entries:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
        return self.entries[name]
