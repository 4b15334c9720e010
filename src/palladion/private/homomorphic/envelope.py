r"""What goes between a client and the gate: keys, queries and answers, each bound to a program and to a set of keys.

    "palladion-encrypted 1\n", length of the header (4 bytes, little), canonical JSON, the parts one after the other

Whoever reads one has authenticated its sender already. The header then says what the parts are before a byte of them
is looked at; sizes and the digest have to be right, so nothing that was cut, mixed up or meant for another program
goes on.
"""

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from palladion import canonical
from palladion.errors import FormatError, TamperError

MAGIC = b"palladion-encrypted 1\n"
MEDIA_TYPE = "application/vnd.palladion.encrypted"
HEADER_BYTES_MAX = 256 * 1024  # a length of ten digits for each of PARTS_MAX parts
PARTS_MAX = 16384
_LENGTH = struct.Struct("<I")

Kind = Literal["keys", "query", "answer"]
Form = Literal["interleaved", "columns"]
_Digest = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}$")]


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    kind: Kind
    program: Annotated[str, Meta(pattern=r"^[0-9a-f]{32}$")]
    keys: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?$")]
    form: Form
    sizes: Annotated[tuple[Annotated[int, Meta(ge=0, le=2**40)], ...], Meta(max_length=PARTS_MAX)]
    digest: _Digest


@dataclass(frozen=True, eq=False)
class Envelope:
    """Parts for a program: evaluation keys (two), ciphertexts of a query, or those of its answer.

    `keys` is the id of the evaluation keys that they are for; empty where none are needed.
    """

    kind: Kind
    program: str
    keys: str
    form: Form
    parts: tuple[bytes, ...]

    def encode(self) -> bytes:
        """Its bytes."""
        header = canonical.encode(
            {
                "kind": self.kind,
                "program": self.program,
                "keys": self.keys,
                "form": self.form,
                "sizes": [len(part) for part in self.parts],
                "digest": _digest(self.parts),
            }
        )
        return b"".join((MAGIC, _LENGTH.pack(len(header)), header, *self.parts))


def parse_envelope(data: bytes, *, kind: Kind, program: str) -> Envelope:
    """The envelope of bytes that are to be of this kind, for this program. Raises FormatError or TamperError.

    The caller has limited their number already.
    """
    start = len(MAGIC) + _LENGTH.size
    if not data.startswith(MAGIC) or len(data) < start:
        raise FormatError("this is no envelope of encrypted queries")
    (length,) = _LENGTH.unpack_from(data, len(MAGIC))
    if length > min(HEADER_BYTES_MAX, len(data) - start):
        raise FormatError(f"the header of an envelope says that it has {length} bytes")
    try:
        document = canonical.decode(
            data[start : start + length], size_max=HEADER_BYTES_MAX, what="an envelope's header"
        )
        header = msgspec.convert(document, _Header)
    except msgspec.ValidationError as error:
        raise FormatError(f"the header of an envelope is not one: {error}") from None
    if header.kind != kind:
        raise FormatError(f"an envelope with {header.kind} came, one with {kind} was expected")
    if header.program != program:
        raise FormatError(f"an envelope for the program {header.program} came, this is {program}")
    at = start + length
    if sum(header.sizes) != len(data) - at:
        raise FormatError(f"an envelope has {len(data) - at} bytes of parts, its header says {sum(header.sizes)}")
    parts = []
    for size in header.sizes:
        parts.append(data[at : at + size])
        at += size
    if not hmac.compare_digest(_digest(parts), header.digest):
        raise TamperError("the parts of an envelope are not those that its header names")
    return Envelope(kind, program, header.keys, header.form, tuple(parts))


def keys_id(rotation: bytes, squares: bytes) -> str:
    """The id of evaluation keys: a digest of both."""
    return _digest((rotation, squares))


def _digest(parts: Sequence[bytes]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
