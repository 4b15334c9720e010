"""The trial of a version that is sealed here: opened with the owner's keys, wiped afterwards."""

from collections.abc import Iterator
from contextlib import contextmanager

from palladion.errors import ConflictError
from palladion.keys import Root
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.marking import fingerprint, ownership_key_of, ownership_of, unmarked
from palladion.lifecycle.open import open_version
from palladion.mark.fingerprints import fingerprint_key
from palladion.redteam.removal.trial import Trial
from palladion.registry import Version


@contextmanager
def opened_trial(
    installation: Installation, owner: Root, name: str, *, recipient: str | None = None
) -> Iterator[tuple[Trial, Version]]:
    """The trial of the version that `name` says: of what is served, or of the copy that `recipient` gets.

    Raises ConflictError for a version without a mark, or too small for a fingerprint; NotFoundError for a recipient
    that is none; TamperError if what is sealed is not what was registered.
    """
    with unmarked(installation, owner, name) as (original, version):
        mark = ownership_of(version)
        if mark is None:
            raise ConflictError(
                f"version {version.number} of {version.model} carries no mark: there is nothing to remove",
                "protect marks a version that is large enough",
            )
        key, amplitude = ownership_key_of(mark, owner), float(mark["amplitude"])
        if recipient is None:
            # sealed to the gate, not to the owner
            with open_version(installation, f"{version.model}@{version.number}", lazily=True) as served:
                yield Trial(original.model, served.model, key, amplitude), version
            return
        public_key, issued = _recipient(installation, version, recipient)
        stamp = fingerprint(original.model, version, owner, public_key)
        if stamp is None:
            raise ConflictError(f"version {version.number} of {version.model} is too small for a fingerprint")
        secret = fingerprint_key(owner.derive("fingerprint"), str(mark["original"]), public_key)
        yield Trial(original.model, stamp.copy.model, key, amplitude, (recipient, secret), issued), version


def _recipient(installation: Installation, version: Version, name: str) -> tuple[str, int]:
    """The public key of a recipient, and to how many the version went, or would have gone with him."""
    with installation.open_registry() as registry, registry.read() as records:
        key = records.recipients.get(name).public_key
        deliveries = records.deliveries.all(model=version.model, number=version.number)
    return key, len({item.public_key for item in deliveries if item.fingerprinted} | {key})
