"""Is a suspect ours, and whose copy is it: tested against the sealed originals, with the owner's keys, and recorded.

Blind, the originals stay closed: the owner's keys and what the registry says of a version are enough for a weak test.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from palladion.errors import ConflictError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.marking import ownership_key_of, ownership_of, unmarked
from palladion.lifecycle.open import versions_named
from palladion.lifecycle.passes import watched
from palladion.lifecycle.reading import Progress
from palladion.mark.blind import find_blind, predicted_blind, recorded_shapes
from palladion.mark.fingerprints import Accusation, fingerprint_key, trace
from palladion.mark.interface import verify
from palladion.mark.stats import best_of
from palladion.mark.weights import Finding
from palladion.model.digest import model_digest
from palladion.model.model import Model
from palladion.registry import Version

# A verdict is "ours", or a recipient's name, only from here on: one mistake in a billion tests of strangers' models.
LOG10_P_MAX = -9.0
KEY_LOG10_P = -77.0  # no evidence is better than that nobody guessed 256 bits
RECORDED_MAX = 20  # versions in a record, and recipients of each, the strongest first: an entry has 64 KiB


@dataclass(frozen=True)
class Tested:
    """The outcome for one version: the strength of the ownership mark, and recipients accused, strongest first.

    p-values are corrected for every version and recipient that was tested. `comparable` is whether any tensor of the
    suspect could be set beside one of ours at all, `needed` what had to be undone for it, in words, and
    `is_original` whether it is the unmarked original itself, which carries no mark. `blind_log10_p` is what a test
    without the original would find in an exact copy; None where there was the original.
    """

    version: Version
    ownership: Finding
    log10_p: float
    accusations: tuple[Accusation, ...]
    recipients: int
    comparable: bool
    needed: tuple[str, ...] = ()
    is_original: bool = False
    blind_log10_p: float | None = None

    @property
    def ours(self) -> bool:
        """Whether the suspect carries the version's mark."""
        return self.log10_p <= LOG10_P_MAX

    @property
    def accused(self) -> tuple[Accusation, ...]:
        """The recipients whose fingerprint the suspect carries; several for a mixture of copies."""
        return tuple(item for item in self.accusations if item.log10_p <= LOG10_P_MAX)

    @property
    def too_small(self) -> bool:
        """Whether a blind test cannot come to a verdict, not even on an exact copy: finding nothing says nothing."""
        return self.blind_log10_p is not None and self.blind_log10_p > LOG10_P_MAX


def prove(
    installation: Installation,
    owner: Root,
    suspect: Model,
    versions: Sequence[str],
    *,
    copies: bool,
    actor: str,
    blind: bool = False,
    progress: Progress = lambda _stage, _done, _total: None,
) -> list[Tested]:
    """Test `suspect` against `versions` (all marked ones if empty) for our mark and, if `copies`, for fingerprints.

    The outcome is recorded. Raises NotFoundError for a version that does not exist, ConflictError for one without a
    mark. Opens each original in memory, one after the other, or none if `blind`: then whoever permuted or rotated
    weights is not found, and only large models are. There are no blind tests for copies (ValueError).
    """
    if blind and copies:
        raise ValueError("fingerprints are not looked for without the original")
    chosen = _chosen(installation, versions)
    progress("digest of the suspect", 0, 0)
    digest = model_digest(suspect).hex()
    test = _Test(installation, owner, suspect, digest, len(chosen), progress)
    outcomes = [test.blind(*item) if blind else test.compared(*item, copies=copies) for item in chosen]
    outcomes.sort(key=lambda item: (item.log10_p, -item.version.number))
    looked_for = {"looked_for": "copy" if copies else "mine", **({"blind": True} if blind else {})}
    _record(installation, suspect, {"suspect": digest, **looked_for}, outcomes, actor=actor)
    return outcomes


def _chosen(installation: Installation, named: Sequence[str]) -> list[tuple[Version, dict[str, Any]]]:
    """The versions to test against, each once, with what they say of their marks."""
    chosen = {}
    for version in versions_named(installation, named):
        mark = ownership_of(version)
        if mark is not None:
            chosen[version.model, version.number] = version, mark
        elif named:
            raise ConflictError(
                f"version {version.number} of {version.model} carries no mark: there is nothing to look for",
                "it has no tensor that could carry one",
            )
    return list(chosen.values())


@dataclass(frozen=True)
class _Test:
    """Tests one suspect against `count` versions, one after the other: every p-value pays for all."""

    installation: Installation
    owner: Root
    suspect: Model
    digest: str
    count: int
    progress: Progress

    def compared(self, version: Version, mark: dict[str, Any], *, copies: bool) -> Tested:
        """With the original; `copies` looks for fingerprints too."""
        name = f"{version.model}@{version.number}"
        recipients = self._recipients(version) if copies else {}
        digest, ownership = str(mark["original"]), ownership_key_of(mark, self.owner)
        root = self.owner.derive("fingerprint")
        keys = [(recipient, fingerprint_key(root, digest, key)) for recipient, key in recipients.items()]
        self.progress(f"open {name}", 0, 0)
        with unmarked(self.installation, self.owner, name) as (original, _):
            ours = watched(original.model, self.progress, during=f"compare with {name}", between=f"align with {name}")
            verified = verify(ours, self.suspect, ownership)
            del ours  # the memory of its tensors is wiped at the end
            # the digest only where nothing at all differs: it reads the model whole
            is_original = verified.finding.statistic == 0 and model_digest(original.model).hex() == self.digest
            found: tuple[Accusation, ...] = ()
            if keys:
                during, between = f"trace copies of {name}", f"try {len(keys)} recipients of {name}"
                ours = watched(original.model, self.progress, during=during, between=between)
                amplitude = float(mark["amplitude"])
                found = trace(ours, verified.suspect, ownership, keys, amplitude=amplitude).accusations
                del ours
        return Tested(
            version,
            verified.finding,
            best_of([verified.finding.log10_p], self.count),
            tuple(Accusation(who.recipient, best_of([who.log10_p], self.count), who.statistic) for who in found),
            len(recipients),
            verified.finding.comparable > 0 or bool(verified.needed),
            verified.needed,
            is_original=is_original,
        )

    def blind(self, version: Version, mark: dict[str, Any]) -> Tested:
        """Without the original: with what is on record of the version, and the key that follows from its digest."""
        with self.installation.open_registry() as registry, registry.read() as records:
            tensors = records.versions.tensors(version.model, version.number)
        shapes = recorded_shapes({item.name: (item.dtype, item.shape) for item in tensors}, self.suspect)
        stage = f"look for the mark of {version.model}@{version.number}"
        finding = find_blind(
            self.suspect,
            ownership_key_of(mark, self.owner),
            shapes,
            progress=lambda done, total: self.progress(stage, done, total),
        )
        predicted = predicted_blind(int(mark["weights"]), amplitude=float(mark["amplitude"]))
        return Tested(
            version,
            finding,
            best_of([finding.log10_p], self.count),
            (),
            0,
            finding.comparable > 0,
            is_original=self.digest == mark["original"],
            blind_log10_p=best_of([predicted], self.count),
        )

    def _recipients(self, version: Version) -> dict[str, str]:
        """Public keys by recipient: one key for each, however often it was sent the version."""
        with self.installation.open_registry() as registry, registry.read() as records:
            deliveries = records.deliveries.all(model=version.model, number=version.number)
        return {item.recipient: item.public_key for item in deliveries if item.fingerprinted}


def _record(
    installation: Installation,
    suspect: Model,
    looked_for: dict[str, object],
    outcomes: Sequence[Tested],
    *,
    actor: str,
) -> None:
    details = {
        **looked_for,
        "tested": len(outcomes),
        "versions": [
            {
                "version": f"{item.version.model}@{item.version.number}",
                "log10_p": f"{item.log10_p:.1f}",
                "recipients": item.recipients,
                "accused": [
                    {"recipient": who.recipient, "log10_p": f"{who.log10_p:.1f}"} for who in item.accused[:RECORDED_MAX]
                ],
            }
            for item in outcomes[:RECORDED_MAX]
        ],
    }
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        ledger.append([Record("mark.tested", installation.clock.now(), actor, suspect.files[0].name[:200], details)])
