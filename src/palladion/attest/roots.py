"""The roots that vouch for hardware: those of the vendors, which are part of this package, or others in their place.

`pinned/KIND/*.pem` holds them; its README.md says where each is from. Nothing that evidence brings along is a root.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib import resources
from types import MappingProxyType

from palladion.attest.evidence import CERTIFICATE_BYTES_MAX, CERTIFICATES_MAX, KINDS, Kind
from palladion.attest.pem import certificates_of

ROOTS_MAX = 64  # of one kind: makers of TPMs have some dozens between them
PEM_BYTES_MAX = 2 * ROOTS_MAX * CERTIFICATE_BYTES_MAX


@dataclass(frozen=True)
class Roots:
    """Certificates in DER that are trusted, by the kind of evidence that they may vouch for.

    `intermediates` are not trusted: they fill the gap where evidence comes without them. `lists` are the policy's, of
    revoked certificates.
    """

    trusted: Mapping[Kind, tuple[bytes, ...]]
    intermediates: Mapping[Kind, tuple[bytes, ...]] = field(default_factory=lambda: MappingProxyType({}))

    lists: Mapping[Kind, tuple[bytes, ...]] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, kind: Kind) -> tuple[bytes, ...]:
        """What may vouch for that kind; nothing vouches for one that is not named."""
        return self.trusted.get(kind, ())

    def between(self, kind: Kind) -> tuple[bytes, ...]:
        """Known certificates between roots and machines of that kind."""
        return self.intermediates.get(kind, ())

    def with_roots(self, kind: Kind, certificates: Iterable[bytes]) -> "Roots":
        """The same, with `certificates` in place of the roots of that kind."""
        return replace(self, trusted=MappingProxyType({**self.trusted, kind: tuple(certificates)}))

    def revoking(self, kind: Kind) -> tuple[bytes, ...]:
        """The lists of revoked certificates for that kind, in DER."""
        return self.lists.get(kind, ())

    def with_lists(self, kind: Kind, lists: Iterable[bytes]) -> "Roots":
        """The same, with `lists` for that kind."""
        return replace(self, lists=MappingProxyType({**self.lists, kind: tuple(lists)}))


@cache
def vendor_roots() -> Roots:
    """AMD's, Intel's and whatever else `pinned/` has; TPMs have no vendor's root here."""
    trusted: dict[Kind, tuple[bytes, ...]] = {}
    between: dict[Kind, tuple[bytes, ...]] = {}
    for kind in KINDS:
        folder = resources.files("palladion.attest") / "pinned" / kind
        names = sorted(item.name for item in folder.iterdir()) if folder.is_dir() else []
        pems = {
            name: certificates_of((folder / name).read_bytes(), what=name, most=CERTIFICATES_MAX)
            for name in names
            if name.endswith(".pem")
        }
        trusted[kind] = tuple(one for name, many in pems.items() if not _is_between(name) for one in many)
        between[kind] = tuple(one for name, many in pems.items() if _is_between(name) for one in many)
    return Roots(MappingProxyType(trusted), MappingProxyType(between))


def _is_between(name: str) -> bool:
    return name.startswith("intermediate")
