"""What a channel's targets metadata says about sealed files: one entry for each, and a list of those that are revoked.

Values in, values out; python-tuf has verified the metadata, or is about to sign it.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from tuf.api.metadata import TargetFile, Targets

from palladion.canonical import INTEGER_MAX
from palladion.clock import parse_timestamp, timestamp
from palladion.errors import ConflictError, FormatError, NotFoundError
from palladion.seal.header import HIDDEN_CHARACTERS, Header

RELEASES_MAX = 4096  # with 600 bytes each half of what targets metadata may have
REVOKED_MAX = 8192  # with 300 bytes each the other half
REASON_CHARACTERS_MAX = 200  # one line on a screen
SEALED_BYTES_MAX = 2**41  # a sealed file has at most 1 TiB of body, and wraps and digests
_FIELD = "x-palladion-revoked"  # TUF lets a repository add fields of its own; all of them are signed

Purpose = Literal["served", "delivery"]  # originals and backups are not for hosts
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Release:
    """One sealed file of a channel: what its header says, and the bytes that it has to have."""

    model: str
    version: int
    purpose: Purpose
    file_id: str
    header_digest: str
    revoked: bool
    length: int
    sha256: str

    @property
    def name(self) -> str:
        """Its name in the metadata."""
        return f"{self.model}/{self.version}/{self.file_id}.sealed"

    @property
    def location(self) -> str:
        """Where it lies below the channel: with its digest in the name, so that no version overwrites another."""
        return f"targets/{self.model}/{self.version}/{self.sha256}.{self.file_id}.sealed"


@dataclass(frozen=True)
class Revocation:
    """Since when and why a sealed file is not to be opened any more."""

    reason: str
    since: datetime


@dataclass(frozen=True)
class Catalogue:
    """All that a channel says: its sealed files, the revoked header digests, and until when this may be relied upon."""

    releases: tuple[Release, ...]
    revoked: Mapping[str, Revocation]
    expires: datetime

    def check(self, header_digest: str) -> None:
        """Raise ConflictError if the sealed file of this header was revoked; it need not be one of this channel."""
        found = self.revoked.get(header_digest)
        if found:
            raise ConflictError(
                f"the sealed file of header {header_digest[:16]} was revoked on {found.since:%Y-%m-%d}: {found.reason}",
                "get a newer version from the channel",
            )

    def current(self, model: str, *, file_id: str = "") -> Release:
        """The highest version of `model` that is not revoked; a delivery only if `file_id` asks or nothing is served.

        Raises NotFoundError if there is none, ConflictError if all are revoked, or if there are several deliveries of
        that version and no `file_id` says which.
        """
        known = [item for item in self.releases if item.model == model and file_id in ("", item.file_id)]
        if not file_id and any(item.purpose == "served" for item in known):
            known = [item for item in known if item.purpose == "served"]
        if not known:
            with_id = f" with id {file_id}" if file_id else ""
            raise NotFoundError(f"the channel has no sealed file of {model}{with_id}")
        usable = [item for item in known if not item.revoked and item.header_digest not in self.revoked]
        if not usable:
            self.check(max(known, key=lambda item: item.version).header_digest)
            raise ConflictError(f"every sealed file of {model} in the channel is revoked")
        version = max(item.version for item in usable)
        found = [item for item in usable if item.version == version]
        if len(found) > 1:
            ids = ", ".join(sorted(item.file_id for item in found)[:8])
            raise ConflictError(
                f"the channel has {len(found)} sealed files of {model} version {version}", f"say which by its id: {ids}"
            )
        return found[0]


def release_of(header: Header, header_digest: str, *, length: int, sha256: str) -> Release:
    """The release of a sealed file that was verified. Raises ConflictError if it is of a kind that is not for hosts."""
    if header.purpose not in ("served", "delivery") or not header.model or not header.version:
        raise ConflictError(
            f"a sealed file of purpose {header.purpose} is not for a channel: expected a served version or a delivery"
        )
    return Release(
        model=header.model,
        version=header.version,
        purpose=header.purpose,
        file_id=header.file_id,
        header_digest=header_digest,
        revoked=False,
        length=length,
        sha256=sha256,
    )


def add_release(targets: Targets, release: Release) -> None:
    """Add `release`, or put it in place of the same sealed file before it was rewrapped.

    Raises ConflictError if another file of that version is served: hosts could not tell which.
    """
    for other in _releases(targets.targets.items()):
        same = (other.model, other.version, other.purpose) == (release.model, release.version, "served")
        if same and other.file_id != release.file_id and not other.revoked:
            raise ConflictError(
                f"version {release.version} of {release.model} is in the channel as another sealed file",
                "seal a new version, or revoke the other file first",
            )
    custom = {
        "model": release.model,
        "version": release.version,
        "purpose": release.purpose,
        "file_id": release.file_id,
        "header_digest": release.header_digest,
        "revoked": release.revoked,
    }
    entry = TargetFile(release.length, {"sha256": release.sha256}, release.name, {"custom": custom})
    targets.targets[release.name] = entry
    if len(targets.targets) > RELEASES_MAX:
        raise ConflictError(f"the channel would have more than the {RELEASES_MAX} sealed files allowed")


def add_revocation(targets: Targets, header_digest: str, revocation: Revocation) -> None:
    """Put a header digest on the list for good, and mark its entry if there is one. Raises ValueError."""
    if not _SHA256.fullmatch(header_digest):
        raise ValueError("a header digest has 64 hex digits in lower case")
    _check_reason(revocation.reason)
    listed = revoked_in(targets)
    # the first reason stays: a revocation is a fact, not a setting
    listed.setdefault(header_digest, revocation)
    if len(listed) > REVOKED_MAX:
        raise ConflictError(f"the channel would have more than the {REVOKED_MAX} revocations allowed")
    targets.unrecognized_fields[_FIELD] = {
        digest: {"reason": item.reason, "since": timestamp(item.since)} for digest, item in sorted(listed.items())
    }
    for entry in targets.targets.values():
        if entry.custom["header_digest"] == header_digest:
            entry.custom["revoked"] = True


def catalogue_of(targets: Targets, expires: datetime) -> Catalogue:
    """What verified targets metadata says. Raises FormatError on an entry that no publisher of ours writes."""
    if len(targets.targets) > RELEASES_MAX or targets.delegations is not None:
        raise FormatError(f"the channel delegates, or has more than the {RELEASES_MAX} sealed files allowed")
    return Catalogue(tuple(_releases(targets.targets.items())), revoked_in(targets), expires)


def revoked_in(targets: Targets) -> dict[str, Revocation]:
    """The list of revoked header digests. Raises FormatError."""
    try:
        listed = msgspec.convert(targets.unrecognized_fields.get(_FIELD, {}), dict[_Digest, _RevokedDocument])
        if len(listed) > REVOKED_MAX:
            raise ValueError(f"it has more than {REVOKED_MAX} entries")
        return {
            digest: Revocation(_check_reason(item.reason), parse_timestamp(item.since))
            for digest, item in listed.items()
        }
    except (msgspec.ValidationError, ValueError) as error:
        raise FormatError(f"the channel's list of revocations is not one: {error}") from None


def _releases(entries: Iterable[tuple[str, TargetFile]]) -> Iterable[Release]:
    for name, entry in entries:
        try:
            custom = msgspec.convert(entry.custom, _Custom)
            release = Release(
                model=custom.model,
                version=custom.version,
                purpose=custom.purpose,
                file_id=custom.file_id,
                header_digest=custom.header_digest,
                revoked=custom.revoked,
                length=entry.length,
                sha256=entry.hashes["sha256"],
            )
            # a name that says something else would point a host to another place, or out of the channel
            fits = isinstance(entry.length, int) and entry.length <= SEALED_BYTES_MAX
            if name != release.name or not _SHA256.fullmatch(release.sha256) or not fits:
                raise ValueError("its name, digest or length does not fit")
        except (msgspec.ValidationError, ValueError, KeyError, TypeError) as error:
            raise FormatError(f"the channel's entry {name[:120]!r} is not that of a sealed file: {error}") from None
        yield release


def _check_reason(reason: str) -> str:
    if not 0 < len(reason) <= REASON_CHARACTERS_MAX or HIDDEN_CHARACTERS.search(reason):
        raise ValueError(f"a reason has 1 to {REASON_CHARACTERS_MAX} printing characters")
    return reason


_Digest = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]


class _Custom(msgspec.Struct, forbid_unknown_fields=True):
    model: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9][a-z0-9._-]{0,63}\Z")]
    version: Annotated[int, msgspec.Meta(ge=1, le=INTEGER_MAX)]
    purpose: Purpose
    file_id: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{32}\Z")]
    header_digest: _Digest
    revoked: bool


class _RevokedDocument(msgspec.Struct, forbid_unknown_fields=True):
    reason: str
    since: str
