"""A file of the corpus, and pickles written instruction by instruction."""

import struct
from dataclasses import dataclass, field
from pathlib import Path

MARKER = "echo palladion"  # what every payload would print, if anybody ran it


@dataclass(frozen=True)
class Sample:
    """A file by its bytes, or a folder by those of its files; `family` groups the rows of a table."""

    name: str
    data: bytes = b""
    family: str = ""
    folder: dict[str, bytes] = field(default_factory=dict)

    def write(self, directory: Path) -> Path:
        """Write it below `directory`; gives where."""
        path = directory / self.name
        if self.folder:
            for name, data in self.folder.items():
                (path / name).parent.mkdir(parents=True, exist_ok=True)
                (path / name).write_bytes(data)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.data)
        return path


def text(value: str) -> bytes:
    """A string as protocol 4 writes it."""
    data = value.encode()
    return (b"\x8c" + bytes([len(data)]) if len(data) < 256 else b"X" + struct.pack("<I", len(data))) + data


def raw(value: bytes) -> bytes:
    """A bytes object."""
    return (b"C" + bytes([len(value)]) if len(value) < 256 else b"B" + struct.pack("<I", len(value))) + value


def name(module: str, attribute: str, protocol: int = 4) -> bytes:
    """A function or class by its name."""
    if protocol >= 4:
        return text(module) + text(attribute) + b"\x93"
    return b"c" + module.encode() + b"\n" + attribute.encode() + b"\n"


def start(protocol: int) -> bytes:
    """The mark of a protocol; those before 2 have none."""
    return b"\x80" + bytes([protocol]) if protocol >= 2 else b""


def strings(values: tuple[str, ...], protocol: int = 4) -> bytes:
    """A tuple of strings."""
    items = b"".join(text(value) if protocol >= 4 else b"V" + value.encode() + b"\n" for value in values)
    return b"(" + items + b"t"


def call(module: str, attribute: str, arguments: tuple[str, ...] = (MARKER,), protocol: int = 4) -> bytes:
    """A whole pickle that calls one function with strings."""
    return start(protocol) + name(module, attribute, protocol) + strings(arguments, protocol) + b"R."
