"""Which sealed files hold a mark from which a leak can be traced: by signed headers, which rows cannot change.

Rows of the registry can take a mark away here, and never give one: who may write to the registry's file must not turn
an original into something for which an easier approval is enough.
"""

from palladion.errors import ConflictError, PalladionError, TamperError
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.marking import ownership_of
from palladion.lifecycle.open import sealed_file
from palladion.registry import Version
from palladion.registry.rows import SealedKind
from palladion.seal.reader import inspect_file
from palladion.seal.structure import SealedInfo

WITHOUT_FINGERPRINT = "without fingerprint"
LICENSE_REQUIRED = "licence required"


def is_marked(installation: Installation, info: SealedInfo) -> bool:
    """Whether a file holds a marked copy; what is not known to be one is none."""
    header = info.header
    if header.purpose == "delivery":
        return True
    if header.purpose != "served":
        return False
    with installation.open_registry() as registry, registry.read() as records:
        rows = records.versions.all(header.model) if records.models.find(header.model) else []
    row = next((row for row in rows if row.served.header_digest == info.header_digest), None)
    if row is None or row.original is None or not row.marks:
        return False
    try:
        original = _looked_at(installation, row, "original")
    except PalladionError:
        return False
    return header.version == row.number and original.header.content != header.content


def require_unmarked(installation: Installation, version: Version) -> None:
    """Raise TamperError if the registry says that a version has no mark, and its sealed files differ all the same."""
    if ownership_of(version) is not None or version.original is None:
        return
    original, served = (_looked_at(installation, version, kind) for kind in ("original", "served"))
    if original.header.content != served.header.content:
        raise TamperError(
            f"the registry says that {version.model}@{version.number} has no mark, and what is served has one",
            "palladion doctor; restore the registry from a backup",
        )


def delivered_as(version: Version, *, license_required: bool) -> str:
    """What a request to deliver a version says, with what people would not expect of a copy."""
    said = [f"{version.model}@{version.number}"]
    if ownership_of(version) is None:
        said.append(WITHOUT_FINGERPRINT)
    if license_required:
        said.append(LICENSE_REQUIRED)
    return ", ".join(said)


def _looked_at(installation: Installation, version: Version, kind: SealedKind) -> SealedInfo:
    """A version's sealed file, which says itself that it is this one. Raises ConflictError, TamperError."""
    info = inspect_file(installation.paths.sealed / sealed_file(version, kind).path)
    header = info.header
    if (header.purpose, header.model, header.version) != (kind, version.model, version.number):
        raise TamperError(f"the registry names another file as the {kind} one of {version.model}@{version.number}")
    if info.header_digest != sealed_file(version, kind).header_digest:
        raise ConflictError(
            f"the {kind} file of {version.model}@{version.number} is not the one that is registered",
            "palladion doctor",
        )
    return info
