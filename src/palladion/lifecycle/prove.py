"""Is a suspect ours, and whose copy is it: tested against the sealed originals, with the owner's keys, and recorded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from palladion.errors import ConflictError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.marking import ownership_key_of, ownership_of, unmarked
from palladion.lifecycle.open import versions_named
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
    `is_original` whether it is the unmarked original itself, which carries no mark.
    """

    version: Version
    ownership: Finding
    log10_p: float
    accusations: tuple[Accusation, ...]
    recipients: int
    comparable: bool
    needed: tuple[str, ...] = ()
    is_original: bool = False

    @property
    def ours(self) -> bool:
        """Whether the suspect carries the version's mark."""
        return self.log10_p <= LOG10_P_MAX

    @property
    def accused(self) -> tuple[Accusation, ...]:
        """The recipients whose fingerprint the suspect carries; several for a mixture of copies."""
        return tuple(item for item in self.accusations if item.log10_p <= LOG10_P_MAX)


def prove(
    installation: Installation, owner: Root, suspect: Model, versions: Sequence[str], *, copies: bool, actor: str
) -> list[Tested]:
    """Test `suspect` against `versions` (all marked ones if empty) for our mark and, if `copies`, for fingerprints.

    The outcome is recorded. Raises NotFoundError for a version that does not exist, ConflictError for one without a
    mark. Opens each original in memory, one after the other.
    """
    chosen = _chosen(installation, versions)
    outcomes = [
        _test(installation, owner, suspect, version, mark, tests=len(chosen), copies=copies) for version, mark in chosen
    ]
    outcomes.sort(key=lambda item: (item.log10_p, -item.version.number))
    _record(installation, suspect, outcomes, copies=copies, actor=actor)
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


def _test(
    installation: Installation,
    owner: Root,
    suspect: Model,
    version: Version,
    mark: dict[str, Any],
    *,
    tests: int,
    copies: bool,
) -> Tested:
    with installation.open_registry() as registry, registry.read() as records:
        deliveries = records.deliveries.all(model=version.model, number=version.number)
    # one key for each recipient, however often it was sent the version
    recipients = {item.recipient: item.public_key for item in deliveries if item.fingerprinted} if copies else {}
    digest, ownership = str(mark["original"]), ownership_key_of(mark, owner)
    root = owner.derive("fingerprint")
    keys = [(name, fingerprint_key(root, digest, public_key)) for name, public_key in recipients.items()]
    with unmarked(installation, owner, f"{version.model}@{version.number}") as (original, _):
        verified = verify(original.model, suspect, ownership)
        amplitude = float(mark["amplitude"])
        # the digests only where nothing at all differs: they read both models whole
        is_original = verified.finding.statistic == 0 and model_digest(suspect) == model_digest(original.model)
        found: tuple[Accusation, ...] = ()
        if keys:
            found = trace(original.model, verified.suspect, ownership, keys, amplitude=amplitude).accusations
    corrected = tuple(Accusation(item.recipient, best_of([item.log10_p], tests), item.statistic) for item in found)
    finding = verified.finding
    log10_p = best_of([finding.log10_p], tests)
    comparable = finding.comparable > 0 or bool(verified.needed)
    return Tested(
        version,
        finding,
        log10_p,
        corrected,
        len(recipients),
        comparable,
        verified.needed,
        is_original=is_original,
    )


def _record(
    installation: Installation, suspect: Model, outcomes: Sequence[Tested], *, copies: bool, actor: str
) -> None:
    details = {
        "suspect": model_digest(suspect).hex(),
        "looked_for": "copy" if copies else "mine",
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
