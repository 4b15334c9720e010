"""From what people name to what a request says: the file with its id, and the recipient with its key."""

from pathlib import Path

from palladion.approvals.documents import TEXT_CHARACTERS_MAX
from palladion.approvals.request import Purpose
from palladion.errors import ConflictError, PalladionError
from palladion.keys import Recipient
from palladion.lifecycle.approvals import Asking
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.marked import delivered_as, is_marked
from palladion.lifecycle.open import find_version, sealed_file
from palladion.registry import Version
from palladion.registry.rows import SealedKind
from palladion.seal.reader import inspect_file, verify_file
from palladion.seal.recipients import parse_recipient
from palladion.seal.structure import SealedInfo

WITH_RECIPIENT = frozenset({"deliver", "rewrap", "release"})


def asking_for(
    installation: Installation,
    *,
    purpose: Purpose,
    reason: str,
    version: str = "",
    file: Path | None = None,
    recipient: str = "",
    evidence: str = "",
    license_required: bool = False,
) -> Asking:
    """What to ask for, to do this with a version or a sealed file. Raises NotFoundError, ConflictError, TamperError.

    A version stands for its original where a copy is delivered or the original exported, else for what is served.
    """
    if bool(recipient) != (purpose in WITH_RECIPIENT):
        said = "a recipient is needed" if purpose in WITH_RECIPIENT else "nobody receives it but you"
        raise PalladionError(f"to {purpose}, {said}", "--recipient goes with deliver, rewrap and release")
    if license_required and (purpose != "deliver" or file is not None):
        raise PalladionError("only a copy of a version is delivered with a licence", "--license-required with deliver")
    subject = ""
    if file is not None:
        info = verify_file(file, installation.publishers())
    else:
        found = find_version(installation, version)
        info = _registered(installation, found, _kind(found, purpose))
        if purpose == "deliver":
            subject = delivered_as(found, license_required=license_required)
    if purpose == "unseal" and not is_marked(installation, info):
        raise ConflictError(
            f"{info.header.model}@{info.header.version} has no mark there from which a leak could be traced",
            "ask to export it: --purpose export",
        )
    name, key = _recipient(installation, purpose, recipient)
    header = info.header
    return Asking(
        subject=subject or f"{header.model}@{header.version}",
        purpose=purpose,
        reason=reason,
        file_id=header.file_id,
        content=header.content,
        recipient=name,
        recipient_key=key,
        evidence=evidence,
    )


def named_by(text: str, key: Recipient) -> str:
    """A recipient's name in a request: as people gave it or, of a key too long for a line, the key's id."""
    return text if len(text) <= TEXT_CHARACTERS_MAX else key.key_id


def _kind(version: Version, purpose: Purpose) -> SealedKind:
    return "original" if version.original is not None and purpose in {"deliver", "export"} else "served"


def _registered(installation: Installation, version: Version, kind: SealedKind) -> SealedInfo:
    sealed = sealed_file(version, kind)
    info = inspect_file(installation.paths.sealed / sealed.path)
    # people would agree to another file than the one that is opened then, which is refused
    if info.header_digest != sealed.header_digest:
        raise ConflictError(
            f"the file of {version.model}@{version.number} is not the one that is registered", "palladion doctor"
        )
    return info


def _recipient(installation: Installation, purpose: Purpose, recipient: str) -> tuple[str, str]:
    if purpose == "deliver":
        with installation.open_registry() as registry, registry.read() as records:
            return recipient, records.recipients.get(recipient).public_key
    if purpose == "rewrap":
        if ":" in recipient or recipient.lower().startswith("pallr1"):
            key = parse_recipient(recipient)
            return named_by(recipient, key), str(key)
        with installation.open_registry() as registry, registry.read() as records:
            return recipient, str(parse_recipient(records.recipients.get(recipient).public_key))
    return recipient, ""
