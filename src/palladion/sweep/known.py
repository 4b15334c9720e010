"""What an installation knows for a sweep: its versions, publishers, and where its keys belong; and the record of one.

A record states counts and no names: the ledger may be shown, and where a model lies careless must not be.
"""

from collections.abc import Callable

from palladion.errors import PalladionError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.ledger.writer import Receipt
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.prove import prove
from palladion.sweep.finding import SEVERITIES, Finding, found
from palladion.sweep.heads import Seen
from palladion.sweep.item import Item
from palladion.sweep.judge import Identify, Judge
from palladion.sweep.rows import Ours
from palladion.sweep.sweep import Swept

SCANNED = "storage.scanned"
IDENTIFIED_MAX = 50  # files of one sweep: each opens an original and compares it, which takes seconds to minutes

Stages = Callable[[str, int, int], None]


def judge_of(installation: Installation, *, identify: Identify | None = None) -> Judge:
    """A judge that knows the installation's versions. Cost: reads every tensor's digest of the registry."""
    ours = Ours()
    with installation.open_registry() as registry, registry.read() as records:
        for model in records.models.all():
            for version in records.versions.all(model.name):
                rows = records.versions.tensors(version.model, version.number)
                ours.add(version, ((row.name, row.dtype, row.shape, row.digest) for row in rows))
    paths = installation.paths
    kept = {paths.owner, paths.gate, paths.host_identity, *paths.directory.glob("keys/*")}
    publishers = frozenset(installation.publishers())
    return Judge(ours, frozenset(path.resolve() for path in kept), publishers, identify)


class Identifier:
    """Looks for the marks of our versions, and for recipients' fingerprints, in what is built like one of them.

    `skipped` counts what could not be tested. Each test is recorded, as `palladion prove copy` records it.
    """

    def __init__(
        self, installation: Installation, owner: Root, *, actor: str, progress: Stages = lambda _s, _d, _t: None
    ) -> None:
        self._installation, self._owner, self._actor, self._progress = installation, owner, actor, progress
        self._tested = 0
        self.skipped = 0

    def __call__(self, item: Item, seen: Seen, ours: Ours) -> list[Finding]:
        """The findings of one file: whose copy it is."""
        if seen.format not in {"ONNX", "safetensors", "GGUF"}:
            return []
        try:
            model = ours.readable(item)
        except (PalladionError, ValueError, OSError):
            return []
        versions = [] if model is None else ours.alike(model)
        if model is None or not versions:
            return []
        if self._tested >= IDENTIFIED_MAX:
            self.skipped += 1
            return []
        self._tested += 1
        try:
            outcomes = prove(
                self._installation,
                self._owner,
                model,
                versions,
                copies=True,
                actor=self._actor,
                progress=self._progress,
            )
        except PalladionError:
            self.skipped += 1  # a version without a mark: there is nothing to look for
            return []
        findings = []
        for outcome in outcomes:
            name = f"{outcome.version.model}@{outcome.version.number}"
            for who in outcome.accused:
                text = f"{name}, the copy of {who.recipient} (p = 10^{who.log10_p:.0f}), {seen.format}"
                findings.append(
                    found(
                        "our-copy",
                        item.place,
                        text,
                        format=seen.format,
                        version=name,
                        recipient=who.recipient,
                        size=item.size,
                    )
                )
            if outcome.ours and not outcome.accused:
                text = f"carries the mark of {name} (p = 10^{outcome.log10_p:.0f}), {seen.format}"
                findings.append(found("our-model", item.place, text, format=seen.format, version=name, size=item.size))
        return findings


def record_sweep(installation: Installation, swept: Swept, *, report: str, actor: str) -> Receipt:
    """Record that places were looked at, and what was found, in numbers; `report` is the SHA-256 of the report."""
    counts = swept.severities
    rules: dict[str, int] = {}
    for finding in swept.findings:
        rules[finding.rule] = rules.get(finding.rule, 0) + 1
    details = {
        "places": dict(sorted(swept.kinds.items())),
        "files": swept.files,
        "sealed": len(swept.sealed),
        "passed_over": swept.ignored,
        "findings": {severity: counts.get(severity, 0) for severity in SEVERITIES},
        "rules": dict(sorted(rules.items())),
        "report": report,
    }
    with installation.open_ledger(installation.open_gate_root()) as ledger:
        return ledger.append([Record(SCANNED, installation.clock.now(), actor, "storage", details)])[0]
