"""The newest version of each model that a host has opened, so that an older one, just as well signed, is not put back.

Values in, values out. A host that has seen nothing yet cannot tell an old version from the newest: that is what a
release channel is for. What licences need to be remembered is in `seal.machine`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Literal

import msgspec

from palladion import canonical
from palladion.errors import ConflictError, FormatError, StorageError
from palladion.seal.header import Header
from palladion.seal.structure import SealedInfo

SEEN_BYTES_MAX = 4 * 1024 * 1024  # some 40,000 models; read before anything is opened
MODELS_MAX = 40_000


@dataclass(frozen=True)
class Seen:
    """The highest version opened so far, by publisher and model."""

    versions: Mapping[str, int] = field(default_factory=dict)

    def check(self, info: SealedInfo) -> None:
        """Raise ConflictError if a newer version of the same model, from the same publisher, was opened before."""
        header = info.header
        floor = self.versions.get(_key(header), 0)
        if header.version < floor:
            raise ConflictError(
                f"{header.model} version {header.version} is older than version {floor}, which this host has opened",
                "if it was put back on purpose, open it with --allow-older (in Python: allow_older=True)",
            )

    def with_version(self, info: SealedInfo) -> "Seen":
        """With the version of a verified file, where it has one; never a lower one than before."""
        if not info.header.version:
            return self
        key = _key(info.header)
        return Seen({**self.versions, key: max(info.header.version, self.versions.get(key, 0))})

    def encode(self) -> bytes:
        """Canonical JSON. Raises StorageError if it is more than `decode_seen` reads: nothing is forgotten."""
        data = canonical.encode({"v": 1, "versions": dict(self.versions)})
        if len(self.versions) > MODELS_MAX or len(data) > SEEN_BYTES_MAX:
            raise StorageError(
                f"this host would have {len(self.versions)} models to remember in {len(data)} bytes, "
                f"at most {MODELS_MAX} in {SEEN_BYTES_MAX} are allowed",
                "give each group of models a host folder of its own",
            )
        return data


def decode_seen(data: bytes, *, what: str) -> Seen:
    """What `encode` wrote. Raises FormatError, naming `what`: forgetting instead would let the past back in."""
    document = canonical.decode(data, size_max=SEEN_BYTES_MAX, what=what)
    try:
        return Seen(msgspec.convert(document, _SeenDocument, strict=True).versions)
    except msgspec.ValidationError as error:
        raise FormatError(f"{what} is not what a host remembers: {error}") from None


def _key(header: Header) -> str:
    return f"{header.publisher}/{header.model}"


_Number = Annotated[int, msgspec.Meta(ge=0, le=canonical.INTEGER_MAX)]


class _SeenDocument(msgspec.Struct, forbid_unknown_fields=True):
    v: Literal[1]
    versions: Annotated[dict[str, _Number], msgspec.Meta(max_length=MODELS_MAX)]
