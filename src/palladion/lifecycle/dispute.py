"""A dispute between two who claim one model: what is shown to a court, what an expert checks, and whose came first.

Anybody can subtract a carrier of his own from our model and call the rest his original. But then his "original"
carries our mark, while ours, which he never had, carries none of his.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from palladion import files
from palladion.errors import ConflictError, FormatError, NotFoundError
from palladion.keys import Root
from palladion.ledger.record import Record
from palladion.lifecycle.installation import Installation
from palladion.lifecycle.marking import ownership_key_of, ownership_of, unmarked
from palladion.lifecycle.open import find_version
from palladion.lifecycle.prove import Tested, prove
from palladion.lifecycle.reading import Progress, digested
from palladion.mark.align.realign import realign
from palladion.mark.align.trees import realign_trees
from palladion.mark.disclosure import TENSORS_MAX, disclose, parse_disclosure
from palladion.mark.interface import ALIKE
from palladion.mark.places import places
from palladion.mark.stats import best_of
from palladion.mark.weights import Finding, find_in_tensor
from palladion.model.model import Model
from palladion.registry import Version

DISCLOSURE_BYTES_MAX = 128 * TENSORS_MAX


@dataclass(frozen=True)
class Dispute:
    """Our mark in the suspect, and in what the other side calls its original; None where no suspect was given."""

    in_theirs: Tested
    in_suspect: Tested | None

    @property
    def ours_came_first(self) -> bool:
        """Whether their original was made from our marked model."""
        return self.in_theirs.ours


def settle(
    installation: Installation,
    owner: Root,
    theirs: Model,
    suspect: Model | None,
    version: str,
    *,
    actor: str,
    progress: Progress = lambda _stage, _done, _total: None,
) -> Dispute:
    """Test what the other side calls its original, and the suspect, for the mark of `version`; both are recorded.

    The other half is theirs to show: that the sealed original of ours carries their mark. Raises as `prove` does.
    """
    in_suspect = None
    if suspect is not None:
        (in_suspect,) = prove(installation, owner, suspect, [version], copies=False, actor=actor, progress=progress)
    (in_theirs,) = prove(installation, owner, theirs, [version], copies=False, actor=actor, progress=progress)
    return Dispute(in_theirs, in_suspect)


def write_disclosure(
    installation: Installation, owner: Root, version: str, tensors: Sequence[str], out: Path, *, actor: str
) -> Version:
    """Write the keys of some tensors of `version` to the new private file `out`, on record before they are shown.

    Raises ConflictError for a version without a mark that commits to its tensors' keys, NotFoundError for a tensor that
    carries none, StorageError if `out` exists.
    """
    found = find_version(installation, version)
    mark = ownership_of(found)
    if mark is None or "tensor_keys" not in mark:
        raise ConflictError(
            f"version {found.number} of {found.model} commits to no keys of single tensors",
            "versions that were marked before Palladion 0.2 can only be proved with their whole key",
        )
    with unmarked(installation, owner, f"{found.model}@{found.number}") as (original, _):
        names = [place.carrier_name for place in places(original.model)]
    missing = sorted(set(tensors) - set(names))
    if missing:
        raise NotFoundError(f"{missing[0]!r} carries no mark", f"marked are: {', '.join(names[:20])}")
    shown = disclose(ownership_key_of(mark, owner), str(mark["original"]), names, tensors)
    shown.verify(str(mark["tensor_keys"]))
    details = {"tensors": sorted(tensors)[:100], "count": len(tensors)}
    with files.atomic_writer(out, replace=False) as stream:
        stream.write(shown.encode())
        subject = f"{found.model}@{found.number}"
        record = Record("mark.disclosed", installation.clock.now(), actor, subject, details)
        with installation.open_ledger(installation.open_gate_root()) as ledger:
            ledger.append([record])
    return found


@dataclass(frozen=True)
class Checked:
    """What an expert finds: each tensor that was shown, and log10 p of them together.

    It pays for all that were committed to: whoever chose which to show may have looked at all.
    """

    findings: dict[str, Finding]
    committed: int

    @property
    def log10_p(self) -> float:
        """Of the best tensor shown."""
        return best_of([item.log10_p for item in self.findings.values()], self.committed)


def check_disclosure(path: Path, original: Model, suspect: Model, root: str) -> Checked:
    """What an expert checks, with nothing but what he was shown.

    `root` is "tensor_keys" of the version's ledger record. Raises TamperError where a key is not the one that was
    committed to, FormatError where `original` is not the model that the mark was made for.
    """
    what = f"the disclosure {path}"
    shown = parse_disclosure(files.read_limited(path, size_max=DISCLOSURE_BYTES_MAX, what=what), what=what)
    shown.verify(root)
    if digested(original, lambda _stage, _done, _total: None).content != shown.original:
        raise FormatError("the original is not the one that the mark was made for: its digest is another")
    in_order = realign_trees(original, suspect).model
    found = {name: find_in_tensor(original, in_order, name, key) for name, key in shown.keys.items()}
    if not all(item.tensors and item.tensors[0].correlation >= ALIKE for item in found.values()):
        # as in `verify`: decided by how alike they are, never by a p-value
        aligned = realign(original, suspect).model
        found = {name: find_in_tensor(original, aligned, name, key) for name, key in shown.keys.items()}
    return Checked(found, len(shown.commitments))
