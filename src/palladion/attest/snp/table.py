"""The table of certificates that an SNP guest's host puts beside a report. Untrusted, as all that a host says.

Source: AMD 56421, Guest-Hypervisor Communication Block, §4.1.8.1.
"""

import struct
import uuid

from palladion.attest.chains import LIST_BYTES_MAX
from palladion.attest.evidence import CERTIFICATE_BYTES_MAX
from palladion.attest.pem import certificates_of
from palladion.errors import FormatError

_ENTRY = struct.Struct("<16sII")
_ENTRIES_MAX = 16
_LEAVES = ("63da758d-e664-4564-adc5-f4b93be8accd", "a8074bc2-a25a-483e-aae6-39c045a0b8a1")  # VCEK, VLEK
_AUTHORITY = "4ab7b379-bbac-4fe4-a02f-05aef327c782"  # the ASK, or the one of leased keys
_LIST = "92f81bc3-5811-4d3d-97ff-d19f88dc67ea"
_WHAT = "the host's table of certificates"


def read_table(data: bytes, *, leased: bool) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """Certificates in DER, leaf first, for a report by a leased key (VLEK) or a chip's, and lists of revoked ones.

    Roots and whatever else is in it are left out. Raises FormatError.
    """
    leaf: list[bytes] = []
    authority: list[bytes] = []
    lists: list[bytes] = []
    for number in range(_ENTRIES_MAX + 1):
        entry = data[number * _ENTRY.size : (number + 1) * _ENTRY.size]
        if not any(entry[:16]):  # the last entry is of zeros; a host without certificates gives none at all
            return (*leaf, *authority) if leaf else (), tuple(lists)
        if len(entry) < _ENTRY.size or number == _ENTRIES_MAX:
            break
        name, offset, length = _ENTRY.unpack(entry)
        if offset + length > len(data) or length > LIST_BYTES_MAX:
            raise FormatError(f"{_WHAT} points outside of itself")
        content = data[offset : offset + length]
        # hosts' tools write identifiers in either order of bytes
        names = {str(uuid.UUID(bytes=name)), str(uuid.UUID(bytes_le=name))}
        if _LEAVES[leased] in names:
            leaf = [_certificate(content)]
        elif _AUTHORITY in names:
            authority = [_certificate(content)]
        elif _LIST in names:
            lists.append(content)
    raise FormatError(f"{_WHAT} has no end")


def _certificate(content: bytes) -> bytes:
    if content.startswith(b"-----BEGIN"):
        content = certificates_of(content, what=_WHAT, most=4)[0]
    if len(content) > CERTIFICATE_BYTES_MAX:
        raise FormatError(f"{_WHAT} holds a certificate of {len(content)} bytes")
    return content
