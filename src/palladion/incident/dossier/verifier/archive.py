"""The file as an archive: exactly its members, byte for byte, so that nothing is hidden in it or behind it."""

import re
import struct
import zlib

from .findings import DossierError

PACKAGE_BYTES_MAX = 2**31 - 1  # an archive without the extension for larger ones
MEMBERS_MAX = 65_535
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*(/[A-Za-z0-9_][A-Za-z0-9_.-]*)*")


def archive(members: dict[str, bytes]) -> bytes:
    """The one archive of these members: sorted by name, stored, dated 1980-01-01, without anything optional."""
    body: list[bytes] = []
    directory: list[bytes] = []
    offset = 0
    for name, content in sorted(members.items()):
        text = name.encode("ascii")
        common = struct.pack("<HHHHHIII", 20, 0, 0, 0, 0x21, zlib.crc32(content), len(content), len(content))
        place = struct.pack("<HHHHHII", len(text), 0, 0, 0, 0, 0o644 << 16, offset)
        directory += [b"PK\x01\x02\x14\x03", common, place, text]  # made as on Unix, by version 2.0 of the format
        body += [b"PK\x03\x04", common, struct.pack("<HH", len(text), 0), text, content]
        offset += 30 + len(text) + len(content)
    listing = b"".join(directory)
    end = struct.pack("<HHHHIIH", 0, 0, len(members), len(members), len(listing), offset, 0)
    return b"".join([*body, listing, b"PK\x05\x06", end])


def read_archive(data: bytes) -> dict[str, bytes]:
    """The members of an archive that is exactly one, by name. Raises DossierError."""
    if len(data) > PACKAGE_BYTES_MAX:
        raise DossierError("the file is too large to be a dossier")
    members: dict[str, bytes] = {}
    position = 0
    while data[position : position + 4] == b"PK\x03\x04" and len(data) >= position + 30:
        checksum, size, _, name_bytes = struct.unpack_from("<IIIH", data, position + 14)
        start = position + 30 + name_bytes
        name = data[position + 30 : start].decode("ascii", "replace")
        content = data[start : start + size]
        if not _NAME.fullmatch(name) or name in members or len(members) == MEMBERS_MAX:
            raise DossierError(
                f"the archive has too many members, or one of a name that is not allowed: {name[:100]!r}"
            )
        if len(content) != size or zlib.crc32(content) != checksum:
            raise DossierError(f"{name} was changed or cut: its length or checksum does not fit")
        members[name] = content
        position = start + size
    if archive(members) != data:
        raise DossierError("the file is not exactly the archive of its members: something was changed or added")
    return members
