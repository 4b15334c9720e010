"""What a host has seen so far, so that nothing older is put back: versions, licences, revocations, the time.

Values in, values out. A host that has seen nothing yet cannot tell an old signed version from the newest: that is what
a release channel is for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Annotated, Literal

import msgspec

from palladion import canonical
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import ConflictError, FormatError
from palladion.seal.header import Header
from palladion.seal.structure import SealedInfo

SEEN_BYTES_MAX = 4 * 1024 * 1024  # some 20,000 models; read before anything is opened
NUMBERS_MAX = 20_000


@dataclass(frozen=True)
class Seen:
    """The newest that was seen: version by model, sequence by licence serial and by publisher's revocation list.

    `pending` are the nonces of licence requests that wait for their answer, by serial.
    """

    latest: datetime | None = None
    versions: Mapping[str, int] = field(default_factory=dict)
    licenses: Mapping[str, int] = field(default_factory=dict)
    revocations: Mapping[str, int] = field(default_factory=dict)
    pending: Mapping[str, str] = field(default_factory=dict)

    def check_version(self, info: SealedInfo) -> None:
        """Raise ConflictError if a newer version of the same model, from the same publisher, was opened before."""
        header = info.header
        floor = self.versions.get(_model_key(header), 0)
        if header.version < floor:
            raise ConflictError(
                f"{header.model} version {header.version} is older than version {floor}, which this host has opened",
                "if it was put back on purpose, open it with --allow-older",
            )

    def with_version(self, info: SealedInfo) -> "Seen":
        """With the version of a verified file; never a lower one than before."""
        key = _model_key(info.header)
        number = max(info.header.version, self.versions.get(key, 0))
        return replace(self, versions={**self.versions, key: number})

    def with_time(self, now: datetime) -> "Seen":
        """With the time of a use; never an earlier one than before."""
        return replace(self, latest=now if self.latest is None else max(now, self.latest))

    def encode(self) -> bytes:
        """Canonical JSON."""
        return canonical.encode(
            {
                "v": 1,
                "latest": timestamp(self.latest) if self.latest else "",
                "versions": dict(self.versions),
                "licenses": dict(self.licenses),
                "revocations": dict(self.revocations),
                "pending": dict(self.pending),
            }
        )


def decode_seen(data: bytes, *, what: str) -> Seen:
    """What `encode` wrote. Raises FormatError, naming `what`."""
    document = canonical.decode(data, size_max=SEEN_BYTES_MAX, what=what)
    try:
        parsed = msgspec.convert(document, _SeenDocument, strict=True)
        latest = parse_timestamp(parsed.latest) if parsed.latest else None
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"{what} is not what a host remembers: {error}") from None
    return Seen(latest, parsed.versions, parsed.licenses, parsed.revocations, parsed.pending)


def _model_key(header: Header) -> str:
    return f"{header.publisher}/{header.model}"


_Number = Annotated[int, msgspec.Meta(ge=0, le=canonical.INTEGER_MAX)]
_Numbers = Annotated[dict[str, _Number], msgspec.Meta(max_length=NUMBERS_MAX)]


class _SeenDocument(msgspec.Struct, forbid_unknown_fields=True):
    v: Literal[1]
    latest: str
    versions: _Numbers
    licenses: _Numbers
    revocations: _Numbers
    pending: Annotated[dict[str, str], msgspec.Meta(max_length=NUMBERS_MAX)]
